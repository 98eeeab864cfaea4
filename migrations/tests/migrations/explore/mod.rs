//! Every reachable state of one view, breadth first: several versions, two coordinators, a gateway
//! that lags, operators who ask for anything. A coordinator may be paused for any time between
//! deciding and acting, and crash; of three versions, one of the two may, of two versions, both.
//!
//! The fold, the plans and the decisions are the real ones. Time stands still, with a soak and a
//! drain of no length, so that they may end at any moment.

mod state;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use materializer_migrations::decide::Action;
use materializer_migrations::judge::plan;
use materializer_migrations::versions::Soak;
use materializer_migrations::{Role, Verb};

use self::state::{AllIsWell, Scope, State, Step};

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
        Ok(())
    }

    /// Lets one coordinator and the gateway work undisturbed, then looks whether anything is stuck.
    fn settles(mut self, well: &mut AllIsWell) -> Result<(), String> {
        self.scope.remembers = true;
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
        remembers: false,
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
        remembers: true,
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
