//! Every reachable state of one view, breadth first: several versions, two coordinators, a gateway
//! that lags, operators who ask for anything and do not know of each other, a version that loses its
//! data, an older release that does not understand all events. A coordinator may be paused for any time
//! between deciding and acting, and crash.
//!
//! The fold, the plans and the decisions are the real ones. Time stands still, with a soak and a
//! drain of no length, so that they may end at any moment. No scope has all of it at once: each test says
//! what its has, and prints how many states that is.

mod state;
mod way_out;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use materializer_migrations::versions::Soak;
use materializer_migrations::{Body, Role};

use self::state::{Heard, Scope, State, Step, Unknown};
use self::way_out::WaysOut;
use crate::sample::view;

impl State {
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
        self.releases_agree()
    }

    /// Which events count is the same for every release, whatever it understands.
    fn releases_agree(&self) -> Result<(), String> {
        let old = self.of_old_release();
        if old.revision(&view()) != self.catalog.revision(&view()) {
            return Err("two releases differ in which events count".into());
        }
        Ok(())
    }
}

/// What an exploration came to.
struct Explored {
    states: usize,
    /// Those that are left when everybody has done what there is to do.
    settled: usize,
    /// The roles of the versions, by number, that were met.
    roles: BTreeSet<Vec<Role>>,
}

/// Visits every state; the error is what is wrong with one, and the way to it.
fn explore(scope: Scope) -> Result<Explored, String> {
    let mut heard = Heard::default();
    let mut ways = WaysOut::default();
    let mut came_from: HashMap<u64, (u64, Step)> = HashMap::new();
    let mut seen = HashSet::from([State::new(scope).key()]);
    let mut queue = VecDeque::from([State::new(scope)]);
    let mut roles = BTreeSet::new();
    while let Some(state) = queue.pop_front() {
        let key = state.key();
        let broken = state.check();
        let broken = broken.and_then(|()| ways.check(&state, &mut heard));
        if let Err(broken) = broken {
            return Err(format!("{broken}\n{}", path(&came_from, key).join("\n")));
        }
        let versions = state
            .view()
            .into_iter()
            .flat_map(|view| view.versions.values());
        roles.insert(versions.map(|version| version.role).collect());
        for (what, next) in state.next(&mut heard) {
            let found = next.key();
            if seen.insert(found) {
                came_from.insert(found, (key, what));
                queue.push_back(next);
            }
        }
    }
    Ok(Explored {
        states: seen.len(),
        settled: ways.settled(),
        roles,
    })
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

const ONE_PAUSED: Scope = Scope {
    versions: 2,
    paused: 1,
    remembers: false,
    requests: 1,
    damages: false,
    unknown: None,
};

/// Three versions; one of the two coordinators may be paused.
const THREE_VERSIONS: Scope = Scope {
    versions: 3,
    ..ONE_PAUSED
};

/// Both coordinators may be paused, and decide on an alias that they read some time before.
const TWO_PAUSED: Scope = Scope {
    paused: 2,
    remembers: true,
    ..ONE_PAUSED
};

/// Two operators, and one version that loses its data at any moment.
const TWO_OPERATORS: Scope = Scope {
    requests: 2,
    damages: true,
    ..ONE_PAUSED
};

/// What an older release may not understand; of each, as of a newer schema number, it knows no more than
/// which views' revisions rise.
const UNKNOWN: [(&str, Unknown); 8] = [
    ("requests", |body| matches!(body, Body::Request { .. })),
    ("starts", |body| matches!(body, Body::Started(_))),
    ("promotions", |body| matches!(body, Body::Promoted { .. })),
    ("rollbacks", |body| matches!(body, Body::RolledBack { .. })),
    ("confirmations", |body| {
        matches!(body, Body::AliasConfirmed { .. })
    }),
    ("ends of soaks", |body| {
        matches!(body, Body::SoakEnded { .. })
    }),
    ("deletions", |body| {
        matches!(body, Body::Retiring { .. } | Body::Aborted { .. })
    }),
    ("ends of views", |body| {
        matches!(body, Body::ViewRetired { .. })
    }),
];

fn of_two_releases(unknown: Unknown) -> Scope {
    Scope {
        unknown: Some(unknown),
        ..ONE_PAUSED
    }
}

#[expect(clippy::print_stdout, reason = "how much was explored")]
fn holds(what: &str, scope: Scope) -> Explored {
    let explored = explore(scope).unwrap_or_else(|broken| panic!("{what}: {broken}"));
    let Explored {
        states, settled, ..
    } = explored;
    println!("{what}: {states} states, {settled} of them at rest");
    explored
}

#[test]
fn no_interleaving_of_three_versions_breaks_an_invariant_and_every_state_has_a_way_out() {
    let explored = holds("three versions", THREE_VERSIONS);
    for reached in [
        vec![Role::Retired, Role::Standby, Role::Live],
        vec![Role::Retired, Role::Retired, Role::Retired],
        vec![Role::Live, Role::Standby, Role::Building],
        vec![Role::Draining, Role::Standby, Role::Live],
    ] {
        assert!(
            explored.roles.contains(&reached),
            "{reached:?} was not reached"
        );
    }
}

#[test]
fn no_interleaving_of_two_paused_coordinators_breaks_an_invariant() {
    holds("two paused coordinators", TWO_PAUSED);
}

#[test]
fn two_operators_and_lost_data_break_no_invariant_and_leave_a_way_out() {
    holds("two operators", TWO_OPERATORS);
}

#[test]
fn an_older_release_breaks_no_invariant_whatever_it_does_not_understand() {
    for (what, unknown) in UNKNOWN {
        holds(what, of_two_releases(unknown));
    }
}

/// The exploration tested itself: it finds each of these rules broken.
#[cfg(feature = "mutations")]
#[test]
fn every_rule_that_is_broken_is_found_by_the_exploration() {
    use materializer_migrations::Defect;
    use materializer_model::defect::plant;

    for (defect, scope) in [
        (Defect::AliasLeft, TWO_OPERATORS),
        (Defect::GatewaysUnheard, TWO_OPERATORS),
        (Defect::StaleAccepted, TWO_OPERATORS),
        (Defect::ConfirmedUnread, TWO_OPERATORS),
        (Defect::RetiredForEver, TWO_OPERATORS),
        (Defect::SecondStandby, THREE_VERSIONS),
        (Defect::NewerIgnored, of_two_releases(UNKNOWN[2].1)),
    ] {
        plant(Some(defect));
        let found = explore(scope);
        plant::<Defect>(None);
        let broken = found.err();
        let broken = broken.unwrap_or_else(|| panic!("{defect:?} is not found"));
        let steps = broken.lines().count() - 1;
        let broken = broken.lines().next().unwrap_or_default();
        println!("{defect:?}: {broken}, after {steps} steps");
    }
}
