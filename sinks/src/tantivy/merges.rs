//! The lock of a unit, held for as long as anything may write to its directory.
//!
//! A merge outlives its writer: nothing stops it, and it writes to the directory by what its writer
//! knew of it, over the next owner's list of files and, if it was about to end, over its `meta.json`,
//! whose segments it then deletes. So the merge policy, which every thread of tantivy's writer holds,
//! holds the lock: the unit is let go when the last of them has ended.
//!
//! What a merge reads it writes anew, with checksums that are right whatever was read. So the files that
//! it is about to read are compared with theirs first: no damage is ever made to look whole.

use std::convert::Infallible;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use materializer_model::ports::SinkError;
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};
use tantivy::{Index, SegmentMeta};

use super::place::Place;
use super::watch::Watched;

/// So few segments of one size are left alone.
const SEGMENTS_MIN: usize = 8;

/// Segments with a smaller part of deleted rows are left alone; without a bound an index that is only
/// ever updated keeps its dead rows for good.
const DELETED_RATIO_MAX: f32 = 0.25;

/// How long a writer's end waits for its merges, most of which are short. Longer ones go on alone, so
/// that they hold nothing up but the next owner; a process that ends needs no end of theirs.
const WAIT: Duration = Duration::from_secs(1);

/// A unit that is taken. Dropped after its writer.
pub(super) struct Hold {
    lock: Arc<Lock>,
    // After the lock: fields are dropped in this order.
    _end: End,
}

#[derive(Debug)]
struct Lock {
    _file: File,
    /// Never sent on: its receiver is told when the file above is closed.
    _open: SyncSender<Infallible>,
}

struct End(Receiver<Infallible>);

impl Drop for End {
    fn drop(&mut self) {
        let _let_go_or_late = self.0.recv_timeout(WAIT);
    }
}

impl Hold {
    /// Takes a unit.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] while another owner has it, or merges of one go on.
    pub(super) fn take(place: &Place) -> Result<Self, SinkError> {
        let file = place.lock()?;
        let (open, end) = sync_channel(0);
        Ok(Self {
            lock: Arc::new(Lock {
                _file: file,
                _open: open,
            }),
            _end: End(end),
        })
    }

    /// Returns which segments a writer of an index merges.
    pub(super) fn merges(&self, index: &Index, watched: &Watched) -> Box<dyn MergePolicy> {
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(SEGMENTS_MIN);
        policy.set_del_docs_ratio_before_merge(DELETED_RATIO_MAX);
        Box::new(Merges {
            policy,
            index: index.clone(),
            watched: watched.clone(),
            _lock: Arc::clone(&self.lock),
        })
    }
}

#[derive(Debug)]
struct Merges {
    policy: LogMergePolicy,
    index: Index,
    watched: Watched,
    _lock: Arc<Lock>,
}

impl MergePolicy for Merges {
    fn compute_merge_candidates(&self, segments: &[SegmentMeta]) -> Vec<MergeCandidate> {
        let candidates = self.policy.compute_merge_candidates(segments);
        let is_read = |segment: &&SegmentMeta| {
            let mut candidates = candidates.iter();
            candidates.any(|candidate| candidate.0.contains(&segment.id()))
        };
        let read = segments.iter().filter(is_read);
        if self.watched.are_whole(&self.index, read) {
            candidates
        } else {
            Vec::new()
        }
    }
}
