//! The second opinion: writes the log and compares the sinks with it, in another language, by another
//! Kafka client.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::installation::Installation;

/// `tests/oracle/oracle.py` in a Python of its own.
pub struct Oracle {
    python: PathBuf,
    script: PathBuf,
    brokers: String,
    redis: String,
    topic: String,
    installation: String,
    /// Whether the topic is compacted: records of another kind delete the row of their key then.
    pub compacted: bool,
    /// Whether the topic got more partitions: a key's records are in order of their times then.
    pub grown: bool,
}

impl Oracle {
    /// Makes the Python, where it is not there yet, for an installation on certain servers.
    #[must_use]
    pub fn new(brokers: &str, redis: &str, installation: &Installation) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self {
            python: python(&root),
            script: root.join("tests/oracle/oracle.py"),
            brokers: brokers.to_owned(),
            redis: redis.to_owned(),
            topic: installation.topic.clone(),
            installation: installation.name.clone(),
            compacted: false,
            grown: false,
        }
    }

    /// Makes the installation's topic; `further` are arguments of `oracle.py create`.
    ///
    /// # Panics
    /// Where it is not made.
    pub fn create(&self, further: &[&str]) {
        let made = self.command("create").args(further).status();
        assert!(made.expect("python").success(), "a topic");
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.python);
        command
            .arg(&self.script)
            .args([verb, "--brokers", &self.brokers, "--topic", &self.topic]);
        command
    }

    /// Begins to write events of `keys` products, at a rate a second if one is given. `first` is the
    /// revision of the first one.
    ///
    /// # Panics
    /// Where Python does not start.
    #[must_use]
    pub fn produce(
        &self,
        events: u64,
        keys: u32,
        seed: u64,
        first: u64,
        rate: Option<u32>,
    ) -> Producer {
        let mut command = self.command("produce");
        command.args(["--events", &events.to_string(), "--keys", &keys.to_string()]);
        command.args(["--seed", &seed.to_string(), "--first", &first.to_string()]);
        if let Some(rate) = rate {
            command.args(["--while-open", "--rate", &rate.to_string()]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Producer(child.expect("python"))
    }

    /// Compares a version in Redis with a fold of the log, and the live search view of a gateway, key by
    /// key that the log ever had. Returns what was compared.
    ///
    /// # Panics
    /// Where anything differs, or there is nothing to compare.
    #[must_use]
    pub fn check(&self, version: u32, fields: &str, search_at: Option<u16>) -> Value {
        let mut command = self.command("check");
        command.args(["--redis", &self.redis, "--installation", &self.installation]);
        command.args(["--version", &version.to_string(), "--fields", fields]);
        if self.compacted {
            command.arg("--compacted");
        }
        if self.grown {
            command.arg("--grown");
        }
        if let Some(http) = search_at {
            let http = format!("http://127.0.0.1:{http}");
            command.args(["--http", &http, "--search", "product-search"]);
        }
        let output = command.output().expect("python");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "v{version} differs: {told}");
        let told: Value = serde_json::from_str(&told).expect("one line of JSON");
        assert!(
            told["redis"]["found"].as_u64() > Some(0),
            "there is something to compare: {told}"
        );
        told
    }
}

/// A producer at work.
pub struct Producer(Child);

impl Producer {
    /// Tells it to end, if it writes at a rate, waits, and returns how many events it wrote.
    ///
    /// # Panics
    /// Where it failed.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        drop(self.0.stdin.take());
        let mut told = String::new();
        let stdout = self.0.stdout.as_mut().expect("piped above");
        stdout.read_to_string(&mut told).expect("text");
        let told: Value = serde_json::from_str(&told).expect("one line of JSON");
        told["produced"].as_u64().expect("a number of events")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // One that was not finished is of a scene that failed; one that was has ended, or is about to.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn python(root: &Path) -> PathBuf {
    let folder = root.join("target/oracle");
    let python = folder.join("bin/python");
    let done = folder.join("complete");
    if !done.exists() {
        let run = |command: &mut Command| {
            assert!(
                command.status().expect("python3 with venv").success(),
                "{command:?}"
            );
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let requirements = root.join("tests/oracle/requirements.txt");
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "-r"])
            .arg(requirements));
        std::fs::write(&done, "").expect("a mark");
    }
    python
}
