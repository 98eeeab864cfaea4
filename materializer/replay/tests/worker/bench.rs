//! One worker on a log, a store and a clock in memory, which a test moves by hand.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use materializer_model::definition::{OnError, RedisShape, RedisTarget, Target, ViewDefinition};
use materializer_model::memory::{
    ManualClock, MemoryDeadLetters, MemoryLog, MemoryObserver, MemoryReader, MemoryRecord,
    MemoryStore, TopicSettings, raw_view,
};
use materializer_model::ports::{
    Assignment, Claims, ControlError, DeadLetter, DeadLetters, Derive, Facts, LogError,
    LogObserver, LogReader, TopicFacts,
};
use materializer_model::progress::{Claim, Directive, Feed, Health, StoredCheckpoint};
use materializer_model::{
    CatalogId, Change, ClaimId, Clock, Ends, Key, Mutation, Offset, Origin, Partition, Poison,
    PoisonKind, ProcessId, Record, Row, RowBatch, Skip, Skips, Timestamp, Token, Topic, Unit,
    WorkerId,
};
use materializer_replay::verify::{Extent, Report, Request, Subject, verify};
use materializer_replay::{Pacing, Ports, Settings, Step, Worker};

/// The row is the value; `-` is nothing to the view, `!…` is poison.
struct Plain;

fn mutation(record: &Record<'_>, change: Change) -> Option<Mutation> {
    Some(Mutation {
        key: Key::new(record.key?),
        change,
        origin: record.origin(),
    })
}

impl Derive for Plain {
    fn apply(&self, record: &Record<'_>, out: &mut Vec<Mutation>) -> Result<(), Poison> {
        let change = match record.value {
            None => Change::Delete,
            Some(b"-") => return Ok(()),
            Some([b'!', ..]) => return Err(Poison::new(PoisonKind::Decode, "", "begins with `!`")),
            Some(value) => Change::Upsert {
                row: Row::new(value),
                expires_at: None,
            },
        };
        out.extend(mutation(record, change));
        Ok(())
    }

    fn exclude(&self, record: &Record<'_>) -> Option<Mutation> {
        mutation(record, Change::Delete)
    }
}

/// The claim that is the newest one for ever.
struct Held(Token);

impl Claims for Held {
    fn newest(&mut self, _: &Unit) -> Result<Option<(Token, Claim)>, ControlError> {
        let claim = Claim {
            claim: self.0.claim.clone(),
            worker: WorkerId::new("w"),
            address: None,
        };
        Ok(Some((self.0.clone(), claim)))
    }
}

/// A reader to which the broker delivers nothing.
struct Deaf;

impl LogReader for Deaf {
    fn assign(&mut self, _: &[Assignment]) -> Result<(), LogError> {
        Ok(())
    }

    fn poll(&mut self, _: Duration, _: &mut RowBatch) -> Result<(), LogError> {
        Ok(())
    }
}

/// Where it is told so, fails and goes on behind what it could not read, as librdkafka does with a batch
/// whose checksum is wrong.
struct Skipping {
    reader: MemoryReader,
    skip: Arc<AtomicBool>,
}

impl LogReader for Skipping {
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
        self.reader.assign(from)
    }

    fn poll(&mut self, wait: Duration, out: &mut RowBatch) -> Result<(), LogError> {
        if !self.skip.swap(false, Ordering::Relaxed) {
            return self.reader.poll(wait, out);
        }
        self.reader.poll(wait, &mut RowBatch::default())?;
        Err(LogError::Unavailable("a batch cannot be read".into()))
    }
}

/// Tells of topics what it was asked for once, until it is asked anew.
struct Late {
    told: Arc<Facts>,
    observer: MemoryObserver,
}

impl LogObserver for Late {
    fn ends(&self) -> Arc<Ends> {
        self.observer.ends()
    }

    fn fresh_ends(&self, topics: &[Topic]) -> Result<Arc<Ends>, LogError> {
        self.observer.fresh_ends(topics)
    }

    fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.told)
    }

    fn fresh_facts(&self, topics: &[Topic]) -> Result<Vec<TopicFacts>, LogError> {
        self.observer.fresh_facts(topics)
    }
}

/// The most letters that wait for their acknowledgement.
pub(crate) const LETTERS_MAX: usize = 2;

/// Acknowledges letters when they are waited for, and not before; refuses those that it is to lose.
struct Acknowledging {
    sent: Vec<DeadLetter>,
    acknowledged: MemoryDeadLetters,
    lose: Arc<AtomicBool>,
}

impl DeadLetters for Acknowledging {
    fn send(&mut self, letter: DeadLetter) -> Result<(), LogError> {
        if self.sent.len() == LETTERS_MAX {
            return Err(LogError::Unavailable("too many letters wait".into()));
        }
        self.sent.push(letter);
        Ok(())
    }

    fn flushed(&mut self, _: Duration) -> Result<bool, LogError> {
        let sent = mem::take(&mut self.sent);
        if !sent.is_empty() && self.lose.swap(false, Ordering::Relaxed) {
            return Err(LogError::Unavailable("a letter was not stored".into()));
        }
        for letter in sent {
            self.acknowledged.send(letter)?;
        }
        Ok(true)
    }
}

pub(crate) struct Bench {
    pub(crate) log: MemoryLog,
    pub(crate) topic: Topic,
    pub(crate) store: MemoryStore,
    /// The letters that were acknowledged.
    pub(crate) letters: MemoryDeadLetters,
    /// Whether the letters that are waited for next are lost.
    pub(crate) lose_letters: Arc<AtomicBool>,
    /// Whether the rows that come next cannot be read at the first try.
    pub(crate) skip_rows: Arc<AtomicBool>,
    pub(crate) clock: ManualClock,
    pub(crate) definition: ViewDefinition,
    pub(crate) directive: Directive,
    pub(crate) unit: Unit,
    /// How many keys the sink writes at once.
    pub(crate) part_keys: usize,
    /// Whether the sink has still something to prove.
    pub(crate) unproven: Arc<AtomicBool>,
    /// The newest claim of the unit, where that is not the next worker's.
    pub(crate) claimed: Option<Token>,
    /// Whether the broker delivers nothing to the next worker.
    pub(crate) hears_nothing: bool,
    /// What the observer tells the next worker of topics before it is asked anew; `None` is how they are.
    pub(crate) told: Option<Arc<Facts>>,
}

impl Bench {
    /// Makes a topic and a view of it; nothing is written or read yet.
    pub(crate) fn new(settings: TopicSettings) -> Self {
        let log = MemoryLog::default();
        let topic = Topic::new("t");
        log.create(&topic, settings);
        let unit: Unit = "v/v1/c0/s0".parse().expect("a unit");
        let definition = raw_view(unit.version.view.clone(), topic.clone(), Target::Memory {});
        let gates = definition.gates.clone();
        Self {
            log,
            store: MemoryStore::default(),
            letters: MemoryDeadLetters::default(),
            lose_letters: Arc::default(),
            skip_rows: Arc::default(),
            clock: ManualClock::new(Timestamp(1_700_000_000_000)),
            definition,
            directive: Directive {
                feed: Feed::Feed,
                skips: Skips::default(),
                on_error: OnError::Fail,
                gates,
                last_reported: None,
                has_data: false,
                growths: Vec::new(),
            },
            topic,
            unit,
            part_keys: usize::MAX,
            unproven: Arc::default(),
            claimed: None,
            hears_nothing: false,
            told: None,
        }
    }

    /// Splits the view's partitions over that many units.
    pub(crate) fn shard(&mut self, shards: u16) {
        self.definition.to = Target::Redis(RedisTarget {
            connection: "cache".into(),
            key: "{key}".into(),
            shape: RedisShape::Bytes,
            ttl: None,
            shards,
        });
    }

    pub(crate) fn produce(&self, partition: i32, key: &str, value: Option<&str>) -> Offset {
        let record = MemoryRecord::text(key, value).at(self.clock.now());
        self.log.produce(&self.topic, Partition(partition), record)
    }

    /// Starts a worker; each has the next claim.
    pub(crate) fn worker(&self, claim: u64) -> Worker {
        self.worker_on(Arc::new(self.clock.clone()), claim)
    }

    /// Starts a worker that reads the time from a clock of its own.
    pub(crate) fn worker_on(&self, clock: Arc<dyn Clock>, claim: u64) -> Worker {
        let token = Token {
            catalog: CatalogId::new("catalog"),
            claim_offset: claim,
            claim: ClaimId::new(claim.to_string()),
        };
        let ports = Ports {
            reader: if self.hears_nothing {
                Box::new(Deaf)
            } else {
                Box::new(Skipping {
                    reader: self.log.reader(),
                    skip: Arc::clone(&self.skip_rows),
                })
            },
            observer: self.observer(&clock),
            derive: Arc::new(Plain),
            sink: Box::new(
                self.store
                    .sink(&self.unit)
                    .in_parts(self.part_keys)
                    .unproven(&self.unproven),
            ),
            dead_letters: Box::new(Acknowledging {
                sent: Vec::new(),
                acknowledged: self.letters.clone(),
                lose: Arc::clone(&self.lose_letters),
            }),
            claims: Box::new(Held(self.claimed.as_ref().unwrap_or(&token).clone())),
            clock,
        };
        let settings = Settings {
            unit: self.unit.clone(),
            token,
            worker: WorkerId::new("w"),
            process: ProcessId::new("p"),
            address: None,
            definition: Arc::new(self.definition.clone()),
            pacing: Pacing::default(),
        };
        Worker::new(settings, ports)
    }

    fn observer(&self, clock: &Arc<dyn Clock>) -> Arc<dyn LogObserver> {
        let observer = self.log.observer(Arc::clone(clock));
        match self.told.clone() {
            Some(told) => Arc::new(Late { told, observer }),
            None => Arc::new(observer),
        }
    }

    /// Steps a worker for some seconds, and keeps what it reports as others would.
    pub(crate) fn run(&mut self, worker: &mut Worker, seconds: u64) {
        for _ in 0..seconds * 20 {
            self.clock.advance(Duration::from_millis(50));
            let step = worker.step(&self.directive);
            assert!(!matches!(step, Step::Fenced(_)), "nobody else claims");
        }
        let reported = worker.progress().checkpoint;
        self.directive.last_reported = reported.or(self.directive.last_reported.take());
    }

    /// Returns the rows as text, and the sum of the positions.
    pub(crate) fn stored(&self) -> (Vec<(String, String)>, u64) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (checkpoint, rows) = self.store.unit(&self.unit);
        let rows = rows
            .iter()
            .map(|(key, stored)| (text(&key.0), text(&stored.row.0)));
        let next = checkpoint.iter().flat_map(|checkpoint| {
            checkpoint
                .positions()
                .map(|(_, _, position)| position.next.0)
        });
        (rows.collect(), next.sum())
    }

    /// Has a record passed over that stands in the topic as it is now.
    pub(crate) fn skip(&mut self, at: Origin) {
        let facts = self.log.facts_of(&at.topic).expect("it is there");
        let id = Some(facts.id);
        self.directive.skips.add(Skip { at, id });
    }

    /// Compares all that is stored with the log.
    pub(crate) fn verify(&self) -> Report {
        let mut subject = Subject {
            reader: &mut self.log.reader(),
            derive: &Plain,
            check: &|_| Ok(()),
            sink: &mut self.store.reader(&self.unit),
            clock: &self.clock,
        };
        let request = Request {
            extent: Extent::Full,
            bytes_max: usize::MAX,
            examples_max: 5,
            skips: self.directive.skips.clone(),
            compacted: BTreeSet::new(),
            growths: self.directive.growths.clone(),
        };
        verify(&mut subject, &request).expect("the log is there")
    }

    /// Returns the last checkpoint that was reported.
    pub(crate) fn reported(&self) -> Option<&StoredCheckpoint> {
        self.directive.last_reported.as_ref()
    }
}

/// Returns why a unit failed.
#[track_caller]
pub(crate) fn failed(worker: &Worker) -> String {
    match worker.progress().health {
        Health::Failed { why, .. } => why,
        health @ (Health::Ok
        | Health::Waiting { .. }
        | Health::Lagging
        | Health::Stalled { .. }
        | Health::Rewound { .. }
        | Health::Damaged { .. }) => panic!("not failed but {health:?}"),
    }
}

/// Returns rows as they are compared.
pub(crate) fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = rows.iter();
    owned
        .map(|(key, row)| ((*key).to_owned(), (*row).to_owned()))
        .collect()
}
