//! The worker of one unit: one thread drives it by calling [`Worker::step`].
//!
//! Invariants. Nothing is written before the claims were read to their end and the sink was opened
//! under our token. A resume begins at the sink's checkpoint. One commit is outstanding at a time and is
//! kept until its outcome is known. Records and end marks alone move a position, and a position is
//! committed only together with all that was folded below it. Reading stops where memory ends.
//!
//! Claiming a unit, publishing its progress and deciding what it is to do are left to others.

mod commit;
mod growth;
mod open;
mod report;
mod take;
mod unfinished;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::ViewDefinition;
use materializer_model::ports::{
    Claims, DeadLetters, Derive, LogError, LogObserver, LogReader, Sink,
};
use materializer_model::progress::{Directive, Feed, GateReading, Health, Lag};
use materializer_model::{
    Batch, Checkpoint, Clock, Commit, Counts, Growth, Monotonic, Mutation, Offset, ProcessId,
    RowBatch, Timestamp, Token, Unit, WorkerId,
};
use tracing::{info, warn};

use crate::gates::Held;
use crate::halt::{Failure, Halt};
use crate::lanes::Lanes;
use crate::pacing::{Backoff, Pacing};
use crate::work::Work;

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
    /// When that commit was first submitted.
    submitted_at: Monotonic,
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
    /// The lanes of which the log is asked whether it still is the one that parts of a commit were read from.
    proving: BTreeSet<usize>,
    /// Whether a lane came to the barrier of a growth.
    at_barrier: bool,
    /// The lane and offset of the record for which the count of partitions was asked for last, and when.
    looked: Option<((usize, Offset), Monotonic)>,
    /// The growths that are recorded of the topics.
    growths: Vec<Growth>,
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
    work: Work,
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
            submitted_at: now,
            batch: Batch::default(),
            batch_since: now,
            counts: Counts::default(),
            letters_unflushed: false,
            rows: RowBatch::default(),
            rows_taken: 0,
            scratch: Vec::new(),
            proving: BTreeSet::new(),
            at_barrier: false,
            looked: None,
            growths: Vec::new(),
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
            work: Work::default(),
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
            Some(Some(at)) if at <= now => self
                .timed(|work| &mut work.opening, |worker| worker.open(directive))
                .map(|()| Step::Again),
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

    /// Returns what was done so far.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Does something, and adds the time that it takes to one of the totals.
    fn timed<T>(
        &mut self,
        total: impl FnOnce(&mut Work) -> &mut Duration,
        act: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let began = self.now();
        let outcome = act(self);
        let took = self.now().since(began);
        *total(&mut self.work) += took;
        outcome
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
        if self.prove_unfinished()? {
            return Ok(Step::Again);
        }
        if self.outstanding.is_none() && self.is_outgrown(directive) {
            self.begin_anew();
            return Ok(Step::Again);
        }
        if self.outstanding.is_none() && self.is_due(directive) {
            let submitted = self.timed(|work| &mut work.submitting, Self::submit);
            if submitted? {
                return Ok(Step::Again);
            }
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

    /// Takes in the rows at hand, or asks the log for more.
    fn read(&mut self, directive: &Directive) -> Result<Step, Halt> {
        let now = self.now();
        let pacing = self.settings.pacing;
        if let Some((until, _)) = &self.log_wait {
            if now < *until {
                return Ok(Step::Wait(until.since(now).min(pacing.wait)));
            }
            self.assign()?;
        }
        if self.rows_taken == self.rows.len() {
            self.rows.clear();
            self.rows_taken = 0;
            let wait = if self.outstanding.is_some() || !self.batch.is_empty() {
                pacing.wait.min(Duration::from_millis(1))
            } else {
                pacing.wait
            };
            let polled = self.timed(
                |work| &mut work.fetching,
                |worker| worker.ports.reader.poll(wait, &mut worker.rows),
            );
            self.work.bytes += u64::try_from(self.rows.bytes_len()).unwrap_or(u64::MAX);
            if let Err(error) = polled {
                self.wait_for_log(error)?;
            } else {
                self.log_backoff.reset();
            }
        }
        self.timed(
            |work| &mut work.deriving,
            |worker| worker.take_rows(directive),
        )?;
        if self.blocked.is_some() {
            return Ok(Step::Wait(pacing.wait));
        }
        Ok(Step::Again)
    }

    /// Has the reader go on where what was taken in ends: after a fault it may have passed over what it
    /// could not read.
    fn assign(&mut self) -> Result<(), Halt> {
        let lanes = self.lanes.as_ref().expect("read because it is open");
        self.ports.reader.assign(&lanes.assignments())?;
        self.rows.clear();
        self.rows_taken = 0;
        self.log_wait = None;
        self.proving.clear();
        Ok(())
    }

    /// Stops asking the log for a while; the sink goes on.
    fn wait_for_log(&mut self, error: LogError) -> Result<(), Halt> {
        match Halt::from(error) {
            Halt::Retry(why) => {
                self.work.retries += 1;
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
                self.work.retries += 1;
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
        self.proving.clear();
        self.rows.clear();
        self.rows_taken = 0;
        self.blocked = None;
    }
}
