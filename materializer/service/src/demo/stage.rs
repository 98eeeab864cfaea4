//! What the demo runs on: a folder, a broker, perhaps a Redis, one process with all roles, one more worker.
//!
//! Everything is on loopback and ends with this value, in the order of its fields: processes before
//! the broker that they need, the folder last.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use materializer_kafka::MockBroker;
use materializer_model::{Topic, WorkerId};
use tracing_subscriber::EnvFilter;

use super::operator::Interrupted;
use super::resp::{Reply, RespClient};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::connect;
use crate::run::{Roles, run};
use crate::stop::Stop;

/// Where a Redis usually answers.
const USUAL_REDIS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6379);

/// A folder for everything, removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A process of ours, ended when this is dropped.
struct Process(Child);

impl Process {
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(|_| ())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.kill());
    }
}

/// A Redis for the cache.
enum Redis {
    /// Started here, ended when it is dropped.
    Private(
        SocketAddr,
        #[expect(dead_code, reason = "held until the end")] Process,
    ),
    /// Somebody's; what was written is removed in the end.
    Found { installation: String },
}

impl Redis {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Private(address, _) => *address,
            Self::Found { .. } => USUAL_REDIS,
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        match self {
            Self::Private(..) => {}
            // Nobody is left to tell; the keys bear the demo's name.
            Self::Found { installation } => drop(forget(installation)),
        }
    }
}

/// Removes every key of an installation.
fn forget(installation: &str) -> std::io::Result<()> {
    let mut client = RespClient::connect(USUAL_REDIS)?;
    let (pattern, mut cursor) = (format!("{installation}:*"), b"0".to_vec());
    loop {
        let scan: [&[u8]; 6] = [
            b"SCAN",
            &cursor,
            b"MATCH",
            pattern.as_bytes(),
            b"COUNT",
            b"1000",
        ];
        let Reply::List(found) = client.ask(&scan)? else {
            return Ok(());
        };
        let [Reply::Text(next), Reply::List(keys)] = &found[..] else {
            return Ok(());
        };
        let mut unlink = vec![b"UNLINK".to_vec()];
        unlink.extend(keys.iter().filter_map(|key| match key {
            Reply::Text(key) => Some(key.clone()),
            Reply::Nil | Reply::Number(_) | Reply::List(_) => None,
        }));
        if unlink.len() > 1 {
            client.ask(&unlink)?;
        }
        if next == b"0" {
            return Ok(());
        }
        cursor.clone_from(next);
    }
}

/// The process with all roles, in threads of this one.
struct Everything {
    stop: Stop,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Everything {
    fn start(config: Config, clock: SystemClock) -> anyhow::Result<Self> {
        let stop = Stop::default();
        let roles = Roles {
            coordinator: true,
            worker: true,
            gateway: true,
        };
        let thread = thread::Builder::new().name("run".to_owned()).spawn({
            let stop = stop.clone();
            move || run(config, roles, clock, &stop)
        });
        Ok(Self {
            stop,
            thread: Some(thread.context("start the roles")?),
        })
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // How it ended is no part of the proof, which is complete by now.
            drop(thread.join());
        }
    }
}

/// What the demo runs on.
pub(super) struct Stage {
    everything: Option<Everything>,
    worker: Option<Process>,
    redis: Option<Redis>,
    pub(super) broker: MockBroker,
    folder: Folder,
    installation: String,
    pub(super) http: SocketAddr,
    pub(super) redis_port: SocketAddr,
    worker_http: SocketAddr,
}

impl Stage {
    /// Makes the folder, the broker with its topics, and a Redis if one can be had.
    pub(super) fn open(
        topic: &Topic,
        partitions: i32,
        clock: &SystemClock,
        interrupted: &Interrupted,
    ) -> anyhow::Result<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let installation = format!("demo-{}", id.get(..8).unwrap_or(&id));
        let folder = Folder(std::env::temp_dir().join(format!("materializer-{installation}")));
        for name in ["run", "worker", "redis"] {
            let path = folder.0.join(name);
            fs::create_dir_all(&path).with_context(|| format!("create `{}`", path.display()))?;
        }
        log_into(&folder.0.join("run.log"))?;
        let broker = MockBroker::start()?;
        broker.create_control_topics(&installation.parse()?)?;
        broker.create_topic(topic, partitions)?;
        let redis = find_redis(&installation, &folder.0.join("redis"), clock, interrupted)?;
        Ok(Self {
            everything: None,
            worker: None,
            redis,
            broker,
            folder,
            installation,
            http: free_port()?,
            redis_port: free_port()?,
            worker_http: free_port()?,
        })
    }

    /// Returns where the cache's Redis is, if there is one, and whether it was started for the demo.
    pub(super) fn redis(&self) -> Option<(SocketAddr, bool)> {
        let redis = self.redis.as_ref()?;
        let is_private = match redis {
            Redis::Private(..) => true,
            Redis::Found { .. } => false,
        };
        Some((redis.address(), is_private))
    }

    fn settings(&self, name: &str, http: SocketAddr) -> String {
        let brokers = self.broker.settings().brokers().to_owned();
        let connections = self.redis.as_ref().map_or_else(String::new, |redis| {
            format!("connections: {{cache: 'redis://{}'}}\n", redis.address())
        });
        format!(
            "installation: {}\nkafka: {{brokers: '{brokers}', mock: true, properties: {{compression.codec: zstd}}}}\n\
             {connections}data_dir: '{}'\nhttp: '{http}'\nredis: '{}'\ndev: true\ndrain: 2s\nwho: demo\n\
             log: {{filter: warn}}\n",
            self.installation,
            self.folder.0.join(name).display(),
            self.redis_port,
        )
    }

    /// Returns the settings of the process with all roles.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        let text = self.settings("run", self.http);
        Ok(Config::from_text(
            "the demo's settings",
            &text,
            &std::collections::BTreeMap::new(),
        )?)
    }

    /// Starts coordinator, worker and gateway in this process.
    pub(super) fn start_everything(&mut self, clock: &SystemClock) -> anyhow::Result<()> {
        self.everything = Some(Everything::start(self.config()?, clock.clone())?);
        Ok(())
    }

    /// Says whether the roles in this process still run.
    ///
    /// # Errors
    /// Why they ended, if they did.
    pub(super) fn alive(&self) -> anyhow::Result<()> {
        let thread = self.everything.as_ref().and_then(|all| all.thread.as_ref());
        if thread.is_some_and(JoinHandle::is_finished) {
            bail!("the roles have ended: {}", self.last_words());
        }
        Ok(())
    }

    /// Starts one more worker: this executable as a process of its own, for the index alone.
    pub(super) fn start_worker(&mut self) -> anyhow::Result<()> {
        let path = self.folder.0.join("worker.yaml");
        fs::write(&path, self.settings("worker", self.worker_http))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.0.join("worker.log"))?;
        let executable = std::env::current_exe().context("find this executable")?;
        let child = Command::new(executable)
            .arg("--config")
            .arg(&path)
            .args(["worker", "--only", "product-search"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start a worker")?;
        self.worker = Some(Process(child));
        Ok(())
    }

    /// Ends the worker as a crash does: SIGKILL.
    pub(super) fn kill_worker(&mut self) -> anyhow::Result<u32> {
        let worker = self.worker.as_mut().context("no worker was started")?;
        let pid = worker.0.id();
        worker.kill().context("kill the worker")?;
        Ok(pid)
    }

    /// Returns the id of the worker that is a process of its own; `None` until it has taken one.
    pub(super) fn worker_id(&self) -> Option<WorkerId> {
        let text = fs::read_to_string(self.folder.0.join("worker/worker-id")).ok()?;
        Some(WorkerId::new(text.trim()))
    }

    /// Returns the last lines of what the processes logged: warnings and errors.
    pub(super) fn last_words(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.folder.0.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(10).collect();
            lines
                .into_iter()
                .rev()
                .map(|line| format!("\n  {name}: {line}"))
                .collect::<String>()
        };
        ["run.log", "worker.log"].map(tail).concat()
    }

    /// Reads how far the log has come, and whether all of it is still there.
    pub(super) fn log_ends(
        &self,
        topic: &Topic,
        clock: &SystemClock,
    ) -> anyhow::Result<(bool, u64)> {
        use materializer_model::Offset;
        use materializer_model::ports::LogObserver as _;
        let config = self.config()?;
        let observer = connect::observer(&config, std::sync::Arc::new(clock.clone()))?;
        let ends = observer.fresh_ends(std::slice::from_ref(topic))?;
        let ends = ends
            .partitions
            .get(topic)
            .context("the log has no partitions")?;
        let whole = ends.values().all(|end| end.start == Offset(0));
        Ok((whole, ends.values().map(|end| end.high.0).sum()))
    }
}

/// Finds a port of the loopback that nobody uses.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?)
}

/// Logs warnings into a file: they are shown if the demo fails.
fn log_into(path: &Path) -> anyhow::Result<()> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn"))
        .with_target(false)
        .with_ansi(false)
        .with_writer(Mutex::new(File::create(path)?));
    log.try_init()
        .map_err(|error| anyhow::anyhow!("begin to log: {error}"))
}

/// Starts a private Redis where `redis-server` is on the PATH, else takes the one that answers where one
/// usually does.
fn find_redis(
    installation: &str,
    folder: &Path,
    clock: &SystemClock,
    interrupted: &Interrupted,
) -> anyhow::Result<Option<Redis>> {
    let answers = |address| RespClient::connect(address)?.ask(&["PING"]);
    let address = free_port()?;
    let started = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
            "--dir",
        ])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Ok(child) = started {
        let process = Process(child);
        let limit = Duration::from_secs(10);
        interrupted.wait(clock, "the private Redis answers", limit, || {
            Ok(answers(address).ok())
        })?;
        return Ok(Some(Redis::Private(address, process)));
    }
    Ok(answers(USUAL_REDIS).is_ok().then(|| Redis::Found {
        installation: installation.to_owned(),
    }))
}
