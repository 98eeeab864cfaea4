//! One state of the exploration, what may follow it, and which states are the same.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use materializer_migrations::decide::{Action, AliasSeen, Begun, Fact, Observed, Subject, decide};
use materializer_migrations::event::{NEVER, Read, SCHEMA};
use materializer_migrations::history::{describe, subject};
use materializer_migrations::judge::plan;
use materializer_migrations::plan::Plan;
use materializer_migrations::versions::Soak;
use materializer_migrations::{Body, Catalog, Envelope, Follower, Reports, Verb, View};
use materializer_model::memory::{ManualClock, MemoryControl};
use materializer_model::ports::{AliasPointer, ControlLog, ControlTopic};
use materializer_model::progress::Health;
use materializer_model::{
    CatalogId, EventId, Offset, Timestamp, VersionId, VersionNumber, ViewDefinition, ViewName,
};

use crate::golden::topics;
use crate::sample::{apply, definition, promote, rollback, version, view};
use crate::world::{Said, report};

const NOW: Timestamp = Timestamp(1_000_000);
/// Three, and those that are built on the way out of a state.
pub(super) const VERSIONS_MAX: u32 = 5;

/// Says of an event whether an older release does not understand it.
pub(super) type Unknown = fn(&Body) -> bool;

/// How much is explored.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub(super) versions: u32,
    /// How many coordinators may be paused and crash; the others decide and act in one instant.
    pub(super) paused: usize,
    /// Whether a paused coordinator may decide on an alias that it read some time before; else it
    /// has just read it.
    pub(super) remembers: bool,
    /// How many requests may be open at once: of operators that do not know of each other.
    pub(super) requests: usize,
    /// Whether one of the versions may lose its data.
    pub(super) damages: bool,
    /// Which events an older release does not understand, where the gateway and the coordinator that may
    /// be paused are of one, until they are upgraded.
    pub(super) unknown: Option<Unknown>,
}

/// What happens between one state and the next.
#[derive(Clone, Debug)]
#[expect(
    dead_code,
    reason = "shown by `Debug`, in the path to a state that breaks a rule"
)]
pub(super) enum Step {
    Asks(Plan),
    DecidesAndDoes(Action),
    Decides(usize, Action),
    Does(usize, Action),
    Crashes(usize),
    GatewayReads,
    Damages(VersionNumber),
    IsUpgraded,
}

/// What one coordinator knows beyond the catalog, and what it is about to do.
#[derive(Clone, Default)]
pub(super) struct Process {
    pub(super) alias: Option<Option<AliasPointer>>,
    pub(super) deleted: BTreeSet<VersionId>,
    pub(super) about_to: Option<Action>,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) scope: Scope,
    pub(super) catalog: Catalog,
    pub(super) processes: [Process; 2],
    /// The alias as the sink stores it.
    pub(super) alias: Option<AliasPointer>,
    /// The versions of which something is stored.
    pub(super) stored: BTreeSet<VersionNumber>,
    /// Up to where the gateway has read, and the version that it routes to.
    pub(super) gateway: (Offset, Option<VersionNumber>),
    /// Whether the view had a live version before.
    pub(super) was_live: bool,
    /// The version that lost its data.
    pub(super) damaged: Option<VersionNumber>,
    /// The catalog as an older release folds it.
    pub(super) old: Catalog,
}

/// Reports in which all is well but for one version, and the gateway has read up to an offset.
#[derive(Default)]
pub(super) struct Heard(HashMap<(Offset, Option<VersionNumber>), Reports>);

impl Heard {
    fn reports(&mut self, gateway: Offset, damaged: Option<VersionNumber>) -> &Reports {
        self.0.entry((gateway, damaged)).or_insert_with(|| {
            let mut log = MemoryControl::new("main", ManualClock::new(NOW)).log();
            log.create().expect("created");
            for number in 1..=VERSIONS_MAX {
                let mut said = Said::default();
                if damaged == Some(VersionNumber(number)) {
                    said.health = Health::Damaged { why: "lost".into() };
                }
                report(&mut log, &version(number), &said);
            }
            let folded = gateway.0;
            for _ in 0..folded {
                log.append(ControlTopic::Catalog, None, None)
                    .expect("appended");
            }
            let value =
                format!(r#"{{"process":"g","sequence":1,"folded":{folded},"address":null}}"#);
            log.append(
                ControlTopic::Progress,
                Some("gateway/g"),
                Some(value.as_bytes()),
            )
            .expect("appended");
            let mut state = Follower::default();
            state.follow(&mut log).expect("read");
            state.reports().clone()
        })
    }
}

fn edition(number: u32) -> ViewDefinition {
    let mut definition = definition(&format!("edition{number}"));
    definition.soak = Duration::ZERO;
    definition.gates.documents_ratio = None;
    definition
}

/// An event as a release reads it that knows neither its schema number nor its body.
fn newer(event: &Envelope) -> Envelope<serde_json::Value> {
    Envelope {
        schema: SCHEMA + 1,
        id: event.id.clone(),
        views: event.views.clone(),
        not_before: event.not_before,
        not_after: event.not_after,
        who: event.who.clone(),
        why: event.why.clone(),
        answers: event.answers.clone(),
        body: serde_json::Value::Null,
    }
}

impl State {
    pub(super) fn new(scope: Scope) -> Self {
        let mut state = Self {
            scope,
            catalog: Catalog::default(),
            processes: Default::default(),
            alias: None,
            stored: BTreeSet::new(),
            gateway: (Offset(0), None),
            was_live: false,
            damaged: None,
            old: Catalog::default(),
        };
        let created = Body::CatalogCreated {
            catalog: CatalogId::new("catalog"),
            topics: topics(),
        };
        state.append(BTreeMap::new(), None, created);
        state
    }

    pub(super) fn view(&self) -> Option<&View> {
        self.catalog.view(&view())
    }

    fn append(&mut self, views: BTreeMap<ViewName, u64>, answers: Option<EventId>, body: Body) {
        let offset = self.catalog.next();
        let event = Envelope {
            schema: SCHEMA,
            id: EventId::new(offset.to_string()),
            views,
            not_before: None,
            not_after: NEVER,
            who: String::new(),
            why: String::new(),
            answers,
            body,
        };
        if let Some(unknown) = self.scope.unknown {
            let read = if unknown(&event.body) {
                Read::NewerBody(newer(&event))
            } else {
                Read::Known(event.clone())
            };
            self.old.fold_event(offset, NOW, read);
        }
        self.catalog.fold_event(offset, NOW, Read::Known(event));
        let versions = self.catalog.view(&view()).map(|view| &view.versions);
        for version in versions.into_iter().flatten().map(|(_, version)| version) {
            if version.started.offset == offset {
                self.stored.insert(version.id.number);
            }
        }
        self.was_live |= self.view().is_some_and(|view| view.live().is_some());
    }

    fn append_fact(&mut self, fact: Fact) {
        let views = BTreeMap::from([(fact.view, fact.revision)]);
        self.append(views, fact.answers, fact.body);
    }

    /// Returns the catalog as the gateway, and the coordinator that may be paused, know it.
    pub(super) fn of_old_release(&self) -> &Catalog {
        self.scope.unknown.map_or(&self.catalog, |_| &self.old)
    }

    /// Ends the older release: its processes are started anew, of the newer one.
    pub(super) fn upgrade(&mut self) {
        self.scope.unknown = None;
        self.old = Catalog::default();
        self.processes = Default::default();
        self.gateway_reads();
    }

    pub(super) fn decide(
        &self,
        catalog: &Catalog,
        process: &Process,
        heard: &mut Heard,
    ) -> Vec<Action> {
        let begun = Begun {
            end: Offset(0),
            at: NOW,
        };
        let asked = catalog.outstanding().into_iter();
        let asked = asked.map(|(id, _)| Subject::Request(id.clone()));
        let candidates = (1..=VERSIONS_MAX).map(|number| Subject::Candidate(version(number)));
        let seen = process
            .alias
            .iter()
            .map(|alias| AliasSeen::Is(alias.clone()));
        let aliases =
            seen.flat_map(|seen| (1..=VERSIONS_MAX).map(move |n| (version(n), seen.clone())));
        let observed = Observed {
            now: NOW,
            reports: heard.reports(self.gateway.0, self.damaged),
            begun: &asked
                .chain(candidates)
                .map(|subject| (subject, begun))
                .collect(),
            samples: &BTreeMap::new(),
            aliases: &aliases.collect(),
            deleted: &process.deleted,
            drain: Duration::ZERO,
        };
        let mut actions = decide(catalog, &observed);
        // Neither matters to the view.
        actions.retain(|action| !matches!(action, Action::Take(_) | Action::Forget(_)));
        actions
    }

    /// Does an action; a paused process remembers what came of it.
    pub(super) fn act(&mut self, index: Option<usize>, action: Action) {
        match action {
            Action::Append(fact) => return self.append_fact(*fact),
            Action::ReadAlias(_) => {}
            Action::MoveAlias(_, to) => {
                if self.alias.as_ref().is_none_or(|held| held.epoch < to.epoch) {
                    self.alias = Some(to);
                }
            }
            Action::RemoveAlias(_, gone) => {
                self.alias.take_if(|held| held.epoch < gone);
            }
            Action::Delete(version, _) => {
                self.stored.remove(&version.number);
                if let Some(index) = index.filter(|_| self.scope.remembers) {
                    self.processes[index].deleted.insert(version);
                }
                return;
            }
            Action::Take(_) | Action::Forget(_) | Action::Begin(_) | Action::Sample(_) => {
                panic!("not to be done here: {action:?}")
            }
        }
        if let Some(index) = index.filter(|_| self.scope.remembers) {
            self.processes[index].alias = Some(self.alias.clone());
        }
    }

    pub(super) fn gateway_reads(&mut self) {
        let catalog = self.of_old_release();
        let view = catalog.view(&view());
        let live = view.and_then(|view| view.alias.as_ref());
        self.gateway = (catalog.known_to(), live.map(|alias| alias.version));
    }

    /// Everything that an operator may ask for.
    pub(super) fn verbs(&self) -> Vec<Verb> {
        let mut verbs = vec![
            rollback(),
            Verb::Retire {
                view: view(),
                version: None,
            },
        ];
        // The definition of vN is edition N: other ways to number them are the same states.
        let next = self.view().map_or(VersionNumber(1), View::next_number);
        for number in 1..=self.scope.versions {
            let known = self.catalog.version(&version(number));
            if number == next.0 || known.is_some_and(|version| version.role.is_fed()) {
                verbs.push(apply(edition(number)));
            }
            verbs.push(promote(number));
            verbs.push(Verb::Abort {
                version: version(number),
            });
            verbs.push(Verb::Retire {
                view: view(),
                version: Some(VersionNumber(number)),
            });
        }
        verbs
    }

    /// The states that may follow.
    pub(super) fn next(&self, heard: &mut Heard) -> Vec<(Step, Self)> {
        let mut next = Vec::new();
        if self.catalog.outstanding().len() < self.scope.requests {
            let asked = self.verbs().into_iter().filter_map(|verb| self.asked(verb));
            next.extend(asked.map(|(plan, state)| (Step::Asks(plan), state)));
        }
        if self.scope.paused < self.processes.len() {
            for action in self.decide(&self.catalog, &self.has_just_looked(), heard) {
                let mut state = self.clone();
                let what = Step::DecidesAndDoes(action.clone());
                state.act(None, action);
                next.push((what, state));
            }
        }
        for index in 0..self.scope.paused {
            self.next_of_paused(index, heard, &mut next);
        }
        if self.gateway.0 < self.of_old_release().known_to() {
            let mut state = self.clone();
            state.gateway_reads();
            next.push((Step::GatewayReads, state));
        }
        if self.scope.unknown.is_some() && self.old.newer().is_some() {
            let mut state = self.clone();
            state.upgrade();
            next.push((Step::IsUpgraded, state));
        }
        if self.scope.damages && self.damaged.is_none() {
            for number in &self.stored {
                let mut state = self.clone();
                state.damaged = Some(*number);
                next.push((Step::Damages(*number), state));
            }
        }
        next
    }

    /// Returns the state in which somebody has asked for something; `None` where it cannot be asked for,
    /// or is so already.
    pub(super) fn asked(&self, verb: Verb) -> Option<(Plan, Self)> {
        let plan = plan(&self.catalog, &verb).ok()?;
        if plan.is_nothing() {
            return None;
        }
        let mut state = self.clone();
        let body = Body::Request {
            verb,
            plan: plan.clone(),
            declaration: None,
        };
        state.append(BTreeMap::new(), None, body);
        Some((plan, state))
    }

    /// What a coordinator knows that has just looked at everything.
    fn has_just_looked(&self) -> Process {
        let versions = self
            .view()
            .into_iter()
            .flat_map(|view| view.versions.values());
        let gone = versions.filter(|version| !self.stored.contains(&version.id.number));
        Process {
            alias: Some(self.alias.clone()),
            deleted: gone.map(|version| version.id.clone()).collect(),
            about_to: None,
        }
    }

    fn next_of_paused(&self, index: usize, heard: &mut Heard, next: &mut Vec<(Step, Self)>) {
        let process = &self.processes[index];
        if let Some(action) = process.about_to.clone() {
            let mut state = self.clone();
            state.processes[index].about_to = None;
            let what = Step::Does(index, action.clone());
            state.act(Some(index), action);
            next.push((what, state));
        } else {
            let looked = (!self.scope.remembers).then(|| self.has_just_looked());
            let looked = looked.as_ref().unwrap_or(process);
            for action in self.decide(self.of_old_release(), looked, heard) {
                let mut state = self.clone();
                let what = Step::Decides(index, action.clone());
                state.processes[index].about_to = Some(action);
                next.push((what, state));
            }
        }
        if process.about_to.is_some() || process.alias.is_some() {
            let mut state = self.clone();
            state.processes[index] = Process::default();
            next.push((Step::Crashes(index), state));
        }
    }

    /// Two states with the same key behave alike: offsets count only against each other.
    pub(super) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let view = self.view();
        let moved = view.and_then(|view| view.pointer());
        let age = |pointer: &Option<AliasPointer>| {
            pointer.as_ref().map(|p| {
                (
                    p.version,
                    Some(p.epoch).cmp(&moved.as_ref().map(|m| m.epoch)),
                )
            })
        };
        for version in view.iter().flat_map(|view| view.versions.values()) {
            let past = self.gateway.0 > version.changed.offset;
            let stored = self.stored.contains(&version.id.number);
            (version.role, version.rolled_back, past, stored).hash(&mut hasher);
        }
        let soak = view
            .and_then(|view| view.alias.as_ref())
            .map(|alias| alias.soak != Soak::Unconfirmed);
        (
            soak,
            moved.is_some(),
            view.is_some_and(|v| v.retired.is_some()),
        )
            .hash(&mut hasher);
        (
            moved.as_ref().map(|m| self.gateway.0 > m.epoch),
            self.gateway.1,
        )
            .hash(&mut hasher);
        age(&self.alias).hash(&mut hasher);
        self.damaged.hash(&mut hasher);
        self.hash_old(&mut hasher);
        let revision = self.catalog.revision(&crate::sample::view());
        let of = |process: &Process| {
            let mut hasher = DefaultHasher::new();
            process.alias.as_ref().map(age).hash(&mut hasher);
            process.deleted.hash(&mut hasher);
            match &process.about_to {
                // An event that is stale already changes nothing when it comes.
                Some(Action::Append(fact)) if fact.revision != revision => {}
                Some(Action::Append(fact)) => {
                    (subject(&fact.body), describe(&fact.body)).hash(&mut hasher);
                }
                Some(Action::MoveAlias(_, to)) => age(&Some(to.clone())).hash(&mut hasher),
                Some(Action::RemoveAlias(_, gone)) => {
                    let removes = self.alias.as_ref().map(|held| held.epoch < *gone);
                    ("remove", removes).hash(&mut hasher);
                }
                Some(Action::Delete(version, _)) => ("delete", version.number).hash(&mut hasher),
                Some(other) => format!("{other:?}").hash(&mut hasher),
                None => "idle".hash(&mut hasher),
            }
            hasher.finish()
        };
        // It is all the same which of the two is which.
        let mut processes = self.processes.each_ref().map(of);
        processes.sort_unstable();
        processes.hash(&mut hasher);
        for (_, asked) in self.catalog.outstanding() {
            (asked.verb.word(), asked.plan.to_string()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// What an older release knows differs only once it has met what it does not understand, and then
    /// stands still.
    fn hash_old(&self, hasher: &mut DefaultHasher) {
        self.scope.unknown.is_some().hash(hasher);
        self.old.newer().is_some().hash(hasher);
        if self.old.newer().is_some() {
            self.gateway.0.cmp(&self.old.known_to()).hash(hasher);
            let frozen = self.old.view(&view());
            let frozen = frozen.and_then(|view| view.alias.as_ref());
            frozen.map(|alias| alias.version).hash(hasher);
        }
    }
}
