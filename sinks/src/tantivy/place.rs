//! Where a unit's index stands on the disk, and what holds for the disk.
//!
//! ```text
//! <data>/<installation>/<view>/v7-c0-5f1d09aa/   the index; the last part is of the creating claim
//!                              v7-c0.lock        held by the owner's process; never deleted
//!                              v7.retired        a mark that outlives the data
//!                              .trash-…          a directory that is being deleted
//! ```
//! A directory's name is never used again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use materializer_model::ports::SinkError;
use materializer_model::{Installation, Offset, Token, Unit, VersionId, ViewName};
use sha2::{Digest, Sha256};

/// Where indices are kept and what they may use.
#[derive(Clone, Debug)]
pub struct TantivySettings {
    /// The folder of this worker's data, on a local disk.
    pub data_dir: PathBuf,
    /// The installation that the views belong to.
    pub installation: Installation,
    /// The memory of one writer before it flushes a segment, in bytes; at least 15 MB.
    pub writer_memory_bytes: usize,
    /// The bytes that must stay free on the disk; below them nothing is written.
    pub disk_free_bytes_min: u64,
    /// The pause between two checks of all files of an open index.
    pub check_every: Duration,
}

impl TantivySettings {
    /// Takes the folder, with 50 MB for a writer, 256 MiB left free, and a check every hour.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, installation: Installation) -> Self {
        Self {
            data_dir: data_dir.into(),
            installation,
            writer_memory_bytes: 50_000_000,
            disk_free_bytes_min: 256 << 20,
            check_every: Duration::from_secs(3_600),
        }
    }

    pub(super) fn view_dir(&self, view: &ViewName) -> PathBuf {
        self.installation_dir().join(view.as_str())
    }

    pub(super) fn installation_dir(&self) -> PathBuf {
        self.data_dir.join(self.installation.as_str())
    }
}

/// The place of one unit.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) unit: Unit,
}

/// What a directory's name begins with while it is being deleted.
pub(super) const TRASH: &str = ".trash-";

impl Place {
    pub(super) fn new(settings: &TantivySettings, unit: &Unit) -> Self {
        Self {
            dir: settings.view_dir(&unit.version.view),
            unit: unit.clone(),
        }
    }

    fn stem(&self) -> String {
        format!("{}-c{}", self.unit.version.number, self.unit.copy)
    }

    /// Returns the name of the directory that a claim creates.
    pub(super) fn directory_name(&self, token: &Token) -> String {
        let hash = format!("{:x}", Sha256::digest(token.claim.as_str()));
        format!("{}-{}", self.stem(), &hash[..8])
    }

    /// Returns the directories of this unit, finished or not, sorted.
    ///
    /// # Errors
    /// An I/O error, except that the folder is not there.
    pub(super) fn directories(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{}-", self.stem());
        let mut found: Vec<PathBuf> = entries(&self.dir)?
            .into_iter()
            .filter(|path| {
                name_of(path)
                    .strip_prefix(&prefix)
                    .is_some_and(|claim| claim.len() == 8)
                    && path.is_dir()
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Takes the unit for this process, until the file is dropped.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] while another owner has it, or merges of one go on.
    pub(super) fn lock(&self) -> Result<File, SinkError> {
        let path = self.dir.join(format!("{}.lock", self.stem()));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|fault| io_error("open", &path, &fault))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(SinkError::Unavailable(format!(
                "`{}` is held by another owner of `{}`, or by merges that its last one began: wait for them, or end that process, or give this one a `data_dir` of its own",
                path.display(),
                self.unit
            ))),
            Err(TryLockError::Error(fault)) => Err(io_error("lock", &path, &fault)),
        }
    }
}

/// Returns the mark of a retired version.
pub(super) fn retired_mark(settings: &TantivySettings, version: &VersionId) -> PathBuf {
    let dir = settings.view_dir(&version.view);
    dir.join(format!("{}.retired", version.number))
}

/// Marks a version as retired for ever, durably.
pub(super) fn mark_retired(
    settings: &TantivySettings,
    version: &VersionId,
    at: Offset,
) -> io::Result<()> {
    let mark = retired_mark(settings, version);
    if mark.exists() {
        return Ok(());
    }
    let dir = settings.view_dir(&version.view);
    fs::create_dir_all(&dir)?;
    let draft = mark.with_extension("retired.tmp");
    fs::write(&draft, format!("retired {at}\n"))?;
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, &mark)?;
    sync_dir(&dir)
}

/// Makes renames and removals inside a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Returns what a directory holds; nothing where it is not there.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(fault) => Err(fault),
    }
}

/// Returns a path's last part; empty where it is not UTF-8, which none of ours is.
pub(super) fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("")
}

/// Returns the bytes of the files in a directory.
pub(super) fn bytes_of(dir: &Path) -> u64 {
    let files = entries(dir).unwrap_or_default();
    let sizes = files
        .iter()
        .filter_map(|path| Some(fs::metadata(path).ok()?.len()));
    sizes.sum()
}

/// Returns the bytes that are free on a path's disk; `None` where it does not tell.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Network filesystems by the number that Linux gives each: a lock may hold per machine there only.
#[cfg(target_os = "linux")]
const NETWORK: [(u32, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
];

/// Refuses a network filesystem.
#[cfg(target_os = "linux")]
pub(super) fn check_local(path: &Path) -> Result<(), SinkError> {
    let Ok(disk) = rustix::fs::statfs(path) else {
        return Ok(());
    };
    // The field is signed, and of another width on other machines.
    let is = |magic: u32| u32::try_from(disk.f_type & 0xffff_ffff) == Ok(magic);
    match NETWORK.iter().find(|(magic, _)| is(*magic)) {
        None => Ok(()),
        Some((_, name)) => Err(SinkError::Refused(format!(
            "`{}` is on {name}, where a lock does not keep two writers apart: set `data_dir` to a local disk",
            path.display()
        ))),
    }
}

/// Elsewhere the kinds have no numbers.
#[cfg(not(target_os = "linux"))]
pub(super) fn check_local(_path: &Path) -> Result<(), SinkError> {
    Ok(())
}

/// Returns what the worker does about an I/O error.
pub(super) fn io_error(what: &str, path: &Path, fault: &io::Error) -> SinkError {
    let text = format!("{what} `{}`: {fault}", path.display());
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let refused = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    if full.contains(&fault.kind()) {
        return SinkError::Full(text);
    }
    if refused.contains(&fault.kind()) {
        return SinkError::Refused(text);
    }
    SinkError::Unavailable(text)
}
