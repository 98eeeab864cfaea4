//! The tantivy copies on this machine's disk: served while they are held, deleted when they are retired,
//! swept at the start where they were left behind.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::{Catalog, Reports, Role, Version};
use materializer_model::ports::SinkError;
use materializer_model::{Clock, Offset, Unit, WorkerId};
use materializer_sinks::tantivy::search::SearchLimits;
use materializer_sinks::tantivy::{IndexCopy, Leftover, TantivyAdmin, TantivySettings};
use tracing::{info, warn};

use crate::config::Config;
use crate::gateway::{LocalCopies, ServedIndex};

/// How long one round of a deletion may hold up whoever asked for it.
const DELETE_FOR: Duration = Duration::from_millis(100);

/// Returns where this process keeps its indices.
pub(crate) fn settings(config: &Config) -> TantivySettings {
    TantivySettings {
        check_every: config.worker.check_every,
        ..TantivySettings::new(&config.data_dir, config.installation.clone())
    }
}

/// A copy that this process serves to readers until this is dropped. Before the copy has passed its bar
/// it answers for itself that it cannot be read yet.
pub(super) struct Served {
    unit: Unit,
    copies: Arc<LocalCopies>,
}

impl Served {
    pub(super) fn begin(
        unit: &Unit,
        copy: Arc<IndexCopy>,
        copies: &Arc<LocalCopies>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let served = ServedIndex::new(copy, SearchLimits::new(clock));
        copies.serve(unit.clone(), Arc::new(served));
        Self {
            unit: unit.clone(),
            copies: Arc::clone(copies),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.copies.withdraw(&self.unit);
    }
}

/// Deletes some of what this disk holds of a retired version, or else of a copy that was taken out of
/// its definition; says whether nothing is left.
pub(super) fn delete(
    config: &Config,
    unit: &Unit,
    version: &Version,
    clock: Arc<dyn Clock>,
) -> Result<bool, SinkError> {
    let admin = TantivyAdmin::new(settings(config), clock);
    let round = match version.role {
        Role::Retiring | Role::Retired => {
            admin.retire(&version.id, version.changed.offset, DELETE_FOR)
        }
        Role::Building | Role::Live | Role::Standby | Role::Draining => {
            admin.remove(unit, DELETE_FOR)
        }
    };
    Ok(round?.finished)
}

/// Why a copy on this disk is no longer of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orphan {
    /// Its version was retired by the event at that offset, perhaps while this machine was away.
    Retired(Offset),
    /// Another worker has built it anew, and readers can be sent there.
    Replaced,
    /// The definition has fewer copies now.
    Unwanted,
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retired(_) => "the version is retired",
            Self::Replaced => "another worker has built it anew",
            Self::Unwanted => "the definition has fewer copies now",
        })
    }
}

/// Says why a copy is to be deleted, if it is. What the catalog does not know is left alone: it may be
/// another installation's, or the catalog was lost.
fn orphan(catalog: &Catalog, reports: &Reports, me: &WorkerId, copy: &Leftover) -> Option<Orphan> {
    if catalog.id() != Some(&copy.token.catalog) {
        return None;
    }
    let version = catalog.version(&copy.unit.version)?;
    if version.role == Role::Retired {
        return Some(Orphan::Retired(version.changed.offset));
    }
    if version.units().all(|unit| unit != copy.unit) {
        return Some(Orphan::Unwanted);
    }
    let (_, claim) = reports.claim(&copy.unit)?;
    let heard = reports.unit(&copy.unit)?;
    let serves = heard.report.servable && reports.holds(&copy.unit, &heard.report.token);
    (claim.worker != *me && serves).then_some(Orphan::Replaced)
}

/// Deletes the copies on this disk that are no longer of use. Called at the start, before any is opened.
/// After an event that this release does not understand nothing is: it may say anything of any copy.
///
/// # Errors
/// [`SinkError`] where the disk cannot be read.
pub(super) fn sweep(
    config: &Config,
    catalog: &Catalog,
    reports: &Reports,
    me: &WorkerId,
    clock: Arc<dyn Clock>,
) -> Result<(), SinkError> {
    if catalog.newer().is_some() {
        return Ok(());
    }
    let admin = TantivyAdmin::new(settings(config), clock);
    for copy in admin.leftovers()? {
        let Some(why) = orphan(catalog, reports, me, &copy) else {
            continue;
        };
        let unit = &copy.unit;
        info!(%unit, bytes = copy.bytes, %why, "deleting a leftover");
        if let Err(error) = remove(&admin, unit, why) {
            warn!(%unit, %error, "the leftover stays until the next start");
        }
    }
    Ok(())
}

fn remove(admin: &TantivyAdmin, unit: &Unit, why: Orphan) -> Result<(), SinkError> {
    // Each round deletes something: it ends.
    loop {
        let round = match why {
            Orphan::Retired(at) => admin.retire(&unit.version, at, DELETE_FOR),
            Orphan::Replaced | Orphan::Unwanted => admin.remove(unit, DELETE_FOR),
        };
        if round?.finished {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use materializer_model::{CatalogId, Token};

    use super::*;
    use crate::gateway::fixtures::{World, servable, to_tantivy};

    const UNIT: &str = "search/v1/c0/s0";

    /// Checks what becomes of a copy that the worker `me` wrote under a token.
    fn check(world: &World, me: &str, token: &Token, expected: Option<Orphan>) {
        let copy = Leftover {
            unit: UNIT.parse().unwrap(),
            token: token.clone(),
            directory: "v1-c0-00000000".into(),
            bytes: 0,
        };
        let found = orphan(world.catalog(), world.reports(), &WorkerId::new(me), &copy);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_copy_is_swept_once_another_one_serves_in_its_place_or_its_version_is_retired() {
        let mut world = World::new();
        world.start("search@v1", to_tantivy(1));
        let token = world.claim(UNIT, "a:1");
        check(&world, "worker", &token, None);
        check(&world, "other", &token, None); // nothing serves in its place
        world.report(&servable(UNIT, token.clone(), "a:1"));
        check(&world, "worker", &token, None);
        check(&world, "other", &token, Some(Orphan::Replaced));
        let newer = world.claim(UNIT, "b:1");
        check(&world, "other", &newer, None); // the report is of an owner before

        let at = world.give_up("search@v1");
        check(&world, "worker", &token, Some(Orphan::Retired(at)));
        let foreign = Token {
            catalog: CatalogId::new("another"),
            ..token
        };
        check(&world, "worker", &foreign, None);
    }

    #[test]
    fn a_copy_is_swept_when_the_definition_has_fewer_copies() {
        let mut world = World::new();
        world.start("search@v1", to_tantivy(1));
        let token = world.claim(UNIT, "a:1");
        check(&world, "worker", &token, None);
        world.change("search@v1", to_tantivy(0));
        check(&world, "worker", &token, Some(Orphan::Unwanted));
    }
}
