//! What a worker reports of a unit, and what a unit is told to do.
//!
//! Role and health are apart: a *role* is changed by verbs alone and lives in the catalog, *health*
//! is reported by workers alone and lives here.

use serde::{Deserialize, Serialize};

use crate::definition::{Gates, OnError};
use crate::growth::Growth;
use crate::ids::{ClaimId, ProcessId, Token, Unit, WorkerId};
use crate::mutation::Origin;
use crate::offset::Checkpoint;
use crate::skip::Skips;

/// A record of the claims topic, keyed by its unit: a worker takes the unit. The newest one holds;
/// its offset makes the owner's [`Token`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Random, so that an outcome that is unknown can be told by reading on.
    pub claim: ClaimId,
    /// The worker that takes the unit.
    pub worker: WorkerId,
    /// Where that worker answers over HTTP, `host:port`.
    pub address: Option<String>,
}

/// How a unit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Health {
    /// Nothing to say.
    Ok,
    /// Something that is expected to pass keeps it from going on.
    Waiting {
        /// What it waits for.
        why: String,
    },
    /// A lag gate does not hold.
    Lagging,
    /// The committed position has not moved for 60 s although there is lag, and nothing is waited for.
    Stalled {
        /// What was last tried.
        why: String,
    },
    /// The sink's checkpoint went back (a failover, an old snapshot); until the last reported
    /// position is passed again. Blocks promotion and rollback.
    Rewound {
        /// The `seq` that had been reported.
        from: u64,
        /// The `seq` that the sink came back with.
        to: u64,
    },
    /// The sink lost data that it had, or the log is another one. Writing has stopped; only a rebuild
    /// or a rollback helps.
    Damaged {
        /// What was found.
        why: String,
    },
    /// The unit cannot go on as things are; nothing was lost.
    Failed {
        /// The reason, with the name of what is at fault.
        why: String,
        /// The record at fault, if one is.
        at: Option<Origin>,
        /// What to type or change.
        hint: Option<String>,
    },
}

impl Health {
    /// Returns the word for labels and status: one of a closed set.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Waiting { .. } => "waiting",
            Self::Lagging => "lagging",
            Self::Stalled { .. } => "stalled",
            Self::Rewound { .. } => "rewound",
            Self::Damaged { .. } => "damaged",
            Self::Failed { .. } => "failed",
        }
    }

    /// Every word that [`Health::word`] returns.
    pub const WORDS: [&'static str; 7] = [
        "ok", "waiting", "lagging", "stalled", "rewound", "damaged", "failed",
    ];
}

/// How far behind a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// The sum over partitions of end minus committed next.
    pub records: u64,
    /// The maximum over partitions; 0 only when `records` is 0.
    pub seconds: f64,
    /// Whether `seconds` comes from record times (a replay's estimate, a lower bound) and not from
    /// the monotonic clock.
    pub estimated: bool,
}

/// How far a building unit is. A live version's units are `Tailing`, in words "ready" or "serving".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing has been read yet: opening the sink, proving the genesis.
    Starting,
    /// Below its bar.
    Replaying,
    /// Past its bar.
    Tailing,
}

/// One report of one unit. The record of the progress topic, keyed by the unit.
///
/// Ages and spans are durations on the worker's monotonic clock, in milliseconds: no two machines'
/// wall clocks are ever compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The unit.
    pub unit: Unit,
    /// The worker.
    pub worker: WorkerId,
    /// The run of the worker's process; with `sequence` it tells a new report from an old one.
    pub process: ProcessId,
    /// Rises with every report of this process.
    pub sequence: u64,
    /// The token under which the unit is held; a report with an older one is a zombie's.
    pub token: Token,
    /// The last checkpoint that the sink acknowledged; `None` before the first commit.
    pub checkpoint: Option<StoredCheckpoint>,
    /// What was reported of the unit before, while `checkpoint` is behind it or not known yet. The topic
    /// may keep this report alone: without it nobody would know what the sink once had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<StoredCheckpoint>,
    /// How far it is.
    pub phase: Phase,
    /// How it is.
    pub health: Health,
    /// `None` is unknown: an end is missing or older than 10 s.
    pub lag: Option<Lag>,
    /// The age of the oldest end that `lag` was computed from.
    pub ends_age_ms: Option<u64>,
    /// The sum of the ends, and of the starts of reading: what a percentage is computed from.
    pub end_records: u64,
    /// The sum of committed next offsets.
    pub done_records: u64,
    /// How long all continuous gates have held without a break; `None` while one does not.
    pub held_ms: Option<u64>,
    /// Each continuous gate.
    pub gates: Vec<GateReading>,
    /// Whether readers may be routed to this unit: it has passed its bar and is not being rebuilt.
    pub servable: bool,
    /// Records read per second, averaged over some seconds.
    pub rate: f64,
    /// What it waits for or is limited by at the moment, in words.
    pub waits_for: Option<String>,
    /// Rows in the sink, where the sink can tell at no cost.
    pub documents: Option<u64>,
    /// Bytes on disk, or in the sink's memory, where known.
    pub bytes: Option<u64>,
    /// Bytes free there, where known.
    pub bytes_free: Option<u64>,
    /// How long until tombstones that this unit has not read may be gone; `None` where nothing is
    /// compacted.
    pub tombstones_left_ms: Option<u64>,
    /// Where the worker answers over HTTP.
    pub address: Option<String>,
    /// A growth of a topic that it reads, which the catalog has not recorded: as it is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
}

/// A continuous gate as the worker reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateReading {
    /// Its name in definitions and waivers: `bar`, `ends`, `lag_records`, `lag_seconds`, `failed`,
    /// `stable_offset`.
    pub gate: String,
    /// Whether it holds.
    pub holds: bool,
    /// The value against the limit, in words: `12 ≤ 1000`.
    pub reading: String,
}

/// A checkpoint in its stored form within JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoredCheckpoint(pub Checkpoint);

impl TryFrom<String> for StoredCheckpoint {
    type Error = crate::offset::CheckpointError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Checkpoint::decode(text.as_bytes()).map(Self)
    }
}

impl From<StoredCheckpoint> for String {
    fn from(stored: StoredCheckpoint) -> Self {
        stored.0.encode()
    }
}

/// What the catalog wants of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// Read, write, report.
    Feed,
    /// Keep it, read nothing: `pause`.
    Hold {
        /// Who asked and why.
        why: String,
    },
    /// Read nothing more, serve what there is until no reader uses it.
    Drain,
    /// Delete what it stored.
    Delete,
}

/// What the catalog wants of a unit, with the settings that may change in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directive {
    /// What to do.
    pub feed: Feed,
    /// Records that `skip --at` passes over.
    pub skips: Skips,
    /// What happens to poison now.
    pub on_error: OnError,
    /// The limits of the gates now.
    pub gates: Gates,
    /// The last checkpoint that any worker reported of this unit: what the sink must not be behind.
    pub last_reported: Option<StoredCheckpoint>,
    /// Whether the sink must hold data, also where nothing is known to have been reported: readers are
    /// or were led to it, and an empty place is never filled up under them.
    pub has_data: bool,
    /// The recorded growths of the topics that it reads; those of one topic in their order.
    #[serde(default)]
    pub growths: Vec<Growth>,
}
