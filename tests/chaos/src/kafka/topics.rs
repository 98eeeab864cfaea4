//! What an administrator does to topics.

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{Kafka, REQUEST};

impl Kafka {
    /// Returns an administrator of the cluster.
    ///
    /// # Panics
    /// Where librdkafka does not take the settings.
    #[must_use]
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an admin client")
    }

    fn options() -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(REQUEST))
            .operation_timeout(Some(REQUEST))
    }

    /// Makes a topic with one replica.
    ///
    /// # Panics
    /// Where it is not made.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let replicas = TopicReplication::Fixed(1);
        let mut made = NewTopic::new(topic, partitions, replicas);
        for (name, value) in settings {
            made = made.set(name, value);
        }
        let admin = self.admin();
        let made = admin.create_topics([&made], &Self::options());
        self.runtime.block_on(made).expect("create")[0]
            .as_ref()
            .expect("created");
    }

    /// Deletes a topic.
    ///
    /// # Panics
    /// Where it is not deleted.
    pub fn delete(&self, topic: &str) {
        let admin = self.admin();
        let options = Self::options();
        let topics = [topic];
        let gone = admin.delete_topics(&topics, &options);
        self.runtime.block_on(gone).expect("delete")[0]
            .as_ref()
            .expect("deleted");
    }

    /// Changes settings of a topic, and with it resets the others.
    ///
    /// # Panics
    /// Where they are not changed.
    pub fn alter(&self, topic: &str, settings: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in settings {
            change = change.set(name, value);
        }
        let admin = self.admin();
        let options = Self::options();
        let altered = admin.alter_configs([&change], &options);
        self.runtime.block_on(altered).expect("alter")[0]
            .as_ref()
            .expect("altered");
    }

    /// Gives a topic more partitions.
    ///
    /// # Panics
    /// Where it does not get them.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let admin = self.admin();
        let options = Self::options();
        let grown = [NewPartitions::new(topic, partitions)];
        let grown = admin.create_partitions(&grown, &options);
        self.runtime.block_on(grown).expect("grow")[0]
            .as_ref()
            .expect("grown");
    }

    /// Deletes the records of every partition below an offset; `None` is the end.
    ///
    /// # Panics
    /// Where they are not deleted.
    pub fn delete_records(&self, topic: &str, before: Option<i64>) {
        let mut list = TopicPartitionList::new();
        let offset = before.map_or(rdkafka::Offset::End, rdkafka::Offset::Offset);
        for (partition, _) in self.ends(topic) {
            list.add_partition_offset(topic, partition, offset)
                .expect("added");
        }
        let admin = self.admin();
        let options = Self::options();
        let deleted = admin.delete_records(&list, &options);
        self.runtime.block_on(deleted).expect("deleted");
    }
}
