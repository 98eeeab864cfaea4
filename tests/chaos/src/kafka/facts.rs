//! What the brokers say of a topic.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::{Metadata, MetadataPartition};

use super::{Kafka, REQUEST};
use crate::installation::until_answered;

impl Kafka {
    /// Returns each partition of a topic with the end of what is committed.
    #[must_use]
    pub fn ends(&self, topic: &str) -> Vec<(i32, i64)> {
        let marks = self.watermarks(topic).into_iter();
        marks.map(|(partition, _, end)| (partition, end)).collect()
    }

    /// Returns each partition of a topic with its first offset.
    #[must_use]
    pub fn starts(&self, topic: &str) -> Vec<(i32, i64)> {
        let marks = self.watermarks(topic).into_iter();
        marks
            .map(|(partition, start, _)| (partition, start))
            .collect()
    }

    /// Returns each partition with its first offset and the end of what is committed.
    fn watermarks(&self, topic: &str) -> Vec<(i32, i64, i64)> {
        let consumer = self.consumer();
        let metadata = ask(&consumer, topic);
        let mut marks: Vec<(i32, i64, i64)> = partitions(&metadata)
            .map(|partition| {
                let (start, end) = marks_of(&consumer, topic, partition.id());
                (partition.id(), start, end)
            })
            .collect();
        marks.sort_unstable();
        marks
    }

    /// Returns the broker that leads a partition, by its place in the cluster; `None` while nobody does.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let metadata = ask(&self.consumer(), topic);
        let leader = partitions(&metadata)
            .find(|it| it.id() == partition)?
            .leader();
        usize::try_from(leader - 1).ok()
    }

    /// Returns the brokers that have a copy of a partition, by their places in the cluster.
    ///
    /// # Panics
    /// Where no broker answers.
    #[must_use]
    pub fn replicas(&self, topic: &str, partition: i32) -> Vec<usize> {
        let metadata = ask(&self.consumer(), topic);
        let partition = partitions(&metadata).find(|it| it.id() == partition);
        let replicas = partition.map_or(&[][..], MetadataPartition::replicas);
        let place = |id: &i32| usize::try_from(id - 1).expect("an id of ours");
        replicas.iter().map(place).collect()
    }

    /// Returns how many brokers are in step with the leader of a partition.
    #[must_use]
    pub fn in_step(&self, topic: &str, partition: i32) -> usize {
        let metadata = ask(&self.consumer(), topic);
        let partition = partitions(&metadata).find(|it| it.id() == partition);
        partition.map_or(0, |it| it.isr().len())
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = self.config();
        config.set("isolation.level", "read_committed");
        config.create().expect("a consumer")
    }
}

/// Asks for the ends of a partition until its leader knows them: one that has just been elected does not
/// (`OFFSET_NOT_AVAILABLE`, KIP-207), and one that is gone may still be the leader the client knows.
fn marks_of(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let what = format!("the ends of `{topic}`/{partition}");
    until_answered(&what, || {
        consumer.fetch_watermarks(topic, partition, REQUEST)
    })
}

/// Asks for the partitions of a topic until a broker knows it: one that was just made may not yet.
fn ask(consumer: &BaseConsumer, topic: &str) -> Metadata {
    until_answered(&format!("the partitions of `{topic}`"), || {
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
        match metadata.topics()[0].error() {
            None => Ok(metadata),
            Some(fault) => Err(KafkaError::MetadataFetch(fault.into())),
        }
    })
}

fn partitions(metadata: &Metadata) -> impl Iterator<Item = &MetadataPartition> {
    metadata.topics()[0].partitions().iter()
}
