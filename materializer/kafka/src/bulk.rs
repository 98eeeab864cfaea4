//! Many records at once, compressed, to a topic: how the demo's shop writes its log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use materializer_model::Topic;
use materializer_model::ports::LogError;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::client::KafkaSettings;
use crate::errors::{Watch, kafka_error};

/// How long records may take to be acknowledged, all of them.
const ACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long is waited for room in the producer's queue.
const ROOM: Duration = Duration::from_millis(10);

/// Keeps the first record that was not stored.
#[derive(Default)]
struct Faults {
    watch: Watch,
    first: Mutex<Option<KafkaError>>,
}

impl ClientContext for Faults {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.watch.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(error, reason);
    }
}

impl ProducerContext for Faults {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.clone());
        }
    }
}

/// Writes records by the hundreds; librdkafka's own partitioner places them by their keys.
pub struct BulkWriter {
    producer: BaseProducer<Faults>,
}

impl BulkWriter {
    /// Opens an idempotent producer that compresses.
    ///
    /// # Errors
    /// [`LogError::Refused`] where librdkafka does not take a property.
    pub fn open(settings: &KafkaSettings) -> Result<Self, LogError> {
        let defaults = [("compression.codec", "zstd"), ("linger.ms", "5")];
        let ours = [
            ("acks", "all"),
            ("allow.auto.create.topics", "false"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "10000"),
        ];
        let config = settings.config(&defaults, &ours);
        BaseProducer::from_config_and_context(&config, Faults::default())
            .map(|producer| Self { producer })
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
    }

    /// Appends records in order and waits until each is acknowledged; a value of `None` is a tombstone.
    ///
    /// # Errors
    /// [`LogError`] where one was not: which of the others are in the log is then unknown.
    pub fn append<'a>(
        &mut self,
        topic: &Topic,
        records: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), LogError> {
        let what = format!("write to topic `{topic}`");
        let watch = &self.producer.context().watch;
        for (key, value) in records {
            let mut record = BaseRecord::to(topic.as_str()).key(key);
            record.payload = value;
            while let Err((error, refused)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(kafka_error(watch, &error, &what));
                }
                self.producer.poll(ROOM);
                record = refused;
            }
        }
        let flushed = self.producer.flush(ACKNOWLEDGED);
        flushed.map_err(|error| kafka_error(watch, &error, &what))?;
        let faults = &self.producer.context().first;
        match faults.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(kafka_error(watch, &error, &what)),
            None => Ok(()),
        }
    }
}
