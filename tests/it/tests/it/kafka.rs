//! Reading a real log: transactions, compaction, recreation, retention.

use std::time::Duration;

use materializer_kafka::{Observer, list_topics, sample};
use materializer_model::definition::CleanupPolicy;
use materializer_model::ports::{LogError, LogObserver, LogReader};
use materializer_model::{LeaderEpoch, LogRow, Offset, Partition, RowBatch};
use rdkafka::producer::Producer;

use crate::kafka_scene::{LIMIT, Scene, now};

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
    assert_eq!(end.epoch, Some(LeaderEpoch(0)));
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
        .fresh_facts(std::slice::from_ref(&scene.topic))
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
            .fresh_facts(std::slice::from_ref(&scene.topic))
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
    scene.delete_records(40);
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
fn a_topic_made_anew_and_longer_than_the_position_is_read_on_silently_and_told_by_its_id() {
    let scene = Scene::new("longer", 1, &[]);
    scene.produce(20);
    let observer = scene.observer();
    let id = || {
        observer
            .fresh_facts(std::slice::from_ref(&scene.topic))
            .expect("facts")[0]
            .id
            .clone()
    };
    let before = id();
    let mut lane = scene.lane();
    assert_eq!(
        scene.read(&mut lane, 0, 20).expect("read").records.len(),
        20
    );
    drop(lane);
    scene.delete();
    scene.create(1, &[]);
    scene.produce(30);
    let read = scene.read(&mut scene.lane(), 20, 30).expect("read");
    assert_eq!(read.offsets(), (20..30).collect::<Vec<_>>());
    assert_ne!(id(), before);
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn a_log_start_that_overtakes_a_reader_is_told_where_it_stands() {
    let scene = Scene::new("overtaken", 1, &[]);
    let producer = scene.producer(false);
    let value = "x".repeat(10_000);
    for n in 0..2_000 {
        scene.send(&producer, &n.to_string(), Some(&value));
    }
    producer.flush(LIMIT).expect("acknowledged");
    let mut lane = scene.lane();
    lane.assign(&scene.from(0)).expect("assigned");
    let (mut next, limit) = (0, now() + LIMIT);
    let error = loop {
        assert!(now() < limit, "read to {next}");
        let mut rows = RowBatch::default();
        let polled = lane.poll(Duration::from_millis(200), &mut rows);
        for row in rows.rows() {
            if let LogRow::Record(record) = row {
                assert_eq!(record.offset.0, next, "nothing is left out");
                next += 1;
                if next == 1 {
                    // 20 MB, of which a lane that follows holds a few: it stands far below.
                    scene.delete_records(1_999);
                }
            }
        }
        if let Err(error) = polled {
            break error;
        }
    };
    assert!(
        matches!(error, LogError::OutOfRange { at, .. } if at.0 == next),
        "{error:?} at {next}"
    );
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
