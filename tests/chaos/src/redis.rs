//! A Redis that belongs to one scene: killed, stopped, replicated and asked as the scene likes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::{Client, Connection, FromRedisValue};

use crate::installation::wait_until;
use crate::process::{free_port, signal};

/// What survives a `kill -9` of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// All but about the last second: `appendonly yes`, `appendfsync everysec`.
    Aof,
    /// What [`Redis::save`] has saved.
    Rdb,
    /// Nothing.
    Nothing,
}

/// A server with a folder and a port of its own, the same in each of its lives.
pub struct Redis {
    pub port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one in a folder of its own.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(folder: &Path, persistence: Persistence) -> Self {
        let port = free_port();
        let folder = folder.join(format!("redis-{port}"));
        fs::create_dir_all(&folder).expect("a folder");
        let aof = match persistence {
            Persistence::Aof => "yes",
            Persistence::Rdb | Persistence::Nothing => "no",
        };
        let arguments = [
            ("--bind", "127.0.0.1"),
            ("--port", &port.to_string()),
            ("--dir", &folder.display().to_string()),
            ("--save", ""),
            ("--appendonly", aof),
            ("--maxmemory-policy", "noeviction"),
            ("--repl-diskless-sync-delay", "0"),
        ];
        let arguments = arguments.map(|(name, value)| [name.to_owned(), value.to_owned()]);
        let mut redis = Self {
            port,
            folder,
            arguments: arguments.concat(),
            child: None,
        };
        redis.restart();
        redis
    }

    /// Starts the server again, with the data that survived.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_until_loaded();
    }

    /// Waits until the server, which was launched, has read its data and answers.
    pub fn wait_until_loaded(&self) {
        wait_until("Redis answers", || {
            self.try_ask::<String>(&["PING"]).is_ok()
        });
    }

    /// Starts the server again and returns at once: it may still be loading.
    ///
    /// # Panics
    /// Where it runs, or cannot be started.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let path = self.folder.join("log");
        let log = File::options().create(true).append(true).open(path);
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.expect("a log"))
            .spawn();
        self.child = Some(child.expect("redis-server starts"));
    }

    /// Kills it, as a power cut does.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("started before");
        child.kill().expect("a running process");
        child.wait().expect("a killed process");
    }

    /// Stops it where it stands: SIGSTOP.
    pub fn pause(&self) {
        signal(self.id(), "STOP");
    }

    /// Lets it go on where it stood: SIGCONT.
    pub fn resume(&self) {
        signal(self.id(), "CONT");
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("started before").id()
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn connection(&self) -> redis::RedisResult<Connection> {
        Client::open(self.url())?.get_connection()
    }

    /// Sends one command over a connection of its own.
    ///
    /// # Errors
    /// What the server or the way to it says.
    ///
    /// # Panics
    /// Where there is no command.
    pub fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let (name, arguments) = command.split_first().expect("a command");
        redis::cmd(name)
            .arg(arguments)
            .query(&mut self.connection()?)
    }

    /// Sends one command that must succeed.
    ///
    /// # Panics
    /// Where it does not.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command)
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Holds back everything that would be written, for ten minutes at most, or lets it through again.
    /// Reads go on.
    pub fn hold_writes(&self, held: bool) {
        if held {
            self.ask::<()>(&["CLIENT", "PAUSE", "600000", "WRITE"]);
        } else {
            self.ask::<()>(&["CLIENT", "UNPAUSE"]);
        }
    }

    /// Returns how often the server has answered with an error of this word.
    #[must_use]
    pub fn refusals(&self, word: &str) -> u64 {
        let told: String = self.ask(&["INFO", "errorstats"]);
        let count = told.lines().find_map(|line| {
            let count = line.strip_prefix(&format!("errorstat_{word}:count="))?;
            count.trim().parse().ok()
        });
        count.unwrap_or(0)
    }

    /// Makes each later life read its data so slowly: a time for each key, in microseconds. Meanwhile the
    /// server answers that it is loading.
    pub fn load_slowly(&mut self, microseconds: u32) {
        let delay = microseconds.to_string();
        for (name, value) in [
            ("--key-load-delay", delay.as_str()),
            ("--loading-process-events-interval-bytes", "1024"),
        ] {
            self.arguments.extend([name.to_owned(), value.to_owned()]);
        }
    }

    /// Saves everything to the file that the next life begins with, where there is no AOF.
    pub fn save(&self) {
        self.ask::<()>(&["SAVE"]);
    }

    /// Makes it a replica of another one and waits until it has everything.
    pub fn follow(&self, master: &Self) {
        self.follow_by(master.port);
    }

    /// Makes it a replica of the one that a port of the loopback leads to, and waits until it has everything.
    pub fn follow_by(&self, port: u16) {
        self.ask::<()>(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        wait_until("the replica is in step", || {
            self.ask::<String>(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
    }

    /// Gives this server, which takes another one's place, the port that clients know: a fail-over as a
    /// service address does it. The other one must be dead.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn take_port_of(&mut self, dead: &Self) {
        self.ask::<()>(&["SAVE"]);
        self.kill();
        self.port = dead.port;
        self.arguments[3] = dead.port.to_string();
        self.restart();
    }

    /// Returns whether a key with this exact name exists.
    #[must_use]
    pub fn exists(&self, key: &str) -> bool {
        self.ask::<u64>(&["EXISTS", key]) == 1
    }

    /// Returns how many keys match a pattern.
    #[must_use]
    pub fn count(&self, pattern: &str) -> usize {
        self.ask::<Vec<Vec<u8>>>(&["KEYS", pattern]).len()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The scene is over, well or not; a process that is gone already is no fault.
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }
}
