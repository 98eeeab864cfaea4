//! Feeds a version in one of many ways, all of which must give the same contents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::memory::{ManualClock, MemoryDeadLetters, MemoryReader, MemoryStore};
use materializer_model::ports::{
    Assignment, Claims, ControlError, Derive, LogError, LogReader, Sink, SinkReader,
};
use materializer_model::progress::{Claim, Directive, Feed, Health};
use materializer_model::{
    CatalogId, ClaimId, Counts, LogRow, ProcessId, RowBatch, Timestamp, Token, Unit, WorkerId,
};
use materializer_replay::{Pacing, Ports, Settings, Worker};
use materializer_view::{compile, fingerprint};

use super::case::{Case, Story, Version};
use super::contents::Contents;

/// How much time passes with each step.
const STEP: Duration = Duration::from_millis(250);
/// Far more steps than any case needs, also while a real sink is waited for.
const STEPS_MAX: usize = 10_000_000;
/// How many steps a growing log gives its readers between two operations.
const STEPS_BETWEEN: usize = 2;

/// When a unit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As it does by default.
    Default,
    /// Each record by itself.
    EachRecord,
    /// Whenever a fold of hardly any memory is full.
    Cramped,
}

impl Pace {
    fn pacing(self) -> Pacing {
        let usual = Pacing::default();
        match self {
            Self::Default => usual,
            Self::EachRecord => Pacing {
                replaying_bytes: 1,
                tailing_keys: 1,
                empty_age: Duration::ZERO,
                ..usual
            },
            Self::Cramped => Pacing {
                fold_bytes_max: 300,
                replaying_age: Duration::from_secs(60),
                tailing_age: Duration::from_secs(60),
                ..usual
            },
        }
    }
}

/// One way to read a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// The most rows of one poll.
    pub(crate) sip: usize,
    pub(crate) pace: Pace,
    /// Whether the version is fed while the log is written, and not afterwards.
    pub(crate) grows: bool,
    /// After how many steps all units are stopped dead, once, and claimed by others.
    pub(crate) crash_after: Option<usize>,
}

/// Where rows are written.
pub(crate) trait Place {
    fn sink(&self, version: &Version, unit: &Unit) -> Box<dyn Sink>;
    fn reader(&self, version: &Version, unit: &Unit) -> Box<dyn SinkReader>;
}

impl Place for MemoryStore {
    fn sink(&self, _: &Version, unit: &Unit) -> Box<dyn Sink> {
        Box::new(self.sink(unit))
    }

    fn reader(&self, _: &Version, unit: &Unit) -> Box<dyn SinkReader> {
        Box::new(self.reader(unit))
    }
}

/// The contents after a feeding, and how many steps it took.
pub(crate) struct Fed {
    pub(crate) contents: Contents,
    pub(crate) steps: usize,
}

/// Feeds one unit of each shard until the log's end, or until something stops them.
pub(crate) fn feed(case: &Case, version: &Version, place: &dyn Place, way: Way) -> Fed {
    let mut story = Story::begin(&case.operations);
    let mut bench = Bench::new(&story, version, place, way);
    if !way.grows {
        while story.go_on() {}
    }
    bench.claim_all();
    loop {
        if story.is_about_to_drop_tombstones() {
            bench.catch_up();
        }
        if !story.go_on() {
            break;
        }
        for _ in 0..STEPS_BETWEEN {
            bench.step();
        }
    }
    bench.catch_up();
    let directive = bench.directive();
    for worker in &mut bench.workers {
        worker.close(&directive, Duration::MAX);
    }
    Fed {
        contents: bench.contents(),
        steps: bench.steps,
    }
}

/// The units of a version under way.
struct Bench<'a> {
    story: materializer_model::memory::MemoryLog,
    version: &'a Version,
    place: &'a dyn Place,
    way: Way,
    derive: Arc<dyn Derive>,
    letters: MemoryDeadLetters,
    clock: ManualClock,
    claims: u64,
    workers: Vec<Worker>,
    steps: usize,
}

impl<'a> Bench<'a> {
    fn new(story: &Story<'_>, version: &'a Version, place: &'a dyn Place, way: Way) -> Self {
        let view = compile(&version.definition).expect("a definition that was parsed compiles");
        Self {
            story: story.log.clone(),
            version,
            place,
            way,
            derive: Arc::new(view),
            letters: MemoryDeadLetters::default(),
            clock: ManualClock::new(Timestamp(1_900_000_000_000)),
            claims: 0,
            workers: Vec::new(),
            steps: 0,
        }
    }

    fn units(&self) -> impl Iterator<Item = Unit> + use<> {
        let version = self.version.id.clone();
        (0..self.version.definition.to.shards()).map(move |shard| Unit {
            version: version.clone(),
            copy: 0,
            shard,
        })
    }

    /// Claims every unit anew. Those who held them are gone, whatever they had under way.
    fn claim_all(&mut self) {
        self.workers.clear();
        self.workers = self.units().map(|unit| self.claim(unit)).collect();
    }

    fn claim(&mut self, unit: Unit) -> Worker {
        self.claims += 1;
        let token = Token {
            catalog: CatalogId::new("catalog"),
            claim_offset: self.claims,
            claim: ClaimId::new(format!("claim-{}", self.claims)),
        };
        let clock = Arc::new(self.clock.clone());
        let ports = Ports {
            reader: Box::new(Sips {
                reader: self.story.reader(),
                held: RowBatch::default(),
                given: 0,
                size: self.way.sip,
            }),
            observer: Arc::new(self.story.observer(clock.clone())),
            derive: Arc::clone(&self.derive),
            sink: self.place.sink(self.version, &unit),
            dead_letters: Box::new(self.letters.clone()),
            claims: Box::new(Newest(token.clone())),
            clock,
        };
        let settings = Settings {
            unit,
            token,
            worker: WorkerId::new("worker"),
            process: ProcessId::new("process"),
            address: None,
            definition: Arc::clone(&self.version.definition),
            pacing: self.way.pace.pacing(),
        };
        Worker::new(settings, ports)
    }

    fn directive(&self) -> Directive {
        let definition = &self.version.definition;
        Directive {
            feed: Feed::Feed,
            skips: self.version.skips.clone(),
            on_error: definition.on_error.clone(),
            gates: definition.gates.clone(),
            last_reported: None,
            has_data: false,
            growths: Vec::new(),
        }
    }

    /// Lets every unit do its next bit of work.
    fn step(&mut self) {
        let directive = self.directive();
        for worker in &mut self.workers {
            worker.step(&directive);
        }
        self.clock.advance(STEP);
        self.steps += 1;
        if self.way.crash_after == Some(self.steps) {
            self.claim_all();
        }
    }

    /// Steps until every unit has committed all that there is, or was stopped.
    fn catch_up(&mut self) {
        while !self.is_done() {
            self.step();
            assert!(
                self.steps < STEPS_MAX,
                "{}: {:?} does not end",
                self.version.id,
                self.way
            );
        }
    }

    /// Says whether every unit has committed all that there is, or was stopped.
    fn is_done(&self) -> bool {
        self.workers.iter().all(|worker| {
            let progress = worker.progress();
            let is_at_end = progress.lag.is_some_and(|lag| lag.records == 0);
            is_at_end && progress.checkpoint.is_some() || is_stopped(&progress.health)
        })
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents {
            version: self.version.id.clone(),
            fingerprint: fingerprint(&self.version.definition),
            stopped: None,
            next: BTreeMap::new(),
            counts: Counts::default(),
            rows: BTreeMap::new(),
            letters: self.letters.letters(),
        };
        for (unit, worker) in self.units().zip(&self.workers) {
            let mut reader = self.place.reader(self.version, &unit);
            let mut take = |key, stored| {
                contents.rows.insert(key, stored);
                true
            };
            let scanned = reader.scan(&mut take).expect("a sink that can be read");
            let checkpoint = scanned.after.expect("a unit that was fed has a checkpoint");
            for (topic, partition, at) in checkpoint.positions() {
                contents.next.insert((topic.clone(), partition), at.next);
            }
            contents.counts.skipped += checkpoint.counts.skipped;
            contents.counts.failed += checkpoint.counts.failed;
            contents.counts.dead += checkpoint.counts.dead;
            let health = worker.progress().health;
            if is_stopped(&health) {
                contents.stopped = Some(health);
            }
        }
        contents.letters.sort_by(|a, b| a.origin.cmp(&b.origin));
        contents.letters.dedup();
        contents
    }
}

fn is_stopped(health: &Health) -> bool {
    match health {
        Health::Failed { .. } | Health::Damaged { .. } => true,
        Health::Ok
        | Health::Waiting { .. }
        | Health::Lagging
        | Health::Stalled { .. }
        | Health::Rewound { .. } => false,
    }
}

/// Reads a log in polls of a few rows.
struct Sips {
    reader: MemoryReader,
    held: RowBatch,
    given: usize,
    size: usize,
}

impl LogReader for Sips {
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
        self.held.clear();
        self.given = 0;
        self.reader.assign(from)
    }

    fn poll(&mut self, wait: Duration, out: &mut RowBatch) -> Result<(), LogError> {
        if self.given >= self.held.len() {
            self.held.clear();
            self.given = 0;
            self.reader.poll(wait, &mut self.held)?;
        }
        for row in self.held.rows().skip(self.given).take(self.size) {
            match row {
                LogRow::Record(record) => out.push_record(&record, record.headers.iter()),
                LogRow::End {
                    topic,
                    partition,
                    end,
                } => out.push_end(topic, partition, end),
            }
        }
        self.given += self.size;
        Ok(())
    }
}

/// The claims of a unit whose newest is known.
pub(crate) struct Newest(pub(crate) Token);

impl Claims for Newest {
    fn newest(&mut self, _: &Unit) -> Result<Option<(Token, Claim)>, ControlError> {
        let claim = Claim {
            claim: self.0.claim.clone(),
            worker: WorkerId::new("worker"),
            address: None,
        };
        Ok(Some((self.0.clone(), claim)))
    }
}
