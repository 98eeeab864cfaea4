//! Topics that get more partitions while, before, and after a unit reads them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::Growth;
use materializer_model::definition::{Expression, Order, Partitioner};
use materializer_model::memory::{MemoryStore, TopicSettings};
use materializer_model::ports::LogObserver;
use materializer_model::progress::Health;
use materializer_replay::Worker;

use crate::bench::{Bench, failed, rows};

const KEYS: usize = 24;

/// Returns where librdkafka puts a key, counted bit by bit.
fn place(key: &str, partitions: i32) -> i32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    let crc = !key.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), step)
    });
    let count = u32::try_from(partitions).expect("positive");
    i32::try_from(crc % count).expect("small")
}

/// Numbers that follow from a seed alone.
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Producers, each of which knows of some count of partitions, and what they wrote last.
struct Producers {
    /// What the producer of each key knows of.
    knows: Vec<i32>,
    last: BTreeMap<String, Option<String>>,
    written: u64,
}

impl Producers {
    fn new(partitions: i32) -> Self {
        Self {
            knows: vec![partitions; KEYS],
            last: BTreeMap::new(),
            written: 0,
        }
    }

    /// Writes some records, a third of them deletes.
    fn write(&mut self, bench: &Bench, lot: &mut Lot, records: u64) {
        for _ in 0..records {
            let at = usize::try_from(lot.below(u64::try_from(KEYS).expect("few"))).expect("small");
            let key = format!("k{at}");
            self.written += 1;
            let value = (lot.below(3) > 0).then(|| format!("{} of {key}", self.written));
            bench.produce(place(&key, self.knows[at]), &key, value.as_deref());
            self.last.insert(key, value);
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let rows = self.last.iter();
        rows.filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
            .collect()
    }
}

/// Gives producers time to learn of new partitions, and records what a worker then reports, as the coordinator
/// does.
fn record(bench: &mut Bench, worker: &mut Worker) -> Growth {
    bench.run(worker, 1);
    bench.clock.advance(Duration::from_secs(11 * 60));
    bench.run(worker, 3);
    let growth = worker.progress().growth.expect("settled and reported");
    bench.directive.growths.push(growth.clone());
    growth
}

/// Builds a version from the beginning, and returns its rows.
fn rebuilt(bench: &mut Bench, claim: u64) -> Vec<(String, String)> {
    bench.store = MemoryStore::default();
    bench.directive.last_reported = None;
    let mut worker = bench.worker(claim);
    bench.run(&mut worker, 5);
    assert_eq!(worker.progress().health, Health::Ok);
    bench.stored().0
}

#[test]
fn keys_that_move_end_as_their_producers_left_them_in_place_and_in_every_rebuild() {
    for seed in 0..200 {
        let mut lot = Lot(seed);
        let from = 1 + i32::try_from(lot.below(3)).expect("small");
        let to = from + 1 + i32::try_from(lot.below(3)).expect("small");
        let mut bench = Bench::new(TopicSettings::kept(from));
        let mut producers = Producers::new(from);
        producers.write(&bench, &mut lot, 60);
        let mut claim = 1;
        let mut worker = bench.worker(claim);
        bench.run(&mut worker, 2);
        bench.log.grow(&bench.topic, to);
        // They learn of the partitions one after the other, each at once for its key.
        for at in 0..KEYS {
            producers.write(&bench, &mut lot, 4);
            producers.knows[at] = to;
            if lot.below(4) == 0 {
                bench.run(&mut worker, lot.below(3));
                assert!(
                    bench.verify().is_right(),
                    "seed {seed}: {:?}",
                    bench.verify()
                );
            }
            if lot.below(8) == 0 {
                claim += 1;
                worker = bench.worker(claim);
            }
        }
        record(&mut bench, &mut worker);
        producers.write(&bench, &mut lot, 40);
        while lot.below(3) > 0 {
            for _ in 0..lot.below(5) {
                worker.step(&bench.directive.clone());
            }
            assert!(
                bench.verify().is_right(),
                "seed {seed}: {:?}",
                bench.verify()
            );
            claim += 1;
            worker = bench.worker(claim);
        }
        bench.run(&mut worker, 5);
        assert_eq!(worker.progress().health, Health::Ok, "seed {seed}");
        assert_eq!(worker.progress().lag.map(|lag| lag.records), Some(0));
        assert_eq!(bench.stored().0, producers.rows(), "seed {seed}");
        assert_eq!(
            rebuilt(&mut bench, claim + 1),
            producers.rows(),
            "seed {seed}"
        );
    }
}

#[test]
fn a_topic_that_grows_twice_is_read_era_by_era() {
    for seed in 0..100 {
        let mut lot = Lot(seed);
        let mut bench = Bench::new(TopicSettings::kept(2));
        let mut producers = Producers::new(2);
        producers.write(&bench, &mut lot, 60);
        let mut worker = bench.worker(1);
        for count in [3, 4] {
            bench.run(&mut worker, 2);
            bench.log.grow(&bench.topic, count);
            producers.write(&bench, &mut lot, 40);
            producers.knows = vec![count; KEYS];
            producers.write(&bench, &mut lot, 40);
            record(&mut bench, &mut worker);
            producers.write(&bench, &mut lot, 40);
        }
        bench.run(&mut worker, 5);
        assert_eq!(bench.stored().0, producers.rows(), "seed {seed}");
        assert!(
            bench.verify().is_right(),
            "seed {seed}: {:?}",
            bench.verify()
        );
        assert_eq!(rebuilt(&mut bench, 2), producers.rows(), "seed {seed}");
    }
}

/// A bench whose topic of two partitions holds a key that moves when there are three, and one that stays.
fn moving() -> (Bench, &'static str, &'static str) {
    let mut bench = Bench::new(TopicSettings::kept(2));
    bench.definition.from.partitioner = Some(Partitioner::Crc32);
    let find = |moves: bool| {
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let is = |key: &&&str| (place(key, 2) != place(key, 3)) == moves;
        keys.iter().find(is).copied().expect("one of them")
    };
    (bench, find(true), find(false))
}

#[test]
fn what_moved_waits_until_the_growth_is_recorded_and_what_did_not_goes_on() {
    let (mut bench, moved, stays) = moving();
    bench.produce(place(moved, 2), moved, Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.grow(&bench.topic, 3);
    bench.produce(place(moved, 3), moved, Some("2"));
    bench.produce(place(stays, 3), stays, Some("1"));
    bench.run(&mut worker, 60);
    let mut expected = vec![(moved, "1"), (stays, "1")];
    expected.sort_unstable();
    assert_eq!(bench.stored().0, rows(&expected));
    let progress = worker.progress();
    assert_eq!(progress.growth, None, "producers may not know yet");
    assert!(
        matches!(&progress.health, Health::Waiting { why } if why.contains("from 2 to 3 partitions")),
        "{:?}",
        progress.health
    );
    assert_ne!(
        progress.lag.map(|lag| lag.records),
        Some(0),
        "not caught up"
    );
    assert_eq!(progress.held_ms, None);
    let growth = record(&mut bench, &mut worker);
    assert_eq!((growth.from, growth.to), (2, 3));
    assert_eq!(growth.partitioner, Some(Partitioner::Crc32));
    bench.run(&mut worker, 3);
    let mut expected = vec![(moved, "2"), (stays, "1")];
    expected.sort_unstable();
    assert_eq!(bench.stored().0, rows(&expected));
    assert_eq!(worker.progress().health, Health::Ok);
    assert_eq!(worker.progress().growth, None, "it is recorded");
}

#[test]
fn a_record_of_partitions_that_the_observer_has_not_told_of_is_no_fault() {
    let (mut bench, moved, stays) = moving();
    bench.produce(place(moved, 2), moved, Some("1"));
    let observer = bench.log.observer(Arc::new(bench.clock.clone()));
    bench.told = Some(observer.facts());
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.grow(&bench.topic, 3);
    let others = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let comes = |key: &&&str| place(key, 2) != place(key, 3) && place(key, 3) < 2;
    let comes = others.iter().find(comes).copied().expect("one of them");
    bench.produce(place(comes, 3), comes, Some("1"));
    bench.produce(place(stays, 3), stays, Some("1"));
    bench.run(&mut worker, 3);
    let mut expected = vec![(moved, "1"), (stays, "1")];
    expected.sort_unstable();
    assert_eq!(bench.stored().0, rows(&expected));
    let health = worker.progress().health;
    assert!(matches!(health, Health::Waiting { .. }), "{health:?}");
}

#[test]
fn an_old_record_after_the_barrier_stops_the_unit_and_can_be_skipped() {
    let (mut bench, moved, _) = moving();
    bench.produce(place(moved, 2), moved, Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.grow(&bench.topic, 3);
    bench.produce(place(moved, 3), moved, Some("2"));
    record(&mut bench, &mut worker);
    bench.run(&mut worker, 3);
    let straggler = bench.produce(place(moved, 2), moved, Some("late"));
    bench.run(&mut worker, 3);
    let why = failed(&worker);
    assert!(why.contains("did not know of 3 partitions"), "{why}");
    let at = worker.progress().health;
    let Health::Failed { at: Some(at), .. } = at else {
        panic!("it names the record: {at:?}");
    };
    assert_eq!(at.offset, straggler);
    bench.skip(at);
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored().0, rows(&[(moved, "2")]));
    assert_eq!(worker.progress().health, Health::Ok);
    assert_eq!(rebuilt(&mut bench, 2), rows(&[(moved, "2")]));
}

#[test]
fn a_version_that_began_before_its_topics_growth_was_recorded_is_built_anew() {
    let (mut bench, moved, _) = moving();
    bench.produce(place(moved, 2), moved, Some("1"));
    let mut first = bench.worker(1);
    bench.run(&mut first, 3);
    bench.log.grow(&bench.topic, 3);
    bench.produce(place(moved, 3), moved, Some("2"));
    let store = bench.store.clone();
    let reported = bench.directive.last_reported.take();
    bench.store = MemoryStore::default();
    let mut second = bench.worker(2);
    bench.run(&mut second, 3);
    assert!(failed(&second).contains("no known partitioner gives"));
    bench.store = store;
    bench.directive.last_reported = reported;
    record(&mut bench, &mut first);
    bench.directive.last_reported = None;
    bench.run(&mut second, 3);
    let why = failed(&second);
    assert!(why.contains("was begun when `t` had 3 partitions"), "{why}");
    assert_eq!(rebuilt(&mut bench, 3), rows(&[(moved, "2")]));
}

#[test]
fn shards_that_a_key_could_leave_are_refused_and_others_go_on() {
    let check = |from: i32, to: i32, goes_on: bool| {
        let mut bench = Bench::new(TopicSettings::kept(from));
        bench.shard(2);
        let mut lot = Lot(1);
        let mut producers = Producers::new(from);
        producers.write(&bench, &mut lot, 100);
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        bench.log.grow(&bench.topic, to);
        producers.knows = vec![to; KEYS];
        producers.write(&bench, &mut lot, 100);
        bench.run(&mut worker, 3);
        if !goes_on {
            let why = failed(&worker);
            assert!(why.contains("2 shards do not divide each"), "{why}");
            return;
        }
        record(&mut bench, &mut worker);
        bench.run(&mut worker, 3);
        let ours = |(key, _): &(String, String)| place(key, to) % 2 == 0;
        let expected: Vec<_> = producers.rows().into_iter().filter(ours).collect();
        assert_eq!(bench.stored().0, expected);
    };
    check(2, 4, true);
    check(2, 3, false);
    check(3, 4, false);
}

#[test]
fn a_compacted_topic_that_grew_is_rebuilt_only_while_tombstones_of_moved_keys_are_there() {
    let (mut bench, moved, _) = moving();
    bench.log.create(&bench.topic, TopicSettings::compacted(2));
    bench.produce(place(moved, 2), moved, Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.grow(&bench.topic, 3);
    bench.produce(place(moved, 3), moved, None);
    record(&mut bench, &mut worker);
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored().0, rows(&[]));
    assert_eq!(rebuilt(&mut bench, 2), rows(&[]));
    bench.clock.advance(Duration::from_secs(25 * 60 * 60));
    bench.store = MemoryStore::default();
    bench.directive.last_reported = None;
    let mut late = bench.worker(3);
    bench.run(&mut late, 3);
    let why = failed(&late);
    assert!(why.contains("would come back"), "{why}");
}

#[test]
fn a_view_whose_order_nobody_asks_for_takes_new_partitions_up_at_once() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.definition.from.order = Order::None;
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.grow(&bench.topic, 2);
    bench.produce(1, "a", Some("2"));
    bench.run(&mut worker, 3);
    assert_eq!(bench.stored().0, rows(&[("a", "2")]));
    assert_eq!(worker.progress().health, Health::Ok);
    let mut next = bench.worker(2);
    bench.produce(1, "b", Some("1"));
    bench.run(&mut next, 3);
    assert_eq!(bench.stored().0, rows(&[("a", "2"), ("b", "1")]));
}

#[test]
fn a_view_of_another_key_is_refused_once_its_topic_has_more_than_one_partition() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.definition.key = Expression("event.id".into());
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.log.grow(&bench.topic, 2);
    bench.run(&mut worker, 12);
    let why = failed(&worker);
    assert!(why.contains("may stand in several partitions"), "{why}");
    assert_eq!(
        bench.stored().0,
        rows(&[("a", "1")]),
        "what was read is kept"
    );
}
