//! The ports between the parts. All of them block; none takes longer than the wait it is given or a
//! bounded request time.
//!
//! A crash is possible between any two calls of these traits: that is where the simulator stops a
//! worker, and all that a worker needs afterwards it finds behind them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Monotonic, Timestamp};
use crate::definition::CleanupPolicy;
use crate::ends::Ends;
use crate::ids::{Token, Unit, VersionId, ViewName};
use crate::mutation::{Commit, Key, Mutation, Origin, Row};
use crate::offset::{Checkpoint, LeaderEpoch, Offset, Partition, Topic, TopicId};
use crate::poison::Poison;
use crate::progress::Claim;
use crate::record::{Record, RowBatch};

// ---------------------------------------------------------------- the log

/// Where the reading of one partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// The first offset to read.
    pub next: Offset,
    /// The leader epoch of the record before it: the broker refuses if the log was truncated there.
    pub epoch: Option<LeaderEpoch>,
}

/// What the broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// The topic.
    pub topic: Topic,
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has; they are numbered from 0.
    pub partitions: i32,
    /// Its cleanup policy; `None` where the broker cannot be asked (a mock).
    pub policy: Option<CleanupPolicy>,
    /// `retention.ms`; `None` is unlimited or unknown.
    pub retention: Option<Duration>,
    /// `retention.bytes`; `None` is unlimited or unknown.
    pub retention_bytes: Option<u64>,
    /// `delete.retention.ms`: how long a tombstone stays after its cleaning; `None` is unknown.
    pub tombstone_retention: Option<Duration>,
}

/// What the broker answered when it was asked for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAnswer {
    /// When it was asked, on this process's clock: before the request was sent.
    pub asked: Monotonic,
    /// The facts, or a fault that does not pass by itself: an unknown topic.
    pub facts: Result<TopicFacts, LogError>,
}

/// The newest answer for each watched topic. A topic that is missing is not known.
pub type Facts = BTreeMap<Topic, TopicAnswer>;

/// A fault of the log, by what the reader does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Passes by itself: try again after a while.
    #[error("{0}")]
    Unavailable(String),
    /// Does not pass by itself: an unknown topic, a refused login, a missing permission.
    #[error("{0}")]
    Refused(String),
    /// The position is no longer in the log: retention overtook it.
    #[error("{topic}/{partition}: offset {at} is no longer in the log: {why}")]
    OutOfRange {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: Partition,
        /// The position.
        at: Offset,
        /// What the broker said.
        why: String,
    },
    /// The log was cut back below the position (an unclean leader election).
    #[error("{topic}/{partition}: the log was truncated below offset {at}: {why}")]
    Truncated {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: Partition,
        /// The position.
        at: Offset,
        /// What the broker said.
        why: String,
    },
}

/// One lane: reads some partitions in order.
pub trait LogReader: Send {
    /// Begins to read the given partitions, and no others, from the given offsets.
    ///
    /// # Errors
    /// [`LogError`]; an offset that is out of range is told by a later poll.
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError>;

    /// Adds what has arrived to `out`, waiting at most `wait` for the first row.
    ///
    /// # Errors
    /// [`LogError`]; rows that were added are good. What comes next may stand behind what could not be
    /// read: whoever goes on assigns again first.
    fn poll(&mut self, wait: Duration, out: &mut RowBatch) -> Result<(), LogError>;
}

/// What is known of the log's ends and topics. One observer a process asks for all units.
pub trait LogObserver: Send + Sync {
    /// Returns the newest known ends of all watched partitions. Never blocks.
    fn ends(&self) -> Arc<Ends>;

    /// Asks the partitions' leaders for their ends now.
    ///
    /// # Errors
    /// [`LogError`] where one of them did not answer.
    fn fresh_ends(&self, topics: &[Topic]) -> Result<Arc<Ends>, LogError>;

    /// Returns the newest known facts of all watched topics. Never blocks.
    fn facts(&self) -> Arc<Facts>;

    /// Asks the broker for the facts of topics now, and returns them in the same order.
    ///
    /// # Errors
    /// [`LogError`]; `Refused` for an unknown topic.
    fn fresh_facts(&self, topics: &[Topic]) -> Result<Vec<TopicFacts>, LogError>;
}

// ---------------------------------------------------------------- the derivation

/// The pure function from a record to mutations.
pub trait Derive: Send + Sync {
    /// Adds the mutations of one record to `out`.
    ///
    /// # Errors
    /// [`Poison`] where the view cannot take the record in; nothing was added then.
    fn apply(&self, record: &Record<'_>, out: &mut Vec<Mutation>) -> Result<(), Poison>;

    /// Returns the mutation that takes the place of a record that is passed over (excluded by
    /// `only`, skipped, dead-lettered) where the topic is compacted: the delete of its key's row.
    fn exclude(&self, record: &Record<'_>) -> Option<Mutation>;
}

// ---------------------------------------------------------------- the sink

/// A fault of a sink, by what the worker does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Passes by itself. What was submitted may or may not have been applied: open again, and the
    /// checkpoint tells.
    #[error("{0}")]
    Unavailable(String),
    /// No memory or disk is left; nothing was applied. Open again after a while.
    #[error("{0}")]
    Full(String),
    /// A later claim owns the unit: leave it at once.
    #[error("fenced by the claim at offset {}", .0.claim_offset)]
    Fenced(Token),
    /// What is stored is not what this unit stored: missing, foreign, retired, unreadable.
    #[error("{0}")]
    Damaged(String),
    /// Does not pass by itself: a refused login, a missing permission, a setting that would lose data.
    #[error("{0}")]
    Refused(String),
}

/// What a sink may find when a unit is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No commit of this unit was ever reported: an empty place is right.
    Maybe,
    /// A commit was reported: an empty place is [`SinkError::Damaged`], and nothing is written to it.
    Data,
}

/// Writes one unit of one version.
pub trait Sink: Send {
    /// Takes the unit: raises the stored token to `me` by compare-and-set, so that earlier writers
    /// are fenced from here on, drops whatever was buffered, and only then reads the checkpoint.
    ///
    /// Called at the start and again after every error; opening twice is harmless.
    ///
    /// # Errors
    /// [`SinkError::Fenced`] where the stored token is a later one, [`SinkError::Damaged`] where the
    /// place is another catalog's, retired, or empty although data is expected.
    fn open(&mut self, me: &Token, expect: Expect) -> Result<Option<Checkpoint>, SinkError>;

    /// Returns what the last [`Sink::open`] found of commits in parts: where the furthest one ends of
    /// which some parts were written and the last was not. Up to there rows may be ahead of the
    /// checkpoint, until it is there, too. `None` of a sink that writes each commit at once.
    fn unfinished(&self) -> Option<&Checkpoint>;

    /// Says whether the sink can take a mutation. Pure; asked while the record is still known.
    ///
    /// # Errors
    /// [`Poison`] with the field at fault.
    fn check(&self, mutation: &Mutation) -> Result<(), Poison>;

    /// Begins to write a commit. One is outstanding at a time.
    ///
    /// # Errors
    /// [`SinkError`]; whether it was applied is then told by [`Sink::open`].
    fn submit(&mut self, commit: Arc<Commit>) -> Result<(), SinkError>;

    /// Waits for the outstanding commit; `None` while it is under way or if there is none.
    ///
    /// # Errors
    /// [`SinkError`]; whether it was applied is then told by [`Sink::open`].
    fn settle(&mut self, wait: Duration) -> Result<Option<Checkpoint>, SinkError>;

    /// Says whether all that readers would be shown was held against its checksums since it was built, and has
    /// that begun where it was not. Asked again and again once the unit has passed its bar: until it is so it
    /// is no target of a promotion, and serves nobody. A server that is trusted with its memory has nothing to prove.
    fn is_proven(&self) -> bool {
        true
    }

    /// Returns what the sink knows of itself at no cost.
    fn usage(&self) -> Usage;
}

/// What a sink knows of itself at no cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rows.
    pub documents: Option<u64>,
    /// Bytes stored; of a Redis, by whomever.
    pub bytes: Option<u64>,
    /// Bytes free in the same place.
    pub bytes_free: Option<u64>,
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its value.
    pub row: Row,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// Rows and the checkpoint that they belong to, read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The checkpoint of the unit.
    pub checkpoint: Option<Checkpoint>,
    /// A row, or none, for each key that was asked for.
    pub rows: Vec<Option<StoredRow>>,
}

/// Reads a unit back: for `verify`, canaries and counts. Not for serving readers.
pub trait SinkReader: Send {
    /// Reads rows and the checkpoint in one instant.
    ///
    /// # Errors
    /// [`SinkError`].
    fn read(&mut self, keys: &[Key]) -> Result<Snapshot, SinkError>;

    /// Visits every row, in no order; a row that changes meanwhile may be seen in either state or
    /// twice. Returns the checkpoints before and after. `visit` says whether to go on.
    ///
    /// # Errors
    /// [`SinkError`].
    fn scan(&mut self, visit: &mut dyn FnMut(Key, StoredRow) -> bool)
    -> Result<Scanned, SinkError>;

    /// Returns the form in which a row that was written is read back, `None` where nothing is stored
    /// for it. Another one than the row itself where the sink's shape loses what JSON tells apart
    /// (a Redis hash): compare rows through it.
    fn stored(&self, row: &Row) -> Option<Row> {
        Some(row.clone())
    }
}

/// The checkpoints around a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Before the first row.
    pub before: Option<Checkpoint>,
    /// After the last.
    pub after: Option<Checkpoint>,
}

/// A view's alias as a sink stores it: which version, by which promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasPointer {
    /// The version that readers see.
    pub version: crate::ids::VersionNumber,
    /// The catalog offset of the event that made it live: the alias epoch. Only rises.
    pub epoch: Offset,
}

/// What the coordinator does to a sink. Idempotent, resumable.
pub trait SinkAdmin: Send {
    /// Reads a view's alias back, from where readers read it. `None` is none.
    ///
    /// # Errors
    /// [`SinkError`].
    fn alias(&mut self, view: &ViewName) -> Result<Option<AliasPointer>, SinkError>;

    /// Moves a view's alias by compare-and-set: only from a lower epoch, or from none, and only to a
    /// version that is there, as its owners' tokens tell: readers take an emptied one for one without
    /// rows.
    ///
    /// # Errors
    /// [`SinkError`]; `Damaged` where a higher epoch is in place, and where the version is not there
    /// whole or is retired.
    fn move_alias(&mut self, view: &ViewName, to: &AliasPointer) -> Result<(), SinkError>;

    /// Removes a view's alias by compare-and-set, when the whole view was retired by the event at
    /// `at`: only from a lower epoch, so that a late call spares the alias of a view begun anew.
    ///
    /// # Errors
    /// [`SinkError`].
    fn remove_alias(&mut self, view: &ViewName, at: Offset) -> Result<(), SinkError>;

    /// Deletes some of what a retired version stored, at most for `budget`; first it makes the token a
    /// permanent retired mark, then removes checkpoints, then data, and nothing else.
    ///
    /// # Errors
    /// [`SinkError`].
    fn retire(
        &mut self,
        version: &VersionId,
        at: Offset,
        budget: Duration,
    ) -> Result<Retired, SinkError>;

    /// Counts a version's rows, at most for `budget`; called again until it says so.
    ///
    /// # Errors
    /// [`SinkError`].
    fn count(&mut self, version: &VersionId, budget: Duration) -> Result<Counting, SinkError>;

    /// Says which of the keys exist in a version (canaries).
    ///
    /// # Errors
    /// [`SinkError`].
    fn exist(&mut self, version: &VersionId, keys: &[String]) -> Result<Vec<bool>, SinkError>;
}

/// How far a deletion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Rows deleted by this call.
    pub deleted: u64,
    /// Whether nothing is left.
    pub finished: bool,
}

/// How far a count is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Rows seen so far; all of them once `finished`.
    pub rows: u64,
    /// Whether this is the whole count.
    pub finished: bool,
}

// ---------------------------------------------------------------- dead letters

/// A record that is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The dead-letter topic.
    pub topic: Topic,
    /// The version that could not take it in.
    pub version: VersionId,
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong.
    pub poison: Poison,
    /// Its key, as it was.
    pub key: Option<Vec<u8>>,
    /// Its value, as it was.
    pub value: Option<Vec<u8>>,
    /// Its headers, as they were; ours are added.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Its time, as it was.
    pub timestamp: Option<Timestamp>,
}

/// Sends dead letters, at least once.
pub trait DeadLetters: Send {
    /// Queues a letter.
    ///
    /// # Errors
    /// [`LogError`] where the queue is full or the topic refuses it.
    fn send(&mut self, letter: DeadLetter) -> Result<(), LogError>;

    /// Says whether every letter sent so far was acknowledged, waiting at most `wait`. The checkpoint
    /// passes a letter only after that.
    ///
    /// # Errors
    /// [`LogError`] where a letter was refused.
    fn flushed(&mut self, wait: Duration) -> Result<bool, LogError>;
}

// ---------------------------------------------------------------- the control log

/// The three topics of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ControlTopic {
    /// Requests and facts: the truth.
    Catalog,
    /// Claims, keyed by unit; compacted.
    Claims,
    /// Progress, keyed by unit, gateway or coordinator; compacted.
    Progress,
}

impl ControlTopic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Catalog, Self::Claims, Self::Progress];

    /// Returns the last part of the topic's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Claims => "claims",
            Self::Progress => "progress",
        }
    }
}

/// A record of a control topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// Its offset.
    pub offset: Offset,
    /// When the broker appended it, as consumed. (With `dev`, the producer's time.)
    pub appended: Timestamp,
    /// Its key.
    pub key: Option<String>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Who the control topics are: what the catalog's event 0 fixes, and every process checks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ControlIdentity {
    /// The cluster's id.
    pub cluster: String,
    /// The catalog topic's id.
    pub catalog: TopicId,
    /// The claims topic's id.
    pub claims: TopicId,
    /// The progress topic's id.
    pub progress: TopicId,
}

impl fmt::Display for ControlIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            catalog,
            claims,
            progress,
        } = self;
        write!(
            f,
            "cluster {cluster}, catalog {catalog}, claims {claims}, progress {progress}"
        )
    }
}

/// A fault of the control log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Passes by itself; nothing was appended.
    #[error("{0}")]
    Unavailable(String),
    /// The append was sent and nobody acknowledged it: read on to learn its outcome.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Does not pass by itself: a missing topic, a wrong setting, a missing permission.
    #[error("{0}")]
    Refused(String),
    /// The log is not the one it was: its start is above 0, its end before what was already seen.
    #[error("{0}")]
    Lost(String),
}

impl ControlError {
    /// Says whether it passes by itself: a broker that is elected or restarted.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unknown(_) => true,
            Self::Refused(_) | Self::Lost(_) => false,
        }
    }
}

/// The control topics: one partition each, append and read.
pub trait ControlLog: Send {
    /// Creates the topics where they are missing, checks their settings, and says who they are.
    ///
    /// # Errors
    /// [`ControlError`]; `Refused` names the setting that is wrong.
    fn create(&mut self) -> Result<ControlIdentity, ControlError>;

    /// Checks the topics' settings and says who they are; `None` where there is none of them.
    ///
    /// # Errors
    /// [`ControlError`]; `Refused` names the setting that is wrong or the topic that is missing.
    fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError>;

    /// Appends a record and waits for the acknowledgement; returns its offset.
    ///
    /// # Errors
    /// [`ControlError`]; after `Unknown` it may or may not stand in the log.
    fn append(
        &mut self,
        topic: ControlTopic,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Offset, ControlError>;

    /// Fetches the end of a topic, then adds every record from `from` up to that end to `out`; returns
    /// the end. With compaction offsets may be missing.
    ///
    /// # Errors
    /// [`ControlError`]; `Lost` where the log starts above `from` (catalog) or ends before it.
    fn read(
        &mut self,
        topic: ControlTopic,
        from: Offset,
        out: &mut Vec<ControlRecord>,
    ) -> Result<Offset, ControlError>;
}

/// What a unit's owner asks of the claims before it touches the sink again.
pub trait Claims: Send {
    /// Reads the claims to their end and returns the unit's newest, with the token that it makes.
    ///
    /// # Errors
    /// [`ControlError`].
    fn newest(&mut self, unit: &Unit) -> Result<Option<(Token, Claim)>, ControlError>;
}
