//! The words and ports that every other crate shares.
//!
//! Plain data and traits only: no I/O, no clock, no threads, no YAML. In short: a *view* has
//! *versions*; a version is written by *units*; a unit turns *records* of a log into *mutations* of a
//! sink and commits them together with a *checkpoint*.
//!
//! The crates in the middle of the star (`view`, `kafka`, `replay`, `sinks`, `migrations`) depend on
//! this one and never on each other.

pub mod clock;
pub mod defect;
pub mod definition;
pub mod ends;
pub mod growth;
pub mod ids;
pub mod memory;
pub mod mutation;
pub mod offset;
pub mod poison;
pub mod ports;
pub mod progress;
pub mod record;
pub mod skip;

pub use clock::{Clock, Monotonic, Timestamp};
pub use definition::{Fingerprint, ViewDefinition};
pub use ends::{End, Ends};
pub use growth::Growth;
pub use ids::{
    CatalogId, ClaimId, EventId, Installation, ProcessId, SinkId, Token, Unit, VersionId,
    VersionNumber, ViewName, WorkerId,
};
pub use mutation::{Batch, Change, Commit, Key, Mutation, Origin, Row};
pub use offset::{
    Ahead, Bar, Checkpoint, Counts, LeaderEpoch, Offset, Partition, Position, Topic,
    TopicCheckpoint, TopicId,
};
pub use poison::{Poison, PoisonKind};
pub use record::{LogRow, Record, RowBatch};
pub use skip::{Skip, Skips};
