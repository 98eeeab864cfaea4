//! A Kafka log in memory: topics with ids, compaction, transactions, truncation, re-creation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use super::partition::{PartitionLog, Slot};
use super::reader::{MemoryObserver, MemoryReader};
use crate::clock::{Clock, Timestamp};
use crate::definition::CleanupPolicy;
use crate::offset::{Offset, Partition, Topic, TopicId};
use crate::ports::TopicFacts;

/// A record to be produced, or as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRecord {
    /// Its key; `None` is a null key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its time.
    pub timestamp: Option<Timestamp>,
    /// Its headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl MemoryRecord {
    /// Makes a record of text, without time and headers; `None` is a tombstone.
    #[must_use]
    pub fn text(key: &str, value: Option<&str>) -> Self {
        Self {
            key: Some(key.into()),
            value: value.map(Into::into),
            timestamp: None,
            headers: Vec::new(),
        }
    }

    /// Returns the record with a time.
    #[must_use]
    pub fn at(self, timestamp: Timestamp) -> Self {
        Self {
            timestamp: Some(timestamp),
            ..self
        }
    }
}

/// How a topic is made.
#[derive(Clone, Copy, Debug)]
pub struct TopicSettings {
    /// How many partitions it has.
    pub partitions: i32,
    /// Its cleanup policy.
    pub policy: CleanupPolicy,
    /// `delete.retention.ms`.
    pub tombstone_retention: Duration,
}

impl TopicSettings {
    /// Returns the settings of a topic that keeps everything.
    #[must_use]
    pub fn kept(partitions: i32) -> Self {
        Self {
            partitions,
            policy: CleanupPolicy::Delete,
            tombstone_retention: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// Returns the settings of a compacted topic.
    #[must_use]
    pub fn compacted(partitions: i32) -> Self {
        Self {
            policy: CleanupPolicy::Compact,
            ..Self::kept(partitions)
        }
    }
}

/// A transaction under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(u64);

#[derive(Debug)]
pub(super) struct TopicLog {
    pub(super) id: TopicId,
    pub(super) settings: TopicSettings,
    pub(super) partitions: Vec<PartitionLog>,
}

impl TopicLog {
    pub(super) fn facts(&self, topic: &Topic) -> TopicFacts {
        TopicFacts {
            topic: topic.clone(),
            id: self.id.clone(),
            partitions: self.settings.partitions,
            policy: Some(self.settings.policy),
            retention: None,
            retention_bytes: None,
            tombstone_retention: Some(self.settings.tombstone_retention),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct LogState {
    pub(super) topics: BTreeMap<Topic, TopicLog>,
    ids: u64,
}

impl LogState {
    pub(super) fn partition(&self, topic: &Topic, partition: Partition) -> Option<&PartitionLog> {
        let at = usize::try_from(partition.0).ok()?;
        self.topics.get(topic)?.partitions.get(at)
    }

    fn partition_mut(&mut self, topic: &Topic, partition: Partition) -> &mut PartitionLog {
        let at = usize::try_from(partition.0).expect("partitions are numbered from 0");
        &mut self
            .topics
            .get_mut(topic)
            .expect("the topic was created")
            .partitions[at]
    }
}

/// The log. Its methods are what producers, the broker's cleaner and its operators do; they panic
/// where a topic or partition does not exist, which is a fault of the test.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(pub(super) Arc<Mutex<LogState>>);

impl MemoryLog {
    /// Creates a topic, also in place of one of the same name, which it shares nothing with.
    pub fn create(&self, topic: &Topic, settings: TopicSettings) -> TopicId {
        let mut state = lock(&self.0);
        state.ids += 1;
        let id = TopicId(format!("topic-{}", state.ids));
        let created = TopicLog {
            id: id.clone(),
            settings,
            partitions: (0..settings.partitions)
                .map(|_| PartitionLog::new())
                .collect(),
        };
        state.topics.insert(topic.clone(), created);
        id
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &Topic) {
        lock(&self.0).topics.remove(topic);
    }

    /// Adds partitions, so that there are `partitions` of them.
    pub fn grow(&self, topic: &Topic, partitions: i32) {
        let mut state = lock(&self.0);
        let grown = state.topics.get_mut(topic).expect("the topic was created");
        for _ in grown.settings.partitions..partitions {
            grown.partitions.push(PartitionLog::new());
        }
        grown.settings.partitions = partitions;
    }

    /// Changes a topic's cleanup policy.
    pub fn set_policy(&self, topic: &Topic, policy: CleanupPolicy) {
        self.settings_mut(topic, |settings| settings.policy = policy);
    }

    /// Changes a topic's `delete.retention.ms`.
    pub fn set_tombstone_retention(&self, topic: &Topic, span: Duration) {
        self.settings_mut(topic, |settings| settings.tombstone_retention = span);
    }

    fn settings_mut(&self, topic: &Topic, change: impl FnOnce(&mut TopicSettings)) {
        let mut state = lock(&self.0);
        let changed = state.topics.get_mut(topic).expect("the topic was created");
        change(&mut changed.settings);
    }

    /// Appends a record and returns its offset.
    pub fn produce(&self, topic: &Topic, partition: Partition, record: MemoryRecord) -> Offset {
        lock(&self.0)
            .partition_mut(topic, partition)
            .append(Slot::Committed(record))
    }

    /// Begins a transaction.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        let mut state = lock(&self.0);
        state.ids += 1;
        Transaction(state.ids)
    }

    /// Appends a record to a transaction and returns its offset.
    pub fn produce_in(
        &self,
        transaction: Transaction,
        topic: &Topic,
        partition: Partition,
        record: MemoryRecord,
    ) -> Offset {
        lock(&self.0)
            .partition_mut(topic, partition)
            .append(Slot::Open(transaction, record))
    }

    /// Makes a transaction's records visible and appends its markers.
    pub fn commit(&self, transaction: Transaction) {
        self.end(transaction, true);
    }

    /// Hides a transaction's records for ever and appends its markers.
    pub fn abort(&self, transaction: Transaction) {
        self.end(transaction, false);
    }

    fn end(&self, transaction: Transaction, commit: bool) {
        let mut state = lock(&self.0);
        for partition in state.topics.values_mut().flat_map(|t| &mut t.partitions) {
            partition.end(transaction, commit);
        }
    }

    /// Compacts a partition below an offset: the last record of each key stays, tombstones only
    /// unless they are due, too.
    pub fn compact(&self, topic: &Topic, partition: Partition, below: Offset, tombstones: bool) {
        lock(&self.0)
            .partition_mut(topic, partition)
            .compact(below, tombstones);
    }

    /// Raises a partition's log start: retention, or `DeleteRecords`.
    pub fn raise_start(&self, topic: &Topic, partition: Partition, to: Offset) {
        lock(&self.0)
            .partition_mut(topic, partition)
            .raise_start(to);
    }

    /// Elects a partition's leader anew, without loss.
    pub fn elect(&self, topic: &Topic, partition: Partition) {
        lock(&self.0).partition_mut(topic, partition).elect();
    }

    /// Elects a leader that lacks what stood from `to` on.
    pub fn truncate(&self, topic: &Topic, partition: Partition, to: Offset) {
        lock(&self.0).partition_mut(topic, partition).truncate(to);
    }

    /// Returns the records that a reader sees from the start of a partition, with their offsets.
    #[must_use]
    pub fn visible(&self, topic: &Topic, partition: Partition) -> Vec<(Offset, MemoryRecord)> {
        lock(&self.0)
            .partition(topic, partition)
            .into_iter()
            .flat_map(|log| log.visible(log.start))
            .map(|(at, _, record)| (at, record.clone()))
            .collect()
    }

    /// Returns the facts of a topic, if there is one.
    #[must_use]
    pub fn facts_of(&self, topic: &Topic) -> Option<TopicFacts> {
        let state = lock(&self.0);
        state.topics.get(topic).map(|log| log.facts(topic))
    }

    /// Returns a new reader of this log.
    #[must_use]
    pub fn reader(&self) -> MemoryReader {
        MemoryReader::new(self.clone())
    }

    /// Returns an observer of this log that dates what it sees by `clock`.
    #[must_use]
    pub fn observer(&self, clock: Arc<dyn Clock>) -> MemoryObserver {
        MemoryObserver::new(self.clone(), clock)
    }
}
