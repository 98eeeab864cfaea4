//! Reading and observing a real log: transactions, compaction, recreation, retention, growth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use it::control_suite::control_log_suite;
use it::services::{Services, unique};
use materializer_kafka::{
    KafkaControlLog, KafkaSettings, Lane, MockBroker, Observer, Pace, Profile, list_topics, sample,
};
use materializer_model::definition::CleanupPolicy;
use materializer_model::ports::{
    Assignment, ControlError, ControlLog, LogError, LogObserver, LogReader,
};
use materializer_model::{Clock, LogRow, Monotonic, Offset, Partition, RowBatch, Timestamp, Topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

const LIMIT: Duration = Duration::from_secs(20);

/// A clock of this test process.
struct TestClock(Instant);

impl Clock for TestClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.elapsed())
    }

    fn broker(&self) -> Option<Timestamp> {
        None
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own limit and clock")]
fn now() -> Instant {
    Instant::now()
}

/// A topic of its own, and what prepares it.
struct Scene {
    settings: KafkaSettings,
    config: ClientConfig,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    topic: Topic,
}

impl Scene {
    fn new(name: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
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

    fn create(&self, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(self.topic.as_str(), partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let made = self.admin.create_topics([&topic], &AdminOptions::new());
        self.runtime.block_on(made).expect("create")[0]
            .as_ref()
            .expect("created");
    }

    fn delete(&self) {
        let topics = [self.topic.as_str()];
        let gone = self.admin.delete_topics(&topics, &AdminOptions::new());
        self.runtime.block_on(gone).expect("delete")[0]
            .as_ref()
            .expect("deleted");
    }

    fn producer(&self, transactional: bool) -> BaseProducer {
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

    fn send(&self, producer: &BaseProducer, key: &str, value: Option<&str>) {
        let mut record = BaseRecord::<str, str>::to(self.topic.as_str())
            .partition(0)
            .key(key);
        record.payload = value;
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("queued");
    }

    fn produce(&self, count: usize) {
        let producer = self.producer(false);
        (0..count).for_each(|n| self.send(&producer, &format!("k{n}"), Some(&format!("v{n}"))));
        producer.flush(LIMIT).expect("acknowledged");
    }

    fn lane(&self) -> Lane {
        Lane::open(&self.settings, "it.kafka.v1", Profile::Tailing).expect("a lane")
    }

    fn observer(&self) -> Observer {
        Observer::start(&self.settings, Arc::new(TestClock(now()))).expect("an observer")
    }

    fn end(&self, observer: &Observer) -> materializer_model::End {
        let ends = observer
            .fresh_ends(std::slice::from_ref(&self.topic))
            .expect("ends");
        *ends.get(&self.topic, Partition(0)).expect("partition 0")
    }

    fn from(&self, next: u64) -> Vec<Assignment> {
        vec![Assignment {
            topic: self.topic.clone(),
            partition: Partition(0),
            next: Offset(next),
            epoch: None,
        }]
    }

    /// Reads partition 0 from an offset until an end mark at or past `to`.
    fn read(&self, lane: &mut Lane, from: u64, to: u64) -> Result<Read, LogError> {
        lane.assign(&self.from(from))?;
        self.read_on(lane, to)
    }

    fn read_on(&self, lane: &mut Lane, to: u64) -> Result<Read, LogError> {
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
struct Read {
    records: Vec<(u64, String, Option<String>)>,
    end: u64,
}

impl Read {
    fn offsets(&self) -> Vec<u64> {
        self.records.iter().map(|(offset, ..)| *offset).collect()
    }
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn aborted_and_open_transactions_are_not_read_and_the_end_mark_is_the_stable_end() {
    let scene = Scene::new("transactions", 1, &[]);
    let producer = scene.producer(true);
    let transaction = |n: usize| {
        producer.begin_transaction().expect("begin");
        (0..n).for_each(|n| scene.send(&producer, &format!("t{n}"), Some("x")));
        producer.flush(LIMIT).expect("flushed");
    };
    transaction(5);
    producer.commit_transaction(LIMIT).expect("commit");
    transaction(5);
    producer.abort_transaction(LIMIT).expect("abort");
    transaction(1);
    scene.produce(3);

    let observer = scene.observer();
    let end = scene.end(&observer);
    assert_eq!((end.start.0, end.stable.0, end.high.0), (0, 12, 16));
    let mut lane = scene.lane();
    let read = scene.read(&mut lane, 0, 12).expect("read");
    assert_eq!((read.offsets(), read.end), (vec![0, 1, 2, 3, 4], 12));

    producer.abort_transaction(LIMIT).expect("abort");
    let read = scene.read_on(&mut lane, 17).expect("read on");
    assert_eq!((read.offsets(), read.end), (vec![13, 14, 15], 17));
    assert_eq!(scene.end(&observer).stable.0, 17);
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn compaction_leaves_gaps_that_the_end_mark_bridges_and_keeps_tombstones_for_their_time() {
    let scene = Scene::new(
        "compaction",
        1,
        &[
            ("cleanup.policy", "compact"),
            ("segment.ms", "100"),
            ("min.cleanable.dirty.ratio", "0.0"),
            ("delete.retention.ms", "60000"),
        ],
    );
    let producer = scene.producer(false);
    for round in 0..3 {
        scene.send(&producer, "a", Some(&format!("{round}")));
        scene.send(&producer, "b", Some(&format!("{round}")));
    }
    scene.send(&producer, "b", None);
    producer.flush(LIMIT).expect("acknowledged");
    let mut lane = scene.lane();
    let limit = now() + LIMIT;
    let mut written = 7;
    let read = loop {
        assert!(now() < limit, "not compacted");
        // Segments roll, and the cleaner passes, only as records come in.
        scene.send(&producer, "filler", Some("x"));
        producer.flush(LIMIT).expect("acknowledged");
        written += 1;
        let read = scene.read(&mut lane, 0, written).expect("read");
        if read.records.iter().filter(|(_, key, _)| key == "a").count() == 1 {
            break read;
        }
    };
    let of = |key: &str| read.records.iter().rfind(|it| it.1 == key).cloned();
    assert_eq!(of("a"), Some((4, "a".to_owned(), Some("2".to_owned()))));
    assert_eq!(
        of("b"),
        Some((6, "b".to_owned(), None)),
        "the tombstone is still there"
    );
    assert_eq!(
        scene.end(&scene.observer()).start.0,
        0,
        "compaction keeps the log start"
    );
    let facts = scene
        .observer()
        .facts(std::slice::from_ref(&scene.topic))
        .expect("facts");
    assert_eq!(facts[0].policy, Some(CleanupPolicy::Compact));
    assert_eq!(facts[0].tombstone_retention, Some(Duration::from_secs(60)));
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_topic_that_was_made_anew_has_another_id_and_a_shorter_log_is_told() {
    let scene = Scene::new("recreated", 1, &[]);
    scene.produce(20);
    let observer = scene.observer();
    let id = |observer: &Observer| {
        observer
            .facts(std::slice::from_ref(&scene.topic))
            .expect("facts")[0]
            .id
            .clone()
    };
    let before = id(&observer);
    scene.delete();
    scene.create(1, &[]);
    scene.produce(5);
    assert_ne!(id(&observer), before);
    let error = scene.read(&mut scene.lane(), 20, 21).unwrap_err();
    assert!(
        matches!(error, LogError::Truncated { at: Offset(20), .. }),
        "{error:?}"
    );
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_log_start_that_was_raised_past_the_position_is_out_of_range() {
    let scene = Scene::new("retention", 1, &[]);
    scene.produce(100);
    let mut lane = scene.lane();
    assert_eq!(
        scene.read(&mut lane, 0, 100).expect("read").records.len(),
        100
    );
    let mut list = TopicPartitionList::new();
    let offset = rdkafka::Offset::Offset(40);
    list.add_partition_offset(scene.topic.as_str(), 0, offset)
        .expect("added");
    let deleted = scene.admin.delete_records(&list, &AdminOptions::new());
    scene.runtime.block_on(deleted).expect("deleted");
    assert_eq!(scene.end(&scene.observer()).start.0, 40);
    let error = scene.read(&mut lane, 10, 100).unwrap_err();
    assert!(
        matches!(error, LogError::OutOfRange { at: Offset(10), .. }),
        "{error:?}"
    );
    assert_eq!(
        scene.read(&mut lane, 40, 100).expect("read").records.len(),
        60
    );
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn the_observer_notices_new_partitions_and_an_unknown_topic() {
    let scene = Scene::new("growth", 1, &[]);
    let observer = scene.observer();
    observer.watch(BTreeMap::from([(scene.topic.clone(), Pace::Tailing)]));
    let wait_for = |partition| {
        let limit = now() + LIMIT;
        while observer
            .ends()
            .get(&scene.topic, Partition(partition))
            .is_none()
        {
            assert!(
                now() < limit,
                "partition {partition}: {:?}",
                observer.ends()
            );
            std::thread::yield_now();
        }
    };
    wait_for(0);
    let more = NewPartitions::new(scene.topic.as_str(), 3);
    let grown = scene.admin.create_partitions([&more], &AdminOptions::new());
    scene.runtime.block_on(grown).expect("grown")[0]
        .as_ref()
        .expect("grown");
    wait_for(2);
    let facts = observer
        .facts(std::slice::from_ref(&scene.topic))
        .expect("facts");
    assert_eq!(facts[0].partitions, 3);
    let error = observer.facts(&[Topic::new("no-such-topic")]).unwrap_err();
    assert!(matches!(error, LogError::Refused(_)), "{error:?}");
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_sample_is_spread_over_a_partition_and_estimates_it() {
    let scene = Scene::new("sample", 2, &[]);
    scene.produce(1_000);
    let seen = sample(&scene.settings, &scene.topic, 80).expect("a sample");
    let full = &seen.partitions[&Partition(0)];
    assert_eq!((full.records, full.records_estimate()), (80, 1_000));
    assert_eq!(seen.partitions[&Partition(1)].records, 0);
    let offsets: Vec<u64> = seen
        .rows
        .rows()
        .filter_map(|row| match row {
            LogRow::Record(record) => Some(record.offset.0),
            LogRow::End { .. } => None,
        })
        .collect();
    assert_eq!((offsets[0], offsets[79]), (0, 884));
    assert_eq!(
        list_topics(&scene.settings).expect("topics")[&scene.topic],
        2
    );
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_real_control_log_keeps_the_suites_promises() {
    let settings = Services::find().kafka();
    let installation = unique("suite").parse().expect("a name");
    control_log_suite(|| KafkaControlLog::open(&settings, &installation).expect("opened"));
}

#[test]
fn a_mock_control_log_keeps_the_suites_promises() {
    let broker = MockBroker::start().expect("a broker");
    let installation = "mock".parse().expect("a name");
    broker.create_control_topics(&installation).expect("topics");
    let settings = broker.settings();
    control_log_suite(|| KafkaControlLog::open(&settings, &installation).expect("opened"));
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_catalog_that_retention_could_shorten_is_refused_with_the_setting_named() {
    let mut scene = Scene::new("wrong", 1, &[]);
    let installation = unique("wrong").parse().expect("a name");
    scene.topic = Topic::new(&format!("{installation}.materializer.catalog"));
    scene.create(1, &[("retention.ms", "86400000")]);
    let mut log = KafkaControlLog::open(&scene.settings, &installation).expect("opened");
    let error = log.identity().unwrap_err();
    assert!(
        matches!(&error, ControlError::Refused(why) if why.contains("is missing")),
        "{error}"
    );
    let error = log.create().unwrap_err();
    let ControlError::Refused(why) = &error else {
        panic!("{error:?}")
    };
    assert!(why.contains("retention.ms=86400000, must be -1"), "{why}");
}
