//! One installation of the real program: its settings, its one process, its verbs.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use it::services::{Services, unique};
use serde_json::Value;

/// How often something outside this process is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest that anything is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Waits for something of another process, and fails the test with `what` if it does not come.
#[allow(clippy::disallowed_methods, reason = "a test's own limit")]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Counts starts and ends of the process: odd while it is ready to be read from.
#[derive(Default)]
pub(crate) struct Presence(AtomicU64);

impl Presence {
    /// Returns the number of the present time of readiness; `None` while the process is down.
    pub(crate) fn time(&self) -> Option<u64> {
        let at = self.0.load(Ordering::SeqCst);
        (at % 2 == 1).then_some(at)
    }

    fn change(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// An installation with a folder, topics and ports of its own.
pub(crate) struct Installation {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) http: u16,
    pub(crate) redis: u16,
    pub(crate) presence: Arc<Presence>,
    folder: PathBuf,
    program: PathBuf,
    process: Option<Child>,
    pub(crate) kills: u32,
}

impl Installation {
    /// Writes settings; nothing runs yet.
    pub(crate) fn new(services: &Services, name: &str) -> Self {
        let name = unique(name);
        let program = program();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target")
            .join(&name);
        fs::create_dir_all(&folder).expect("a folder");
        let (http, redis) = (free_port(), free_port());
        let settings = format!(
            "installation: {name}\nkafka: {{brokers: '{}'}}\nconnections: {{cache: '{}'}}\n\
             data_dir: '{}'\nhttp: 127.0.0.1:{http}\nredis: 127.0.0.1:{redis}\ndev: true\ndrain: 2s\n",
            services.get("KAFKA_BROKERS"),
            services.get("REDIS_URL"),
            folder.join("data").display(),
        );
        fs::write(folder.join("materializer.yaml"), settings).expect("a settings file");
        Self {
            topic: format!("{name}.products"),
            name,
            http,
            redis,
            presence: Arc::default(),
            folder,
            program,
            process: None,
            kills: 0,
        }
    }

    /// Writes a file of definitions and returns its name.
    pub(crate) fn define(&self, file: &str, text: &str) -> String {
        fs::write(self.folder.join(file), text).expect("a definition's file");
        file.to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Starts `run`. What it logs goes on in one file over all its lives.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "one process at a time");
        let log = File::options().create(true).append(true).open(self.log());
        let run = self
            .command(&["run"])
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        self.process = Some(run.expect("the program starts"));
    }

    /// Waits until readers can be sent to the process.
    pub(crate) fn wait_until_ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.http);
        wait_until("`run` is ready", || {
            let process = self.process.as_mut().expect("started before");
            let ended = process.try_wait().expect("our child");
            assert!(ended.is_none(), "`run` ended by itself: {ended:?}");
            ureq::get(&url).call().is_ok()
        });
        self.presence.change();
    }

    /// Kills the process at once, as a power cut does.
    pub(crate) fn kill(&mut self) {
        if self.presence.time().is_some() {
            self.presence.change();
        }
        let mut process = self.process.take().expect("started before");
        process.kill().expect("a running process");
        process.wait().expect("a killed process");
        self.kills += 1;
    }

    /// Begins a verb; it is waited for by whoever needs its outcome.
    pub(crate) fn begin(&self, verb: &[&str]) -> Child {
        let mut command = self.command(verb);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("verbs.log"));
        let log = log.expect("a log");
        let copy = log.try_clone().expect("a second handle");
        command
            .stdout(log)
            .stderr(copy)
            .spawn()
            .expect("the program starts")
    }

    /// Does a verb to its end.
    pub(crate) fn verb(&self, verb: &[&str]) -> ExitStatus {
        self.begin(verb).wait().expect("our child")
    }

    /// Does a verb and returns its exit code, and what it printed and said is wrong.
    pub(crate) fn answer(&self, verb: &[&str]) -> (Option<i32>, String) {
        let output = self.command(verb).output().expect("the program starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Asks the process to end, as Kubernetes does, and waits until it has.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("started before");
        let pid = process.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.expect("`kill`").success(), "told to end");
        process.wait().expect("our child")
    }

    /// Waits until the process ends by itself.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("started before");
        let mut status = None;
        wait_until("`run` ends by itself", || {
            status = process.try_wait().expect("our child");
            status.is_some()
        });
        status.expect("waited for above")
    }

    /// Does a verb that must succeed.
    pub(crate) fn done(&self, verb: &[&str]) {
        let status = self.verb(verb);
        assert!(
            status.success(),
            "{verb:?}: {status}: see {}",
            self.folder.display()
        );
    }

    /// Returns a view as `status` shows it; null where there is none, or no answer.
    pub(crate) fn view(&self, view: &str) -> Value {
        let status = self.command(&["status", view, "--output", "json"]).output();
        serde_json::from_slice(&status.expect("the program starts").stdout).unwrap_or_default()
    }

    /// Returns where `run` logs to.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("run.log")
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // The test is over, well or not; a process that is gone already is no fault.
            let _killed = process.kill();
            let _ended = process.wait();
        }
    }
}

/// Builds the program as this test was built and returns its path; `MATERIALIZER_CRASH_PROGRAM` names
/// another build.
#[allow(
    clippy::disallowed_methods,
    reason = "a switch for the one who runs the tests"
)]
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("MATERIALIZER_CRASH_PROGRAM") {
        return program.into();
    }
    let test = std::env::current_exe().expect("this test's own path");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("the profile's folder");
    let mut build = Command::new(env!("CARGO"));
    // With the tests, so that features are those of `./dev test`, where all of it is built already.
    build.args(["build", "--quiet", "--workspace", "--bins", "--tests"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(
        build.status().expect("cargo").success(),
        "the program is built"
    );
    folder.join("materializer")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
