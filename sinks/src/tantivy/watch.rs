//! Whether an index that is open still is what was written: a slow check of all files, one after another.
//!
//! Disks lose bits long after they have acknowledged them, and tantivy reads a file without a look at its
//! checksum. What is compared is what readers are shown: the file as the machine has it, be it in memory or
//! on the disk. Damage is never repaired: the copy answers nobody any more, and its unit is damaged.
//!
//! What was built since an index was opened is checked once, without pauses, before it serves anybody.

use std::convert::Infallible;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use materializer_model::ports::SinkError;
use tantivy::{Index, SegmentMeta, TantivyError};
use tracing::{error, warn};

use super::read::{IndexCopy, Proof};
use super::verify;

/// How many bytes the check reads in a millisecond, over some files: 16 MiB in a second.
const BYTES_PER_MILLISECOND: u64 = (16 << 20) / 1_000;

/// How often a pause is looked at, since a check that is asked for ends it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long after a check in which a file could not be read it is made again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// An index whose damage is told to its readers and its writer.
#[derive(Clone)]
pub(super) struct Watched {
    copy: Arc<IndexCopy>,
    directory: PathBuf,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.copy.unit).finish()
    }
}

impl Watched {
    pub(super) fn new(copy: &Arc<IndexCopy>, directory: &Path) -> Self {
        Self {
            copy: Arc::clone(copy),
            directory: directory.to_owned(),
        }
    }

    /// Says whether all files of some segments are what was written; tells of the damage if not.
    pub(super) fn are_whole<'a>(
        &self,
        index: &Index,
        mut segments: impl Iterator<Item = &'a SegmentMeta>,
    ) -> bool {
        let bad = segments.try_for_each(|segment| {
            match verify::bad_files_of(index, segment) {
                Ok(bad) if bad.is_empty() => ControlFlow::Continue(()),
                Ok(bad) => ControlFlow::Break(Some(bad)),
                // It cannot be read now, and so is not merged now.
                Err(fault) => {
                    warn!(unit = %self.copy.unit, %fault, "a segment cannot be read");
                    ControlFlow::Break(None)
                }
            }
        });
        match bad {
            ControlFlow::Continue(()) => true,
            ControlFlow::Break(bad) => {
                bad.iter().for_each(|bad| self.tell(bad));
                false
            }
        }
    }

    /// Tells of the damage where files of a segment are not what was written.
    ///
    /// # Errors
    /// [`SinkError::Damaged`] naming the files.
    pub(super) fn check_segment(
        &self,
        index: &Index,
        segment: &SegmentMeta,
    ) -> Result<(), SinkError> {
        self.are_whole(index, std::iter::once(segment));
        self.copy.check_whole()
    }

    /// Checks again and again, each time after a pause, until told to stop or damage is found.
    fn go_on(
        &self,
        index: &Index,
        stop: &Receiver<Infallible>,
        every: Duration,
    ) -> ControlFlow<()> {
        self.rest(stop, every)?;
        loop {
            // What is asked for while a check is under way is not what that one proves.
            let is_asked = self.copy.proof() == Proof::Asked;
            match (is_asked, self.check_all(index, stop)?) {
                (true, true) => self.copy.raise_proof(Proof::Made),
                (true, false) => wait(stop, RETRY_AFTER)?,
                (false, _) => {}
            }
            self.rest(stop, every)?;
        }
    }

    /// Compares every file of the last commit once, with a pause after each; says whether all could be read.
    fn check_all(&self, index: &Index, stop: &Receiver<Infallible>) -> ControlFlow<(), bool> {
        let mut all_read = true;
        let metas = index.load_metas().map(|metas| metas.segments);
        let segments = metas.unwrap_or_default();
        let files: Vec<PathBuf> = segments.iter().flat_map(verify::files_of).collect();
        // What merges have replaced may be deleted meanwhile.
        drop(segments);
        for file in files {
            match self.check(index, &file) {
                Ok(true) => {}
                Ok(false) => {
                    self.tell(&[file.display().to_string()]);
                    return ControlFlow::Break(());
                }
                Err(fault) => {
                    all_read = false;
                    warn!(unit = %self.copy.unit, %fault, "a file is left to the next check");
                }
            }
            let size = fs::metadata(self.directory.join(&file)).map_or(0, |file| file.len());
            self.rest(stop, Duration::from_millis(size / BYTES_PER_MILLISECOND))?;
        }
        ControlFlow::Continue(all_read)
    }

    /// Waits for a while, or until the check is asked for.
    fn rest(&self, stop: &Receiver<Infallible>, pause: Duration) -> ControlFlow<()> {
        let mut left = pause;
        while !left.is_zero() && self.copy.proof() != Proof::Asked {
            let look = left.min(LOOK_EVERY);
            wait(stop, look)?;
            left -= look;
        }
        wait(stop, Duration::ZERO)
    }

    /// Says whether a file is what was written, or no more one of the last commit's: merges replace files,
    /// and what they replaced is deleted at any moment.
    fn check(&self, index: &Index, file: &Path) -> Result<bool, TantivyError> {
        let is_current = || -> Result<bool, TantivyError> {
            let segments = index.load_metas()?.segments;
            let mut files = segments.iter().flat_map(verify::files_of);
            Ok(files.any(|current| current == file))
        };
        Ok(!is_current()? || !verify::is_bad(index, file)? || !is_current()?)
    }

    fn tell(&self, bad: &[String]) {
        let why = verify::told(&self.directory, bad);
        error!(unit = %self.copy.unit, why, "the index is damaged: readers are answered from it no more");
        self.copy.damage(why);
    }
}

/// Waits for a while; ends early when told to stop.
fn wait(stop: &Receiver<Infallible>, pause: Duration) -> ControlFlow<()> {
    match stop.recv_timeout(pause) {
        Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
        Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
    }
}

/// The thread that checks an open index, until this is dropped. That waits for the file at hand.
pub(super) struct Watch {
    /// Never sent on: the thread is told when this is dropped.
    stop: Option<SyncSender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to check, each time after a pause.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] where the system gives no thread.
    pub(super) fn begin(
        watched: &Watched,
        index: &Index,
        every: Duration,
    ) -> Result<Self, SinkError> {
        let (stop, stopped) = sync_channel(0);
        let name = format!("check {}", watched.copy.unit);
        let (watched, index) = (watched.clone(), index.clone());
        let check = move || {
            let _ended = watched.go_on(&index, &stopped, every);
        };
        let thread = thread::Builder::new().name(name).spawn(check);
        let thread =
            thread.map_err(|fault| SinkError::Unavailable(format!("start a thread: {fault}")))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            error!("the check of an index panicked");
        }
    }
}
