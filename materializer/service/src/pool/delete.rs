//! Deleting what this worker holds of units that nobody needs any more: of a version that is being
//! retired, or of a copy that was taken out of its definition.

use std::collections::{BTreeMap, BTreeSet};

use materializer_migrations::Version;
use materializer_model::progress::{Directive, Feed};
use materializer_model::{Unit, WorkerId};
use tracing::{info, warn};

use super::{Pool, is_held};
use crate::control::State;

impl Pool {
    /// Goes on with the deletions that are due.
    pub(super) fn delete(&mut self, wanted: &BTreeMap<Unit, Directive>, state: &State) {
        let unneeded = unneeded(wanted, state, &self.settings.worker);
        self.deleted.retain(|unit| unneeded.contains(unit));
        let now = self.clock.monotonic();
        for unit in unneeded {
            let patience = self.patience.get(&unit);
            let waits = patience.is_some_and(|patience| patience.waits(now));
            if waits || self.deleted.contains(&unit) || self.units.contains_key(&unit) {
                continue;
            }
            let Some(version) = state.follower.catalog().version(&unit.version) else {
                continue;
            };
            match self.delete_some(&unit, version, state) {
                Ok(true) => {
                    info!(%unit, "unit is deleted");
                    self.patience.remove(&unit);
                    self.deleted.insert(unit);
                }
                Ok(false) => {} // the next round goes on
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(%unit, error, "delete failed, trying again after a while");
                    self.fail(&unit);
                }
            }
        }
    }

    /// Deletes some of a unit, and takes its report back. Of a version that is being retired when nothing
    /// is left: that is how the coordinator knows. Of a copy that was taken out first: one that is put
    /// back in again would be held to a report of what is deleted.
    fn delete_some(&self, unit: &Unit, version: &Version, state: &State) -> anyhow::Result<bool> {
        let is_named = version.units().any(|named| named == *unit);
        if !is_named {
            self.take_back(unit, state)?;
        }
        let finished = self.feeders.delete(unit, version)?;
        if finished && is_named {
            self.take_back(unit, state)?;
        }
        Ok(finished)
    }

    fn take_back(&self, unit: &Unit, state: &State) -> anyhow::Result<()> {
        if state.follower.reports().unit(unit).is_some() {
            self.control.take_back(&unit.to_string())?;
        }
        Ok(())
    }
}

/// Returns the units that this worker was the last to claim, on its own disk, and that nobody needs. One
/// that never reported is among them, whose version may have been retired at once.
fn unneeded(wanted: &BTreeMap<Unit, Directive>, state: &State, me: &WorkerId) -> BTreeSet<Unit> {
    let claimed = state.follower.reports().claimed();
    let ours = claimed.filter(|unit| {
        let owner = state.follower.owner(unit);
        owner.is_some_and(|(_, claim)| claim.worker == *me) && is_held(state, unit)
    });
    let unneeded = ours.filter(|unit| {
        let directive = wanted.get(unit);
        directive.is_none_or(|directive| directive.feed == Feed::Delete)
    });
    unneeded.cloned().collect()
}
