//! librdkafka's mock broker in this process: the demo's cluster, and fast tests.
//!
//! It keeps 5 MiB a partition and silently drops the oldest batch beyond that; it knows neither
//! compaction nor transactions nor topics' settings, and everything is in memory.

use materializer_model::Installation;
use materializer_model::Topic;
use materializer_model::ports::ControlTopic;
use materializer_model::ports::LogError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use std::collections::BTreeMap;

use crate::client::{Cluster, KafkaSettings};
use crate::control_log::control_topic;

/// A mock broker; it ends when this is dropped.
pub struct MockBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockBroker {
    /// The bytes that one partition keeps, compressed: older batches are dropped silently.
    pub const PARTITION_BYTES_MAX: u64 = 5 * 1024 * 1024;

    /// Starts a broker on a free loopback port.
    ///
    /// # Errors
    /// [`LogError::Refused`] where it does not start.
    pub fn start() -> Result<Self, LogError> {
        MockCluster::new(1)
            .map(|cluster| Self { cluster })
            .map_err(|error| LogError::Refused(format!("start the mock broker: {error}")))
    }

    /// Makes a topic: a mock broker takes no request for it.
    ///
    /// # Errors
    /// [`LogError::Refused`] where the topic exists already.
    pub fn create_topic(&self, topic: &Topic, partitions: i32) -> Result<(), LogError> {
        self.cluster
            .create_topic(topic.as_str(), partitions, 1)
            .map_err(|error| LogError::Refused(format!("make topic `{topic}`: {error}")))
    }

    /// Makes the three control topics of an installation.
    ///
    /// # Errors
    /// [`LogError::Refused`] where one exists already.
    pub fn create_control_topics(&self, installation: &Installation) -> Result<(), LogError> {
        ControlTopic::ALL
            .into_iter()
            .try_for_each(|which| self.create_topic(&control_topic(installation, which), 1))
    }

    /// Returns the settings by which clients reach it.
    #[must_use]
    pub fn settings(&self) -> KafkaSettings {
        let brokers = self.cluster.bootstrap_servers();
        KafkaSettings::new(&brokers, BTreeMap::new(), Cluster::Mock).expect("no property is set")
    }
}
