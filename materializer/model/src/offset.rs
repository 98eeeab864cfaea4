//! Where a reader stands in a log, and the checkpoint that a sink stores with its data.
//!
//! Every offset is *exclusive*: the next one to read. Ends are exclusive too, so lag is a plain
//! subtraction.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::definition::Partitioner;

/// An offset in one partition: of a record, or exclusively of "the next record to read".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// Returns the offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns how many offsets lie from `from` up to this one; zero where `from` is past it.
    #[must_use]
    pub fn distance_from(self, from: Self) -> u64 {
        self.0.saturating_sub(from.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition's number within its topic.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Topic(Arc<str>);

impl Topic {
    /// Takes a topic's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Topic {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.as_str().to_owned()
    }
}

/// The broker's id of a topic (a UUID), which a topic made anew under the same name does not share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub String);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The leader epoch of the last record read, by which a broker detects a truncated log (KIP-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaderEpoch(pub i32);

/// Where one partition is read: stored as `[next, epoch, anchor_ms]`, an unknown epoch as -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Offset, i32, Timestamp)", into = "(Offset, i32, Timestamp)")]
pub struct Position {
    /// The next offset to read.
    pub next: Offset,
    /// The leader epoch of the record before it, where known.
    pub epoch: Option<LeaderEpoch>,
    /// Broker time of the newest sampled end that `next` has reached; before the first, of the
    /// first assign. What the tombstone horizon is counted from.
    pub anchor: Timestamp,
}

impl From<(Offset, i32, Timestamp)> for Position {
    fn from((next, epoch, anchor): (Offset, i32, Timestamp)) -> Self {
        let epoch = (epoch >= 0).then_some(LeaderEpoch(epoch));
        Self {
            next,
            epoch,
            anchor,
        }
    }
}

impl From<Position> for (Offset, i32, Timestamp) {
    fn from(at: Position) -> Self {
        (at.next, at.epoch.map_or(-1, |epoch| epoch.0), at.anchor)
    }
}

/// The positions in one topic, with the id that the topic had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicCheckpoint {
    /// The topic's id when it was first assigned.
    pub id: TopicId,
    /// The partitioners that fit all records read so far, once one was ruled out, else none: what the
    /// order of a key's records is proved by, also after a restart. One is stored by its name, several as
    /// a list.
    #[serde(
        default,
        rename = "partitioner",
        skip_serializing_if = "Vec::is_empty",
        with = "one_or_several"
    )]
    pub partitioners: Vec<Partitioner>,
    /// The shortest `delete.retention.ms` since any of the positions was last at its end, where the topic is
    /// compacted: a longer one that comes later brings no tombstone back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstones_ms: Option<u64>,
    /// A position for each partition that this unit reads: all records below it are taken in.
    #[serde(rename = "p")]
    pub partitions: BTreeMap<Partition, Position>,
    /// How many of the topic's recorded growths the unit reads by.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub growths: usize,
    /// The partitions of which the records of an old era are taken in further than those of the new one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ahead: BTreeMap<Partition, Ahead>,
}

impl TopicCheckpoint {
    /// Makes the positions in a topic of which nothing is known but its id.
    #[must_use]
    pub fn new(id: TopicId, partitions: BTreeMap<Partition, Position>) -> Self {
        Self {
            id,
            partitioners: Vec::new(),
            tombstones_ms: None,
            partitions,
            growths: 0,
            ahead: BTreeMap::new(),
        }
    }
}

/// Up to where the records of an old era are taken in: stored as `[growth, [next, epoch, anchor_ms]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(usize, Position)", into = "(usize, Position)")]
pub struct Ahead {
    /// Which of the topic's growths ended the era, the first one as 0.
    pub growth: usize,
    /// Where it is read on.
    pub at: Position,
}

impl From<(usize, Position)> for Ahead {
    fn from((growth, at): (usize, Position)) -> Self {
        Self { growth, at }
    }
}

impl From<Ahead> for (usize, Position) {
    fn from(ahead: Ahead) -> Self {
        (ahead.growth, ahead.at)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands it over by reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

mod one_or_several {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::definition::Partitioner;

    pub(super) fn serialize<S: Serializer>(
        partitioners: &[Partitioner],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match partitioners {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Partitioner>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            One(Partitioner),
            Several(Vec<Partitioner>),
        }
        Ok(match Stored::deserialize(deserializer)? {
            Stored::One(one) => vec![one],
            Stored::Several(several) => several,
        })
    }
}

/// The end offsets that a replay must reach: the last stable offsets at the version's first assign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bar(pub BTreeMap<Topic, BTreeMap<Partition, Offset>>);

impl Bar {
    /// Returns the bar of one partition. `None` is unknown, never zero.
    #[must_use]
    pub fn get(&self, topic: &Topic, partition: Partition) -> Option<Offset> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// Returns how many partitions of a topic have one.
    #[must_use]
    pub fn count(&self, topic: &Topic) -> i32 {
        let count = self.0.get(topic).map_or(0, BTreeMap::len);
        i32::try_from(count).expect("partitions are numbered by an i32")
    }
}

/// How many records were set aside, kept with the data so that limits survive restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Poison that `on_error: skip` or `skip --at` passed over.
    pub skipped: u64,
    /// Poison that stopped the unit.
    pub failed: u64,
    /// Poison that went to the dead-letter topic.
    pub dead: u64,
}

/// What a sink stores together with the data it describes: all that a resume needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Rises by one with every commit of the unit, so that no two checkpoints are equal.
    pub seq: u64,
    /// The positions, by topic.
    pub topics: BTreeMap<Topic, TopicCheckpoint>,
    /// The ends that this version's replay must reach.
    pub bar: Bar,
    /// Records set aside so far.
    pub counts: Counts,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<T, B> {
    f: u32,
    seq: u64,
    topics: T,
    bar: B,
    counts: Counts,
}

#[derive(Deserialize)]
struct Format {
    f: u32,
}

/// Why stored bytes are not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not the JSON of a checkpoint.
    #[error("the checkpoint is not readable")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer program.
    #[error(
        "the checkpoint has format {0}, this program reads format {FORMAT}: use the newer program"
    )]
    Newer(u32),
}

/// The checkpoint's format number.
const FORMAT: u32 = 1;

impl Checkpoint {
    /// Returns the stored form, format 1: canonical JSON, compared byte by byte with what was
    /// written last.
    #[must_use]
    pub fn encode(&self) -> String {
        let stored = Stored {
            f: FORMAT,
            seq: self.seq,
            topics: &self.topics,
            bar: &self.bar,
            counts: self.counts,
        };
        serde_json::to_string(&stored).expect("text keys and numbers always serialise")
    }

    /// Reads the stored form of any format ever written.
    ///
    /// # Errors
    /// [`CheckpointError`] where the bytes are not a checkpoint, or a newer program's.
    pub fn decode(stored: &[u8]) -> Result<Self, CheckpointError> {
        let Format { f } = serde_json::from_slice(stored).map_err(CheckpointError::Malformed)?;
        if f != FORMAT {
            return Err(CheckpointError::Newer(f));
        }
        let stored: Stored<BTreeMap<Topic, TopicCheckpoint>, Bar> =
            serde_json::from_slice(stored).map_err(CheckpointError::Malformed)?;
        Ok(Self {
            seq: stored.seq,
            topics: stored.topics,
            bar: stored.bar,
            counts: stored.counts,
        })
    }

    /// Returns where one partition is read, if this unit reads it.
    #[must_use]
    pub fn position(&self, topic: &Topic, partition: Partition) -> Option<&Position> {
        self.topics.get(topic)?.partitions.get(&partition)
    }

    /// Returns up to where the records of an old era are taken in of a partition, where that is further than
    /// its position.
    #[must_use]
    pub fn ahead(&self, topic: &Topic, partition: Partition) -> Option<&Ahead> {
        self.topics.get(topic)?.ahead.get(&partition)
    }

    /// Returns up to where a partition is taken in, wholly or of an old era alone.
    #[must_use]
    pub fn reach(&self, topic: &Topic, partition: Partition) -> Option<Offset> {
        let at = self.position(topic, partition)?.next;
        let ahead = self.ahead(topic, partition).map(|ahead| ahead.at.next);
        Some(ahead.map_or(at, |ahead| ahead.max(at)))
    }

    /// Iterates over every partition's position, in order of topic and partition.
    pub fn positions(&self) -> impl Iterator<Item = (&Topic, Partition, &Position)> + Clone {
        self.topics.iter().flat_map(|(topic, at)| {
            at.partitions
                .iter()
                .map(move |(partition, position)| (topic, *partition, position))
        })
    }

    /// Says whether a position lacks something that `other` has.
    #[must_use]
    pub fn is_behind(&self, other: &Self) -> bool {
        other.positions().any(|(topic, partition, had)| {
            self.position(topic, partition)
                .is_none_or(|has| has.next < had.next)
                || self.reach(topic, partition) < other.reach(topic, partition)
        })
    }

    /// Puts every position that `other` has further to where `other` has it.
    pub fn raise_to(&mut self, other: &Self) {
        for (topic, theirs) in &other.topics {
            let Some(ours) = self.topics.get_mut(topic) else {
                self.topics.insert(topic.clone(), theirs.clone());
                continue;
            };
            ours.growths = ours.growths.max(theirs.growths);
            for (partition, had) in &theirs.partitions {
                let has = ours.partitions.entry(*partition).or_insert(*had);
                if has.next < had.next {
                    *has = *had;
                }
            }
            for (partition, had) in &theirs.ahead {
                let has = ours.ahead.entry(*partition).or_insert(*had);
                if has.at.next < had.at.next {
                    *has = *had;
                }
            }
        }
    }

    /// Says whether every partition has a bar and has reached it. A partition without a bar is
    /// unknown, and unknown is not reached.
    #[must_use]
    pub fn has_reached_bar(&self) -> bool {
        self.positions().all(|(topic, partition, at)| {
            self.bar
                .get(topic, partition)
                .is_some_and(|bar| at.next >= bar)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let topic = Topic::new("shop.products");
        let position = Position {
            next: Offset(42),
            epoch: Some(LeaderEpoch(3)),
            anchor: Timestamp(1_000),
        };
        let unknown = Position {
            next: Offset(0),
            epoch: None,
            anchor: Timestamp(0),
        };
        Checkpoint {
            seq: 7,
            topics: BTreeMap::from([(
                topic.clone(),
                TopicCheckpoint::new(
                    TopicId("abc".into()),
                    BTreeMap::from([(Partition(0), position), (Partition(11), unknown)]),
                ),
            )]),
            bar: Bar(BTreeMap::from([(
                topic,
                BTreeMap::from([(Partition(0), Offset(42)), (Partition(11), Offset(0))]),
            )])),
            counts: Counts {
                skipped: 1,
                failed: 0,
                dead: 2,
            },
        }
    }

    const FORMAT_1: &str = r#"{"f":1,"seq":7,"topics":{"shop.products":{"id":"abc","p":{"0":[42,3,1000],"11":[0,-1,0]}}},"bar":{"shop.products":{"0":42,"11":0}},"counts":{"skipped":1,"failed":0,"dead":2}}"#;

    #[test]
    fn format_1_is_written_and_read_for_ever() {
        assert_eq!(sample().encode(), FORMAT_1);
        assert_eq!(
            Checkpoint::decode(FORMAT_1.as_bytes()).expect("format 1"),
            sample()
        );
    }

    #[test]
    fn the_partitioners_that_are_left_are_kept_by_name() {
        use Partitioner::{Crc32, Fnv1a, Murmur2};
        for (left, stored) in [
            (vec![], ""),
            (vec![Crc32], r#""partitioner":"crc32","#),
            (
                vec![Murmur2, Fnv1a],
                r#""partitioner":["murmur2","fnv1a"],"#,
            ),
        ] {
            let mut at = sample();
            let topic = at.topics.values_mut().next().expect("a topic");
            topic.partitioners = left;
            let expected = FORMAT_1.replacen(r#""p":"#, &format!(r#"{stored}"p":"#), 1);
            assert_eq!(at.encode(), expected);
            assert_eq!(Checkpoint::decode(expected.as_bytes()).expect("read"), at);
        }
    }

    #[test]
    fn a_newer_format_is_told_from_garbage() {
        assert!(matches!(
            Checkpoint::decode(br#"{"f":2,"x":1}"#),
            Err(CheckpointError::Newer(2))
        ));
        assert!(matches!(
            Checkpoint::decode(b"v1"),
            Err(CheckpointError::Malformed(_))
        ));
    }

    #[test]
    fn a_partition_without_a_bar_has_not_reached_it() {
        let mut at = sample();
        assert!(at.has_reached_bar());
        at.bar = Bar::default();
        assert!(!at.has_reached_bar());
    }
}
