//! Units as they are fed in a real process: a worker of `replay` on a Kafka lane and a real sink.

mod disk;
mod lane;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use materializer_kafka::{DisplayOffsets, KafkaDeadLetters, KafkaSettings, Lane, Observer};
use materializer_migrations::Version;
use materializer_model::definition::Target;
use materializer_model::ports::{LogError, LogReader, Sink};
use materializer_model::progress::{Directive, Progress};
use materializer_model::{CatalogId, Clock, Monotonic, SinkId, Token, Unit};
use materializer_replay::{Pacing, Ports, Settings, Step, Worker};
use materializer_sinks::redis::RedisSink;
use materializer_sinks::tantivy::TantivySink;
use materializer_view::compile;
use tracing::{debug, warn};

use crate::config::Config;
use crate::connect;
use crate::control::{Control, SharedClaims, State};
use crate::gateway::LocalCopies;
use crate::metrics::{Metrics, UnitWork};
use crate::pool::{self, Feeder, Feeders, Next};
use disk::Served;
use lane::PacedLane;

pub(crate) use disk::settings as index_settings;

/// How long a unit that ends may take to commit what it has.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// How often group offsets are committed, for display.
const DISPLAY_EVERY: Duration = Duration::from_secs(5);

/// Makes the units of a real process.
pub(crate) struct LiveFeeders {
    pub(crate) config: Arc<Config>,
    pub(crate) settings: pool::Settings,
    pub(crate) catalog: CatalogId,
    pub(crate) control: Arc<Control>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) copies: Arc<LocalCopies>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Feeders for LiveFeeders {
    fn open(
        &self,
        unit: &Unit,
        version: &Version,
        token: Token,
    ) -> anyhow::Result<Box<dyn Feeder>> {
        let kafka = connect::kafka(&self.config)?;
        let id = &unit.version;
        let group = format!("{}.{}.{}", self.config.installation, id.view, id.number);
        let view = compile(&version.definition).with_context(|| format!("compile `{id}`"))?;
        let settings = Settings {
            unit: unit.clone(),
            token,
            worker: self.settings.worker.clone(),
            process: self.settings.process.clone(),
            address: Some(self.settings.address.clone()),
            definition: Arc::clone(&version.definition),
            pacing: Pacing {
                fold_bytes_max: self.config.worker.fold_memory,
                growth_settles: self.config.worker.growth_settles,
                ..Pacing::default()
            },
        };
        let (sink, served) = self.sink(unit, version)?;
        let ports = Ports {
            reader: Box::new(PacedLane::open(lanes(&kafka, &group))?),
            observer: self.observer.clone(),
            derive: Arc::new(view),
            sink,
            dead_letters: Box::new(KafkaDeadLetters::new(&kafka)),
            claims: Box::new(SharedClaims(Arc::clone(&self.control))),
            clock: Arc::clone(&self.clock),
        };
        Ok(Box::new(LiveFeeder {
            _served: served,
            worker: Worker::new(settings, ports),
            work: self.metrics.work.begin(unit),
            display: Display::open(unit, &kafka, &group, Arc::clone(&self.clock))?,
        }))
    }

    fn delete(&self, unit: &Unit, version: &Version) -> anyhow::Result<bool> {
        match &version.definition.to {
            Target::Tantivy(_) => Ok(disk::delete(
                &self.config,
                unit,
                version,
                Arc::clone(&self.clock),
            )?),
            // The coordinator deletes what it can reach.
            Target::Redis(_) | Target::Memory {} => Ok(true),
        }
    }
}

impl LiveFeeders {
    /// Deletes what earlier runs left on this disk and nobody needs. Called before anything is opened.
    pub(crate) fn sweep(&self, state: &State) {
        let (catalog, reports) = (state.follower.catalog(), state.follower.reports());
        let me = &self.settings.worker;
        let swept = disk::sweep(&self.config, catalog, reports, me, Arc::clone(&self.clock));
        if let Err(error) = swept {
            warn!(%error, "leftovers stay until the next start");
        }
    }

    fn sink(
        &self,
        unit: &Unit,
        version: &Version,
    ) -> anyhow::Result<(Box<dyn Sink>, Option<Served>)> {
        match &version.definition.to {
            Target::Redis(target) => {
                let place = connect::redis_place(&self.config, &target.connection, &self.catalog)?;
                let mark = SinkId::new(uuid::Uuid::new_v4().to_string());
                let sink = RedisSink::new(place, target.clone(), unit.clone(), mark)?;
                Ok((Box::new(sink.claimed_from(version.claims_from)), None))
            }
            Target::Tantivy(_) => {
                let settings = index_settings(&self.config);
                let (definition, fingerprint) = (&version.definition, &version.fingerprint);
                let sink = TantivySink::new(settings, unit, definition, fingerprint)?;
                let clock = Arc::clone(&self.clock);
                let served = Served::begin(unit, sink.copy(), &self.copies, clock);
                Ok((Box::new(sink), Some(served)))
            }
            Target::Memory {} => anyhow::bail!("`memory` is a sink of tests alone"),
        }
    }
}

/// Opens the Kafka clients of a unit.
fn lanes(kafka: &KafkaSettings, group: &str) -> lane::Open {
    let (kafka, group) = (kafka.clone(), group.to_owned());
    Box::new(move |profile| -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(Lane::open(&kafka, &group, profile)?))
    })
}

/// One unit.
struct LiveFeeder {
    /// First, so that readers are sent away before the worker lets the index go.
    _served: Option<Served>,
    worker: Worker,
    work: UnitWork,
    display: Option<Display>,
}

impl Feeder for LiveFeeder {
    fn step(&mut self, directive: &Directive) -> Next {
        let next = match self.worker.step(directive) {
            Step::Again => Next::Again,
            Step::Wait(limit) => Next::Wait(limit),
            Step::Fenced(_) => Next::Fenced,
        };
        self.work.show(self.worker.work());
        if let Some(display) = &mut self.display {
            display.step(&self.worker);
        }
        next
    }

    fn report(&self) -> Progress {
        self.worker.progress()
    }

    fn close(&mut self, directive: &Directive) {
        self.worker.close(directive, CLOSE_WITHIN);
    }
}

/// Commits a unit's position as a group's offsets, so that every lag tool sees the version. Nobody
/// reads them back.
struct Display {
    offsets: DisplayOffsets,
    clock: Arc<dyn Clock>,
    shown: Monotonic,
}

impl Display {
    /// Opens the display of a unit; `None` for a further copy, which reads the same partitions.
    fn open(
        unit: &Unit,
        kafka: &KafkaSettings,
        group: &str,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Option<Self>> {
        if unit.copy > 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            offsets: DisplayOffsets::open(kafka, group)?,
            shown: clock.monotonic(),
            clock,
        }))
    }

    fn step(&mut self, worker: &Worker) {
        let now = self.clock.monotonic();
        if now.since(self.shown) < DISPLAY_EVERY {
            return;
        }
        self.shown = now;
        let Some(stored) = worker.progress().checkpoint else {
            return;
        };
        let positions = stored.0.positions();
        let positions = positions.map(|(topic, partition, at)| (topic, partition, at.next));
        if let Err(error) = self.offsets.commit(positions) {
            debug!(%error, "group offsets were not committed");
        }
    }
}
