//! Every reachable state of one view, breadth first: several versions, two coordinators, a gateway
//! that lags, operators who ask for anything. A coordinator may be paused for any time between
//! deciding and acting, and crash; of three versions, one of the two may, of two versions, both.
//! The fold, the plans and the decisions are the real ones; time stands still, with a
//! soak and a drain of no length, so that they may end at any moment.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use materializer_migrations::decide::{Action, AliasSeen, Begun, Fact, Observed, Subject, decide};
use materializer_migrations::event::{NEVER, Read, SCHEMA};
use materializer_migrations::history::describe;
use materializer_migrations::judge::plan;
use materializer_migrations::plan::Plan;
use materializer_migrations::versions::Soak;
use materializer_migrations::{Body, Catalog, Envelope, Follower, Reports, Role, Verb, View};
use materializer_model::memory::{ManualClock, MemoryControl};
use materializer_model::ports::{AliasPointer, ControlLog, ControlTopic};
use materializer_model::{
    CatalogId, EventId, Offset, Timestamp, VersionId, VersionNumber, ViewDefinition, ViewName,
};

use crate::golden::topics;
use crate::sample::{apply, definition, promote, rollback, version, view};
use crate::world::{Said, report};

const NOW: Timestamp = Timestamp(1_000_000);
const VERSIONS_MAX: u32 = 3;

/// How much is explored.
#[derive(Clone, Copy)]
struct Scope {
    versions: u32,
    /// How many coordinators may be paused and crash; the others decide and act in one instant.
    paused: usize,
}

/// What happens between one state and the next.
#[derive(Clone, Debug)]
#[expect(
    dead_code,
    reason = "shown by `Debug`, in the path to a state that breaks a rule"
)]
enum Step {
    Asks(Plan),
    DecidesAndDoes(Action),
    Decides(usize, Action),
    Does(usize, Action),
    Crashes(usize),
    GatewayReads,
}

/// What one coordinator knows beyond the catalog, and what it is about to do.
#[derive(Clone, Default)]
struct Process {
    alias: Option<Option<AliasPointer>>,
    deleted: BTreeSet<VersionId>,
    about_to: Option<Action>,
}

#[derive(Clone)]
struct State {
    scope: Scope,
    catalog: Catalog,
    processes: [Process; 2],
    /// The alias as the sink stores it.
    alias: Option<AliasPointer>,
    /// The versions of which something is stored.
    stored: BTreeSet<VersionNumber>,
    /// Up to where the gateway has read, and the version that it routes to.
    gateway: (Offset, Option<VersionNumber>),
    /// Whether the view had a live version before.
    was_live: bool,
}

/// Reports in which all is well and the gateway has read up to an offset.
#[derive(Default)]
struct AllIsWell(HashMap<Offset, Reports>);

impl AllIsWell {
    fn reports(&mut self, gateway: Offset) -> &Reports {
        self.0.entry(gateway).or_insert_with(|| {
            let mut log = MemoryControl::new("main", ManualClock::new(NOW)).log();
            log.create().expect("created");
            for number in 1..=VERSIONS_MAX {
                report(&mut log, &version(number), &Said::default());
            }
            let folded = gateway.0;
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

impl State {
    fn new(scope: Scope) -> Self {
        let mut state = Self {
            scope,
            catalog: Catalog::default(),
            processes: Default::default(),
            alias: None,
            stored: BTreeSet::new(),
            gateway: (Offset(0), None),
            was_live: false,
        };
        let created = Body::CatalogCreated {
            catalog: CatalogId::new("catalog"),
            topics: topics(),
        };
        state.append(BTreeMap::new(), None, created);
        state
    }

    fn view(&self) -> Option<&View> {
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

    fn decide(&self, process: &Process, well: &mut AllIsWell) -> Vec<Action> {
        let begun = Begun {
            end: Offset(0),
            at: NOW,
        };
        let asked = self.catalog.outstanding().into_iter();
        let asked = asked.map(|(id, _)| Subject::Request(id.clone()));
        let candidates =
            (1..=self.scope.versions).map(|number| Subject::Candidate(version(number)));
        let seen = process
            .alias
            .iter()
            .map(|alias| AliasSeen::Is(alias.clone()));
        let aliases =
            seen.flat_map(|seen| (1..=VERSIONS_MAX).map(move |n| (version(n), seen.clone())));
        let observed = Observed {
            now: NOW,
            reports: well.reports(self.gateway.0),
            begun: &asked
                .chain(candidates)
                .map(|subject| (subject, begun))
                .collect(),
            samples: &BTreeMap::new(),
            aliases: &aliases.collect(),
            deleted: &process.deleted,
            drain: Duration::ZERO,
        };
        let mut actions = decide(&self.catalog, &observed);
        // Neither matters to the view.
        actions.retain(|action| !matches!(action, Action::Take(_) | Action::Forget(_)));
        actions
    }

    /// Does an action; a paused process remembers what came of it.
    fn act(&mut self, index: Option<usize>, action: Action) {
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
                if let Some(index) = index {
                    self.processes[index].deleted.insert(version);
                }
                return;
            }
            Action::Take(_) | Action::Forget(_) | Action::Begin(_) | Action::Sample(_) => {
                panic!("not to be done here: {action:?}")
            }
        }
        if let Some(index) = index {
            self.processes[index].alias = Some(self.alias.clone());
        }
    }

    fn gateway_reads(&mut self) {
        let live = self
            .view()
            .and_then(|view| view.alias.as_ref())
            .map(|alias| alias.version);
        self.gateway = (self.catalog.next(), live);
    }

    /// Everything that an operator may ask for.
    fn verbs(&self) -> Vec<Verb> {
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
    fn next(&self, well: &mut AllIsWell) -> Vec<(Step, Self)> {
        let mut next = Vec::new();
        if self.catalog.outstanding().is_empty() {
            for verb in self.verbs() {
                if let Ok(plan) = plan(&self.catalog, &verb)
                    && !plan.is_nothing()
                {
                    let mut state = self.clone();
                    let what = Step::Asks(plan.clone());
                    state.append(BTreeMap::new(), None, Body::Request { verb, plan });
                    next.push((what, state));
                }
            }
        }
        if self.scope.paused < self.processes.len() {
            // It has just looked at everything.
            let process = Process {
                alias: Some(self.alias.clone()),
                deleted: self.deleted(),
                about_to: None,
            };
            for action in self.decide(&process, well) {
                let mut state = self.clone();
                let what = Step::DecidesAndDoes(action.clone());
                state.act(None, action);
                next.push((what, state));
            }
        }
        for index in 0..self.scope.paused {
            self.next_of_paused(index, well, &mut next);
        }
        if self.gateway.0 < self.catalog.next() {
            let mut state = self.clone();
            state.gateway_reads();
            next.push((Step::GatewayReads, state));
        }
        next
    }

    fn deleted(&self) -> BTreeSet<VersionId> {
        let versions = self
            .view()
            .into_iter()
            .flat_map(|view| view.versions.values());
        versions
            .filter(|version| !self.stored.contains(&version.id.number))
            .map(|version| version.id.clone())
            .collect()
    }

    fn next_of_paused(&self, index: usize, well: &mut AllIsWell, next: &mut Vec<(Step, Self)>) {
        let process = &self.processes[index];
        if let Some(action) = process.about_to.clone() {
            let mut state = self.clone();
            state.processes[index].about_to = None;
            let what = Step::Does(index, action.clone());
            state.act(Some(index), action);
            next.push((what, state));
        } else {
            for action in self.decide(process, well) {
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
    fn key(&self) -> u64 {
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
        let revision = self.catalog.revision(&crate::sample::view());
        let of = |process: &Process| {
            let mut hasher = DefaultHasher::new();
            process.alias.as_ref().map(age).hash(&mut hasher);
            process.deleted.hash(&mut hasher);
            match &process.about_to {
                // An event that is stale already changes nothing when it comes.
                Some(Action::Append(fact)) if fact.revision != revision => {}
                Some(Action::Append(fact)) => describe(&fact.body).hash(&mut hasher),
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

    fn check(&self) -> Result<(), String> {
        let Some(view) = self.view() else {
            return Ok(());
        };
        let in_role = |role| {
            view.versions
                .values()
                .filter(move |v| v.role == role)
                .count()
        };
        if in_role(Role::Live) > 1 || in_role(Role::Standby) > 1 || in_role(Role::Building) > 1 {
            return Err("two in a role for one".into());
        }
        if self.was_live && view.live().is_none() && view.retired.is_none() {
            return Err("no live version although nobody retired the view".into());
        }
        if view.alias.as_ref().map(|alias| alias.version) != view.live().map(|live| live.id.number)
        {
            return Err("the alias does not name the live version".into());
        }
        for version in view.versions.values() {
            let kept = !matches!(version.role, Role::Retiring | Role::Retired);
            let stored = self.stored.contains(&version.id.number);
            if kept && !stored {
                return Err(format!(
                    "{} is {} and was deleted",
                    version.id, version.role
                ));
            }
            if version.role == Role::Retired && stored {
                return Err(format!("{} is retired and still stored", version.id));
            }
        }
        if self
            .gateway
            .1
            .is_some_and(|routed| !self.stored.contains(&routed))
        {
            return Err("the gateway routes to what was deleted".into());
        }
        let confirmed = view
            .alias
            .as_ref()
            .is_some_and(|alias| alias.soak != Soak::Unconfirmed);
        if confirmed && self.alias != view.pointer() {
            return Err("the alias was confirmed and is not in the sink".into());
        }
        Ok(())
    }

    /// Lets one coordinator and the gateway work undisturbed, then looks whether anything is stuck.
    fn settles(mut self, well: &mut AllIsWell) -> Result<(), String> {
        self.scope.paused = 1;
        for _ in 0..200 {
            self.gateway_reads();
            self.processes[0].alias = None;
            let mut idle = true;
            loop {
                let actions = self.decide(&self.processes[0], well);
                let Some(action) = actions.into_iter().next() else {
                    break;
                };
                idle = matches!(action, Action::ReadAlias(_)) && idle;
                self.act(Some(0), action);
                self.gateway_reads();
            }
            if idle {
                return self.is_settled();
            }
        }
        Err("it never comes to rest".into())
    }

    fn is_settled(&self) -> Result<(), String> {
        let Some(view) = self.view() else {
            return Ok(());
        };
        if !self.catalog.outstanding().is_empty() {
            return Err("a request is never answered".into());
        }
        if self.alias != view.pointer() {
            return Err("the alias never follows".into());
        }
        for version in view.versions.values() {
            let way_out = match version.role {
                Role::Building => Verb::Abort {
                    version: version.id.clone(),
                },
                Role::Live => Verb::Retire {
                    view: version.id.view.clone(),
                    version: None,
                },
                Role::Retired => continue,
                // With a soak of no length, a standby goes by itself, as what follows it does.
                Role::Standby | Role::Draining | Role::Retiring => {
                    return Err(format!("{} stays {}", version.id, version.role));
                }
            };
            if plan(&self.catalog, &way_out).is_err() {
                return Err(format!(
                    "no verb leads out of {} for {}",
                    version.role, version.id
                ));
            }
        }
        Ok(())
    }
}

fn explore(scope: Scope) -> BTreeSet<Vec<Role>> {
    let mut well = AllIsWell::default();
    let mut came_from: HashMap<u64, (u64, Step)> = HashMap::new();
    let mut seen = HashSet::from([State::new(scope).key()]);
    let mut queue = VecDeque::from([State::new(scope)]);
    let mut settled = HashSet::new();
    let mut roles = BTreeSet::new();
    while let Some(state) = queue.pop_front() {
        let key = state.key();
        let mut alone = state.clone();
        alone.processes = Default::default();
        alone.gateway_reads();
        // What a state settles to does not depend on who is paused.
        let untried = settled.insert(alone.key());
        let settles = |well| if untried { alone.settles(well) } else { Ok(()) };
        let broken = state.check().and_then(|()| settles(&mut well));
        if let Err(broken) = broken {
            panic!("{broken}\n{}", path(&came_from, key).join("\n"));
        }
        let versions = state
            .view()
            .into_iter()
            .flat_map(|view| view.versions.values());
        roles.insert(versions.map(|version| version.role).collect());
        for (what, next) in state.next(&mut well) {
            let found = next.key();
            if seen.insert(found) {
                came_from.insert(found, (key, what));
                queue.push_back(next);
            }
        }
    }
    roles
}

#[test]
fn no_interleaving_of_three_versions_breaks_an_invariant_and_every_state_has_a_way_out() {
    let roles = explore(Scope {
        versions: 3,
        paused: 1,
    });
    for reached in [
        vec![Role::Retired, Role::Standby, Role::Live],
        vec![Role::Retired, Role::Retired, Role::Retired],
        vec![Role::Live, Role::Standby, Role::Building],
        vec![Role::Draining, Role::Standby, Role::Live],
    ] {
        assert!(roles.contains(&reached), "{reached:?} was not reached");
    }
}

#[test]
fn no_interleaving_of_two_paused_coordinators_breaks_an_invariant() {
    explore(Scope {
        versions: 2,
        paused: 2,
    });
}

fn path(came_from: &HashMap<u64, (u64, Step)>, mut key: u64) -> Vec<String> {
    let mut path = Vec::new();
    while let Some((before, what)) = came_from.get(&key) {
        path.push(format!("{what:?}"));
        key = *before;
    }
    path.reverse();
    path
}
