//! The coordinator: observes, decides, acts, one [`Coordinator::step`] at a time.
//!
//! It holds nothing that matters: everything it remembers is read again after a crash. It decides
//! nothing while the catalog is unreadable, another's, or a newer program's, and nothing before it
//! has learnt the broker's time from its own report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::QueryGate;
use materializer_model::ports::{
    AliasPointer, ControlError, ControlLog, ControlTopic, SinkAdmin, SinkError,
};
use materializer_model::progress::GateReading;
use materializer_model::{
    Clock, EventId, Monotonic, Offset, ProcessId, Timestamp, Unit, VersionId, ViewDefinition,
};
use tracing::{info, warn};

use crate::append::append;
use crate::catalog::Verdict;
use crate::decide::{Action, AliasSeen, Begun, Fact, Observed, Sample, Subject, decide};
use crate::defect::Defect;
use crate::event::{Body, Envelope, NEVER, SCHEMA};
use crate::faults::{About, Faults};
use crate::gates::{self, Evidence};
use crate::history::log_facts;
use crate::lifecycle::Role;
use crate::reports::{COORDINATOR, CoordinatorReport, FollowError, Follower};
use crate::sampling::{Counts, sample};
use crate::steps::is_in_the_way;
use crate::versions::View;
use materializer_model::defect::is_planted;

/// How often a coordinator reports, and learns the broker's time from it.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long an alias that was read back is believed.
const ALIAS_BELIEVED: Duration = Duration::from_secs(5);
/// How often the topics' ids and settings are checked.
const IDENTITY_EVERY: Duration = Duration::from_secs(10);
/// How long one step deletes.
const DELETE_BUDGET: Duration = Duration::from_millis(50);

/// The sinks as a coordinator reaches them. Each call is bounded in time.
pub trait ViewSinks: Send {
    /// Returns the administration of the sink that a definition names; `None` where the sink stores
    /// no aliases and its holders delete what they hold (tantivy).
    ///
    /// # Errors
    /// [`SinkError`].
    fn admin(
        &mut self,
        definition: &ViewDefinition,
    ) -> Result<Option<&mut dyn SinkAdmin>, SinkError>;

    /// Returns how many documents a query finds in one of a version's servable copies, each given
    /// with the address of the worker that holds it.
    ///
    /// # Errors
    /// [`SinkError`]; `Unavailable` where there is no copy.
    fn hits(&mut self, query: &QueryGate, copies: &[(Unit, String)]) -> Result<u64, SinkError>;
}

/// How a coordinator is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name: the key of its reports, the same after a restart.
    pub name: String,
    /// This run of its process.
    pub process: ProcessId,
    /// How long a version is kept after the last reader was routed to it.
    pub drain: Duration,
}

/// A fault of a step, by what its caller does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// Passes by itself: step again after a while.
    #[error(transparent)]
    Unavailable(FollowError),
    /// Does not pass by itself: a person has to look. Stepping again is harmless.
    #[error("the coordinator decides nothing: {0}")]
    Stopped(String),
}

impl From<FollowError> for CoordinatorError {
    fn from(fault: FollowError) -> Self {
        if fault.may_pass() {
            Self::Unavailable(fault)
        } else {
            Self::Stopped(fault.to_string())
        }
    }
}

impl From<ControlError> for CoordinatorError {
    fn from(fault: ControlError) -> Self {
        FollowError::from(fault).into()
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Something: step again at once.
    Busy,
    /// Nothing: step again after a while.
    Idle,
}

/// What is remembered between steps. Losing it costs time, not truth.
#[derive(Debug, Default)]
struct Memory {
    begun: BTreeMap<Subject, Begun>,
    samples: BTreeMap<VersionId, Sample>,
    counts: Counts,
    aliases: BTreeMap<VersionId, (AliasSeen, Monotonic)>,
    deleted: BTreeSet<VersionId>,
    faults: Faults,
    reported: Option<Monotonic>,
    sequence: u64,
    broker: Option<(u64, Timestamp, Monotonic)>,
    checked: Option<Monotonic>,
    /// What else its process has to tell.
    told: Vec<String>,
    /// Why nothing is read and reported any more, once the topics are not those that they were.
    lost: Option<CoordinatorError>,
}

/// Answers requests and carries migrations out.
pub struct Coordinator {
    log: Box<dyn ControlLog>,
    sinks: Box<dyn ViewSinks>,
    clock: Arc<dyn Clock>,
    new_id: Box<dyn FnMut() -> EventId + Send>,
    settings: Settings,
    state: Follower,
    memory: Memory,
}

impl Coordinator {
    /// Sets a coordinator up. Nothing is read or written before the first step.
    #[must_use]
    pub fn new(
        log: Box<dyn ControlLog>,
        sinks: Box<dyn ViewSinks>,
        clock: Arc<dyn Clock>,
        new_id: Box<dyn FnMut() -> EventId + Send>,
        settings: Settings,
    ) -> Self {
        Self {
            log,
            sinks,
            clock,
            new_id,
            settings,
            state: Follower::default(),
            memory: Memory::default(),
        }
    }

    /// Returns what it has read.
    #[must_use]
    pub fn state(&self) -> &Follower {
        &self.state
    }

    /// Takes in what its process has to tell beside it, for its reports.
    pub fn tell(&mut self, told: Vec<String>) {
        for new in told.iter().filter(|new| !self.memory.told.contains(new)) {
            warn!("{new}");
        }
        self.memory.told = told;
    }

    /// Reads on, decides, and does what is to be done now; creates the catalog where there is none.
    ///
    /// # Errors
    /// [`CoordinatorError`]; what was done before it is done, and the rest is decided again.
    pub fn step(&mut self) -> Result<Stepped, CoordinatorError> {
        if let Some(lost) = &self.memory.lost {
            return Err(lost.clone());
        }
        self.check_catalog()?;
        self.report()?;
        match self.state.follow(&mut *self.log) {
            Ok(read) => log_facts(&read),
            Err(fault @ ControlError::Lost(_)) => {
                let lost = CoordinatorError::from(fault);
                return Err(self.memory.lost.insert(lost).clone());
            }
            Err(fault) => return Err(fault.into()),
        }
        if let Some(newer) = self.state.catalog().newer() {
            let why = format!(
                "the event at offset {} is a newer program's: {}",
                newer.at, newer.why
            );
            self.memory.faults.begin(About::Catalog, why.clone());
            return Err(CoordinatorError::Stopped(why));
        }
        let Some(now) = self.broker_time() else {
            return Ok(Stepped::Idle);
        };
        self.forget_old();
        let actions = self.decide(now);
        let stepped = if actions.is_empty() {
            Stepped::Idle
        } else {
            Stepped::Busy
        };
        for action in actions {
            self.act(action, now)?;
        }
        Ok(stepped)
    }

    fn check_catalog(&mut self) -> Result<(), CoordinatorError> {
        let monotonic = self.clock.monotonic();
        let checked = self.memory.checked;
        if checked.is_some_and(|at| monotonic.since(at) < IDENTITY_EVERY) {
            return Ok(());
        }
        let who = self.who();
        if self.state.catalog().id().is_none() {
            self.state.create(&mut *self.log, &who, &mut self.new_id)?;
        } else {
            self.state.check_identity(&mut *self.log)?;
        }
        self.memory.checked = Some(monotonic);
        Ok(())
    }

    fn who(&self) -> String {
        format!("{COORDINATOR}{}", self.settings.name)
    }

    /// Reports about once a second.
    fn report(&mut self) -> Result<(), ControlError> {
        let monotonic = self.clock.monotonic();
        let reported = self.memory.reported;
        if reported.is_some_and(|at| monotonic.since(at) < REPORT_EVERY) {
            return Ok(());
        }
        self.memory.sequence += 1;
        let report = CoordinatorReport {
            process: self.settings.process.clone(),
            sequence: self.memory.sequence,
            folded: self.state.catalog().known_to(),
            sampled: self.sampled_gates(),
            faults: [self.memory.faults.told(), self.memory.told.clone()].concat(),
        };
        let value = serde_json::to_vec(&report).expect("a report always serialises");
        let key = self.who();
        self.log
            .append(ControlTopic::Progress, Some(&key), Some(&value))?;
        self.memory.reported = Some(monotonic);
        Ok(())
    }

    fn sampled_gates(&self) -> BTreeMap<VersionId, Vec<GateReading>> {
        let catalog = self.state.catalog();
        let samples = self.memory.samples.iter();
        samples
            .filter_map(|(id, sample)| {
                let version = catalog.version(id)?;
                let live = catalog.view(&id.view)?.live();
                let reports = self.state.reports();
                let collect = |v| Evidence::collect(v, reports, Offset(0));
                let readings = gates::sampled(
                    &version.definition.gates,
                    Some(&sample.sampled),
                    &collect(version),
                    live.map(collect).as_ref(),
                );
                Some((id.clone(), readings))
            })
            .collect()
    }

    /// Returns a lower bound of the broker's time: when it appended our newest report, as consumed,
    /// and the monotonic time since it was consumed.
    fn broker_time(&mut self) -> Option<Timestamp> {
        let monotonic = self.clock.monotonic();
        let heard = self.state.reports().coordinators().get(&self.settings.name);
        if let Some(heard) = heard.filter(|h| h.report.process == self.settings.process) {
            let sequence = heard.report.sequence;
            if self
                .memory
                .broker
                .is_none_or(|(known, ..)| known < sequence)
            {
                self.memory.broker = Some((sequence, heard.appended, monotonic));
            }
        }
        let (_, appended, consumed) = self.memory.broker?;
        Some(appended.plus(monotonic.since(consumed)))
    }

    /// Drops what has grown old, or is about something that is over.
    fn forget_old(&mut self) {
        let monotonic = self.clock.monotonic();
        let catalog = self.state.catalog();
        let in_role = |id: &VersionId, role| catalog.version(id).is_some_and(|v| v.role == role);
        let memory = &mut self.memory;
        memory
            .aliases
            .retain(|_, (_, at)| monotonic.since(*at) < ALIAS_BELIEVED);
        memory.begun.retain(|subject, _| match subject {
            Subject::Request(id) => catalog.request(id).is_some_and(|r| r.answer.is_none()),
            Subject::Candidate(id) => in_role(id, Role::Building),
        });
        memory
            .samples
            .retain(|id, _| in_role(id, Role::Building) || in_role(id, Role::Standby));
        memory.deleted.retain(|id| in_role(id, Role::Retiring));
        memory.faults.forget_old(catalog);
    }

    fn decide(&self, now: Timestamp) -> Vec<Action> {
        let aliases = self.memory.aliases.iter();
        let aliases = aliases.map(|(id, (seen, _))| (id.clone(), seen.clone()));
        let seen = Observed {
            now,
            reports: self.state.reports(),
            begun: &self.memory.begun,
            samples: &self.memory.samples,
            aliases: &aliases.collect(),
            deleted: &self.memory.deleted,
            drain: self.settings.drain,
        };
        decide(self.state.catalog(), &seen)
    }

    fn act(&mut self, action: Action, now: Timestamp) -> Result<(), CoordinatorError> {
        match action {
            Action::Take(request) => self.take(request)?,
            Action::Begin(subject) => {
                let end = self.state.progress_end();
                self.memory.begun.insert(subject, Begun { end, at: now });
            }
            Action::Sample(version) => self.sample(version, now),
            Action::Append(fact) => self.append(*fact)?,
            Action::ReadAlias(version) => {
                let seen = self.read_alias(&version);
                self.saw_alias(version, seen);
            }
            Action::MoveAlias(version, pointer) => self.move_alias(version, &pointer),
            Action::RemoveAlias(version, gone) => self.remove_alias(version, gone),
            Action::Delete(version, at) => self.delete(version, at),
            Action::Forget(key) => {
                for topic in [ControlTopic::Progress, ControlTopic::Claims] {
                    self.log.append(topic, Some(&key), None)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, request: EventId) -> Result<(), ControlError> {
        let event = Envelope {
            schema: SCHEMA,
            id: (self.new_id)(),
            views: BTreeMap::new(),
            not_before: None,
            not_after: NEVER,
            who: self.who(),
            why: String::new(),
            answers: Some(request),
            body: Body::Taken {},
        };
        self.log
            .append(ControlTopic::Catalog, None, Some(&event.encode()))?;
        Ok(())
    }

    /// Appends a fact in the name of whoever asked for it. One that lost against another is decided
    /// again on what that one left.
    fn append(&mut self, fact: Fact) -> Result<(), ControlError> {
        let request = fact.answers.as_ref();
        let asked = request.and_then(|id| self.state.catalog().request(id));
        let (who, why) = asked.map_or_else(
            || (self.who(), String::new()),
            |asked| (asked.who.clone(), asked.why.clone()),
        );
        let mut event = Envelope {
            schema: SCHEMA,
            id: (self.new_id)(),
            views: BTreeMap::from([(fact.view.clone(), fact.revision)]),
            not_before: fact.not_before,
            not_after: if is_planted(Defect::NeverTooLate) {
                NEVER
            } else {
                fact.not_after
            },
            who,
            why,
            answers: fact.answers,
            body: fact.body,
        };
        let mut appended = append(&mut *self.log, &mut self.state, &event, &mut self.new_id)?;
        if is_planted(Defect::StaleAppendedAgain) && matches!(appended.verdict, Verdict::Stale(_)) {
            let revision = self.state.catalog().revision(&fact.view);
            event.views.insert(fact.view.clone(), revision);
            appended = append(&mut *self.log, &mut self.state, &event, &mut self.new_id)?;
        }
        log_facts(&appended.read);
        Ok(())
    }

    fn sample(&mut self, id: VersionId, now: Timestamp) {
        let catalog = self.state.catalog();
        let (Some(version), Some(view)) = (catalog.version(&id), catalog.view(&id.view)) else {
            return;
        };
        let since = self.state.progress_end();
        let sinks = &mut *self.sinks;
        let reports = self.state.reports();
        let (sampled, counting) = sample(
            sinks,
            reports,
            &mut self.memory.counts,
            version,
            view.live(),
            now,
        );
        let sample = Sample {
            sampled,
            since,
            at: now,
            counting,
        };
        self.memory.samples.insert(id, sample);
    }

    /// Calls the administration of a version's sink; `None` where it has none.
    fn admin<T>(
        &mut self,
        id: &VersionId,
        call: impl FnOnce(&mut dyn SinkAdmin) -> Result<T, SinkError>,
    ) -> Result<Option<T>, SinkError> {
        let version = self.state.catalog().version(id);
        let definition = &version
            .expect("decided on a version of the catalog")
            .definition;
        self.sinks.admin(definition)?.map(call).transpose()
    }

    fn read_alias(&mut self, id: &VersionId) -> AliasSeen {
        match self.admin(id, |admin| admin.alias(&id.view)) {
            Ok(None) => AliasSeen::Held,
            Ok(Some(pointer)) => AliasSeen::Is(pointer),
            Err(fault) => AliasSeen::Fault(fault.to_string()),
        }
    }

    fn saw_alias(&mut self, id: VersionId, seen: AliasSeen) {
        let about = About::Alias(id.clone());
        let view = self.state.catalog().view(&id.view);
        let of_live = view.filter(|view| view.live().is_some_and(|live| live.id == id));
        let wanted = of_live.and_then(View::pointer);
        let is_in_the_way = |stored: &AliasPointer| {
            let version = self.state.catalog().version(&id);
            view.zip(version)
                .is_some_and(|(view, version)| is_in_the_way(view, version, stored))
        };
        match &seen {
            AliasSeen::Fault(why) => {
                let fault = format!("alias of `{id}`: {why}");
                self.memory.faults.begin(about, fault);
            }
            AliasSeen::Is(Some(stored)) if is_in_the_way(stored) => {
                let fault = format!(
                    "alias of `{id}`: another catalog or a person set it, at epoch {}, to what is to be deleted: remove it",
                    stored.epoch
                );
                self.memory.faults.begin(about, fault);
            }
            // It will be moved: whether what kept it from being moved has ended is told then.
            AliasSeen::Is(stored) if wanted.is_some() && *stored != wanted => {}
            AliasSeen::Held | AliasSeen::Is(_) => self.memory.faults.end(&about),
        }
        let at = self.clock.monotonic();
        self.memory.aliases.insert(id, (seen, at));
    }

    /// What was known of the view's alias elsewhere in the same sink is no longer.
    fn move_alias(&mut self, id: VersionId, pointer: &AliasPointer) {
        self.memory.aliases.retain(|other, _| other.view != id.view);
        let moved = self.admin(&id, |admin| admin.move_alias(&id.view, pointer));
        let seen = match moved {
            _ if is_planted(Defect::AliasUnread) => AliasSeen::Is(Some(pointer.clone())),
            Ok(_) => {
                info!(version = %id, epoch = pointer.epoch.0, "moved the alias");
                self.read_alias(&id)
            }
            Err(fault) => AliasSeen::Fault(fault.to_string()),
        };
        self.saw_alias(id, seen);
    }

    fn remove_alias(&mut self, id: VersionId, gone: Offset) {
        self.memory.aliases.retain(|other, _| other.view != id.view);
        let removed = self.admin(&id, |admin| admin.remove_alias(&id.view, gone));
        let seen = match removed {
            Ok(_) => self.read_alias(&id),
            Err(fault) => AliasSeen::Fault(fault.to_string()),
        };
        self.saw_alias(id, seen);
    }

    fn delete(&mut self, id: VersionId, at: Offset) {
        let about = About::Deletion(id.clone());
        match self.admin(&id, |admin| admin.retire(&id, at, DELETE_BUDGET)) {
            Ok(retired) => {
                if retired.is_none_or(|retired| retired.finished) {
                    self.memory.deleted.insert(id);
                }
                self.memory.faults.end(&about);
            }
            Err(fault) => {
                let fault = format!("deletion of `{id}`: {fault}");
                self.memory.faults.begin(about, fault);
            }
        }
    }
}
