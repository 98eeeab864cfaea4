use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use materializer_migrations::{CatalogClient, Verb};
use materializer_model::definition::Order;
use materializer_model::memory::{ManualClock, MeddledControlLog, MemoryControl, MemoryControlLog};
use materializer_model::ports::{ControlError, ControlLog};
use materializer_model::progress::Health;
use materializer_model::{EventId, Fingerprint, Timestamp, ViewDefinition};

use super::*;
use crate::gateway::fixtures::{World, servable, to_tantivy};
use crate::stop::Stop;

/// A feeder that does nothing but say that it is well, and as which claim.
struct Idle {
    unit: Unit,
    token: Token,
    health: Health,
}

impl Feeder for Idle {
    fn step(&mut self, directive: &Directive) -> Next {
        if let Feed::Hold { why } = &directive.feed {
            self.health = Health::Waiting { why: why.clone() };
        }
        Next::Wait(Duration::from_millis(1))
    }

    fn report(&self) -> Progress {
        Progress {
            unit: self.unit.clone(),
            worker: WorkerId::new(""),
            process: ProcessId::new(""),
            sequence: 0,
            token: self.token.clone(),
            checkpoint: None,
            until: None,
            phase: Phase::Starting,
            health: self.health.clone(),
            lag: None,
            ends_age_ms: None,
            end_records: 0,
            done_records: 0,
            held_ms: None,
            gates: Vec::new(),
            servable: false,
            rate: 0.0,
            waits_for: None,
            documents: None,
            bytes: None,
            bytes_free: None,
            tombstones_left_ms: None,
            address: None,
            growth: None,
        }
    }

    fn close(&mut self, _: &Directive) {
        self.health = Health::Waiting {
            why: "closed".into(),
        };
    }
}

/// Makes feeders, and notes what is opened and what is deleted.
#[derive(Clone, Default)]
struct Idles {
    /// The order that each unit was opened with.
    opened: Arc<Mutex<Vec<Order>>>,
    deleted: Arc<Mutex<Vec<Unit>>>,
    /// Whether a deletion fails.
    fails: Arc<AtomicBool>,
}

impl Feeders for Idles {
    fn open(
        &self,
        unit: &Unit,
        version: &Version,
        token: Token,
    ) -> anyhow::Result<Box<dyn Feeder>> {
        let order = version.definition.from.order;
        self.opened.lock().unwrap().push(order);
        Ok(Box::new(Idle {
            unit: unit.clone(),
            token,
            health: Health::Ok,
        }))
    }

    fn delete(&self, unit: &Unit, _: &Version) -> anyhow::Result<bool> {
        self.deleted.lock().unwrap().push(unit.clone());
        anyhow::ensure!(!self.fails.load(Ordering::Relaxed), "it cannot go on now");
        Ok(true)
    }
}

/// The copy that [`held`] holds.
const HELD: &str = "search/v1/c0/s0";

/// An installation in memory with one version of two shards.
struct Place {
    topics: MemoryControl,
    clock: ManualClock,
    ids: Arc<AtomicU64>,
    feeders: Idles,
}

fn definition() -> ViewDefinition {
    let text = "
view: products
from: {topics: [t]}
format: json
key: record.key
document: {title: event.title}
to: {redis: {connection: cache, key: 'product:{key}', as: json, shards: 2}}
";
    materializer_view::parse("products.yaml", text)
        .expect("a definition")
        .remove(0)
}

impl Place {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let place = Self {
            topics: MemoryControl::new("main", clock.clone()),
            clock,
            ids: Arc::default(),
            feeders: Idles::default(),
        };
        let ids = Arc::clone(&place.ids);
        let mut client = CatalogClient::create(
            Box::new(place.topics.log()),
            "test",
            Box::new(move || EventId::new(ids.fetch_add(1, Ordering::Relaxed).to_string())),
        )
        .expect("a catalog");
        let verb = Verb::Apply {
            definition: Box::new(definition()),
            fingerprint: Fingerprint("f".into()),
            because: Vec::new(),
            replace: false,
            rebuild: false,
        };
        client.start(&verb, "").expect("a version");
        place
    }

    fn pool(&self, worker: &str, slots: usize) -> Pool {
        self.pool_on(Box::new(self.topics.log()), worker, slots)
    }

    fn pool_on(&self, log: Box<dyn ControlLog>, worker: &str, slots: usize) -> Pool {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let control = Control::open(log, Arc::clone(&clock));
        let settings = Settings {
            worker: WorkerId::new(worker),
            process: ProcessId::new(format!("{worker}-process")),
            slots,
            only: Vec::new(),
            reclaim_after: Duration::from_secs(600),
            address: "127.0.0.1:1".into(),
        };
        let ids = Arc::clone(&self.ids);
        Pool::new(
            settings,
            Arc::new(control.expect("a catalog")),
            clock,
            Box::new(self.feeders.clone()),
            // No jitter: every number is a whole number of jitters.
            Box::new(move || u128::from(ids.fetch_add(1, Ordering::Relaxed)) * JITTER.as_millis()),
        )
    }
}

/// Returns the place of another installation, which holds one copy of a version, of the worker `worker`.
fn held() -> (World, Place) {
    let mut world = World::new();
    world.start("search@v1", to_tantivy(1));
    world.claim(HELD, "a:1");
    let place = Place {
        topics: world.control.clone(),
        clock: world.clock.clone(),
        ids: Arc::default(),
        feeders: Idles::default(),
    };
    (world, place)
}

fn step(pool: &mut Pool) -> Arc<State> {
    let state = pool.control.refresh().expect("memory");
    pool.step(&state);
    pool.control.refresh().expect("memory")
}

/// Steps a pool until something is so.
fn until(pool: &mut Pool, what: &str, holds: impl Fn(&Pool, &State) -> bool) {
    for _ in 0..2_000 {
        let state = step(pool);
        if holds(pool, &state) {
            return;
        }
        Stop::default().wait(Duration::from_millis(1));
    }
    panic!("never so: {what}");
}

fn owners(state: &State) -> Vec<String> {
    let units = state.follower.reports().claimed();
    units
        .filter_map(|unit| state.follower.owner(unit))
        .map(|(_, claim)| claim.worker.to_string())
        .collect()
}

fn reported(state: &State) -> usize {
    state.follower.reports().units().count()
}

#[test]
fn free_units_are_claimed_as_far_as_slots_are_free() {
    let place = Place::new();
    let mut one = place.pool("one", 1);
    let mut two = place.pool("two", 8);
    until(&mut one, "one unit is reported", |_, state| {
        reported(state) == 1
    });
    until(&mut two, "both are reported", |_, state| {
        reported(state) == 2
    });
    assert_eq!(owners(&step(&mut one)), ["one", "two"]);
    one.close();
    two.close();
}

#[test]
fn a_silent_worker_loses_its_units_and_leaves_them_when_it_comes_back() {
    let place = Place::new();
    let mut old = place.pool("old", 8);
    until(&mut old, "both are fed", |_, state| reported(state) == 2);
    let mut new = place.pool("new", 8);
    // The old one reports every second: it keeps its units for as long as it does.
    for _ in 0..20 {
        place.clock.advance(Duration::from_secs(1));
        step(&mut old);
        step(&mut new);
    }
    assert!(new.units.is_empty());
    for _ in 0..10 {
        place.clock.advance(Duration::from_secs(1));
        step(&mut new);
    }
    assert_eq!(owners(&step(&mut new)), ["new", "new"]);
    until(&mut old, "the old one has left", |pool, _| {
        pool.units.is_empty()
    });
    new.close();
    old.close();
}

#[test]
fn a_worker_takes_its_own_units_back_at_once() {
    let place = Place::new();
    let mut before = place.pool("same", 8);
    until(&mut before, "both are fed", |_, state| reported(state) == 2);
    before.close();
    let mut after = place.pool("same", 8);
    step(&mut after);
    assert_eq!(after.units.len(), 2);
    after.close();
}

#[test]
fn the_last_report_of_a_unit_is_made_after_it_was_closed() {
    let place = Place::new();
    let mut pool = place.pool("one", 8);
    until(&mut pool, "both are fed", |_, state| reported(state) == 2);
    let control = Arc::clone(&pool.control);
    pool.close();
    let state = control.refresh().expect("memory");
    for heard in state.follower.reports().units() {
        let closed = Health::Waiting {
            why: "closed".into(),
        };
        assert_eq!(heard.report.health, closed);
    }
}

#[test]
fn a_log_that_does_not_answer_holds_a_round_up_once_and_not_for_every_unit() {
    let place = Place::new();
    // How many appends were waited for in vain; `None` while they are answered.
    let waited: Arc<Mutex<Option<u32>>> = Arc::default();
    let unanswered = Arc::clone(&waited);
    let append =
        move |log: &mut MemoryControlLog, topic, key: Option<&str>, value: Option<&[u8]>| {
            if let Some(waited) = &mut *unanswered.lock().unwrap() {
                *waited += 1;
                return Err(ControlError::Unknown("no answer in time".into()));
            }
            log.append(topic, key, value)
        };
    let log = MeddledControlLog {
        log: place.topics.log(),
        append,
    };
    let mut pool = place.pool_on(Box::new(log), "one", 8);
    until(&mut pool, "both are fed", |_, state| reported(state) == 2);
    *waited.lock().unwrap() = Some(0);
    place.clock.advance(Duration::from_secs(2));
    step(&mut pool);
    assert_eq!(*waited.lock().unwrap(), Some(1));
    pool.close();
    assert_eq!(*waited.lock().unwrap(), Some(2));
}

#[test]
fn what_nobody_needs_of_a_copy_is_deleted_once_also_if_it_never_reported() {
    for ends in ["retired", "taken out"] {
        let (mut world, place) = held();
        match ends {
            "retired" => _ = world.give_up("search@v1"),
            _ => world.change("search@v1", to_tantivy(0)),
        }
        let mut other = place.pool("other", 8);
        let mut pool = place.pool("worker", 8);
        for _ in 0..3 {
            step(&mut other);
            step(&mut pool);
        }
        let expected: Unit = HELD.parse().unwrap();
        assert_eq!(*place.feeders.deleted.lock().unwrap(), [expected], "{ends}");
        pool.close();
        other.close();
    }
}

#[test]
fn a_report_of_a_copy_that_is_taken_out_goes_before_its_data_and_one_of_a_retired_version_after() {
    for (ends, before) in [("retired", 1), ("taken out", 0)] {
        let (mut world, place) = held();
        let token = world.claim(HELD, "a:1");
        world.report(&servable(HELD, token, "a:1"));
        match ends {
            "retired" => _ = world.give_up("search@v1"),
            _ => world.change("search@v1", to_tantivy(0)),
        }
        place.feeders.fails.store(true, Ordering::Relaxed);
        let mut pool = place.pool("worker", 8);
        assert_eq!(reported(&step(&mut pool)), before, "{ends}");
        place.feeders.fails.store(false, Ordering::Relaxed);
        place.clock.advance(Duration::from_secs(2));
        assert_eq!(reported(&step(&mut pool)), 0, "{ends}");
        pool.close();
    }
}

#[test]
fn a_unit_is_opened_anew_once_when_from_changes_in_place() {
    let (mut world, place) = held();
    let mut pool = place.pool("worker", 8);
    let opened = |expected: &[Order]| *place.feeders.opened.lock().unwrap() == expected;
    step(&mut pool);
    world.redefine("search@v1", |definition| {
        definition.soak = Duration::from_secs(1);
    });
    until(&mut pool, "it is reported", |_, state| reported(state) == 1);
    assert!(opened(&[Order::Partition]), "`soak` is no part of `from`");
    world.redefine("search@v1", |definition| {
        definition.from.order = Order::None;
    });
    until(&mut pool, "it reads in no order", |_, _| {
        opened(&[Order::Partition, Order::None])
    });
    place.clock.advance(Duration::from_secs(2));
    for _ in 0..3 {
        step(&mut pool);
    }
    assert!(opened(&[Order::Partition, Order::None]));
    pool.close();
}

#[test]
fn a_deletion_that_fails_is_tried_again_less_and_less_often() {
    let (mut world, place) = held();
    world.give_up("search@v1");
    place.feeders.fails.store(true, Ordering::Relaxed);
    let mut pool = place.pool("worker", 8);
    let tries = || place.feeders.deleted.lock().unwrap().len();
    for _ in 0..150 {
        step(&mut pool);
        place.clock.advance(Duration::from_millis(100));
    }
    assert_eq!(tries(), 4, "at once, and after 1, 3 and 7 seconds");
    place.feeders.fails.store(false, Ordering::Relaxed);
    place.clock.advance(Duration::from_secs(8));
    step(&mut pool);
    step(&mut pool);
    assert_eq!(tries(), 5);
    pool.close();
}
