//! What keeps a coordinator from going on: told in its reports for as long as it lasts, logged when it
//! begins.

use std::collections::BTreeMap;

use materializer_model::VersionId;
use tracing::warn;

use crate::catalog::Catalog;
use crate::lifecycle::Role;

/// What a fault is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The catalog itself.
    Catalog,
    /// The alias in the sink of a version.
    Alias(VersionId),
    /// The deletion of a version.
    Deletion(VersionId),
}

/// The faults that last.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<About, String>);

impl Faults {
    /// Takes in that something is at fault.
    pub(crate) fn begin(&mut self, about: About, fault: String) {
        if self.0.get(&about) != Some(&fault) {
            warn!("{fault}");
            self.0.insert(about, fault);
        }
    }

    /// Takes in that something is no longer at fault.
    pub(crate) fn end(&mut self, about: &About) {
        self.0.remove(about);
    }

    /// Drops what nobody looks at any more, so that nobody would take it in that it ended.
    pub(crate) fn forget_old(&mut self, catalog: &Catalog) {
        self.0.retain(|about, _| match about {
            About::Catalog => true,
            About::Alias(id) => {
                let view = catalog.view(&id.view);
                let is_retired = view.is_some_and(|view| view.retired.is_some());
                catalog
                    .version(id)
                    .is_some_and(|version| match version.role {
                        Role::Live | Role::Draining | Role::Retiring => true,
                        Role::Retired => is_retired,
                        Role::Building | Role::Standby => false,
                    })
            }
            About::Deletion(id) => {
                let version = catalog.version(id);
                version.is_some_and(|version| version.role == Role::Retiring)
            }
        });
    }

    /// Returns the faults in words.
    pub(crate) fn told(&self) -> Vec<String> {
        self.0.values().cloned().collect()
    }
}
