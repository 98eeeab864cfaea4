//! Whether every state has a way out: left alone it comes to rest, and from there verbs lead to a version
//! that is live and well, and to nothing at all.

use std::collections::{HashMap, HashSet};

use materializer_migrations::Role;
use materializer_migrations::decide::Action;
use materializer_model::VersionNumber;

use super::state::{Heard, State, VERSIONS_MAX};

/// How many verbs a way out may take.
const VERBS_MAX: usize = 3;

/// Where verbs are to lead.
type Goal = fn(&State) -> bool;

/// What is known of states at rest, so that none is looked at twice.
#[derive(Default)]
pub(super) struct WaysOut {
    left_alone: HashSet<u64>,
    at_rest: HashMap<u64, Result<(), String>>,
}

impl WaysOut {
    /// Returns how many states at rest were met.
    pub(super) fn settled(&self) -> usize {
        self.at_rest.len()
    }

    /// Looks for the ways out of a state.
    pub(super) fn check(&mut self, state: &State, heard: &mut Heard) -> Result<(), String> {
        let mut alone = state.clone();
        // What a state comes to does not depend on who is paused, or of which release.
        alone.upgrade();
        if !self.left_alone.insert(alone.key()) {
            return Ok(());
        }
        let mut rest = alone.settle(heard)?;
        rest.scope.versions = VERSIONS_MAX;
        let key = rest.key();
        if let Some(known) = self.at_rest.get(&key) {
            return known.clone();
        }
        let found = leads_out(&rest, heard);
        self.at_rest.insert(key, found.clone());
        found
    }
}

fn leads_out(rest: &State, heard: &mut Heard) -> Result<(), String> {
    let goals: [(&str, Goal); 2] = [
        ("a version that is live and well", State::is_well),
        ("nothing at all", State::is_empty),
    ];
    for (goal, is_reached) in goals {
        if !is_within_reach(rest, heard, is_reached)? {
            return Err(format!("no {VERBS_MAX} verbs lead to {goal}"));
        }
    }
    Ok(())
}

/// Tries verbs breadth first, each carried out before the next.
fn is_within_reach(from: &State, heard: &mut Heard, is_reached: Goal) -> Result<bool, String> {
    let mut here = vec![from.clone()];
    let mut seen = HashSet::from([from.key()]);
    for verbs in 0..=VERBS_MAX {
        if here.iter().any(is_reached) {
            return Ok(true);
        }
        if verbs == VERBS_MAX {
            break;
        }
        let mut next = Vec::new();
        for state in &here {
            for verb in state.verbs() {
                let Some((_, asked)) = state.asked(verb) else {
                    continue;
                };
                let rest = asked.settle(heard)?;
                if seen.insert(rest.key()) {
                    next.push(rest);
                }
            }
        }
        here = next;
    }
    Ok(false)
}

impl State {
    /// Lets one coordinator and the gateway work undisturbed until there is nothing to do.
    fn settle(mut self, heard: &mut Heard) -> Result<Self, String> {
        self.scope.remembers = true;
        for _ in 0..200 {
            self.gateway_reads();
            self.processes[0].alias = None;
            let mut idle = true;
            loop {
                let actions = self.decide(&self.catalog, &self.processes[0], heard);
                let Some(action) = actions.into_iter().next() else {
                    break;
                };
                idle = matches!(action, Action::ReadAlias(_)) && idle;
                self.act(Some(0), action);
                self.gateway_reads();
            }
            if idle {
                self.is_settled()?;
                self.processes = Default::default();
                return Ok(self);
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
            let stays = match version.role {
                Role::Building | Role::Live | Role::Retired => true,
                // With a soak of no length, one that is well goes by itself.
                Role::Standby => self.damaged == Some(version.id.number),
                Role::Draining | Role::Retiring => false,
            };
            if !stays {
                return Err(format!("{} stays {}", version.id, version.role));
            }
        }
        Ok(())
    }

    /// Says whether readers are served by a version that is whole.
    fn is_well(&self) -> bool {
        let live = self.view().and_then(|view| view.live());
        let live = live.map(|live| live.id.number);
        live.is_some_and(|live: VersionNumber| {
            self.damaged != Some(live) && self.stored.contains(&live)
        })
    }

    /// Says whether nothing is left of the view.
    fn is_empty(&self) -> bool {
        self.alias.is_none() && self.stored.is_empty() && self.gateway.1.is_none()
    }
}
