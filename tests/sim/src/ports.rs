//! The ports as a worker in the simulation sees them: the doubles of `model`, which are exact, with
//! faults around them and a place to crash before and after every call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use materializer_model::memory::{
    ManualClock, MemoryControlLog, MemoryDeadLetters, MemoryObserver, MemoryReader, MemorySink,
    MemoryStore,
};
use materializer_model::ports::{
    Assignment, Claims, ControlError, ControlLog, ControlRecord, ControlTopic, DeadLetter,
    DeadLetters, Derive, Expect, Facts, LogError, LogObserver, LogReader, Sink, SinkError,
    TopicFacts, Usage,
};
use materializer_model::progress::Claim;
use materializer_model::{
    Batch, CatalogId, Change, Checkpoint, Clock, Commit, Ends, Key, Monotonic, Mutation, Offset,
    Poison, PoisonKind, Record, Row, RowBatch, Timestamp, Token, Topic, Unit,
};

use crate::chaos::{Flaw, Life};

pub(crate) struct SimReader {
    pub(crate) life: Life,
    pub(crate) inner: MemoryReader,
}

impl LogReader for SimReader {
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
        self.life.around("assign", || self.inner.assign(from))
    }

    fn poll(&mut self, wait: Duration, out: &mut RowBatch) -> Result<(), LogError> {
        if self.life.shared.fails() {
            return Err(LogError::Unavailable("the broker is away".into()));
        }
        self.life.around("poll", || self.inner.poll(wait, out))
    }
}

pub(crate) struct SimObserver {
    pub(crate) life: Life,
    pub(crate) inner: MemoryObserver,
    /// What was told last: a broker that is away leaves it as it was.
    pub(crate) told: Mutex<(Arc<Ends>, Arc<Facts>)>,
}

impl LogObserver for SimObserver {
    fn ends(&self) -> Arc<Ends> {
        let mut told = self.told.lock().expect("held for a moment");
        if !self.life.shared.fails() {
            told.0 = self.inner.ends();
        }
        Arc::clone(&told.0)
    }

    fn fresh_ends(&self, topics: &[Topic]) -> Result<Arc<Ends>, LogError> {
        if self.life.shared.fails() {
            return Err(LogError::Unavailable("the leader is away".into()));
        }
        self.life
            .around("fresh_ends", || self.inner.fresh_ends(topics))
    }

    fn facts(&self) -> Arc<Facts> {
        let mut told = self.told.lock().expect("held for a moment");
        if !self.life.shared.fails() {
            told.1 = self.inner.facts();
        }
        Arc::clone(&told.1)
    }

    fn fresh_facts(&self, topics: &[Topic]) -> Result<Vec<TopicFacts>, LogError> {
        if self.life.shared.fails() {
            return Err(LogError::Unavailable("the broker is away".into()));
        }
        self.life
            .around("fresh_facts", || self.inner.fresh_facts(topics))
    }
}

/// A sink that rejects, is slow, answers with a timeout although it has applied, or applies late.
pub(crate) struct SimSink {
    pub(crate) life: Life,
    pub(crate) store: MemoryStore,
    pub(crate) unit: Unit,
    pub(crate) inner: MemorySink,
    /// How many keys one transaction of the server writes.
    pub(crate) part_keys: usize,
    /// Whether the outstanding commit ends in a timeout.
    pub(crate) times_out: bool,
    /// What a server without a fence has just stored.
    pub(crate) unfenced: Option<Checkpoint>,
}

impl SimSink {
    fn connect(&self) -> MemorySink {
        self.store.sink(&self.unit).in_parts(self.part_keys)
    }

    /// Writes the first part as a server with a flaw does.
    fn write_first_part(&self, commit: &Commit) {
        if self.life.shared.has(Flaw::PartUnfenced) {
            self.store.overwrite(&self.unit, commit, self.part_keys);
        }
        if self.life.shared.has(Flaw::CheckpointTooEarly) {
            let mut batch = Batch::default();
            for mutation in &commit.batch.mutations()[..self.part_keys] {
                batch.put(mutation.clone());
            }
            let alone = Commit {
                batch,
                previous: commit.previous.clone(),
                checkpoint: commit.checkpoint.clone(),
            };
            self.store.overwrite(&self.unit, &alone, usize::MAX);
        }
    }
}

impl Sink for SimSink {
    fn open(&mut self, me: &Token, expect: Expect) -> Result<Option<Checkpoint>, SinkError> {
        if self.life.shared.fails() {
            return Err(SinkError::Unavailable("the server is away".into()));
        }
        if self.life.shared.has(Flaw::TokenLowered) {
            self.store.forget_owner(&self.unit);
        }
        self.inner = self.connect();
        self.times_out = false;
        self.life.around("open", || self.inner.open(me, expect))
    }

    fn unfinished(&self) -> Option<&Checkpoint> {
        self.inner.unfinished()
    }

    fn check(&self, _mutation: &Mutation) -> Result<(), Poison> {
        Ok(())
    }

    fn submit(&mut self, commit: Arc<Commit>) -> Result<(), SinkError> {
        self.life.point("submit");
        if self.life.shared.has(Flaw::WrittenUnfenced) {
            self.store.overwrite(&self.unit, &commit, usize::MAX);
            self.unfenced = Some(commit.checkpoint.clone());
            return Ok(());
        }
        if commit.batch.len() > self.part_keys {
            self.write_first_part(&commit);
        }
        if !self.life.shared.fails() {
            return self.life.around("submit", || self.inner.submit(commit));
        }
        let choice = self.life.shared.below(4);
        match choice {
            0 => Err(SinkError::Unavailable("the server is away".into())),
            1 => Err(SinkError::Full("the server has no memory left".into())),
            2 => {
                self.life.around("submit", || self.inner.submit(commit))?;
                self.times_out = true;
                Ok(())
            }
            _ => {
                let connection = self.connect();
                let mut sink = std::mem::replace(&mut self.inner, connection);
                self.life.shared.delay(Box::new(move || {
                    let mut outcome = sink.submit(commit).map(|()| None);
                    while outcome == Ok(None) {
                        outcome = sink.settle(Duration::ZERO);
                    }
                    format!("{outcome:?}")
                }));
                self.times_out = true;
                Ok(())
            }
        }
    }

    fn settle(&mut self, wait: Duration) -> Result<Option<Checkpoint>, SinkError> {
        if self.life.shared.fails() {
            return Ok(None); // slow
        }
        if let Some(checkpoint) = self.unfenced.take() {
            return Ok(Some(checkpoint));
        }
        if self.times_out {
            return Err(SinkError::Unavailable("no answer came".into()));
        }
        self.life.around("settle", || self.inner.settle(wait))
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// Letters that are not flushed are gone with the process, or with a producer that gives up.
pub(crate) struct SimDeadLetters {
    pub(crate) life: Life,
    pub(crate) inner: MemoryDeadLetters,
    pub(crate) queue: Vec<DeadLetter>,
}

impl DeadLetters for SimDeadLetters {
    fn send(&mut self, letter: DeadLetter) -> Result<(), LogError> {
        if self.life.shared.fails() {
            return Err(LogError::Unavailable("the queue is full".into()));
        }
        self.life.around("send", || self.queue.push(letter));
        Ok(())
    }

    fn flushed(&mut self, wait: Duration) -> Result<bool, LogError> {
        if self.life.shared.fails() {
            if self.life.shared.below(2) == 0 {
                return Ok(false); // slow
            }
            self.queue.clear();
            return Err(LogError::Unavailable("a letter was given up".into()));
        }
        self.life.around("flushed", || {
            for letter in self.queue.drain(..) {
                self.inner.send(letter)?;
            }
            self.inner.flushed(wait)
        })
    }
}

/// Reads the claims topic to its end, as a worker does before it touches its sink.
pub(crate) struct SimClaims {
    pub(crate) life: Life,
    pub(crate) log: MemoryControlLog,
    pub(crate) catalog: CatalogId,
    /// What is added to a claim's offset.
    pub(crate) claims_from: u64,
}

impl Claims for SimClaims {
    fn newest(&mut self, unit: &Unit) -> Result<Option<(Token, Claim)>, ControlError> {
        if self.life.shared.fails() {
            return Err(ControlError::Unavailable(
                "the claims cannot be read".into(),
            ));
        }
        let mut records: Vec<ControlRecord> = Vec::new();
        self.life.around("newest", || {
            self.log.read(ControlTopic::Claims, Offset(0), &mut records)
        })?;
        let unit = unit.to_string();
        let newest = records
            .iter()
            .rev()
            .find(|r| r.key.as_deref() == Some(unit.as_str()));
        Ok(newest.and_then(|record| {
            let claim: Claim =
                serde_json::from_slice(record.value.as_deref()?).expect("claims are JSON");
            let token = Token {
                catalog: self.catalog.clone(),
                claim_offset: self.claims_from + record.offset.0,
                claim: claim.claim.clone(),
            };
            Some((token, claim))
        }))
    }
}

/// The clock of one process: its own beginning, its own pace, and what it has heard of the broker's.
pub(crate) struct SimClock {
    pub(crate) world: ManualClock,
    pub(crate) began: Monotonic,
    /// How much of the world's time passes by it, in percent.
    pub(crate) pace: u32,
    /// How old its knowledge of the broker's time is: what it knows is a lower bound.
    pub(crate) behind: Duration,
}

impl Clock for SimClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.world.monotonic().since(self.began) * self.pace / 100)
    }

    fn broker(&self) -> Option<Timestamp> {
        Some(self.world.now().minus(self.behind))
    }
}

/// The view of the simulation: the row is the edition and the value; `-…` is none of its business, `!…`
/// is poison.
pub(crate) struct SimDerive {
    pub(crate) edition: String,
}

fn mutation(record: &Record<'_>, change: Change) -> Option<Mutation> {
    Some(Mutation {
        key: Key::new(record.key?),
        change,
        origin: record.origin(),
    })
}

impl Derive for SimDerive {
    fn apply(&self, record: &Record<'_>, out: &mut Vec<Mutation>) -> Result<(), Poison> {
        let change = match record.value {
            None => Change::Delete,
            Some([b'-', ..]) => return Ok(()),
            Some([b'!', ..]) => {
                return Err(Poison::new(PoisonKind::Decode, "", "begins with `!`"));
            }
            Some(value) => Change::Upsert {
                row: Row::new(&[self.edition.as_bytes(), value].concat()),
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
