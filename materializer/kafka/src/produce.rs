//! What is written to the log: appends with their outcome, dead letters, offsets for display.
//!
//! The producer is idempotent, waits for all replicas, and gives a message up after 10 s, so that no
//! old request is appended late. After an error it is replaced: nothing of it is sent later.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use materializer_model::ports::{ControlError, DeadLetter, DeadLetters, LogError};
use materializer_model::{Offset, Partition, Timestamp, Topic};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{self, TopicPartitionList};

use crate::client::KafkaSettings;
use crate::errors::{Watch, control_error, kafka_error, log_error};
use crate::ffi::{self, Consumer};

/// How long a message may take to be acknowledged: `message.timeout.ms`.
const ACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long the client is served before its deliveries are looked at.
const ROUND: Duration = Duration::from_millis(2);

/// The most dead letters that wait for their acknowledgement.
const LETTERS_MAX: usize = 1_000;

/// What became of a message.
enum Delivery {
    Stored(Offset),
    /// It certainly is not in the log.
    Refused(KafkaError),
    /// It may or may not be.
    Unknown(KafkaError),
}

#[derive(Default)]
struct Deliveries(Watch);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<SyncSender<Delivery>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        let delivery = match result {
            Ok(message) => Delivery::Stored(Offset(u64::try_from(message.offset()).unwrap_or(0))),
            Err((error, message)) if ffi::may_be_stored(message) => {
                Delivery::Unknown(error.clone())
            }
            Err((error, _)) => Delivery::Refused(error.clone()),
        };
        match told.try_send(delivery) {
            // Whoever asked has left, or holds room for each of its messages.
            Ok(()) | Err(TrySendError::Disconnected(_) | TrySendError::Full(_)) => {}
        }
    }
}

/// An idempotent producer.
pub(crate) struct Producer {
    settings: KafkaSettings,
    producer: Option<BaseProducer<Deliveries>>,
}

/// Where a record goes and what it is.
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Option<OwnedHeaders>,
    /// `None` is now.
    pub(crate) timestamp: Option<Timestamp>,
}

impl Producer {
    pub(crate) fn new(settings: &KafkaSettings) -> Self {
        Self {
            settings: settings.clone(),
            producer: None,
        }
    }

    fn get(&mut self) -> Result<&BaseProducer<Deliveries>, LogError> {
        if self.producer.is_none() {
            let ours = [
                ("acks", "all"),
                ("allow.auto.create.topics", "false"),
                ("enable.idempotence", "true"),
                ("message.timeout.ms", "10000"),
            ];
            let config = self.settings.config(&[("linger.ms", "0")], &ours);
            let producer = BaseProducer::from_config_and_context(&config, Deliveries::default())
                .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))?;
            self.producer = Some(producer);
        }
        Ok(self.producer.as_ref().expect("set above"))
    }

    fn send(
        &mut self,
        outgoing: &Outgoing<'_>,
        told: &SyncSender<Delivery>,
    ) -> Result<(), LogError> {
        let what = format!("write to topic `{}`", outgoing.topic);
        let producer = self.get()?;
        let mut record = BaseRecord::with_opaque_to(outgoing.topic, Box::new(told.clone()));
        record.partition = outgoing.partition;
        record.key = outgoing.key;
        record.payload = outgoing.value;
        record.headers.clone_from(&outgoing.headers);
        record.timestamp = outgoing.timestamp.map(|at| at.0);
        producer
            .send(record)
            .map_err(|(error, _)| kafka_error(&producer.context().0, &error, &what))
    }

    /// Serves the client for at most `wait` and returns a delivery as soon as one came. librdkafka's
    /// binding serves for the whole of the time that it is given, hence the short rounds.
    fn served(&self, told: &Receiver<Delivery>, wait: Duration) -> Option<Delivery> {
        let rounds = (wait.as_millis() / ROUND.as_millis()).max(1);
        (0..rounds).find_map(|_| {
            if let Some(producer) = &self.producer {
                producer.poll(wait.min(ROUND));
            }
            told.try_recv().ok()
        })
    }

    fn fault(&self, error: &KafkaError, what: &str) -> LogError {
        match &self.producer {
            Some(producer) => kafka_error(&producer.context().0, error, what),
            None => LogError::Unavailable(format!("{what}: {error}")),
        }
    }

    /// Appends one record and waits for its acknowledgement.
    pub(crate) fn append(&mut self, outgoing: &Outgoing<'_>) -> Result<Offset, ControlError> {
        let what = format!("append to `{}`", outgoing.topic);
        let (tell, told) = sync_channel(1);
        if let Err(fault) = self.send(outgoing, &tell) {
            self.producer = None;
            return Err(control_error(fault));
        }
        // librdkafka reports every message within its timeout; the limit is for a broken one.
        match self.served(&told, ACKNOWLEDGED + ROUND * 1_000) {
            Some(Delivery::Stored(offset)) => Ok(offset),
            Some(Delivery::Refused(error)) => {
                let fault = control_error(self.fault(&error, &what));
                self.producer = None;
                Err(fault)
            }
            Some(Delivery::Unknown(error)) => {
                let why = self.fault(&error, &what).to_string();
                self.producer = None;
                Err(ControlError::Unknown(why))
            }
            None => {
                self.producer = None;
                Err(ControlError::Unknown(format!("{what}: no answer in time")))
            }
        }
    }
}

/// Sends dead letters, at least once: original key, value and headers, and why in headers of ours.
pub struct KafkaDeadLetters {
    producer: Producer,
    tell: SyncSender<Delivery>,
    told: Receiver<Delivery>,
    outstanding: usize,
}

impl KafkaDeadLetters {
    /// Takes the settings; connects with the first letter.
    #[must_use]
    pub fn new(settings: &KafkaSettings) -> Self {
        let (tell, told) = sync_channel(LETTERS_MAX);
        Self {
            producer: Producer::new(settings),
            tell,
            told,
            outstanding: 0,
        }
    }
}

fn letter_headers(letter: &DeadLetter) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (name, value) in &letter.headers {
        let key = &String::from_utf8_lossy(name);
        headers = headers.insert(Header {
            key,
            value: value.as_ref(),
        });
    }
    let ours = [
        ("materializer.version", letter.version.to_string()),
        ("materializer.topic", letter.origin.topic.to_string()),
        (
            "materializer.partition",
            letter.origin.partition.to_string(),
        ),
        ("materializer.offset", letter.origin.offset.to_string()),
        ("materializer.kind", letter.poison.kind.to_string()),
        ("materializer.place", letter.poison.place.clone()),
        ("materializer.why", letter.poison.why.clone()),
    ];
    for (key, value) in &ours {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    headers
}

impl DeadLetters for KafkaDeadLetters {
    fn send(&mut self, letter: DeadLetter) -> Result<(), LogError> {
        if self.outstanding == LETTERS_MAX {
            let why = format!("{LETTERS_MAX} dead letters wait for their acknowledgement");
            return Err(LogError::Unavailable(why));
        }
        let outgoing = Outgoing {
            topic: letter.topic.as_str(),
            partition: None,
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: Some(letter_headers(&letter)),
            timestamp: None,
        };
        let sent = self.producer.send(&outgoing, &self.tell);
        if sent.is_ok() {
            self.outstanding += 1;
        } else if self.outstanding == 0 {
            // With letters on their way `flushed` learns from them what has become of the producer.
            self.producer.producer = None;
        }
        sent
    }

    fn flushed(&mut self, wait: Duration) -> Result<bool, LogError> {
        let mut wait = wait;
        while self.outstanding > 0 {
            match self.producer.served(&self.told, wait) {
                Some(Delivery::Stored(_)) => self.outstanding -= 1,
                Some(Delivery::Refused(error) | Delivery::Unknown(error)) => {
                    let fault = self.producer.fault(&error, "send a dead letter");
                    // The worker reads again from its checkpoint and sends all of them once more.
                    *self = Self::new(&self.producer.settings);
                    return Err(fault);
                }
                None => return Ok(false),
            }
            wait = Duration::ZERO;
        }
        Ok(true)
    }
}

/// Commits group offsets, so that every lag tool sees a version. Nobody reads them back.
pub struct DisplayOffsets {
    consumer: Consumer,
}

impl DisplayOffsets {
    /// Opens a client for the group `<installation>.<view>.v<N>`.
    ///
    /// # Errors
    /// [`LogError::Refused`] where librdkafka does not take a property.
    pub fn open(settings: &KafkaSettings, group: &str) -> Result<Self, LogError> {
        Consumer::open(&settings.reading(group, &[]))
            .map(|consumer| Self { consumer })
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
    }

    /// Commits next offsets; the answer is not waited for.
    ///
    /// # Errors
    /// [`LogError`] where it could not even be queued.
    pub fn commit<'a>(
        &mut self,
        positions: impl Iterator<Item = (&'a Topic, Partition, Offset)>,
    ) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, next) in positions {
            let offset = i64::try_from(next.0).unwrap_or(i64::MAX);
            let offset = topic_partition_list::Offset::Offset(offset);
            list.add_partition_offset(topic.as_str(), partition.0, offset)
                .map_err(|error| LogError::Refused(format!("commit for display: {error}")))?;
        }
        self.consumer.poll(Duration::ZERO, |_| {});
        let context = self.consumer.client().context();
        match self
            .consumer
            .commit(&list)
            .map_err(|e| e.rdkafka_error_code())
        {
            Ok(()) | Err(Some(RDKafkaErrorCode::NoOffset)) => Ok(()),
            Err(code) => {
                let code = code.unwrap_or(RDKafkaErrorCode::Unknown);
                Err(log_error(context, code, "commit for display"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use materializer_model::{Origin, Poison, PoisonKind};

    use super::*;
    use crate::mock::MockBroker;

    const LIMIT: Duration = Duration::from_secs(10);

    fn broker(topic: &str) -> MockBroker {
        let broker = MockBroker::start().expect("a broker");
        let made = broker.create_topic(&Topic::new(topic), 1);
        made.expect("a new topic");
        broker
    }

    fn end(producer: &mut Producer) {
        ffi::make_fatal(producer.get().expect("the settings are good").client());
    }

    #[test]
    fn an_append_after_the_one_that_ended_its_producer_is_stored() {
        let broker = broker("events");
        let mut producer = Producer::new(&broker.settings());
        let outgoing = Outgoing {
            topic: "events",
            partition: Some(0),
            key: None,
            value: Some(b"1"),
            headers: None,
            timestamp: None,
        };
        assert_eq!(producer.append(&outgoing), Ok(Offset(0)));
        end(&mut producer);
        assert!(producer.append(&outgoing).is_err());
        assert_eq!(producer.append(&outgoing), Ok(Offset(1)));
    }

    #[test]
    fn a_letter_after_the_one_that_ended_its_producer_is_stored() {
        let broker = broker("dead");
        let mut letters = KafkaDeadLetters::new(&broker.settings());
        let letter = DeadLetter {
            topic: Topic::new("dead"),
            version: "v@v1".parse().expect("a version"),
            origin: Origin {
                topic: Topic::new("t"),
                partition: Partition(0),
                offset: Offset(0),
            },
            poison: Poison::new(PoisonKind::Decode, "", "no JSON"),
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        };
        assert_eq!(letters.send(letter.clone()), Ok(()));
        assert_eq!(letters.flushed(LIMIT), Ok(true));
        end(&mut letters.producer);
        assert!(letters.send(letter.clone()).is_err());
        assert_eq!(letters.send(letter), Ok(()));
        assert_eq!(letters.flushed(LIMIT), Ok(true));
    }
}
