//! The servers of one seed, and a worker as a process makes it that reaches them.

use std::sync::{Arc, Mutex};

use materializer_model::definition::{
    Expression, Format, Gates, OnError, Order, Promotion, Source, Target, ViewDefinition,
};
use materializer_model::memory::{
    ManualClock, MemoryControl, MemoryDeadLetters, MemoryLog, MemoryStore,
};
use materializer_model::ports::ControlLog;
use materializer_model::{Clock, ProcessId, Timestamp, Token, Topic, Unit, ViewName, WorkerId};
use materializer_replay::{Pacing, Ports, Settings, Worker};
use std::time::Duration;

use crate::chaos::Life;
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
        }
    }

    /// Returns the clock of a process that begins now; `pace` is in percent of the world's.
    pub(crate) fn clock(&self, pace: u32) -> Arc<dyn Clock> {
        Arc::new(SimClock {
            world: self.clock.clone(),
            began: self.clock.monotonic(),
            pace,
        })
    }

    /// Makes a worker of a claimed unit. Its rows begin with `edition`.
    pub(crate) fn worker(
        &self,
        life: &Life,
        unit: &Unit,
        token: Token,
        definition: Arc<ViewDefinition>,
        edition: &str,
        clock: Arc<dyn Clock>,
    ) -> Worker {
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
                edition: edition.to_owned(),
            }),
            sink: Box::new(SimSink {
                life: life.clone(),
                store: self.store.clone(),
                unit: unit.clone(),
                inner: self.store.sink(unit),
                times_out: false,
                unfenced: None,
            }),
            dead_letters: Box::new(SimDeadLetters {
                life: life.clone(),
                inner: self.letters.clone(),
            }),
            claims: Box::new(SimClaims {
                life: life.clone(),
                log: self.control.log(),
                catalog: token.catalog.clone(),
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
                ..Pacing::default()
            },
        };
        Worker::new(settings, ports)
    }
}

/// A view whose rows are its records' values.
pub(crate) fn definition(view: ViewName, topic: &Topic, on_error: OnError) -> ViewDefinition {
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
        gates: Gates {
            lag_seconds: 10.0,
            lag_records: 5,
            stable_for: Duration::ZERO,
            documents_ratio: None,
            queries: Vec::new(),
            keys: Vec::new(),
        },
        soak: Duration::ZERO,
        on_error,
        promotion: Promotion::Manual,
    }
}
