//! One process of the real program, which can be killed, stopped for a while, and started again.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::installation::wait_until;

/// Counts the times at which a process began and ceased to be there for readers: odd while it is.
#[derive(Default)]
pub struct Presence(AtomicU64);

impl Presence {
    /// Returns the number of the present time of readiness; `None` while nothing is promised to readers.
    pub fn time(&self) -> Option<u64> {
        let at = self.0.load(Ordering::SeqCst);
        (at % 2 == 1).then_some(at)
    }

    /// Says whether readers must be answered from now on.
    pub fn set(&self, present: bool) {
        if self.time().is_some() != present {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A process of an installation: its role, its ports and its data are the same in each of its lives.
pub struct Process {
    pub http: u16,
    pub redis: u16,
    pub presence: Arc<Presence>,
    /// How often it was killed.
    pub kills: u32,
    role: &'static str,
    program: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Names a process that does not run yet.
    pub(crate) fn new(program: &Path, folder: &Path, name: &str, role: &'static str) -> Self {
        Self {
            http: free_port(),
            redis: free_port(),
            presence: Arc::default(),
            kills: 0,
            role,
            program: program.to_owned(),
            folder: folder.to_owned(),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Starts it. What it logs goes on in one file over all its lives.
    ///
    /// # Panics
    /// Where it runs already, or cannot be started.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log);
        let child = Command::new(&self.program)
            .arg(self.role)
            .current_dir(&self.folder)
            .env("MATERIALIZER__DATA_DIR", &self.data)
            .env("MATERIALIZER__HTTP", format!("127.0.0.1:{}", self.http))
            .env("MATERIALIZER__REDIS", format!("127.0.0.1:{}", self.redis))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        self.child = Some(child.expect("the program starts"));
    }

    /// Waits until readers can be sent to it.
    ///
    /// # Panics
    /// Where it ends by itself, or takes too long.
    pub fn wait_until_ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.http);
        wait_until("the process is ready", || {
            let child = self.child.as_mut().expect("started before");
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "it ended by itself: {ended:?}");
            ureq::get(&url).call().is_ok()
        });
        self.presence.set(true);
    }

    /// Starts it and waits until readers can be sent to it.
    pub fn start_ready(&mut self) {
        self.start();
        self.wait_until_ready();
    }

    /// Kills it at once, as a power cut does.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self) {
        self.presence.set(false);
        let mut child = self.child.take().expect("started before");
        child.kill().expect("a running process");
        child.wait().expect("a killed process");
        self.kills += 1;
    }

    /// Stops it where it stands, as a paused machine does: SIGSTOP.
    pub fn pause(&mut self) {
        self.presence.set(false);
        signal(self.id(), "STOP");
    }

    /// Lets it go on where it stood: SIGCONT. Whether readers must be answered again is the caller's to say.
    pub fn resume(&mut self) {
        signal(self.id(), "CONT");
    }

    /// Asks it to end, as Kubernetes does, and waits until it has.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn end(&mut self) -> ExitStatus {
        self.presence.set(false);
        signal(self.id(), "TERM");
        let mut child = self.child.take().expect("started before");
        child.wait().expect("our child")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// Where it takes too long.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("started before");
        let mut status = None;
        wait_until("the process ends by itself", || {
            status = child.try_wait().expect("our child");
            status.is_some()
        });
        status.expect("waited for above")
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("started before").id()
    }

    /// Says whether it was started and neither killed nor ended since.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Returns where it logs to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns what it logged in all its lives.
    ///
    /// # Panics
    /// Where it has not been started yet.
    #[must_use]
    pub fn logged(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("a log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The test is over, well or not; a process that is gone already is no fault.
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }
}

/// Sends a signal to a process that we started.
///
/// # Panics
/// Where it is gone.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.expect("`kill`").success(), "SIG{name} to {pid}");
}

/// Returns a port of the loopback that nobody listens on.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Returns now, for what a scene measures.
#[allow(clippy::disallowed_methods, reason = "a scene's own watch")]
#[must_use]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}
