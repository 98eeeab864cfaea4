//! The world of one seed: the log and who writes it, the sink's server, the workers, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use materializer_model::definition::{
    Expression, Format, Gates, OnError, Order, Promotion, Source, Target, ViewDefinition,
};
use materializer_model::memory::{
    ManualClock, MemoryControl, MemoryDeadLetters, MemoryLog, MemoryRecord, MemoryStore,
    StoreImage, TopicSettings, Transaction,
};
use materializer_model::ports::{ControlLog, ControlTopic};
use materializer_model::progress::{Directive, Feed, Health, Progress, StoredCheckpoint};
use materializer_model::{
    Checkpoint, Clock, Ends, Offset, Partition, ProcessId, Timestamp, Topic, Unit, ViewName,
    WorkerId,
};
use materializer_replay::{Pacing, Ports, Settings, Step, Worker};

use crate::oracle::{Oracle, Value};
use crate::ports::{
    Chaos, Crash, Life, Shared, SimClaims, SimClock, SimDeadLetters, SimDerive, SimObserver,
    SimReader, SimSink, token,
};
use crate::random::Random;

const KEYS: u64 = 10;

/// A worker that is alive, whoever owns the unit.
pub(crate) struct Actor {
    pub(crate) worker: Worker,
    life: Life,
    claim_offset: Offset,
}

/// Everything that one seed has made.
pub(crate) struct World {
    pub(crate) shared: Shared,
    pub(crate) log: MemoryLog,
    pub(crate) topic: Topic,
    pub(crate) partitions: i32,
    pub(crate) compacted: bool,
    pub(crate) oracle: Oracle,
    open: Vec<(u64, Transaction)>,
    transactions: u64,
    pub(crate) store: MemoryStore,
    pub(crate) unit: Unit,
    images: Vec<StoreImage>,
    control: MemoryControl,
    pub(crate) letters: MemoryDeadLetters,
    pub(crate) clock: ManualClock,
    pub(crate) actors: Vec<Actor>,
    started: u64,
    pub(crate) directive: Directive,
    /// The claim under which the last report was made.
    reported_by: Offset,
    definition: Arc<ViewDefinition>,
    /// The ends at the time of each step, before any of them a bar may have been taken.
    pub(crate) bars: BTreeSet<Vec<u64>>,
}

fn definition(view: ViewName, topic: &Topic, on_error: OnError) -> ViewDefinition {
    ViewDefinition {
        view,
        from: Source {
            topics: vec![topic.clone()],
            policy: None,
            partitioner: None,
            order: Order::Partition,
        },
        format: Format::Raw,
        only: None,
        condition: None,
        key: Expression("record.key".into()),
        document: Vec::new(),
        to: Target::Memory {},
        gates: gates(),
        soak: Duration::ZERO,
        on_error,
        promotion: Promotion::Manual,
    }
}

fn gates() -> Gates {
    Gates {
        lag_seconds: 10.0,
        lag_records: 5,
        stable_for: Duration::ZERO,
        documents_ratio: None,
        queries: Vec::new(),
        keys: Vec::new(),
    }
}

/// The CRC-32 of a key, bit by bit: the producers here are librdkafka's.
fn crc32(key: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    !key.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let partitions = 1 + i32::try_from(random.below(3)).expect("small");
        let compacted = random.chance(500);
        let topic = Topic::new("t");
        let on_error = if random.chance(500) {
            OnError::Skip
        } else {
            OnError::DeadLetter {
                topic: Topic::new("dead"),
                limit: 1_000,
            }
        };
        let log = MemoryLog::default();
        let settings = if compacted {
            TopicSettings::compacted(partitions)
        } else {
            TopicSettings::kept(partitions)
        };
        log.create(&topic, settings);
        let clock = ManualClock::new(Timestamp(1_700_000_000_000));
        let control = MemoryControl::new("main", clock.clone());
        control.log().create().expect("memory");
        let unit: Unit = "v/v1/c0/s0".parse().expect("a unit");
        let definition = definition(unit.version.view.clone(), &topic, on_error.clone());
        Self {
            shared: Shared::new(Chaos {
                faults: random.below(4) * 30,
                random,
                late: std::collections::VecDeque::new(),
                trace: Vec::new(),
            }),
            log,
            topic,
            partitions,
            compacted,
            oracle: Oracle::new(compacted),
            open: Vec::new(),
            transactions: 0,
            store: MemoryStore::default(),
            unit,
            images: Vec::new(),
            control,
            letters: MemoryDeadLetters::default(),
            clock,
            actors: Vec::new(),
            started: 0,
            directive: Directive {
                feed: Feed::Feed,
                skips: BTreeSet::new(),
                on_error,
                gates: gates(),
                last_reported: None,
            },
            reported_by: Offset(0),
            definition: Arc::new(definition),
            bars: BTreeSet::new(),
        }
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.shared.lock().random.below(bound)
    }

    pub(crate) fn note(&self, line: String) {
        self.shared.note(line);
    }

    // ------------------------------------------------------------ the log

    /// Writes a record, in a transaction or not.
    pub(crate) fn produce(&mut self) {
        let key = format!("k{}", self.below(KEYS));
        let count = u32::try_from(self.partitions).expect("positive");
        let partition = Partition(i32::try_from(crc32(key.as_bytes()) % count).expect("small"));
        let n = self.below(1_000);
        let (value, bytes) = match self.below(10) {
            0 | 1 => (Value::Tombstone, None),
            2 => (Value::Excluded, Some(format!("-{n}"))),
            3 => (Value::Poison, Some(format!("!{n}"))),
            _ => (Value::Row(format!("row {n}")), Some(format!("row {n}"))),
        };
        let record = MemoryRecord::text(&key, bytes.as_deref()).at(self.clock.now());
        let pick = self.below(4);
        let transaction = self.open.first().filter(|_| pick == 0).copied();
        let offset = match transaction {
            Some((_, transaction)) => {
                self.log
                    .produce_in(transaction, &self.topic, partition, record)
            }
            None => self.log.produce(&self.topic, partition, record),
        };
        let number = transaction.map(|(number, _)| number);
        self.note(format!(
            "produce {partition}/{offset} {key} {value:?} {number:?}"
        ));
        self.oracle
            .wrote(partition.0, offset.0, &key, value, number);
    }

    pub(crate) fn begin(&mut self) {
        if self.open.is_empty() {
            self.transactions += 1;
            self.open.push((self.transactions, self.log.begin()));
        }
    }

    pub(crate) fn end_transaction(&mut self) {
        let commit = self.below(2) == 0;
        if let Some((number, transaction)) = self.open.pop() {
            self.note(format!("end transaction {number}, commit {commit}"));
            if commit {
                self.log.commit(transaction);
            } else {
                self.log.abort(transaction);
            }
            self.oracle.ended(number, commit);
        }
    }

    fn some_partition(&self) -> Partition {
        let count = u64::try_from(self.partitions).expect("positive");
        Partition(i32::try_from(self.below(count)).expect("small"))
    }

    pub(crate) fn compact(&mut self) {
        let partition = self.some_partition();
        let below = Offset(self.below(200));
        if self.compacted {
            self.note(format!("compact {partition} below {below}"));
            self.log.compact(&self.topic, partition, below, false);
        }
    }

    pub(crate) fn elect(&mut self) {
        let partition = self.some_partition();
        self.log.elect(&self.topic, partition);
    }

    /// Raises the start of every partition that has records.
    pub(crate) fn lose_genesis(&mut self) {
        self.note("the log's start is raised".into());
        for partition in (0..self.partitions).map(Partition) {
            self.log.raise_start(&self.topic, partition, Offset(1));
        }
    }

    /// Makes the topic anew, with as many and other records.
    pub(crate) fn recreate(&mut self) {
        self.note("the topic is made anew".into());
        let settings = TopicSettings::kept(self.partitions);
        self.log.create(&self.topic, settings);
        self.oracle = Oracle::new(false);
        self.open.clear();
        for _ in 0..200 {
            self.produce();
        }
    }

    /// Returns the stable end of each partition.
    pub(crate) fn stable_ends(&self) -> Vec<u64> {
        let observer = self.log.observer(Arc::new(self.clock.clone()));
        let ends = materializer_model::ports::LogObserver::ends(&observer);
        (0..self.partitions)
            .map(|p| {
                ends.get(&self.topic, Partition(p))
                    .expect("it exists")
                    .stable
                    .0
            })
            .collect()
    }

    // ------------------------------------------------------------ the sink's server

    /// Keeps an image of the store, once it holds a commit: one without is a loss, not a lag.
    pub(crate) fn save(&mut self) {
        if self.stored().0.is_some() {
            self.images.push(self.store.image());
        }
    }

    /// A replica that lagged takes over: what was on its way to the old server is lost.
    pub(crate) fn rewind(&mut self) {
        if self.images.is_empty() {
            return;
        }
        let at = self.shared.lock().random.index(self.images.len());
        self.note(format!("the store goes back to image {at}"));
        self.images.truncate(at + 1);
        self.store.restore(self.images[at].clone());
        self.shared.lock().late.clear();
    }

    pub(crate) fn flush(&mut self) {
        self.note("the store is flushed".into());
        self.images.clear();
        self.shared.lock().late.clear();
        self.store.clear();
    }

    pub(crate) fn arrive(&mut self) {
        let late = self.shared.lock().late.pop_front();
        if let Some(late) = late {
            let outcome = late.arrive();
            self.note(format!("a late write arrives: {outcome:?}"));
        }
    }

    /// Returns what the unit holds: the checkpoint and the rows as text.
    pub(crate) fn stored(&self) -> (Option<Checkpoint>, BTreeMap<String, String>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (checkpoint, rows) = self.store.unit(&self.unit);
        let rows = rows
            .iter()
            .map(|(key, row)| (text(&key.0), text(&row.row.0)));
        (checkpoint, rows.collect())
    }

    // ------------------------------------------------------------ the workers

    /// Claims the unit for a new worker, whoever has it.
    pub(crate) fn start(&mut self) {
        self.started += 1;
        let name = format!("w{}", self.started);
        let key = self.unit.to_string();
        let claim_offset = self
            .control
            .log()
            .append(ControlTopic::Claims, Some(&key), Some(name.as_bytes()))
            .expect("memory");
        self.note(format!("{name} claims the unit"));
        let life = Life {
            name: name.clone(),
            shared: self.shared.clone(),
            points_left: Arc::new(Mutex::new(None)),
        };
        let clock: Arc<dyn Clock> = Arc::new(SimClock {
            world: self.clock.clone(),
            began: self.clock.monotonic(),
        });
        let ports = Ports {
            reader: Box::new(SimReader {
                life: life.clone(),
                inner: self.log.reader(),
            }),
            observer: Arc::new(SimObserver {
                life: life.clone(),
                inner: self.log.observer(Arc::clone(&clock)),
                told: Mutex::new(Arc::new(Ends::default())),
            }),
            derive: Arc::new(SimDerive),
            sink: Box::new(SimSink {
                life: life.clone(),
                store: self.store.clone(),
                unit: self.unit.clone(),
                inner: self.store.sink(&self.unit),
                times_out: false,
            }),
            dead_letters: Box::new(SimDeadLetters {
                life: life.clone(),
                inner: self.letters.clone(),
            }),
            claims: Box::new(SimClaims {
                life: life.clone(),
                log: self.control.log(),
            }),
            clock,
        };
        let settings = Settings {
            unit: self.unit.clone(),
            token: token(claim_offset, &name),
            worker: WorkerId::new(name.clone()),
            process: ProcessId::new(name),
            address: None,
            definition: Arc::clone(&self.definition),
            pacing: Pacing {
                fold_bytes_max: 4_000,
                replaying_bytes: 1_500,
                ..Pacing::default()
            },
        };
        self.actors.push(Actor {
            worker: Worker::new(settings, ports),
            life,
            claim_offset,
        });
    }

    /// Lets one of the workers crash some port calls later.
    pub(crate) fn doom(&mut self) {
        if self.actors.is_empty() {
            return;
        }
        let at = self.shared.lock().random.index(self.actors.len());
        let points = self.below(40);
        *self.actors[at]
            .life
            .points_left
            .lock()
            .expect("no step runs") = Some(points);
    }

    /// Steps one of the workers; one that crashes, or is fenced, is gone.
    pub(crate) fn step(&mut self) {
        if self.actors.is_empty() {
            return;
        }
        let at = self.shared.lock().random.index(self.actors.len());
        let before = self.stable_ends();
        self.bars.insert(before);
        let directive = self.directive.clone();
        let actor = &mut self.actors[at];
        let name = actor.life.name.clone();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| actor.worker.step(&directive)));
        match outcome {
            Ok(Step::Fenced(by)) => {
                self.note(format!("{name} is fenced by {by}"));
                self.actors.remove(at);
            }
            Ok(Step::Again | Step::Wait(_)) => {}
            Err(unwound) if unwound.is::<Crash>() => {
                self.actors.remove(at);
            }
            Err(unwound) => panic::resume_unwind(unwound),
        }
    }

    /// Publishes how the newest worker is, as a reader of the progress topic takes it.
    pub(crate) fn report(&mut self) {
        let Some(actor) = self.actors.iter().max_by_key(|actor| actor.claim_offset) else {
            return;
        };
        if actor.claim_offset < self.reported_by {
            return;
        }
        if let Some(reported) = actor.worker.progress().checkpoint {
            self.reported_by = actor.claim_offset;
            self.directive.last_reported = Some(reported);
        }
    }

    /// Returns how the owner of the newest claim is, if it is alive.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let newest = self
            .actors
            .iter()
            .find(|actor| actor.claim_offset.0 + 1 == self.started)?;
        Some(newest.worker.progress())
    }

    pub(crate) fn reported(&self) -> Option<&Checkpoint> {
        self.directive
            .last_reported
            .as_ref()
            .map(|StoredCheckpoint(at)| at)
    }

    pub(crate) fn health(&self) -> Option<Health> {
        self.progress().map(|progress| progress.health)
    }
}
