//! The ends of partitions, as a broker's leader told them.

use std::collections::BTreeMap;

use crate::clock::Monotonic;
use crate::offset::{LeaderEpoch, Offset, Partition, Topic};

/// What the leader of one partition said of its ends, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The log start offset: above 0, the genesis is gone.
    pub start: Offset,
    /// The last stable offset, exclusive: how far a `read_committed` reader gets. Lag is measured
    /// against it.
    pub stable: Offset,
    /// The high watermark, exclusive; above `stable` while a transaction is open.
    pub high: Offset,
    /// The epoch of the leader that said so; no record below the end is of a later one.
    pub epoch: Option<LeaderEpoch>,
    /// When it was asked for, on this process's clock: before the request was sent.
    pub asked: Monotonic,
}

/// The newest known end of each partition. A partition that is missing is unknown, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// By topic and partition.
    pub partitions: BTreeMap<Topic, BTreeMap<Partition, End>>,
    /// Why the last request failed, if it did.
    pub fault: Option<String>,
}

impl Ends {
    /// Returns the end of one partition, if it is known.
    #[must_use]
    pub fn get(&self, topic: &Topic, partition: Partition) -> Option<&End> {
        self.partitions.get(topic)?.get(&partition)
    }
}
