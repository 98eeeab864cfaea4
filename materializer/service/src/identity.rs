//! Who a process is: an id that lives in its data folder, so that it follows the volume. And for whom it
//! runs.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use materializer_model::{ProcessId, WorkerId};

/// The id of a process, and its hold on its data folder.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The worker's id: the same after a restart on the same folder.
    pub(crate) worker: WorkerId,
    /// This run.
    pub(crate) process: ProcessId,
    /// Held for as long as the process lives: two processes with one id would take each other's units.
    _lock: File,
}

impl Identity {
    /// Takes the data folder, and reads the id in it or writes a new one.
    ///
    /// # Errors
    /// Where the folder cannot be written, or another process holds it.
    pub(crate) fn take(data_dir: &Path) -> anyhow::Result<Self> {
        let place = data_dir.display();
        fs::create_dir_all(data_dir).with_context(|| format!("create `{place}`"))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join("lock"))
            .with_context(|| format!("open `{place}/lock`"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("another process holds `{place}`: give this one its own `data_dir`")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock `{place}`"));
            }
        }
        let path = data_dir.join("worker-id");
        let worker = match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => write_id(&path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_id(&path)?,
            Err(error) => return Err(error).with_context(|| format!("read `{}`", path.display())),
        };
        Ok(Self {
            worker: WorkerId::new(worker),
            process: ProcessId::new(uuid::Uuid::new_v4().to_string()),
            _lock: lock,
        })
    }
}

/// Returns the account that runs this process: as the environment names it, else as the system does, else
/// its number. A container or a unit of systemd has often no `USER`.
pub(crate) fn account(environment: &BTreeMap<String, String>) -> String {
    let named = ["USER", "LOGNAME"].map(|name| environment.get(name));
    if let Some(name) = named.into_iter().flatten().find(|name| !name.is_empty()) {
        return name.clone();
    }
    let Ok(process) = fs::metadata("/proc/self") else {
        return "unknown".to_owned();
    };
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    account_of(process.uid(), &accounts)
}

fn account_of(uid: u32, accounts: &str) -> String {
    let mut lines = accounts.lines();
    let name = lines.find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), str::to_owned)
}

fn write_id(path: &Path) -> anyhow::Result<String> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let id = id.get(..12).unwrap_or(&id).to_owned();
    // Whole or not at all: half an id would be another worker's after the next start.
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, format!("{id}\n"))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("write `{}`", path.display()))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_by_the_environment_else_by_the_system_else_by_its_number() {
        let user = |name: &str| BTreeMap::from([("USER".to_owned(), name.to_owned())]);
        assert_eq!(account(&user("ada")), "ada");
        assert_ne!(account(&user("")), "");
        let accounts = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:";
        assert_eq!(account_of(1000, accounts), "ada");
        assert_eq!(account_of(7, accounts), "uid 7");
    }

    #[test]
    fn the_id_follows_the_data_folder_and_one_process_holds_it() {
        let folder = std::env::temp_dir().join(format!("materializer-id-{}", std::process::id()));
        let first = Identity::take(&folder).expect("a new folder");
        let refused = Identity::take(&folder).expect_err("held");
        assert!(refused.to_string().contains("another process"), "{refused}");
        let worker = first.worker.clone();
        drop(first);
        let second = Identity::take(&folder).expect("free again");
        assert_eq!(second.worker, worker);
        fs::remove_dir_all(&folder).expect("the folder");
    }
}
