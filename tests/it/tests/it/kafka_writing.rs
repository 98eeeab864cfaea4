//! Writing to a real log: the control topics, dead letters, offsets for display.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use chaos::installation::unique;
use it::control_suite::control_log_suite;
use it::services::Services;
use materializer_kafka::{
    Cluster, DisplayOffsets, KafkaControlLog, KafkaDeadLetters, KafkaSettings, MockBroker,
    control_topic,
};
use materializer_model::ports::{
    ControlError, ControlLog, ControlTopic, DeadLetter, DeadLetters, LogError, LogReader,
};
use materializer_model::{
    Installation, LogRow, Offset, Origin, Partition, Poison, PoisonKind, RowBatch, Timestamp, Topic,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::kafka_scene::{LIMIT, Scene, now};

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
fn topics_that_are_just_being_made_are_waited_for() {
    let broker = MockBroker::start().expect("a broker");
    let installation = "making".parse().expect("a name");
    let [first, others @ ..] = ControlTopic::ALL;
    let make = |which| broker.create_topic(&control_topic(&installation, which), 1);
    make(first).expect("a topic");
    let mut log = KafkaControlLog::open(&broker.settings(), &installation).expect("opened");
    let asked = thread::spawn(move || log.identity());
    thread::sleep(Duration::from_millis(300));
    for which in others {
        make(which).expect("a topic");
    }
    let found = asked.join().expect("no panic");
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
}

/// Starts a mock of a cluster that has the control topics, and whose answers a test can choose; returns how it is
/// reached as well.
fn mock_cluster(
    installation: &Installation,
) -> (MockCluster<'static, DefaultProducerContext>, KafkaSettings) {
    let cluster = MockCluster::new(1).expect("a broker");
    for which in ControlTopic::ALL {
        let topic = control_topic(installation, which);
        cluster.create_topic(topic.as_str(), 1, 1).expect("a topic");
    }
    let brokers = cluster.bootstrap_servers();
    let settings = KafkaSettings::new(&brokers, BTreeMap::new(), Cluster::Mock).expect("settings");
    (cluster, settings)
}

#[test]
fn a_leader_that_was_just_elected_is_asked_again_for_the_end() {
    let installation = "elected".parse().expect("a name");
    let (cluster, settings) = mock_cluster(&installation);
    let mut log = KafkaControlLog::open(&settings, &installation).expect("opened");
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[unknown; 3]);
    let end = log.read(ControlTopic::Catalog, Offset(0), &mut Vec::new());
    assert_eq!(end, Ok(Offset(0)));
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

#[test]
fn an_append_whose_answer_does_not_come_is_unknown_and_may_stand_in_the_log() {
    let installation = "unknown".parse().expect("a name");
    let (cluster, settings) = mock_cluster(&installation);
    let mut log = KafkaControlLog::open(&settings, &installation).expect("opened");
    let append = |log: &mut KafkaControlLog, value: &[u8]| {
        log.append(ControlTopic::Catalog, Some("k"), Some(value))
    };
    assert_eq!(append(&mut log, b"1"), Ok(Offset(0)));
    // The broker stores what it is sent, and answers after the producer has given up.
    cluster
        .broker_round_trip_time(1, Duration::from_secs(15))
        .expect("a slow broker");
    let unknown = append(&mut log, b"2");
    assert!(
        matches!(unknown, Err(ControlError::Unknown(_))),
        "{unknown:?}"
    );
    cluster
        .broker_round_trip_time(1, Duration::ZERO)
        .expect("a quick broker");
    let mut log = KafkaControlLog::open(&settings, &installation).expect("opened");
    let mut records = Vec::new();
    let end = log.read(ControlTopic::Catalog, Offset(0), &mut records);
    assert_eq!(end, Ok(Offset(2)));
    assert_eq!(records[1].value.as_deref(), Some(&b"2"[..]));
}

fn letter(scene: &Scene, value: Option<&[u8]>) -> DeadLetter {
    DeadLetter {
        topic: scene.topic.clone(),
        version: "products@v3".parse().expect("a version"),
        origin: Origin {
            topic: Topic::new("shop.products"),
            partition: Partition(2),
            offset: Offset(17),
        },
        poison: Poison::new(PoisonKind::Decode, "price", "is no number"),
        key: Some(vec![0, 0xff]),
        value: value.map(<[u8]>::to_vec),
        headers: vec![
            (b"trace".to_vec(), Some(vec![0xfe])),
            (b"trace".to_vec(), None),
        ],
        timestamp: Some(Timestamp(5)),
    }
}

/// A record as it was read back: key, value, headers.
type Stored = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(String, Option<Vec<u8>>)>,
);

/// Reads the records of partition 0 up to `to`.
fn stored(scene: &Scene, to: u64) -> Vec<Stored> {
    let mut lane = scene.lane();
    lane.assign(&scene.from(0)).expect("assigned");
    let (mut records, mut end, limit) = (Vec::new(), 0, now() + LIMIT);
    while end < to {
        assert!(now() < limit, "read to {end}, not to {to}");
        let mut rows = RowBatch::default();
        lane.poll(Duration::from_millis(200), &mut rows)
            .expect("read");
        for row in rows.rows() {
            match row {
                LogRow::Record(record) => {
                    let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
                    let headers = record.headers.iter().map(|(name, value)| {
                        (String::from_utf8_lossy(name).into_owned(), owned(value))
                    });
                    records.push((owned(record.key), owned(record.value), headers.collect()));
                }
                LogRow::End { end: at, .. } => end = at.0,
            }
        }
    }
    records
}

fn flush(letters: &mut KafkaDeadLetters) -> Result<(), LogError> {
    let limit = now() + LIMIT;
    while !letters.flushed(Duration::from_millis(100))? {
        assert!(now() < limit, "not acknowledged");
    }
    Ok(())
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_dead_letter_holds_the_records_bytes_and_says_where_it_stood_and_what_is_wrong() {
    let scene = Scene::new("letters", 1, &[]);
    let mut letters = KafkaDeadLetters::new(&scene.settings);
    let value = b"\x00\xff{";
    letters.send(letter(&scene, Some(value))).expect("queued");
    letters.send(letter(&scene, None)).expect("queued");
    flush(&mut letters).expect("acknowledged");

    let text = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let headers = vec![
        ("trace".to_owned(), Some(vec![0xfe])),
        ("trace".to_owned(), None),
        text("materializer.version", "products@v3"),
        text("materializer.topic", "shop.products"),
        text("materializer.partition", "2"),
        text("materializer.offset", "17"),
        text("materializer.kind", &PoisonKind::Decode.to_string()),
        text("materializer.place", "price"),
        text("materializer.why", "is no number"),
    ];
    let key = Some(vec![0, 0xff]);
    let expected = vec![
        (key.clone(), Some(value.to_vec()), headers.clone()),
        (key, None, headers),
    ];
    assert_eq!(stored(&scene, 2), expected);
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_letter_that_the_broker_refuses_is_told_and_what_is_sent_again_is_stored() {
    let scene = Scene::new("refused-letters", 1, &[("max.message.bytes", "1000")]);
    let mut letters = KafkaDeadLetters::new(&scene.settings);
    letters
        .send(letter(&scene, Some(&[b'x'; 2_000])))
        .expect("queued");
    let refused = flush(&mut letters);
    assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
    letters.send(letter(&scene, Some(b"y"))).expect("queued");
    flush(&mut letters).expect("acknowledged");
    assert_eq!(stored(&scene, 1)[0].1.as_deref(), Some(&b"y"[..]));
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn offsets_for_display_are_the_groups_committed_offsets() {
    let scene = Scene::new("display", 2, &[]);
    let group = unique("it.display.v1");
    let mut display = DisplayOffsets::open(&scene.settings, &group).expect("opened");
    let mut config = scene.config.clone();
    config.set("group.id", &group);
    let tool: BaseConsumer = config.create().expect("a consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(scene.topic.as_str(), 0, 1);
    for next in [3, 7] {
        let limit = now() + LIMIT;
        loop {
            let positions =
                [0, 1].map(|partition| (&scene.topic, Partition(partition), Offset(next)));
            display.commit(positions.into_iter()).expect("queued");
            let seen = tool
                .committed_offsets(asked.clone(), LIMIT)
                .expect("the group's offsets");
            let expected = rdkafka::Offset::Offset(i64::try_from(next).expect("small"));
            if seen.elements().iter().all(|at| at.offset() == expected) {
                break;
            }
            assert!(now() < limit, "{seen:?} is not {next}");
        }
    }
}
