//! How brokers are reached: settings in, configured clients out.
//!
//! Any librdkafka property passes through, but for those on which exactness rests: these are ours.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use materializer_model::Topic;
use materializer_model::ports::LogError;
use rdkafka::client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::errors::{Watch, kafka_error, log_error};
use crate::ffi;

/// How long one request to a broker may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(5);

/// The properties that may not be set, each with the reason.
const OURS: [(&str, &str); 15] = [
    ("acks", "an append counts only when all replicas have it"),
    (
        "allow.auto.create.topics",
        "a topic is made on purpose or not at all",
    ),
    (
        "auto.offset.reset",
        "an offset out of range is an error, never a jump",
    ),
    ("bootstrap.servers", "say it as `kafka.brokers`"),
    (
        "enable.auto.commit",
        "positions are kept in the sink, with the data",
    ),
    (
        "enable.auto.offset.store",
        "positions are kept in the sink, with the data",
    ),
    (
        "enable.idempotence",
        "an append must not be doubled by a retry",
    ),
    (
        "enable.partition.eof",
        "the end of a partition is how catching up is proved",
    ),
    (
        "fetch.queue.backoff.ms",
        "the default stalls a replay; it is set for each use",
    ),
    ("group.id", "it is made of installation, view and version"),
    ("isolation.level", "aborted records are never read"),
    (
        "message.timeout.ms",
        "the age of a request is bounded by it",
    ),
    ("metadata.broker.list", "say it as `kafka.brokers`"),
    ("transactional.id", "nobody writes transactions here"),
    ("log.queue", "the program reads librdkafka's log itself"),
];

/// What kind of cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Three replicas or more, append times by the broker.
    Production,
    /// One broker and create times are good enough (`dev: true`).
    Dev,
    /// As `Dev`, and librdkafka's mock broker: it neither makes topics nor tells their settings.
    Mock,
}

/// A property that may not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` may not be set: {why}")]
pub struct PropertyError {
    /// The property.
    pub name: String,
    /// Why not.
    pub why: &'static str,
}

/// How brokers are reached. Its `Debug` shows no property's value: any may be a secret.
#[derive(Clone)]
pub struct KafkaSettings {
    brokers: String,
    properties: BTreeMap<String, String>,
    cluster: Cluster,
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden: BTreeMap<_, _> = self.properties.keys().map(|name| (name, "***")).collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("properties", &hidden)
            .field("cluster", &self.cluster)
            .finish()
    }
}

impl KafkaSettings {
    /// Takes `host:port` (several with commas) and librdkafka properties, secrets resolved.
    ///
    /// # Errors
    /// [`PropertyError`] for a property on which exactness rests.
    pub fn new(
        brokers: &str,
        properties: BTreeMap<String, String>,
        cluster: Cluster,
    ) -> Result<Self, PropertyError> {
        for (name, why) in OURS {
            if properties.contains_key(name) {
                return Err(PropertyError {
                    name: name.to_owned(),
                    why,
                });
            }
        }
        Ok(Self {
            brokers: brokers.to_owned(),
            properties,
            cluster,
        })
    }

    /// Returns what kind of cluster it is.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// Returns where the brokers are, as it was given.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Returns a configuration: defaults, then the user's properties, then what is ours.
    pub(crate) fn config(&self, defaults: &[(&str, &str)], ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "materializer");
        config.set("topic.metadata.refresh.interval.ms", "10000");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in ours {
            config.set(*name, *value);
        }
        config
    }

    /// Returns the configuration of a client that reads, or only asks.
    pub(crate) fn reading(&self, group: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let ours = [
            ("group.id", group),
            ("allow.auto.create.topics", "false"),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            ("fetch.queue.backoff.ms", "2"),
        ];
        self.config(defaults, &ours)
    }

    /// Opens a client that only asks.
    pub(crate) fn asking(&self) -> Result<Client<Watch>, LogError> {
        ffi::open(&self.reading("materializer", &[]))
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
    }
}

/// A topic as Metadata shows it.
pub(crate) struct TopicShape {
    pub(crate) partitions: Vec<i32>,
    pub(crate) replicas_min: i32,
}

/// Asks for the partitions and replicas of one topic; `None` where there is no such topic. The first
/// request of a client: it tells a refused login, a wrong certificate and a missing permission
/// clearly, which reading does not.
pub(crate) fn find(client: &Client<Watch>, topic: &Topic) -> Result<Option<TopicShape>, LogError> {
    let what = format!("topic `{topic}`");
    let metadata = client.fetch_metadata(Some(topic.as_str()), REQUEST);
    ffi::serve(client);
    let metadata = metadata.map_err(|error| kafka_error(client.context(), &error, &what))?;
    let named = metadata
        .topics()
        .iter()
        .find(|t| t.name() == topic.as_str());
    let Some(found) = named else {
        return Ok(None);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            return Ok(None);
        }
        Some(code) => return Err(log_error(client.context(), code, &what)),
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
    partitions.sort_unstable();
    let replicas = found.partitions().iter().map(|p| p.replicas().len());
    Ok(Some(TopicShape {
        partitions,
        replicas_min: i32::try_from(replicas.min().unwrap_or(0)).unwrap_or(i32::MAX),
    }))
}

/// Asks for the partitions and replicas of a topic that must be there.
pub(crate) fn shape(client: &Client<Watch>, topic: &Topic) -> Result<TopicShape, LogError> {
    find(client, topic)?.ok_or_else(|| {
        let unknown = RDKafkaErrorCode::UnknownTopic;
        log_error(client.context(), unknown, &format!("topic `{topic}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: &str) -> Result<KafkaSettings, PropertyError> {
        let properties = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        KafkaSettings::new("localhost:9092", properties, Cluster::Production)
    }

    #[test]
    fn a_property_on_which_exactness_rests_is_refused_with_the_reason() {
        let error = settings("isolation.level", "read_uncommitted").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`isolation.level` may not be set: aborted records are never read"
        );
    }

    #[test]
    fn any_other_property_passes_and_its_value_is_not_printed() {
        let settings = settings("sasl.password", "hunter2").expect("a free property");
        assert_eq!(
            settings.reading("g", &[]).get("sasl.password"),
            Some("hunter2")
        );
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_ours_wins_over_defaults_and_defaults_yield_to_the_user() {
        let settings = settings("fetch.wait.max.ms", "7").expect("a free property");
        let config = settings.reading("g", &[("fetch.wait.max.ms", "100")]);
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
    }
}
