//! From what is seen to what is done: pure, so that every decision can be tested as a value.
//!
//! An action is idempotent, and everything that it needs is in the catalog or can be read again: a
//! coordinator may crash before, within or after any of them. Two coordinators are harmless: facts
//! name the revision they were decided on, and of two the first one counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use materializer_model::ports::AliasPointer;
use materializer_model::progress::GateReading;
use materializer_model::{EventId, Offset, Timestamp, VersionId, ViewName};

use crate::catalog::Catalog;
use crate::defect::Defect;
use crate::event::{Body, NEVER};
use crate::gates::{self, Evidence, Sampled};
use crate::reports::Reports;
use crate::versions::{Version, View};
use crate::{growth, requests, steps};
use materializer_model::defect::is_planted;

/// How old the oldest continuous evidence of a promotion may be when the broker appends it.
pub const EVIDENCE_EXPIRES: Duration = Duration::from_secs(15);
/// How long a decision waits for fresh reports and samples before what is missing is unknown.
pub const EVIDENCE_WITHIN: Duration = Duration::from_secs(10);
/// How old a report may be for its author to be alive.
pub const ALIVE: Duration = Duration::from_secs(10);
/// How often the sampled gates of a candidate are read for `status`.
const SAMPLE_EVERY: Duration = Duration::from_secs(30);

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A request.
    Request(EventId),
    /// The promotion of a candidate without a request.
    Candidate(VersionId),
}

/// When the evidence of a decision begins to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The end of the progress topic then: reports at or past it count.
    pub end: Offset,
    /// The broker's time then.
    pub at: Timestamp,
}

/// What was sampled of a candidate, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What was read.
    pub sampled: Sampled,
    /// The end of the progress topic before it was read.
    pub since: Offset,
    /// The broker's time then.
    pub at: Timestamp,
    /// Whether a count is under way, and sampling again goes on with it.
    pub counting: bool,
}

/// What stands in a version's sink as its view's alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AliasSeen {
    /// The sink stores no aliases: gateways follow the catalog, and the holders delete.
    Held,
    /// It was read back a few seconds ago at most.
    Is(Option<AliasPointer>),
    /// It could not be read or written.
    Fault(String),
}

/// What a coordinator sees of the world. All of it may be lost in a crash: it is read again.
#[derive(Debug)]
pub struct Observed<'a> {
    /// A lower bound of the broker's time, at most about a second below it.
    pub now: Timestamp,
    /// Claims and progress.
    pub reports: &'a Reports,
    /// The decisions that were begun.
    pub begun: &'a BTreeMap<Subject, Begun>,
    /// What was sampled.
    pub samples: &'a BTreeMap<VersionId, Sample>,
    /// The aliases as they stand in the sink of each version.
    pub aliases: &'a BTreeMap<VersionId, AliasSeen>,
    /// The versions of which a sink said that nothing is left.
    pub deleted: &'a BTreeSet<VersionId>,
    /// How long a version is kept after the last reader was routed to it.
    pub drain: Duration,
}

/// A fact that is to be appended. Decided on one revision of one view.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The view that it changes.
    pub view: ViewName,
    /// The view's revision that it was decided on.
    pub revision: u64,
    /// The earliest append time at which it counts.
    pub not_before: Option<Timestamp>,
    /// The latest append time at which it counts.
    pub not_after: Timestamp,
    /// The request that it answers.
    pub answers: Option<EventId>,
    /// What is so from now on.
    pub body: Body,
}

impl Fact {
    /// Makes a fact of what a coordinator decides by itself, at any time from now on.
    #[must_use]
    pub fn new(catalog: &Catalog, view: &ViewName, body: Body) -> Self {
        Self {
            view: view.clone(),
            revision: catalog.revision(view),
            not_before: None,
            not_after: NEVER,
            answers: None,
            body,
        }
    }

    /// Returns the action that appends it.
    #[must_use]
    pub fn append(self) -> Action {
        Action::Append(Box::new(self))
    }
}

/// What a coordinator does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Say that a request is worked on.
    Take(EventId),
    /// Remember the end of the progress topic: evidence counts from here on.
    Begin(Subject),
    /// Read what the sampled gates of a candidate need.
    Sample(VersionId),
    /// Append a fact.
    Append(Box<Fact>),
    /// Read the view's alias in the sink of this version.
    ReadAlias(VersionId),
    /// Point the view's alias at this version, in its sink, and read it back.
    MoveAlias(VersionId, AliasPointer),
    /// Remove the view's alias from the sink of this version unless it is of the given epoch or newer.
    RemoveAlias(VersionId, Offset),
    /// Delete some of what a version stored. The offset is that of the event that allows it.
    Delete(VersionId, Offset),
    /// Forget what was claimed and reported under a key.
    Forget(String),
}

/// Returns what is to be done now, in order; at most one fact of each view, and nothing once the catalog
/// holds a newer program's event, which may mean anything.
#[must_use]
pub fn decide(catalog: &Catalog, seen: &Observed<'_>) -> Vec<Action> {
    if catalog.newer().is_some() && !is_planted(Defect::NewerIgnored) {
        return Vec::new();
    }
    let mut actions = Vec::new();
    let outstanding = catalog.outstanding();
    let untaken = outstanding.iter().filter(|(_, asked)| !asked.taken);
    actions.extend(untaken.map(|(id, _)| Action::Take((*id).clone())));

    let mut answered = BTreeSet::new();
    for (id, asked) in outstanding {
        let view = asked.verb.view();
        // The next request about the same view is decided on what this one leaves.
        if answered.insert(view.clone()) {
            actions.extend(requests::answer(catalog, seen, id, asked));
        }
    }
    for (name, view) in catalog.views() {
        if !answered.contains(name) {
            actions.extend(promote_by_itself(catalog, seen, name, view));
        }
        actions.extend(sample_candidate(seen, view));
        actions.extend(steps::follow_up(catalog, seen, name, view));
    }
    actions.extend(growth::record(catalog, seen));
    actions.extend(steps::forget(catalog, seen));
    one_fact_per_view(actions)
}

fn one_fact_per_view(actions: Vec<Action>) -> Vec<Action> {
    let mut changed = BTreeSet::new();
    let mut first = |action: &Action| match action {
        Action::Append(fact) => changed.insert(fact.view.clone()),
        Action::Take(_)
        | Action::Begin(_)
        | Action::Sample(_)
        | Action::ReadAlias(_)
        | Action::MoveAlias(..)
        | Action::RemoveAlias(..)
        | Action::Delete(..)
        | Action::Forget(_) => true,
    };
    actions.into_iter().filter(|action| first(action)).collect()
}

/// What the gates say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Judged {
    /// Nothing yet: this is to be done first.
    Wait(Vec<Action>),
    /// Everything was read.
    Read {
        /// Every gate.
        readings: Vec<GateReading>,
        /// The latest append time of a fact that rests on them.
        not_after: Timestamp,
    },
}

/// What is judged: whether `version` may become live.
pub(crate) struct Question<'a> {
    pub(crate) subject: Subject,
    pub(crate) version: &'a Version,
    /// The version that it is held against; `None` for the first one.
    pub(crate) live: Option<&'a Version>,
    /// Whether this is a rollback: the standby's own health and lag count, and nothing else.
    pub(crate) back: bool,
}

/// Reads all gates on evidence that was reported and sampled after the decision began.
pub(crate) fn judge(seen: &Observed<'_>, question: &Question<'_>) -> Judged {
    let Some(begun) = seen.begun.get(&question.subject) else {
        return Judged::Wait(vec![Action::Begin(question.subject.clone())]);
    };
    let patient = seen.now < begun.at.plus(EVIDENCE_WITHIN);
    let definition = &question.version.definition;
    let sample = seen.samples.get(&question.version.id);
    if !question.back && needs_sample(question) {
        let fresh = sample.is_some_and(|sample| sample.since >= begun.end);
        let whole = sample.is_some_and(|sample| !sample.counting);
        if !fresh || (!whole && patient) {
            return Judged::Wait(vec![Action::Sample(question.version.id.clone())]);
        }
    }
    let evidence = Evidence::collect(question.version, seen.reports, begun.end);
    let live = question.live.filter(|_| !question.back);
    let live = live.map(|live| Evidence::collect(live, seen.reports, begun.end));
    let complete = evidence.is_complete() && live.as_ref().is_none_or(Evidence::is_complete);
    if !complete && patient {
        return Judged::Wait(Vec::new());
    }
    let of_live = live.as_ref().and_then(Evidence::oldest);
    let oldest = evidence.oldest().into_iter().chain(of_live).min();
    let not_after = oldest.unwrap_or(seen.now).plus(EVIDENCE_EXPIRES);
    if seen.now >= not_after {
        return Judged::Wait(vec![Action::Begin(question.subject.clone())]);
    }
    let alone = question.live.is_none() || question.back;
    let stable_for = if alone {
        Duration::ZERO
    } else {
        definition.gates.stable_for
    };
    let mut readings = gates::continuous(&evidence, stable_for);
    if !question.back {
        let sampled = sample.map(|sample| &sample.sampled);
        readings.extend(gates::sampled(
            &definition.gates,
            sampled,
            &evidence,
            live.as_ref(),
        ));
    }
    Judged::Read {
        readings,
        not_after,
    }
}

fn needs_sample(question: &Question<'_>) -> bool {
    let gates = &question.version.definition.gates;
    let counts = question.live.is_some() && gates.documents_ratio.is_some();
    counts || !gates.queries.is_empty() || !gates.keys.is_empty()
}

/// The first version of a view, and any where the definition says so, needs no verb.
fn promote_by_itself(
    catalog: &Catalog,
    seen: &Observed<'_>,
    name: &ViewName,
    view: &View,
) -> Vec<Action> {
    use materializer_model::definition::Promotion;

    let live = view.live();
    let candidate = view.candidate().filter(|candidate| {
        let auto = candidate.definition.promotion == Promotion::Auto;
        candidate.paused.is_none() && (live.is_none() || auto)
    });
    let Some(candidate) = candidate.filter(|candidate| looks_ready(seen, candidate, live)) else {
        return Vec::new();
    };
    let subject = Subject::Candidate(candidate.id.clone());
    let old = seen
        .begun
        .get(&subject)
        .map(|begun| begun.at.plus(EVIDENCE_WITHIN));
    if old.is_some_and(|old| seen.now >= old) {
        return vec![Action::Begin(subject)];
    }
    let question = Question {
        subject,
        version: candidate,
        live,
        back: false,
    };
    match judge(seen, &question) {
        Judged::Wait(actions) => actions,
        Judged::Read {
            readings,
            not_after,
        } => {
            if !gates::failing(&readings, &BTreeSet::new()).is_empty() {
                return Vec::new();
            }
            let body = requests::promoted(view, &candidate.id, readings, BTreeSet::new());
            let mut fact = Fact::new(catalog, name, body);
            fact.not_after = not_after;
            vec![fact.append()]
        }
    }
}

/// Keeps the sampled gates of a candidate known once its continuous ones hold.
fn sample_candidate(seen: &Observed<'_>, view: &View) -> Option<Action> {
    let live = view.live();
    let candidate = view.candidate()?;
    let question = Question {
        subject: Subject::Candidate(candidate.id.clone()),
        version: candidate,
        live,
        back: false,
    };
    if !needs_sample(&question) || !looks_ready(seen, candidate, live) {
        return None;
    }
    let sample = seen.samples.get(&candidate.id);
    let due = sample.is_none_or(|s| s.counting || seen.now >= s.at.plus(SAMPLE_EVERY));
    due.then(|| Action::Sample(candidate.id.clone()))
}

/// Says whether the continuous gates hold by the last reports: worth a decision on fresh ones.
fn looks_ready(seen: &Observed<'_>, candidate: &Version, live: Option<&Version>) -> bool {
    let evidence = Evidence::collect(candidate, seen.reports, Offset(0));
    let alive = evidence
        .oldest()
        .is_some_and(|at| seen.now <= at.plus(ALIVE));
    let stable_for = live.map_or(Duration::ZERO, |_| candidate.definition.gates.stable_for);
    let readings = gates::continuous(&evidence, stable_for);
    alive && readings.iter().all(|reading| reading.holds)
}
