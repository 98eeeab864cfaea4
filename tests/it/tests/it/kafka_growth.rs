//! A real topic that gets more partitions, with keys that move as clients of both kinds move them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chaos::installation::wait_until;
use materializer_kafka::{Observer, Pace};
use materializer_model::definition::{OnError, Target};
use materializer_model::memory::{MemoryDeadLetters, MemoryStore, raw_view};
use materializer_model::ports::Derive;
use materializer_model::progress::{Directive, Feed, Health};
use materializer_model::{
    CatalogId, Change, ClaimId, Clock, Key, Monotonic, Mutation, Poison, ProcessId, Record, Row,
    Skips, Timestamp, Token, Unit, WorkerId,
};
use materializer_replay::{Pacing, Ports, Settings, Worker};
use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::golden::Newest;
use crate::kafka_scene::{LIMIT, Scene, now};

const KEYS: usize = 60;

/// A clock that knows of the broker's time what it knows of its own.
struct Ticking(std::time::Instant);

impl Clock for Ticking {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.elapsed())
    }

    fn broker(&self) -> Option<Timestamp> {
        Some(Timestamp(1_700_000_000_000).plus(self.0.elapsed()))
    }
}

/// The row is the value.
struct AsItIs;

impl Derive for AsItIs {
    fn apply(&self, record: &Record<'_>, out: &mut Vec<Mutation>) -> Result<(), Poison> {
        let change = record.value.map_or(Change::Delete, |value| Change::Upsert {
            row: Row::new(value),
            expires_at: None,
        });
        out.push(Mutation {
            key: Key::new(record.key.unwrap_or_default()),
            change,
            origin: record.origin(),
        });
        Ok(())
    }

    fn exclude(&self, _: &Record<'_>) -> Option<Mutation> {
        None
    }
}

/// Starts a worker of a view of the scene's topic, which is stored in `store`.
fn worker(
    scene: &Scene,
    observer: &Arc<Observer>,
    clock: &Arc<dyn Clock>,
    store: &MemoryStore,
) -> (Worker, Directive) {
    let unit: Unit = "v/v1/c0/s0".parse().expect("a unit");
    let name = unit.version.view.clone();
    let definition = raw_view(name, scene.topic.clone(), Target::Memory {});
    let directive = Directive {
        feed: Feed::Feed,
        skips: Skips::default(),
        on_error: OnError::Fail,
        gates: definition.gates.clone(),
        last_reported: None,
        has_data: false,
        growths: Vec::new(),
    };
    let token = Token {
        catalog: CatalogId::new("catalog"),
        claim_offset: 1,
        claim: ClaimId::new("1"),
    };
    let ports = Ports {
        reader: Box::new(scene.lane()),
        observer: observer.clone(),
        derive: Arc::new(AsItIs),
        sink: Box::new(store.sink(&unit)),
        dead_letters: Box::new(MemoryDeadLetters::default()),
        claims: Box::new(Newest(token.clone())),
        clock: Arc::clone(clock),
    };
    let settings = Settings {
        unit,
        token,
        worker: WorkerId::new("w"),
        process: ProcessId::new("p"),
        address: None,
        definition: Arc::new(definition),
        pacing: Pacing {
            growth_settles: Duration::from_secs(1),
            ..Pacing::default()
        },
    };
    (Worker::new(settings, ports), directive)
}

fn producer(scene: &Scene, partitioner: &str) -> BaseProducer {
    let mut config = scene.config.clone();
    config.set("partitioner", partitioner);
    config.create().expect("a producer")
}

fn write(scene: &Scene, producer: &BaseProducer, at: usize, value: Option<&str>) {
    let key = format!("k{at}");
    let mut record = BaseRecord::<str, str>::to(scene.topic.as_str()).key(&key);
    record.payload = value;
    let sent = producer.send(record).map_err(|(error, _)| error);
    sent.expect("queued");
}

/// Steps a worker until it is well and at the end.
fn run(worker: &mut Worker, directive: &Directive) {
    wait_until("the worker is at the end", || {
        worker.step(directive);
        let progress = worker.progress();
        progress.health == Health::Ok && progress.lag.is_some_and(|lag| lag.records == 0)
    });
}

fn rows(store: &MemoryStore) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (_, rows) = store.unit(&"v/v1/c0/s0".parse().expect("a unit"));
    let rows = rows.iter();
    rows.map(|(key, stored)| (text(&key.0), text(&stored.row.0)))
        .collect()
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn keys_that_move_on_a_real_topic_end_as_they_were_left_in_place_and_in_a_rebuild() {
    for partitioner in ["murmur2", "consistent"] {
        let scene = Scene::new("moving", 2, &[]);
        let clock: Arc<dyn Clock> = Arc::new(Ticking(now()));
        let observer = Observer::start(&scene.settings, Arc::clone(&clock));
        let observer = Arc::new(observer.expect("an observer"));
        observer.watch(BTreeMap::from([(scene.topic.clone(), Pace::Tailing)]));
        let before = producer(&scene, partitioner);
        (0..KEYS).for_each(|at| write(&scene, &before, at, Some("old")));
        before.flush(LIMIT).expect("acknowledged");
        let store = MemoryStore::default();
        let (mut feeder, mut directive) = worker(&scene, &observer, &clock, &store);
        run(&mut feeder, &directive);
        assert_eq!(rows(&store).len(), KEYS);

        let more = NewPartitions::new(scene.topic.as_str(), 5);
        let grown = scene.admin.create_partitions([&more], &AdminOptions::new());
        let grown = scene.runtime.block_on(grown).expect("grown");
        grown[0].as_ref().expect("grown");
        // A third is deleted, a third written anew, and this by a client that knows of the partitions.
        let after = producer(&scene, partitioner);
        let values = [None, Some("new")];
        let changed = (0..KEYS).filter(|at| at % 3 < 2);
        changed.for_each(|at| write(&scene, &after, at, values[at % 3]));
        after.flush(LIMIT).expect("acknowledged");
        wait_until("the growth is reported", || {
            feeder.step(&directive);
            feeder.progress().growth.is_some()
        });
        directive.growths.extend(feeder.progress().growth);
        run(&mut feeder, &directive);
        let left = |at: &usize| !at.is_multiple_of(3);
        let value = |at: usize| if at % 3 == 1 { "new" } else { "old" };
        let expected: BTreeMap<_, _> = (0..KEYS)
            .filter(left)
            .map(|at| (format!("k{at}"), value(at).to_owned()))
            .collect();
        assert_eq!(rows(&store), expected, "{partitioner}, in place");

        let rebuilt = MemoryStore::default();
        let (mut feeder, _) = worker(&scene, &observer, &clock, &rebuilt);
        run(&mut feeder, &directive);
        assert_eq!(rows(&rebuilt), expected, "{partitioner}, rebuilt");
    }
}
