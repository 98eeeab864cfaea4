//! Logs that a view cannot be built from exactly, and what the unit says of them.

use std::time::Duration;

use materializer_model::definition::{CleanupPolicy, Expression, OnError, Order, Partitioner};
use materializer_model::memory::{MemoryLog, MemoryRecord, TopicSettings};
use materializer_model::progress::{Feed, Health};
use materializer_model::{Offset, Partition, Topic};

use crate::bench::{Bench, failed, rows};

const HOUR: Duration = Duration::from_secs(60 * 60);

#[test]
fn a_checkpoint_older_than_the_tombstones_are_kept_is_not_resumed() {
    let check = |away: Duration, resumes: bool| {
        let mut bench = Bench::new(TopicSettings::compacted(1));
        bench.produce(0, "a", Some("1"));
        bench.produce(0, "b", Some("1"));
        let mut first = bench.worker(1);
        bench.run(&mut first, 3);
        drop(first);
        bench.produce(0, "a", None);
        bench.clock.advance(away);
        if !resumes {
            // The tombstone of `a` is gone: whoever goes on keeps the row for ever.
            bench.produce(0, "c", Some("1"));
            bench
                .log
                .compact(&bench.topic, Partition(0), Offset(4), true);
        }
        let mut second = bench.worker(2);
        bench.run(&mut second, 3);
        if resumes {
            assert_eq!(bench.stored().0, rows(&[("b", "1")]), "after {away:?}");
        } else {
            let why = failed(&second);
            assert!(why.starts_with("tombstones may be gone"), "{why}");
            assert_eq!(bench.stored().0, rows(&[("a", "1"), ("b", "1")]));
        }
    };
    check(22 * HOUR, true);
    check(25 * HOUR, false);
}

#[test]
fn a_longer_life_of_tombstones_brings_none_back_for_a_checkpoint_that_outlived_the_shorter_one() {
    let mut bench = Bench::new(TopicSettings::compacted(1));
    bench.produce(0, "a", Some("1"));
    bench.produce(0, "b", Some("1"));
    let mut first = bench.worker(1);
    bench.run(&mut first, 3);
    drop(first);
    bench.produce(0, "a", None);
    bench.clock.advance(25 * HOUR);
    // Somebody raises the setting, after the tombstone of `a` has gone.
    bench.produce(0, "c", Some("1"));
    bench
        .log
        .compact(&bench.topic, Partition(0), Offset(4), true);
    bench.log.set_tombstone_retention(&bench.topic, 99 * HOUR);
    let mut second = bench.worker(2);
    bench.run(&mut second, 3);
    let why = failed(&second);
    assert!(why.starts_with("tombstones may be gone"), "{why}");
    assert_eq!(bench.stored().0, rows(&[("a", "1"), ("b", "1")]));
}

#[test]
fn a_longer_life_of_tombstones_counts_from_the_next_end_that_is_reached() {
    let mut bench = Bench::new(TopicSettings::compacted(1));
    bench.produce(0, "a", Some("1"));
    let mut first = bench.worker(1);
    bench.run(&mut first, 3);
    bench.log.set_tombstone_retention(&bench.topic, 99 * HOUR);
    for _ in 0..3 {
        bench.clock.advance(HOUR);
        bench.produce(0, "b", Some("1"));
        bench.run(&mut first, 3);
    }
    drop(first);
    bench.clock.advance(30 * HOUR);
    bench.produce(0, "a", None);
    let mut second = bench.worker(2);
    bench.run(&mut second, 3);
    assert_eq!(second.progress().health, Health::Ok);
    assert_eq!(bench.stored().0, rows(&[("b", "1")]));
}

#[test]
fn an_idle_unit_stays_within_the_horizon_by_reading_nothing_to_the_end() {
    let mut bench = Bench::new(TopicSettings::compacted(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    for _ in 0..30 {
        bench.clock.advance(HOUR);
        bench.run(&mut worker, 3);
    }
    assert_eq!(worker.progress().health, Health::Ok);
    let mut next = bench.worker(2);
    bench.run(&mut next, 3);
    assert_eq!(next.progress().health, Health::Ok);
}

#[test]
fn retention_that_overtakes_a_reader_stops_it_where_it_stands() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.produce(0, "b", Some("1"));
    bench.produce(0, "c", Some("1"));
    bench.log.raise_start(&bench.topic, Partition(0), Offset(2));
    bench.run(&mut worker, 3);
    let why = failed(&worker);
    assert!(why.contains("records that were not read are gone"), "{why}");
    assert_eq!(bench.stored(), (rows(&[("a", "1")]), 1));
}

#[test]
fn a_log_that_was_cut_back_below_the_position_stops_the_unit() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    for value in ["1", "2", "3"] {
        bench.produce(0, "a", Some(value));
    }
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.truncate(&bench.topic, Partition(0), Offset(1));
    for value in ["4", "5", "6", "7"] {
        bench.produce(0, "a", Some(value));
    }
    bench.run(&mut worker, 3);
    let why = failed(&worker);
    assert!(why.contains("truncated"), "{why}");
    assert_eq!(bench.stored().0, rows(&[("a", "3")]));
}

#[test]
fn a_log_that_was_cut_back_at_the_marker_of_a_transaction_stops_the_unit_that_resumes() {
    let check = |elected: bool, cut: bool, expected: Result<&str, &str>| {
        let mut bench = Bench::new(TopicSettings::kept(1));
        let transaction = bench.log.begin();
        let record = MemoryRecord::text("a", Some("1")).at(bench.clock.now());
        let (log, topic) = (bench.log.clone(), bench.topic.clone());
        log.produce_in(transaction, &topic, Partition(0), record);
        if elected {
            log.elect(&topic, Partition(0));
        }
        log.commit(transaction);
        let mut first = bench.worker(1);
        bench.run(&mut first, 3);
        drop(first);
        if cut {
            log.truncate(&topic, Partition(0), Offset(1));
        }
        for value in ["2", "3"] {
            bench.produce(0, "a", Some(value));
        }
        let mut next = bench.worker(2);
        bench.run(&mut next, 3);
        match expected {
            Ok(row) => assert_eq!(bench.stored().0, rows(&[("a", row)])),
            Err(expected) => {
                let why = failed(&next);
                assert!(why.contains(expected), "{why}");
            }
        }
    };
    check(false, true, Err("truncated"));
    check(false, false, Ok("3"));
    check(true, false, Ok("3"));
}

#[test]
fn a_topic_made_anew_and_longer_than_the_position_is_damaged_before_a_record_of_it_is_read() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.create(&bench.topic, TopicSettings::kept(1));
    for key in ["x", "y", "z"] {
        bench.produce(0, key, Some("1"));
    }
    bench.run(&mut worker, 3);
    let health = worker.progress().health;
    assert!(
        matches!(&health, Health::Damaged { why } if why.contains("was made anew")),
        "{health:?}"
    );
    assert_eq!(bench.stored(), (rows(&[("a", "1")]), 1));
}

#[test]
fn a_view_whose_result_would_depend_on_compaction_or_on_chance_is_refused() {
    let check = |settings: TopicSettings, change: fn(&mut Bench), expected: &str| {
        let mut bench = Bench::new(settings);
        change(&mut bench);
        bench.produce(0, "a", Some("1"));
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        let why = failed(&worker);
        assert!(why.contains(expected), "{why}");
        assert_eq!(bench.stored(), (Vec::new(), 0), "{why}");
    };
    check(
        TopicSettings::compacted(1),
        |bench| bench.definition.key = Expression("event.id".into()),
        "is compacted and `key` is not `record.key`",
    );
    check(
        TopicSettings::kept(2),
        |bench| bench.definition.key = Expression("event.id".into()),
        "may stand in several partitions",
    );
    check(
        TopicSettings::kept(1),
        |bench| bench.definition.from.policy = Some(CleanupPolicy::Compact),
        "is not the `cleanup.policy`",
    );
    check(
        TopicSettings::kept(1),
        |bench| {
            let other = Topic::new("u");
            bench.log.create(&other, TopicSettings::kept(1));
            bench.definition.from.topics.push(other);
        },
        "may stand in several partitions or topics",
    );
}

#[test]
fn settings_that_change_under_a_running_unit_are_judged_as_opening_would_judge_them() {
    let check = |key: &str, change: fn(&MemoryLog, &Topic), expected: Option<&str>| {
        let mut bench = Bench::new(TopicSettings::kept(1));
        bench.definition.key = Expression(key.into());
        bench.produce(0, "a", Some("1"));
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        assert_eq!(worker.progress().health, Health::Ok);
        change(&bench.log, &bench.topic);
        bench.run(&mut worker, 11);
        if let Some(expected) = expected {
            let why = failed(&worker);
            assert!(why.contains(expected), "{why}");
            let mut next = bench.worker(2);
            bench.run(&mut next, 3);
            assert_eq!(failed(&next), why, "an opening says the same");
        } else {
            assert_eq!(worker.progress().health, Health::Ok);
        }
        assert_eq!(bench.stored().0, rows(&[("a", "1")]));
    };
    let compacts = |log: &MemoryLog, topic: &Topic| log.set_policy(topic, CleanupPolicy::Compact);
    let refused = "is compacted and `key` is not `record.key`";
    check("event.id", compacts, Some(refused));
    check("record.key", compacts, None);
}

#[test]
fn a_record_that_is_passed_over_takes_its_row_along_as_soon_as_the_topic_is_compacted() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.directive.on_error = OnError::Skip;
    bench.produce(0, "a", Some("1"));
    bench.produce(0, "b", Some("1"));
    bench.produce(0, "a", Some("!"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored().0, rows(&[("a", "1"), ("b", "1")]));
    bench.log.set_policy(&bench.topic, CleanupPolicy::Compact);
    bench.run(&mut worker, 11);
    bench.produce(0, "b", Some("!"));
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored().0, rows(&[("a", "1")]));
}

#[test]
fn a_shorter_life_of_tombstones_stops_a_running_unit_that_is_behind_and_no_other() {
    let check = |paused: bool| {
        let mut bench = Bench::new(TopicSettings::compacted(1));
        bench.produce(0, "a", Some("1"));
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        if paused {
            bench.directive.feed = Feed::Hold { why: "ada".into() };
            bench.produce(0, "a", None);
        }
        for _ in 0..2 {
            bench.clock.advance(HOUR);
            bench.run(&mut worker, 3);
        }
        bench.log.set_tombstone_retention(&bench.topic, HOUR);
        bench.run(&mut worker, 11);
        if paused {
            let why = failed(&worker);
            assert!(why.starts_with("tombstones may be gone"), "{why}");
        } else {
            assert_eq!(worker.progress().health, Health::Ok);
        }
    };
    check(true);
    check(false);
}

#[test]
fn a_record_outside_of_its_keys_partition_stops_the_unit_unless_order_is_given_up() {
    let check = |order: Order, expected: Result<&[(&str, &str)], &str>| {
        let mut bench = Bench::new(TopicSettings::kept(2));
        bench.definition.from.order = order;
        bench.definition.from.partitioner = Some(Partitioner::Crc32);
        // CRC-32 of `a` is 0xe8b7be43, which is odd.
        bench.produce(1, "a", Some("1"));
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        bench.produce(0, "a", Some("2"));
        bench.run(&mut worker, 3);
        match expected {
            Ok(expected) => assert_eq!(bench.stored().0, rows(expected)),
            Err(expected) => {
                let why = failed(&worker);
                assert!(why.contains(expected), "{why}");
                assert_eq!(bench.stored().0, rows(&[("a", "1")]));
            }
        }
    };
    check(Order::None, Ok(&[("a", "2")]));
    check(Order::Partition, Err("no known partitioner gives 0 of 2"));
}

#[test]
fn a_record_outside_of_its_keys_partition_stops_the_next_worker_too() {
    let mut bench = Bench::new(TopicSettings::kept(2));
    // Only CRC-32 puts `a` there; both others put it into the other partition.
    bench.produce(1, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.produce(0, "d", Some("1"));
    bench.produce(0, "a", Some("2"));
    bench.run(&mut worker, 3);
    let why = failed(&worker);
    assert!(why.contains("no known partitioner gives 0 of 2"), "{why}");
    let mut next = bench.worker(2);
    bench.run(&mut next, 3);
    assert_eq!(failed(&next), why);
    assert_eq!(bench.stored().0, rows(&[("a", "1"), ("d", "1")]));
}

#[test]
fn a_partitioner_that_was_ruled_out_stays_so_for_the_next_worker() {
    let mut bench = Bench::new(TopicSettings::kept(2));
    // Not CRC-32, which puts `a` into the other partition; both others may be right.
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.produce(1, "a", Some("2"));
    let mut next = bench.worker(2);
    bench.run(&mut next, 3);
    let why = failed(&next);
    assert!(why.contains("no known partitioner gives 1 of 2"), "{why}");
    assert_eq!(bench.stored().0, rows(&[("a", "1")]));
}
