//! A topic that got more partitions, and the eras that this divides its records into.
//!
//! Records of a key that moved stand in two partitions, which Kafka does not order: the *old* ones in the
//! partition that the old count gives the key, the *new* ones in that of the new count. Here they have
//! one order, in every build and for ever: all old ones before all new ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::definition::Partitioner;
use crate::offset::{Offset, Partition, Topic, TopicId};

/// A topic got more partitions, once producers had time to learn of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The topic.
    pub topic: Topic,
    /// Its id: a topic made anew under the same name has not grown.
    pub id: TopicId,
    /// How many partitions it had.
    pub from: i32,
    /// How many it has.
    pub to: i32,
    /// Ends of the old partitions, where known, from before the reporting unit knew of more: below them
    /// all records are old, whichever partitioner fits them.
    pub before: BTreeMap<Partition, Offset>,
    /// The barrier: the ends of the partitions that it had, below which all old records stand. No new
    /// record is taken in before the unit has read every old partition up to there.
    pub ends: BTreeMap<Partition, Offset>,
    /// Broker time at which it was last known to have `from` partitions, or somewhat before: no tombstone of
    /// a moved key in its new partition is older.
    pub since: Timestamp,
    /// How producers place records, where only one way is left that fits.
    pub partitioner: Option<Partitioner>,
}
