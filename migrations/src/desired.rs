//! What the catalog wants of every unit. There is no channel of directives: each worker folds the
//! catalog and asks this.

use std::collections::BTreeMap;

use materializer_model::definition::Target;
use materializer_model::progress::{Directive, Feed};
use materializer_model::{Growth, Unit, WorkerId};

use crate::catalog::Catalog;
use crate::lifecycle::Role;
use crate::reports::Reports;
use crate::versions::Version;

/// Returns a directive for each unit that somebody has to do something about. A unit that is not
/// named needs nobody: its version is retired, or its copy was taken out of the definition.
///
/// `me` is the worker that would feed them: of what is held on one machine it knows its own alone.
#[must_use]
pub fn desired(catalog: &Catalog, reports: &Reports, me: &WorkerId) -> BTreeMap<Unit, Directive> {
    let mut directives = BTreeMap::new();
    for view in catalog.views().values() {
        for version in view.versions.values() {
            let Some(feed) = feed(version) else { continue };
            let (skips, growths) = (view.skips(version), growths(catalog, version));
            for unit in version.units() {
                let directive = Directive {
                    feed: feed.clone(),
                    skips: skips.clone(),
                    on_error: version.definition.on_error.clone(),
                    gates: version.definition.gates.clone(),
                    last_reported: reports.expected(version, &unit, me).cloned(),
                    has_data: has_data(version),
                    growths: growths.clone(),
                };
                directives.insert(unit, directive);
            }
        }
    }
    directives
}

/// A version that was promoted had passed its bar, which its sink keeps. A copy of an index may be new.
fn has_data(version: &Version) -> bool {
    let was_live = match version.role {
        Role::Live | Role::Standby | Role::Draining => true,
        Role::Building | Role::Retiring | Role::Retired => false,
    };
    match version.definition.to {
        Target::Redis(_) | Target::Memory {} => was_live,
        Target::Tantivy(_) => false,
    }
}

/// Returns the recorded growths of the topics that a version is built from.
#[must_use]
pub fn growths(catalog: &Catalog, version: &Version) -> Vec<Growth> {
    let topics = &version.definition.from.topics;
    let read = |growth: &&Growth| topics.contains(&growth.topic);
    catalog.growths().iter().filter(read).cloned().collect()
}

fn feed(version: &Version) -> Option<Feed> {
    match (version.role, &version.paused) {
        (Role::Building | Role::Live | Role::Standby, None) => Some(Feed::Feed),
        (Role::Building | Role::Live | Role::Standby, Some(why)) => {
            Some(Feed::Hold { why: why.clone() })
        }
        (Role::Draining, _) => Some(Feed::Drain),
        (Role::Retiring, _) => Some(Feed::Delete),
        (Role::Retired, _) => None,
    }
}
