//! The log behind the ports of `model`: the only crate that knows librdkafka.
//!
//! A [`Lane`] reads records, the [`Observer`] knows ends and topics, [`KafkaControlLog`] is the
//! catalog with its claims and progress, [`KafkaDeadLetters`] sets records aside. Everything blocks,
//! with a bounded time. What librdkafka's safe binding lacks stands in the one unsafe module, `ffi`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "librdkafka's error codes are many, and new ones come with every release"
)]

mod admin;
mod bulk;
mod client;
mod control_log;
mod errors;
mod ffi;
mod lane;
mod mock;
mod observer;
mod produce;
mod restore;
mod sample;
mod topics;

pub use bulk::BulkWriter;
pub use client::{Cluster, KafkaSettings, PropertyError};
pub use control_log::{KafkaControlLog, control_topic};
pub use lane::{Lane, Profile};
pub use mock::MockBroker;
pub use observer::{Observer, Pace};
pub use produce::{DisplayOffsets, KafkaDeadLetters};
pub use restore::Restored;
pub use sample::{PartitionSample, Sample, broker_count, list_topics, sample};
