//! What a worker has done: for metrics, and for nothing that is decided.

use std::time::Duration;

/// Totals since the worker was made; each only grows. What is done again, because it was not in the
/// sink, counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Records that became a row.
    pub upserts: u64,
    /// Records that became the delete of a row.
    pub deletes: u64,
    /// Records of which the view makes nothing.
    pub excluded: u64,
    /// Records that were passed over, as a person or the view's `on_error` says.
    pub skipped: u64,
    /// Records that were sent to a dead-letter topic.
    pub dead_letters: u64,
    /// Records before which the unit came to stand; each counts again as what becomes of it later.
    pub failed: u64,
    /// Bytes of keys, values and headers that the log delivered.
    pub bytes: u64,
    /// Commits that the sink has applied: one at most in each step.
    pub commits: u64,
    /// The time from the first submission of each of these commits until it was known to be applied.
    pub committing: Duration,
    /// Faults that pass by themselves, after each of which the unit waited.
    pub retries: u64,
    /// Time spent opening the unit: its claim, its sink, and the proof of its log.
    pub opening: Duration,
    /// Time spent asking the log, which waits where it has nothing.
    pub fetching: Duration,
    /// Time spent making mutations of records, and folding them.
    pub deriving: Duration,
    /// Time spent handing commits to the sink, after the dead letters below them were acknowledged.
    pub submitting: Duration,
    /// Time spent waiting for the sink's acknowledgement, with nothing else to do.
    pub settling: Duration,
}
