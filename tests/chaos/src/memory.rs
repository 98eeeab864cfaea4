//! A limit on the memory of processes: a control group (version 1) of the kernel.

use std::fs;
use std::path::{Path, PathBuf};

/// A group of processes with one limit; the kernel kills one where it is reached.
pub struct Memory(PathBuf);

impl Memory {
    /// Makes a group without a limit; `None` where this machine does not let us.
    #[must_use]
    pub fn group(name: &str) -> Option<Self> {
        let group = Path::new("/sys/fs/cgroup/memory").join(name);
        fs::create_dir(&group).ok()?;
        group
            .join("memory.limit_in_bytes")
            .exists()
            .then_some(Self(group))
    }

    /// Takes in a process with all its threads. What it has already does not count.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn admit(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a running process");
    }

    /// Says how many bytes all of them may have together.
    ///
    /// # Panics
    /// Where they have more already.
    pub fn limit(&self, bytes: u64) {
        fs::write(self.0.join("memory.limit_in_bytes"), bytes.to_string()).expect("a limit");
    }

    /// Returns how many processes were killed because of the limit.
    ///
    /// # Panics
    /// Where the kernel does not tell.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let told = fs::read_to_string(self.0.join("memory.oom_control")).expect("a group");
        let kills = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|it| it.parse().ok()).expect("a count")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Processes that still end keep it; it has no memory then.
        let _removed = fs::remove_dir(&self.0);
    }
}
