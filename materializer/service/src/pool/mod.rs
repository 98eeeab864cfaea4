//! The pool: claims units that the catalog wants fed and nobody feeds, runs each on a thread of its own,
//! and reports how they are.
//!
//! Invariants: a unit runs here only under the newest claim of it that this process has read; a unit
//! whose newest claim is another's is stopped. What the catalog says reaches a unit as a directive,
//! what the unit says reaches the log as progress; there is no other channel. The pool never touches
//! a sink: that is the feeder's.

mod claim;
mod delete;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::{Version, desired};
use materializer_model::definition::Target;
use materializer_model::progress::{Claim, Directive, Feed, Phase, Progress};
use materializer_model::{
    ClaimId, Clock, Monotonic, Offset, ProcessId, Token, Topic, Unit, ViewName, WorkerId,
};
use tracing::{error, info, warn};

use crate::control::{Control, State};
use claim::{Facts, JITTER, Patience, SILENT};
use unit::Running;
pub use unit::{Feeder, Next};

/// How often a unit's progress is reported where nothing changes.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Makes feeders, and deletes what is held on this machine.
pub trait Feeders: Send {
    /// Makes the feeder of a unit that was claimed. Opens nothing yet: that is its first step.
    ///
    /// # Errors
    /// Where the unit cannot be fed here at all: an unknown connection, a definition of a newer release.
    fn open(&self, unit: &Unit, version: &Version, token: Token)
    -> anyhow::Result<Box<dyn Feeder>>;

    /// Deletes some of what this machine holds of a unit that nobody needs any more, for about 100 ms;
    /// says whether nothing is left. Idempotent.
    ///
    /// # Errors
    /// Where it cannot go on now.
    fn delete(&self, unit: &Unit, version: &Version) -> anyhow::Result<bool>;
}

/// Who a pool is, and how much it takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The worker's id, which follows its data folder.
    pub worker: WorkerId,
    /// This run of the process.
    pub process: ProcessId,
    /// The most units at once.
    pub slots: usize,
    /// The only views to feed; empty is all.
    pub only: Vec<ViewName>,
    /// How long the owner of a tantivy copy must be silent before it is built anew here.
    pub reclaim_after: Duration,
    /// Where this process answers over HTTP.
    pub address: String,
}

/// A report that was published, and when.
struct Published {
    at: Monotonic,
    health: &'static str,
}

/// The units that this process feeds.
pub struct Pool {
    settings: Settings,
    control: Arc<Control>,
    clock: Arc<dyn Clock>,
    feeders: Box<dyn Feeders>,
    new_id: Box<dyn FnMut() -> u128 + Send>,
    units: BTreeMap<Unit, Running>,
    patience: BTreeMap<Unit, Patience>,
    /// The units that nobody needs and of which nothing is left here.
    deleted: BTreeSet<Unit>,
    published: BTreeMap<Unit, Published>,
    sequence: u64,
    /// The newest request that was answered with reports at once.
    answered: Option<Offset>,
}

impl Pool {
    /// Makes a pool that feeds nothing yet. `new_id` returns a random number each time.
    pub fn new(
        settings: Settings,
        control: Arc<Control>,
        clock: Arc<dyn Clock>,
        feeders: Box<dyn Feeders>,
        new_id: Box<dyn FnMut() -> u128 + Send>,
    ) -> Self {
        Self {
            settings,
            control,
            clock,
            feeders,
            new_id,
            units: BTreeMap::new(),
            patience: BTreeMap::new(),
            deleted: BTreeSet::new(),
            published: BTreeMap::new(),
            sequence: 0,
            answered: None,
        }
    }

    /// Does what the newest snapshot asks for: ends, starts and directs units, and reports.
    pub fn step(&mut self, state: &State) {
        self.reap();
        let catalog = state.follower.catalog();
        // An event that this release does not understand may say anything about any unit: those that
        // run go on as they were told, nothing else is done.
        if catalog.newer().is_none() {
            let wanted = desired(catalog, state.follower.reports(), &self.settings.worker);
            self.direct(&wanted, state);
            self.delete(&wanted, state);
            self.claim(&wanted, state);
        }
        self.publish(state);
    }

    /// Returns the topics that units here read, and whether one of them follows their ends.
    #[must_use]
    pub fn topics(&self, state: &State) -> BTreeMap<Topic, bool> {
        let mut topics = BTreeMap::new();
        for (unit, running) in &self.units {
            let Some(version) = state.follower.catalog().version(&unit.version) else {
                continue;
            };
            let report = running.report();
            let tailing = report.is_some_and(|report| report.phase == Phase::Tailing);
            for topic in &version.definition.from.topics {
                *topics.entry(topic.clone()).or_default() |= tailing;
            }
        }
        topics
    }

    /// Ends every unit in order: the last commit, the last report.
    pub fn close(mut self) {
        for running in self.units.values() {
            running.stop();
        }
        let mut answers = true;
        for (unit, running) in std::mem::take(&mut self.units) {
            let (_, report) = running.join();
            // Each report is waited for: a log that does not answer holds the end up once.
            if let Some(report) = report.filter(|_| answers) {
                answers = self.report(&unit, report);
            }
        }
    }

    /// Takes in the units whose threads have ended.
    fn reap(&mut self) {
        let ended = |(_, running): &(&Unit, &Running)| running.has_ended();
        let ended: Vec<Unit> = self
            .units
            .iter()
            .filter(ended)
            .map(|(u, _)| u.clone())
            .collect();
        for unit in ended {
            let Some(running) = self.units.remove(&unit) else {
                continue;
            };
            self.published.remove(&unit);
            match running.join().0 {
                Some(Next::Again | Next::Wait(_)) => info!(%unit, "unit has stopped"),
                Some(Next::Fenced) => {
                    warn!(%unit, "unit was taken over by another worker");
                    self.fail(&unit);
                }
                None => {
                    error!(%unit, "the unit's thread panicked, it is claimed again after a while");
                    self.fail(&unit);
                }
            }
        }
    }

    fn fail(&mut self, unit: &Unit) {
        let now = self.clock.monotonic();
        self.patience.entry(unit.clone()).or_default().failed(now);
    }

    /// Hands directives to the units that run, and stops those that are not ours or nobody needs, and
    /// those that read by another `from` than the version has by now: they are opened anew with it.
    fn direct(&mut self, wanted: &BTreeMap<Unit, Directive>, state: &State) {
        for (unit, running) in &self.units {
            let owner = state.follower.owner(unit);
            let ours = owner.is_some_and(|(token, _)| token == running.token);
            let version = state.follower.catalog().version(&unit.version);
            let newest = version.is_some_and(|version| version.definition.from == running.from);
            let needed = wanted
                .get(unit)
                .filter(|d| needs_owner(state, unit, &d.feed));
            match needed {
                Some(directive) if ours && newest => running.direct(directive),
                Some(_) | None => running.stop(),
            }
        }
    }

    /// Claims units that nobody feeds, as far as slots are free.
    fn claim(&mut self, wanted: &BTreeMap<Unit, Directive>, state: &State) {
        for (unit, directive) in wanted {
            if self.units.len() >= self.settings.slots {
                return;
            }
            let only = &self.settings.only;
            let ours = only.is_empty() || only.contains(&unit.version.view);
            if ours
                && !self.units.contains_key(unit)
                && needs_owner(state, unit, &directive.feed)
                && self.may_claim(unit, state)
            {
                self.take(unit, directive, state);
            }
        }
    }

    fn may_claim(&mut self, unit: &Unit, state: &State) -> bool {
        let now = self.clock.monotonic();
        let roll = (self.new_id)() % JITTER.as_millis();
        let jitter = Duration::from_millis(u64::try_from(roll).unwrap_or(0));
        let held = is_held(state, unit);
        let silence = state.silence(unit, now).unwrap_or(Duration::MAX);
        let owner = state
            .follower
            .owner(unit)
            .map(|(_, claim)| (&claim.worker, silence));
        let sibling = |other: &Unit| other.version == unit.version;
        let facts = Facts {
            owner,
            silent: if held {
                self.settings.reclaim_after
            } else {
                SILENT
            },
            holds_another_copy: held && self.units.keys().any(sibling),
        };
        let patience = self.patience.entry(unit.clone()).or_default();
        patience.decide(&self.settings.worker, &facts, jitter, now)
    }

    /// Claims a unit and starts to feed it.
    fn take(&mut self, unit: &Unit, directive: &Directive, state: &State) {
        let Some(version) = state.follower.catalog().version(&unit.version) else {
            return;
        };
        let claim = Claim {
            claim: ClaimId::new(format!("{:032x}", (self.new_id)())),
            worker: self.settings.worker.clone(),
            address: Some(self.settings.address.clone()),
        };
        let started = self.start(unit, directive, version, &claim);
        match started {
            Ok(Some(running)) => {
                info!(%unit, claim = running.token.claim_offset, "unit is claimed");
                self.units.insert(unit.clone(), running);
                self.patience.entry(unit.clone()).or_default().succeeded();
            }
            Ok(None) => {
                info!(%unit, "another worker claimed the unit first");
                self.fail(unit);
            }
            Err(error) => {
                warn!(%unit, error = format!("{error:#}"), "claim failed, trying again");
                self.fail(unit);
            }
        }
    }

    fn start(
        &self,
        unit: &Unit,
        directive: &Directive,
        version: &Version,
        claim: &Claim,
    ) -> anyhow::Result<Option<Running>> {
        let Some(token) = self.control.claim(unit, claim)? else {
            return Ok(None);
        };
        let feeder = self.feeders.open(unit, version, token.clone())?;
        let clock = Arc::clone(&self.clock);
        let from = version.definition.from.clone();
        let running = Running::start(unit, token, from, directive.clone(), feeder, clock)?;
        Ok(Some(running))
    }

    /// Reports the units that are due: every second, when their health changes, and at once when a
    /// request names their view.
    fn publish(&mut self, state: &State) {
        let asked = self.asked(state);
        let now = self.clock.monotonic();
        let units: Vec<Unit> = self.units.keys().cloned().collect();
        for unit in units {
            let Some(report) = self.units.get(&unit).and_then(Running::report) else {
                continue;
            };
            let due = self.published.get(&unit).is_none_or(|last| {
                now.since(last.at) >= REPORT_EVERY || last.health != report.health.word()
            });
            let due = due || asked.contains(&unit.version.view);
            // Each report is waited for: a log that does not answer holds the round up once.
            if due && !self.report(&unit, report) {
                return;
            }
        }
    }

    /// Returns the views that new requests name.
    fn asked(&mut self, state: &State) -> Vec<ViewName> {
        let mut views = Vec::new();
        for (_, asked) in state.follower.catalog().outstanding() {
            if self.answered < Some(asked.at.offset) {
                self.answered = Some(asked.at.offset);
                views.push(asked.verb.view().clone());
            }
        }
        views
    }

    /// Publishes a report; says whether the log answered, so that others are worth the wait.
    fn report(&mut self, unit: &Unit, mut report: Progress) -> bool {
        self.sequence += 1;
        report.worker = self.settings.worker.clone();
        report.process = self.settings.process.clone();
        report.sequence = self.sequence;
        report.address = Some(self.settings.address.clone());
        match self.control.report(&unit.to_string(), &report) {
            Ok(()) => {
                let published = Published {
                    at: self.clock.monotonic(),
                    health: report.health.word(),
                };
                self.published.insert(unit.clone(), published);
                true
            }
            // The next round tries again; a log that cannot be reached is told once, by whoever reads.
            Err(error) => {
                tracing::debug!(%unit, %error, "report failed");
                !error.may_pass()
            }
        }
    }
}

/// Says whether the sink of a unit is held by one machine, and not by a server that all can reach.
fn is_held(state: &State, unit: &Unit) -> bool {
    let version = state.follower.catalog().version(&unit.version);
    version.is_some_and(|version| match version.definition.to {
        Target::Tantivy(_) => true,
        Target::Redis(_) | Target::Memory {} => false,
    })
}

/// Says whether a unit needs a worker. What is drained or deleted does where a worker holds it.
fn needs_owner(state: &State, unit: &Unit, feed: &Feed) -> bool {
    match feed {
        Feed::Feed | Feed::Hold { .. } => true,
        Feed::Drain => is_held(state, unit),
        Feed::Delete => false,
    }
}
