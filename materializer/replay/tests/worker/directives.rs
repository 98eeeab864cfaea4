//! What a unit is told to do, the part of the log that is its own, and how it says that it stands still.

use std::sync::atomic::Ordering;
use std::time::Duration;

use materializer_model::definition::{Order, Partitioner};
use materializer_model::memory::{MemoryRecord, TopicSettings};
use materializer_model::progress::{Feed, Health, Phase};
use materializer_model::{CatalogId, ClaimId, Offset, Partition, Token};
use materializer_replay::{Pacing, Step};

use crate::bench::{Bench, rows};

#[test]
fn a_paused_unit_reads_nothing_until_it_is_resumed() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.directive.feed = Feed::Hold {
        why: "ada: a look".into(),
    };
    bench.produce(0, "a", Some("2"));
    bench.run(&mut worker, 120);
    assert_eq!(bench.stored(), (rows(&[("a", "1")]), 1));
    let paused = Health::Waiting {
        why: "paused: ada: a look".into(),
    };
    assert_eq!(worker.progress().health, paused);
    bench.directive.feed = Feed::Feed;
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored(), (rows(&[("a", "2")]), 2));
    assert_eq!(worker.progress().health, Health::Ok);
}

#[test]
fn a_draining_unit_commits_what_it_has_and_reads_no_more() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.directive.feed = Feed::Drain;
    bench.produce(0, "a", Some("2"));
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored(), (rows(&[("a", "1")]), 1));
}

#[test]
fn closing_commits_what_was_read() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.produce(0, "a", Some("1"));
    worker.step(&bench.directive); // reads it; a fold of no age is not due
    assert_eq!(bench.stored(), (Vec::new(), 0));
    worker.close(&bench.directive, Duration::from_secs(1));
    assert_eq!(bench.stored(), (rows(&[("a", "1")]), 1));
}

#[test]
fn a_unit_that_has_passed_its_bar_is_servable_once_its_sink_has_proven_all_of_it() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    bench.unproven.store(true, Ordering::Relaxed);
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let progress = worker.progress();
    assert_eq!(progress.phase, Phase::Tailing);
    assert!(!progress.servable, "not yet proven");
    bench.unproven.store(false, Ordering::Relaxed);
    assert!(worker.progress().servable);
}

#[test]
fn two_shards_share_the_partitions_of_a_topic() {
    let mut bench = Bench::new(TopicSettings::kept(2));
    bench.shard(2);
    bench.definition.from.partitioner = Some(Partitioner::Crc32);
    for (key, partition) in [("a", 1), ("b", 1), ("d", 0), ("e", 0)] {
        bench.produce(partition, key, Some("1"));
    }
    let mut all = Vec::new();
    for shard in 0..2 {
        bench.unit.shard = shard;
        bench.directive.last_reported = None;
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        assert_eq!(worker.progress().health, Health::Ok);
        assert_eq!(worker.progress().phase, Phase::Tailing);
        let (rows, next) = bench.stored();
        assert_eq!(next, 2, "shard {shard} reads its own partition alone");
        all.extend(rows);
    }
    all.sort();
    assert_eq!(all, rows(&[("a", "1"), ("b", "1"), ("d", "1"), ("e", "1")]));
}

#[test]
fn a_unit_stores_where_it_begins_before_it_stores_a_row() {
    let bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    while bench.store.checkpoint(&bench.unit).is_none() {
        bench.clock.advance(Duration::from_millis(50));
        worker.step(&bench.directive);
    }
    assert_eq!(bench.stored(), (Vec::new(), 0));
}

#[test]
fn a_unit_without_a_partition_is_well_and_resumes() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.shard(2);
    bench.unit.shard = 1;
    bench.produce(0, "a", Some("1"));
    for claim in 1..3 {
        let mut worker = bench.worker(claim);
        bench.run(&mut worker, 3);
        assert_eq!(worker.progress().health, Health::Ok, "claim {claim}");
        assert_eq!(bench.stored(), (Vec::new(), 0));
    }
}

#[test]
fn an_open_transaction_holds_the_gate_of_the_stable_offset_after_a_minute() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let transaction = bench.log.begin();
    let record = MemoryRecord::text("b", Some("1")).at(bench.clock.now());
    bench
        .log
        .produce_in(transaction, &bench.topic, Partition(0), record);
    let holds = |worker: &materializer_replay::Worker| {
        let gates = worker.progress().gates;
        let gate = gates.iter().find(|gate| gate.gate == "stable_offset");
        gate.expect("it is reported").holds
    };
    bench.run(&mut worker, 50);
    assert!(holds(&worker), "{:?}", worker.progress().gates);
    bench.run(&mut worker, 20);
    assert!(!holds(&worker), "{:?}", worker.progress().gates);
    bench.log.commit(transaction);
    bench.run(&mut worker, 3);
    assert!(holds(&worker), "{:?}", worker.progress().gates);
    assert_eq!(bench.stored().0, rows(&[("a", "1"), ("b", "1")]));
}

#[test]
fn a_position_that_stands_still_for_a_minute_below_the_end_is_stalled() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    bench.hears_nothing = true;
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 55);
    assert_eq!(worker.progress().health, Health::Ok);
    bench.run(&mut worker, 10);
    let health = worker.progress().health;
    assert!(matches!(health, Health::Stalled { .. }), "{health:?}");
}

#[test]
fn a_unit_says_what_was_reported_of_it_until_the_sink_has_that_again() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.produce(0, "a", Some("1"));
    bench.run(&mut worker, 3);
    let earlier = bench.store.image();
    bench.produce(0, "a", Some("2"));
    bench.run(&mut worker, 3);
    assert_eq!(worker.progress().until, None);

    bench.store.restore(earlier);
    let reported = bench.reported().cloned();
    bench.directive.feed = Feed::Hold {
        why: "ada: a look".into(),
    };
    let mut next = bench.worker(2);
    bench.run(&mut next, 3);
    assert_eq!(next.progress().until, reported);
    bench.directive.last_reported = reported;
    bench.directive.feed = Feed::Feed;
    bench.run(&mut next, 3);
    assert_eq!(next.progress().until, None);
    assert_eq!(bench.stored(), (rows(&[("a", "2")]), 2));
}

#[test]
fn a_unit_is_rewound_until_it_is_past_all_that_was_had_of_it_whoever_had_it() {
    let mut bench = Bench::new(TopicSettings::kept(2));
    bench.definition.from.order = Order::None;
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let earlier = bench.store.image();
    let mut reported = bench.reported().cloned().expect("reported");
    bench.produce(1, "b", Some("1"));
    bench.run(&mut worker, 3);
    let topic = reported.0.topics.get_mut(&bench.topic);
    let position = topic.and_then(|topic| topic.partitions.get_mut(&Partition(0)));
    position.expect("it is read").next = Offset(1);
    bench.directive.last_reported = Some(reported);
    bench.store.restore(earlier);
    bench.run(&mut worker, 12);
    let health = worker.progress().health;
    assert!(matches!(health, Health::Rewound { .. }), "{health:?}");
    assert_eq!(bench.stored(), (Vec::new(), 0));
    bench.produce(0, "a", Some("1"));
    bench.run(&mut worker, 3);
    assert_eq!(worker.progress().health, Health::Ok);
    assert_eq!(bench.stored(), (rows(&[("a", "1"), ("b", "1")]), 2));
}

#[test]
fn what_the_reader_passed_over_at_a_fault_is_read_before_what_stands_behind_it() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.produce(0, "a", None);
    bench.produce(0, "b", Some("1"));
    bench.skip_rows.store(true, Ordering::Relaxed);
    bench.run(&mut worker, 3);
    assert!(
        !bench.skip_rows.load(Ordering::Relaxed),
        "it was passed over"
    );
    assert_eq!(bench.stored(), (rows(&[("b", "1")]), 3));
    assert_eq!(worker.progress().health, Health::Ok);
}

#[test]
fn a_unit_with_nothing_to_write_notices_that_its_sink_was_emptied() {
    let hold = Feed::Hold {
        why: "ada: a look".into(),
    };
    for feed in [Feed::Feed, hold] {
        let mut bench = Bench::new(TopicSettings::kept(1));
        bench.produce(0, "a", Some("1"));
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        bench.directive.feed = feed;
        bench.store.clear();
        bench.run(&mut worker, Pacing::default().idle_age.as_secs());
        let health = worker.progress().health;
        assert!(matches!(health, Health::Damaged { .. }), "{health:?}");
        assert_eq!(bench.stored(), (Vec::new(), 0), "nothing is refilled");
    }
}

#[test]
fn a_unit_with_nothing_to_write_is_well_and_commits_now_and_then() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let before = worker.work().commits;
    for _ in 0..2_000 {
        bench.clock.advance(Duration::from_millis(50));
        worker.step(&bench.directive);
        assert_eq!(worker.progress().health, Health::Ok);
    }
    let commits = worker.work().commits - before;
    assert!((9..=10).contains(&commits), "{commits}");
}

#[test]
fn a_worker_whose_claim_is_not_the_newest_leaves_the_unit_before_it_touches_the_sink() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    let newest = Token {
        catalog: CatalogId::new("catalog"),
        claim_offset: 2,
        claim: ClaimId::new("2"),
    };
    bench.claimed = Some(newest.clone());
    let mut late = bench.worker(1);
    assert_eq!(late.step(&bench.directive), Step::Fenced(newest));
    assert_eq!(bench.store.owner(&bench.unit), None);
}
