//! A private Redis server: started on a socket in a folder of its own, killed when dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use materializer_sinks::redis::RedisSettings;
use tempfile::TempDir;

pub(crate) struct Server {
    folder: TempDir,
    arguments: Vec<String>,
    process: Child,
    /// Held open: the server would die of a closed pipe.
    _log: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Starts a server that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--save", "", "--repl-diskless-sync-delay", "0"])
    }

    /// Starts a replica of this server and waits until it has all that was written.
    pub(crate) fn start_replica(&self) -> Self {
        // Replicas read over TCP, which a server that is already up can be told to take.
        let port = free_port();
        self.command::<()>(&format!("CONFIG SET port {port}"));
        let master = format!("127.0.0.1 {port}");
        let replica = Self::start_with(&["--save", "", "--replicaof", &master]);
        let is_attached = (0..30).any(|_| self.command::<u32>("WAIT 1 1000") == 1);
        assert!(is_attached, "a replica is attached in 30 s");
        replica
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let (process, log) = spawn(folder.path(), &arguments);
        Self {
            folder,
            arguments,
            process,
            _log: log,
        }
    }

    /// Kills the server, as a power cut does, and starts it again on the same folder.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        let (process, log) = spawn(self.folder.path(), &self.arguments);
        self.process = process;
        self._log = log;
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("a running server");
        self.process.wait().expect("a killed server");
    }

    /// Sends the server a signal by its name, as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status();
        assert!(status.expect("kill").success());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        let url = format!("redis+unix://{}", self.socket().display());
        RedisSettings::parse(&url).expect("an address")
    }

    /// Returns a connection that shares no code with the sink.
    pub(crate) fn client(&self) -> redis::Connection {
        let url = format!("redis+unix://{}", self.socket().display());
        let client = redis::Client::open(url).expect("an address");
        client.get_connection().expect("a connection")
    }

    /// Sends one command, written as words.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &str) -> T {
        let mut command = redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        command.query(&mut self.client()).expect(words)
    }

    /// Writes a text, which may have blanks, over whatever a key holds.
    pub(crate) fn set(&self, key: &str, text: &str) {
        let mut command = redis::cmd("SET");
        command
            .arg(key)
            .arg(text)
            .exec(&mut self.client())
            .expect("set");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already dead in the tests that killed it.
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

fn spawn(folder: &Path, arguments: &[String]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut process = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "socket", "--dir"])
        .arg(folder)
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed by ./dev services up");
    let mut log = BufReader::new(process.stdout.take().expect("piped"));
    let mut lines = String::new();
    // A server that cannot start ends its log.
    while log.read_line(&mut lines).expect("its log") > 0 {
        if lines.contains("eady to accept connections") {
            return (process, log);
        }
    }
    let status = process.wait().expect("it ended");
    panic!("redis-server did not start, {status}:\n{lines}");
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
