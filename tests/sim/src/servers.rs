//! The servers of one seed, and a worker as a process makes it that reaches them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use materializer_model::definition::{OnError, RedisShape, RedisTarget, Target, ViewDefinition};
use materializer_model::memory::{
    ManualClock, MemoryControl, MemoryDeadLetters, MemoryLog, MemoryStore, raw_view,
};
use materializer_model::ports::ControlLog;
use materializer_model::{
    Checkpoint, Clock, ProcessId, Timestamp, Token, Topic, Unit, ViewName, WorkerId,
};
use materializer_replay::{Pacing, Ports, Settings, Worker};

use crate::chaos::{Life, Shared};
use crate::ports::{
    SimClaims, SimClock, SimDeadLetters, SimDerive, SimObserver, SimReader, SimSink,
};

/// What every process reaches over the network, and the world's time.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) log: MemoryLog,
    pub(crate) store: MemoryStore,
    pub(crate) letters: MemoryDeadLetters,
    pub(crate) control: MemoryControl,
    pub(crate) clock: ManualClock,
    /// How many keys one transaction of the sink writes.
    pub(crate) part_keys: usize,
}

/// What a unit stores, as text.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) rows: BTreeMap<String, String>,
    /// Up to where rows may be ahead of the checkpoint: a commit of several parts is not whole.
    pub(crate) unfinished: Option<Checkpoint>,
}

impl Servers {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1_700_000_000_000));
        let control = MemoryControl::new("main", clock.clone());
        control.log().create().expect("memory");
        Self {
            log: MemoryLog::default(),
            store: MemoryStore::default(),
            letters: MemoryDeadLetters::default(),
            control,
            clock,
            part_keys: usize::MAX,
        }
    }

    /// Returns the clock of a process that begins now. No two go alike.
    pub(crate) fn clock(&self, shared: &Shared) -> Arc<dyn Clock> {
        Arc::new(SimClock {
            world: self.clock.clone(),
            began: self.clock.monotonic(),
            pace: 90 + 10 * u32::try_from(shared.below(6)).expect("small"),
            behind: Duration::from_millis(shared.below(3_000)),
        })
    }

    /// Returns what a unit stores.
    pub(crate) fn stored(&self, unit: &Unit) -> Stored {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (checkpoint, rows) = self.store.unit(unit);
        let rows = rows.iter();
        Stored {
            checkpoint,
            rows: rows
                .map(|(key, row)| (text(&key.0), text(&row.row.0)))
                .collect(),
            unfinished: self.store.unfinished(unit),
        }
    }

    /// Makes a worker of a claimed unit, whose rows begin with the edition, if it has one. Tokens are so much
    /// above the offsets of claims.
    pub(crate) fn worker(
        &self,
        life: &Life,
        unit: &Unit,
        token: Token,
        claims_from: u64,
        definition: Arc<ViewDefinition>,
        clock: Arc<dyn Clock>,
    ) -> Worker {
        let edition = definition.document.first();
        let ports = Ports {
            reader: Box::new(SimReader {
                life: life.clone(),
                inner: self.log.reader(),
            }),
            observer: Arc::new(SimObserver {
                life: life.clone(),
                inner: self.log.observer(Arc::clone(&clock)),
                told: Mutex::default(),
            }),
            derive: Arc::new(SimDerive {
                edition: edition.map_or_else(String::new, |field| field.value.0.clone()),
            }),
            sink: Box::new(SimSink {
                life: life.clone(),
                store: self.store.clone(),
                unit: unit.clone(),
                inner: self.store.sink(unit),
                part_keys: self.part_keys,
                times_out: false,
                unfenced: None,
            }),
            dead_letters: Box::new(SimDeadLetters {
                life: life.clone(),
                inner: self.letters.clone(),
                queue: Vec::new(),
            }),
            claims: Box::new(SimClaims {
                life: life.clone(),
                log: self.control.log(),
                catalog: token.catalog.clone(),
                claims_from,
            }),
            clock,
        };
        let settings = Settings {
            unit: unit.clone(),
            token,
            worker: WorkerId::new(life.name.clone()),
            process: ProcessId::new(life.name.clone()),
            address: None,
            definition,
            pacing: Pacing {
                fold_bytes_max: 4_000,
                replaying_bytes: 1_500,
                growth_settles: GROWTH_SETTLES,
                ..Pacing::default()
            },
        };
        Worker::new(settings, ports)
    }
}

/// How long producers are given to learn of new partitions.
pub(crate) const GROWTH_SETTLES: Duration = Duration::from_secs(8);

/// A view whose rows are its records' values, fed by so many units.
pub(crate) fn definition(
    view: ViewName,
    topic: &Topic,
    shards: u16,
    on_error: OnError,
) -> ViewDefinition {
    let to = Target::Redis(RedisTarget {
        connection: "main".into(),
        key: "{key}".into(),
        shape: RedisShape::Bytes,
        ttl: None,
        shards,
    });
    ViewDefinition {
        on_error,
        ..raw_view(view, topic.clone(), to)
    }
}
