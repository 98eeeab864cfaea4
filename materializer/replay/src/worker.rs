//! The worker of one unit: one thread drives it by calling [`Worker::step`].
//!
//! Invariants. Nothing is written before the claims were read to their end and the sink was opened
//! under our token. A resume begins at the sink's checkpoint. One commit is outstanding at a time and is
//! kept until its outcome is known. Records and end marks alone move a position, and a position is
//! committed only together with all that was folded below it. Reading stops where memory ends.
//!
//! Claiming a unit, publishing its progress and deciding what it is to do are left to others.

mod open;
mod report;
mod take;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::ViewDefinition;
use materializer_model::ports::{
    Claims, DeadLetters, Derive, LogError, LogObserver, LogReader, Sink,
};
use materializer_model::progress::{Directive, Feed, GateReading, Health, Lag, Phase};
use materializer_model::{
    Batch, Checkpoint, Clock, Commit, Counts, Monotonic, Mutation, ProcessId, RowBatch, Timestamp,
    Token, Unit, WorkerId,
};
use tracing::{info, warn};

use crate::defect::Defect;
use crate::gates::Held;
use crate::halt::{Failure, Halt};
use crate::lanes::Lanes;
use crate::pacing::{Backoff, Pacing};
use materializer_model::defect::is_planted;

/// Who a worker is, and what it feeds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The unit.
    pub unit: Unit,
    /// The token of our claim of it.
    pub token: Token,
    /// Us.
    pub worker: WorkerId,
    /// This run of our process.
    pub process: ProcessId,
    /// Where we answer over HTTP.
    pub address: Option<String>,
    /// The version's definition.
    pub definition: Arc<ViewDefinition>,
    /// When things are written.
    pub pacing: Pacing,
}

/// Everything that a worker touches.
pub struct Ports {
    /// Reads the unit's partitions.
    pub reader: Box<dyn LogReader>,
    /// Knows the log's ends and topics.
    pub observer: Arc<dyn LogObserver>,
    /// Makes mutations of records.
    pub derive: Arc<dyn Derive>,
    /// Holds the rows.
    pub sink: Box<dyn Sink>,
    /// Takes the records that are set aside.
    pub dead_letters: Box<dyn DeadLetters>,
    /// Says who owns the unit.
    pub claims: Box<dyn Claims>,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
}

/// What the driver does after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Steps again at once.
    Again,
    /// Steps again after this time at the latest; at once when the directive changes.
    Wait(Duration),
    /// Drops the worker: the claim of this token owns the unit.
    Fenced(Token),
}

enum State {
    /// The sink is not ours, or not known to be: open it at that time.
    Closed { retry_at: Monotonic, why: String },
    /// The sink is ours and the log is being read.
    Open,
    /// Nothing goes on. `None`: never again in this process.
    Stopped {
        health: Health,
        retry_at: Option<Monotonic>,
    },
    /// The unit is another's.
    Left(Token),
}

/// A sink that came back with an earlier checkpoint.
struct Rewind {
    /// What had been reported; until it is passed again, the unit is rewound.
    until: Checkpoint,
    to: u64,
}

/// How things stood at the end of the last step.
#[derive(Default)]
struct Reading {
    until: Option<Checkpoint>,
    gates: Vec<GateReading>,
    lag: Option<Lag>,
    ends_age: Option<Duration>,
    held: Held,
    held_for: Option<Duration>,
    waits_for: Option<String>,
    lagging: bool,
    rate: f64,
}

/// Records per second, over some seconds.
#[derive(Default)]
struct Rate {
    since: Monotonic,
    records: u64,
}

/// Feeds one unit.
pub struct Worker {
    settings: Settings,
    ports: Ports,
    state: State,
    backoff: Backoff,
    /// What is read; `None` until the sink and the log were compared.
    lanes: Option<Lanes>,
    /// What the sink holds, as far as it has told us.
    committed: Option<Checkpoint>,
    /// The commit whose outcome is not known yet.
    outstanding: Option<Arc<Commit>>,
    /// What was taken in since the last commit.
    batch: Batch,
    /// When the batch got its first mutation.
    batch_since: Monotonic,
    /// The counts as of what was taken in.
    counts: Counts,
    letters_unflushed: bool,
    rows: RowBatch,
    rows_taken: usize,
    scratch: Vec<Mutation>,
    /// The poison before which the unit stands.
    blocked: Option<Failure>,
    /// Why and until when the log is not asked.
    log_wait: Option<(Monotonic, String)>,
    log_backoff: Backoff,
    rewind: Option<Rewind>,
    committed_at: Monotonic,
    /// When the committed position last moved, or had nowhere to go.
    moved_at: Monotonic,
    rate: Rate,
    reading: Reading,
}

impl Worker {
    /// Takes a unit on. Touches nothing yet: the first step opens the sink.
    #[must_use]
    pub fn new(settings: Settings, ports: Ports) -> Self {
        let now = ports.clock.monotonic();
        Self {
            settings,
            ports,
            state: State::Closed {
                retry_at: now,
                why: "opening the sink".into(),
            },
            backoff: Backoff::default(),
            lanes: None,
            committed: None,
            outstanding: None,
            batch: Batch::default(),
            batch_since: now,
            counts: Counts::default(),
            letters_unflushed: false,
            rows: RowBatch::default(),
            rows_taken: 0,
            scratch: Vec::new(),
            blocked: None,
            log_wait: None,
            log_backoff: Backoff::default(),
            rewind: None,
            committed_at: now,
            moved_at: now,
            rate: Rate {
                since: now,
                records: 0,
            },
            reading: Reading::default(),
        }
    }

    /// Does the next bit of work, blocking at most for [`Pacing::wait`] and for a server's bounded
    /// time to answer.
    pub fn step(&mut self, directive: &Directive) -> Step {
        let now = self.now();
        let retry_at = match &self.state {
            State::Left(token) => return Step::Fenced(token.clone()),
            State::Open => None,
            State::Closed { retry_at, .. } => Some(Some(*retry_at)),
            State::Stopped { retry_at, .. } => Some(*retry_at),
        };
        let outcome = match retry_at {
            None => self.turn(directive),
            Some(Some(at)) if at <= now => self.open(directive).map(|()| Step::Again),
            Some(Some(at)) => Ok(Step::Wait(at.since(now))),
            Some(None) => Ok(Step::Wait(self.settings.pacing.failed_retry)),
        };
        let step = outcome.unwrap_or_else(|halt| self.halt(halt));
        self.judge(directive);
        step
    }

    /// Commits what was taken in, as far as that is possible within about `limit`.
    pub fn close(&mut self, directive: &Directive, limit: Duration) {
        let draining = Directive {
            feed: Feed::Drain,
            ..directive.clone()
        };
        let began = self.now();
        while matches!(self.state, State::Open)
            && (self.outstanding.is_some() || self.has_more_to_commit())
            && self.now().since(began) < limit
        {
            if self.step(&draining) == Step::Again {
                continue;
            }
            if self.outstanding.is_none() {
                return; // the sink or the dead letters keep it waiting: the next owner reads it again
            }
        }
    }

    fn now(&self) -> Monotonic {
        self.ports.clock.monotonic()
    }

    fn broker(&self) -> Option<Timestamp> {
        self.ports.clock.broker()
    }

    /// One step of an open unit.
    fn turn(&mut self, directive: &Directive) -> Result<Step, Halt> {
        self.settle(directive)?;
        self.watch()?;
        if self.outstanding.is_none() && self.is_due(directive) && self.submit()? {
            return Ok(Step::Again);
        }
        let wait = self.settings.pacing.wait;
        match &directive.feed {
            Feed::Feed => {}
            Feed::Hold { .. } | Feed::Drain | Feed::Delete => return Ok(Step::Wait(wait)),
        }
        if self.batch.weight() >= self.settings.pacing.fold_bytes_max {
            return Ok(Step::Wait(wait.min(Duration::from_millis(1))));
        }
        self.read(directive)
    }

    /// Learns the outcome of the outstanding commit, if it is there.
    fn settle(&mut self, directive: &Directive) -> Result<(), Halt> {
        if self.outstanding.is_none() {
            return Ok(());
        }
        let full = self.batch.weight() >= self.settings.pacing.fold_bytes_max;
        // Where nothing is read meanwhile there is nothing else to wait for.
        let wait = if full || directive.feed != Feed::Feed {
            self.settings.pacing.wait
        } else {
            Duration::ZERO
        };
        if self.ports.sink.settle(wait)?.is_some() {
            self.landed();
        }
        Ok(())
    }

    /// Takes the outstanding commit for applied.
    fn landed(&mut self) {
        let Some(commit) = self.outstanding.take() else {
            return;
        };
        let (now, broker) = (self.now(), self.broker());
        let checkpoint = commit.checkpoint.clone();
        if let Some(lanes) = &mut self.lanes {
            for lane in &mut lanes.lanes {
                let topic = &lanes.sources[lane.source].topic;
                if let Some(at) = checkpoint.position(topic, lane.partition) {
                    if at.next != lane.committed {
                        self.moved_at = now;
                    }
                    lane.committed = at.next;
                    lane.anchor_stored = at.anchor;
                    lane.epoch_stored = at.epoch;
                    lane.oldest_sent = None;
                    lane.settle(now, broker);
                }
            }
        }
        let passed = |rewind: &Rewind| !checkpoint.is_behind(&rewind.until);
        if self.rewind.as_ref().is_some_and(passed) {
            info!(unit = %self.settings.unit, "the unit is past its last reported position again");
            self.rewind = None;
        }
        self.committed = Some(checkpoint);
        self.committed_at = now;
        self.backoff.reset();
    }

    /// Compares the log's ends and topics with what was read.
    fn watch(&mut self) -> Result<(), Halt> {
        let ends = self.ports.observer.ends();
        let (now, broker) = (self.now(), self.broker());
        let Some(lanes) = &mut self.lanes else {
            return Ok(());
        };
        for lane in &mut lanes.lanes {
            let topic = &lanes.sources[lane.source].topic;
            if let Some(end) = ends.get(topic, lane.partition) {
                lane.observe(end);
            }
            lane.settle(now, broker);
        }
        let known = self.ports.observer.facts();
        self.prove_topics(&known)?;
        self.prove_reach(broker)
    }

    fn has_more_to_commit(&self) -> bool {
        let moved = self.lanes.as_ref().is_some_and(Lanes::moved);
        moved || !self.batch.is_empty() || (self.lanes.is_some() && self.committed.is_none())
    }

    fn is_due(&self, directive: &Directive) -> bool {
        let Some(lanes) = &self.lanes else {
            return false;
        };
        let pacing = &self.settings.pacing;
        let now = self.now();
        let full = self.batch.weight() >= pacing.fold_bytes_max;
        // The whole gap in one window, so that readers do not see values go back.
        if let Some(rewind) = &self.rewind
            && !lanes.covers(&rewind.until)
            && !full
        {
            return false;
        }
        if self.batch.is_empty() {
            let moved = self.has_more_to_commit() || lanes.are_stale();
            let waited = now.since(self.committed_at) >= pacing.empty_age;
            return moved && (waited || directive.feed == Feed::Drain);
        }
        let age = now.since(self.batch_since);
        let due = match self.phase() {
            Phase::Tailing => self.batch.len() >= pacing.tailing_keys || age >= pacing.tailing_age,
            Phase::Starting | Phase::Replaying => {
                self.batch.weight() >= pacing.replaying_bytes || age >= pacing.replaying_age
            }
        };
        due || full || directive.feed != Feed::Feed
    }

    /// Sends what was taken in to the sink; says whether it did.
    fn submit(&mut self) -> Result<bool, Halt> {
        if self.letters_unflushed {
            let wait = self.settings.pacing.wait;
            match self.ports.dead_letters.flushed(wait) {
                Ok(true) => self.letters_unflushed = false,
                Ok(false) => return Ok(false),
                Err(error) => {
                    // Letters are lost, and which is not told: their records are read again.
                    self.forget();
                    return Err(error.into());
                }
            }
        }
        let (now, broker) = (self.now(), self.broker());
        let Some(lanes) = &mut self.lanes else {
            return Ok(false);
        };
        let hollow = is_planted(Defect::CheckpointBeforeData) && lanes.moved();
        let seq = self.committed.as_ref().map_or(0, |held| held.seq) + 1;
        let commit = Arc::new(Commit {
            batch: if hollow {
                Batch::default()
            } else {
                mem::take(&mut self.batch)
            },
            previous: self.committed.clone(),
            checkpoint: lanes.checkpoint(seq, self.counts, now, broker),
        });
        for lane in &mut lanes.lanes {
            lane.oldest_sent = lane.oldest_folded.take();
        }
        self.outstanding = Some(Arc::clone(&commit));
        self.ports.sink.submit(commit)?;
        Ok(true)
    }

    /// Takes in the rows at hand, or asks the log for more.
    fn read(&mut self, directive: &Directive) -> Result<Step, Halt> {
        let now = self.now();
        let pacing = self.settings.pacing;
        if let Some((until, _)) = &self.log_wait {
            if now < *until {
                return Ok(Step::Wait(until.since(now).min(pacing.wait)));
            }
            self.log_wait = None;
        }
        if self.rows_taken == self.rows.len() {
            self.rows.clear();
            self.rows_taken = 0;
            let wait = if self.outstanding.is_some() || !self.batch.is_empty() {
                pacing.wait.min(Duration::from_millis(1))
            } else {
                pacing.wait
            };
            if let Err(error) = self.ports.reader.poll(wait, &mut self.rows) {
                self.wait_for_log(error)?;
            } else {
                self.log_backoff.reset();
            }
        }
        self.take_rows(directive)?;
        if self.blocked.is_some() {
            return Ok(Step::Wait(pacing.wait));
        }
        Ok(Step::Again)
    }

    /// Stops asking the log for a while; the sink goes on.
    fn wait_for_log(&mut self, error: LogError) -> Result<(), Halt> {
        match Halt::from(error) {
            Halt::Retry(why) => {
                let until = self.log_backoff.after(self.now(), &self.settings.pacing);
                self.log_wait = Some((until, why));
                Ok(())
            }
            halt @ (Halt::Fenced(_) | Halt::Damaged(_) | Halt::Failed(_)) => Err(halt),
        }
    }

    /// Stops, for a while or for good.
    fn halt(&mut self, halt: Halt) -> Step {
        let now = self.now();
        let unit = &self.settings.unit;
        match halt {
            Halt::Retry(why) => {
                let retry_at = self.backoff.after(now, &self.settings.pacing);
                warn!(%unit, why, "the unit waits");
                self.state = State::Closed { retry_at, why };
                Step::Wait(retry_at.since(now))
            }
            Halt::Fenced(token) => {
                info!(%unit, by = %token, "the unit is another worker's");
                self.state = State::Left(token.clone());
                Step::Fenced(token)
            }
            Halt::Damaged(why) => {
                tracing::error!(%unit, why, "the unit is damaged: rebuild the view or roll it back");
                self.forget();
                self.state = State::Stopped {
                    health: Health::Damaged { why },
                    retry_at: None,
                };
                Step::Wait(self.settings.pacing.failed_retry)
            }
            Halt::Failed(Failure { why, at, hint }) => {
                tracing::error!(%unit, why, "the unit failed");
                let retry_at = Some(now.plus(self.settings.pacing.failed_retry));
                self.state = State::Stopped {
                    health: Health::Failed { why, at, hint },
                    retry_at,
                };
                Step::Wait(self.settings.pacing.failed_retry)
            }
        }
    }

    /// Drops all that was taken in and is not known to be in the sink.
    fn forget(&mut self) {
        self.batch = Batch::default();
        self.outstanding = None;
        self.lanes = None;
        self.rows.clear();
        self.rows_taken = 0;
        self.blocked = None;
    }
}
