//! How tests find the real Kafka and Redis that `./dev services up` has started.

use std::collections::BTreeMap;
use std::path::Path;

use chaos::installation::Installation;
use materializer_kafka::{Cluster, KafkaSettings};

/// The running services: what `target/services/env` says.
pub struct Services(BTreeMap<String, String>);

impl Services {
    /// Reads where the services are.
    ///
    /// # Panics
    /// Where they are not running.
    #[must_use]
    pub fn find() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/services/env");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: ./dev services up", path.display()));
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Self(lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// Returns one of the values by its name, as `REDIS_URL`.
    ///
    /// # Panics
    /// Where there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("target/services/env has no {name}"))
    }

    /// Returns the settings of the plain listener, whose user may do everything.
    #[must_use]
    pub fn kafka(&self) -> KafkaSettings {
        self.kafka_with("KAFKA_BROKERS", &[])
    }

    /// Returns settings of a listener with librdkafka properties.
    ///
    /// # Panics
    /// Where a property may not be set.
    #[must_use]
    pub fn kafka_with(&self, listener: &str, properties: &[(&str, &str)]) -> KafkaSettings {
        let properties = properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        KafkaSettings::new(self.get(listener), properties.collect(), Cluster::Dev)
            .expect("properties that may be set")
    }

    /// Writes the settings of an installation on these services; nothing runs yet.
    #[must_use]
    pub fn installation(&self, name: &str) -> Installation {
        let (brokers, redis) = (self.get("KAFKA_BROKERS"), self.get("REDIS_URL"));
        Installation::new(brokers, redis, name, "")
    }
}
