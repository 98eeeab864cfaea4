//! A topic of its own on the real broker, and what prepares and reads it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chaos::installation::unique;
use it::services::Services;
use materializer_kafka::{KafkaSettings, Lane, Observer, Profile};
use materializer_model::ports::{Assignment, LogError, LogObserver, LogReader};
use materializer_model::{Clock, LogRow, Monotonic, Offset, Partition, RowBatch, Timestamp, Topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A clock of this test process.
pub(crate) struct TestClock(Instant);

impl Clock for TestClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.elapsed())
    }

    fn broker(&self) -> Option<Timestamp> {
        None
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own limit and clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A topic of its own, and what prepares it.
pub(crate) struct Scene {
    pub(crate) settings: KafkaSettings,
    pub(crate) config: ClientConfig,
    pub(crate) admin: AdminClient<DefaultClientContext>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) topic: Topic,
}

impl Scene {
    pub(crate) fn new(name: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let services = Services::find();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", services.get("KAFKA_BROKERS"));
        let scene = Self {
            settings: services.kafka(),
            admin: config.create().expect("an admin client"),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
            topic: Topic::new(&unique(name)),
            config,
        };
        scene.create(partitions, settings);
        scene
    }

    pub(crate) fn create(&self, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(self.topic.as_str(), partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let made = self.admin.create_topics([&topic], &AdminOptions::new());
        self.runtime.block_on(made).expect("create")[0]
            .as_ref()
            .expect("created");
    }

    pub(crate) fn delete(&self) {
        let topics = [self.topic.as_str()];
        let gone = self.admin.delete_topics(&topics, &AdminOptions::new());
        self.runtime.block_on(gone).expect("delete")[0]
            .as_ref()
            .expect("deleted");
    }

    /// Changes a setting of the topic, and with it resets the others.
    pub(crate) fn alter(&self, name: &str, value: &str) {
        let topic = ResourceSpecifier::Topic(self.topic.as_str());
        let change = AlterConfig::new(topic).set(name, value);
        let altered = self.admin.alter_configs([&change], &AdminOptions::new());
        self.runtime.block_on(altered).expect("alter")[0]
            .as_ref()
            .expect("altered");
    }

    /// Raises the log start of partition 0.
    pub(crate) fn delete_records(&self, before: i64) {
        let mut list = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(before);
        list.add_partition_offset(self.topic.as_str(), 0, offset)
            .expect("added");
        let deleted = self.admin.delete_records(&list, &AdminOptions::new());
        self.runtime.block_on(deleted).expect("deleted");
    }

    pub(crate) fn producer(&self, transactional: bool) -> BaseProducer {
        let mut config = self.config.clone();
        config.set("enable.idempotence", "true");
        if transactional {
            config.set("transactional.id", self.topic.as_str());
        }
        let producer: BaseProducer = config.create().expect("a producer");
        if transactional {
            producer.init_transactions(LIMIT).expect("init");
        }
        producer
    }

    pub(crate) fn send(&self, producer: &BaseProducer, key: &str, value: Option<&str>) {
        let mut record = BaseRecord::<str, str>::to(self.topic.as_str())
            .partition(0)
            .key(key);
        record.payload = value;
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("queued");
    }

    pub(crate) fn produce(&self, count: usize) {
        let producer = self.producer(false);
        (0..count).for_each(|n| self.send(&producer, &format!("k{n}"), Some(&format!("v{n}"))));
        producer.flush(LIMIT).expect("acknowledged");
    }

    pub(crate) fn lane(&self) -> Lane {
        Lane::open(&self.settings, "it.kafka.v1", Profile::Tailing).expect("a lane")
    }

    pub(crate) fn observer(&self) -> Observer {
        Observer::start(&self.settings, Arc::new(TestClock(now()))).expect("an observer")
    }

    pub(crate) fn end(&self, observer: &Observer) -> materializer_model::End {
        let ends = observer
            .fresh_ends(std::slice::from_ref(&self.topic))
            .expect("ends");
        *ends.get(&self.topic, Partition(0)).expect("partition 0")
    }

    pub(crate) fn from(&self, next: u64) -> Vec<Assignment> {
        vec![Assignment {
            topic: self.topic.clone(),
            partition: Partition(0),
            next: Offset(next),
            epoch: None,
        }]
    }

    /// Reads partition 0 from an offset until an end mark at or past `to`.
    pub(crate) fn read(&self, lane: &mut Lane, from: u64, to: u64) -> Result<Read, LogError> {
        lane.assign(&self.from(from))?;
        self.read_on(lane, to)
    }

    pub(crate) fn read_on(&self, lane: &mut Lane, to: u64) -> Result<Read, LogError> {
        let mut read = Read::default();
        let limit = now() + LIMIT;
        while read.end < to {
            assert!(now() < limit, "{}: read {read:?}, not to {to}", self.topic);
            let mut rows = RowBatch::default();
            lane.poll(Duration::from_millis(200), &mut rows)?;
            for row in rows.rows() {
                match row {
                    LogRow::Record(it) => {
                        let text =
                            |b: Option<&[u8]>| b.map(|b| String::from_utf8_lossy(b).into_owned());
                        read.records.push((
                            it.offset.0,
                            text(it.key).unwrap_or_default(),
                            text(it.value),
                        ));
                    }
                    LogRow::End { end, .. } => read.end = end.0,
                }
            }
        }
        Ok(read)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) records: Vec<(u64, String, Option<String>)>,
    pub(crate) end: u64,
}

impl Read {
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.records.iter().map(|(offset, ..)| *offset).collect()
    }
}
