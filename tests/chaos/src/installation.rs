//! One installation of the real program: its settings, its processes, its verbs.

use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Process;

/// How often something outside this process is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest that anything is waited for.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Waits for something of another process, and fails the test with `what` if it does not come.
///
/// # Panics
/// Where it does not come within [`LIMIT`].
#[allow(clippy::disallowed_methods, reason = "a test's own limit")]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Asks something of a server until it answers, and fails the test with its last fault if it never does: in
/// the middle of an election or a restart a fault is no answer.
///
/// # Panics
/// Where it does not answer within [`LIMIT`].
#[allow(clippy::disallowed_methods, reason = "a test's own limit")]
pub fn until_answered<T, E: Display>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(fault) => assert!(began.elapsed() < LIMIT, "{what}: {fault}"),
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// An installation with a folder and topics of its own, and one process of all roles.
pub struct Installation {
    pub name: String,
    pub topic: String,
    /// `run`: worker, coordinator and gateway in one.
    pub run: Process,
    folder: PathBuf,
    program: PathBuf,
}

impl Installation {
    /// Writes settings for certain servers; nothing runs yet. `further` are lines of YAML that go on after
    /// `kafka.brokers`. Fewer than three brokers are enough for development only.
    ///
    /// # Panics
    /// Where its folder cannot be made, or the program cannot be built.
    #[must_use]
    pub fn new(brokers: &str, redis: &str, name: &str, further: &str) -> Self {
        let name = unique(name);
        let program = program();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target")
            .join(&name);
        fs::create_dir_all(&folder).expect("a folder");
        let folder = folder.canonicalize().expect("the folder just made");
        let run = Process::new(&program, &folder, "run", "run");
        let dev = brokers.split(',').count() < 3;
        let settings = format!(
            "installation: {name}\nconnections: {{cache: '{redis}'}}\n\
             data_dir: '{}'\nhttp: 127.0.0.1:{}\nredis: 127.0.0.1:{}\ndev: {dev}\ndrain: 2s\n\
             kafka:\n  brokers: '{brokers}'\n{further}",
            run.data().display(),
            run.http,
            run.redis,
        );
        fs::write(folder.join("materializer.yaml"), settings).expect("a settings file");
        Self {
            topic: format!("{name}.products"),
            name,
            run,
            folder,
            program,
        }
    }

    /// Names a further process, with ports and data of its own; it does not run yet.
    #[must_use]
    pub fn process(&self, name: &str, role: &'static str) -> Process {
        Process::new(&self.program, &self.folder, name, role)
    }

    /// Writes a file of definitions and returns its name.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn define(&self, file: &str, text: &str) -> String {
        fs::write(self.folder.join(file), text).expect("a definition's file");
        file.to_owned()
    }

    /// Returns the program with arguments, in this installation's folder.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Begins a verb; it is waited for by whoever needs its outcome.
    ///
    /// # Panics
    /// Where the program does not start.
    pub fn begin(&self, verb: &[&str]) -> Child {
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
    ///
    /// # Panics
    /// Where the program does not start.
    pub fn verb(&self, verb: &[&str]) -> ExitStatus {
        self.begin(verb).wait().expect("our child")
    }

    /// Does a verb and returns its exit code, and what it printed and said is wrong.
    ///
    /// # Panics
    /// Where the program does not start.
    #[must_use]
    pub fn answer(&self, verb: &[&str]) -> (Option<i32>, String) {
        let output = self.command(verb).output().expect("the program starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Does a verb that must succeed.
    ///
    /// # Panics
    /// Where it does not.
    pub fn done(&self, verb: &[&str]) {
        let (code, said) = self.answer(verb);
        assert!(
            code == Some(0),
            "{verb:?}: exit {code:?}: {said}\nsee {}",
            self.folder.display()
        );
    }

    /// Returns a view as `status` shows it; null where there is none, or no answer.
    #[must_use]
    pub fn view(&self, view: &str) -> Value {
        self.told(&["status", view, "--output", "json"])
    }

    /// Returns the whole `status`; null where there is no answer.
    #[must_use]
    pub fn status(&self) -> Value {
        self.told(&["status", "--output", "json"])
    }

    fn told(&self, verb: &[&str]) -> Value {
        let told = self.command(verb).output();
        serde_json::from_slice(&told.expect("the program starts").stdout).unwrap_or_default()
    }

    /// Returns where its settings, its data and its logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Builds the program as this test was built and returns its path; `MATERIALIZER_PROGRAM` names
/// another build.
#[allow(
    clippy::disallowed_methods,
    reason = "a switch for the one who runs the tests"
)]
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("MATERIALIZER_PROGRAM") {
        return program.into();
    }
    let test = std::env::current_exe().expect("this test's own path");
    let folder = test.parent().expect("the folder of this test");
    let profile = if folder.ends_with("deps") {
        folder.parent().expect("the profile's folder")
    } else {
        folder
    };
    let mut build = Command::new(env!("CARGO"));
    // With the tests, so that features are those of `./dev test`, where all of it is built already.
    build.args(["build", "--quiet", "--workspace", "--bins", "--tests"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(
        build.status().expect("cargo").success(),
        "the program is built"
    );
    profile.join("materializer")
}

/// Returns a name that no other test and no other run uses: lower-case letters, digits and dashes.
#[must_use]
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let started = std::process::id();
    format!("{name}-{started}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
