//! A view and its versions, as the catalog's events left them.

use std::collections::BTreeMap;
use std::sync::Arc;

use materializer_model::ports::AliasPointer;
use materializer_model::{
    Fingerprint, Offset, Skip, Skips, Timestamp, Unit, VersionId, VersionNumber, ViewDefinition,
};

use crate::defect::Defect;
use crate::lifecycle::{Cause, Role};
use materializer_model::defect::is_planted;

/// A place in the log and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The event's offset.
    pub offset: Offset,
    /// When the broker appended it.
    pub appended: Timestamp,
}

/// A view with all its versions.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every version there ever was.
    pub versions: BTreeMap<VersionNumber, Version>,
    /// The highest number that was ever given.
    pub last_number: Option<VersionNumber>,
    /// What readers see; `None` before the first promotion and after `retire VIEW`.
    pub alias: Option<Alias>,
    /// The event that retired the whole view, until a version is promoted again.
    pub retired: Option<Mark>,
    /// Records that are passed over, each with the event that says so last.
    pub skips: BTreeMap<Skip, Offset>,
    /// What was declared of it last, and is settled.
    pub declared: Option<Declared>,
}

/// What was declared of a view, once it is settled: an edge that does nothing a second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The digest of the declaration.
    pub digest: String,
    /// Why it was not carried out.
    pub refused: Option<String>,
}

/// A view's alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The live version.
    pub version: VersionNumber,
    /// The event that moved it here. Its offset is the alias epoch.
    pub moved: Mark,
    /// How far the soak of the version before it is.
    pub soak: Soak,
}

/// How far the soak of a standby is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Soak {
    /// It has not begun: not every sink and gateway is known to have the alias.
    Unconfirmed,
    /// It began at this time of the broker.
    Since(Timestamp),
    /// It will begin anew when the standby is well again.
    Interrupted(String),
}

/// One build of a view.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its name.
    pub id: VersionId,
    /// What it is, with settings that were changed since.
    pub definition: Arc<ViewDefinition>,
    /// The hash of what decides its data.
    pub fingerprint: Fingerprint,
    /// [`crate::Catalog::claims_from`] when it was started: what a lower token wrote in its place is not
    /// its own.
    pub claims_from: u64,
    /// Into how many units each copy's partitions are split.
    pub shards: u16,
    /// Why it was started.
    pub because: Vec<String>,
    /// Where it stands.
    pub role: Role,
    /// Whether a rollback left it; it is never promoted by itself then.
    pub rolled_back: bool,
    /// Who paused it and why, if it is paused.
    pub paused: Option<String>,
    /// When it was started.
    pub started: Mark,
    /// When its role changed last.
    pub changed: Mark,
}

impl Version {
    /// Iterates over the units that write it.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        (0..self.definition.to.copies()).flat_map(move |copy| {
            (0..self.shards).map(move |shard| Unit {
                version: self.id.clone(),
                copy,
                shard,
            })
        })
    }
}

impl View {
    /// Returns the one version in a role that only one can have; the newest, else.
    #[must_use]
    pub fn in_role(&self, role: Role) -> Option<&Version> {
        self.versions.values().rev().find(|v| v.role == role)
    }

    /// Returns the version that readers see.
    #[must_use]
    pub fn live(&self) -> Option<&Version> {
        self.in_role(Role::Live)
    }

    /// Returns the version that a rollback goes to.
    #[must_use]
    pub fn standby(&self) -> Option<&Version> {
        self.in_role(Role::Standby)
    }

    /// Returns the version that is being built.
    #[must_use]
    pub fn candidate(&self) -> Option<&Version> {
        self.in_role(Role::Building)
    }

    /// Returns the records that one of its versions passes over. One that names no topic's id holds for the
    /// versions that were there: which record a later build would find in its place, nobody knows.
    #[must_use]
    pub fn skips(&self, version: &Version) -> Skips {
        let holds = |skip: &Skip, said: Offset| skip.id.is_some() || version.started.offset < said;
        let skips = self.skips.iter().filter(|(skip, said)| holds(skip, **said));
        skips.map(|(skip, _)| skip.clone()).collect()
    }

    /// Returns the alias as sinks store it.
    #[must_use]
    pub fn pointer(&self) -> Option<AliasPointer> {
        self.alias.as_ref().map(|alias| AliasPointer {
            version: alias.version,
            epoch: alias.moved.offset,
        })
    }

    /// Returns the number that the next version gets.
    #[must_use]
    pub fn next_number(&self) -> VersionNumber {
        let last = self.last_number.map_or(0, |last| last.0);
        VersionNumber(last.saturating_add(1))
    }

    pub(crate) fn step(&mut self, number: VersionNumber, cause: Cause, at: Mark) {
        if let Some(version) = self.versions.get_mut(&number)
            && let Some(role) = version.role.after(cause)
        {
            version.role = role;
            version.changed = at;
        }
    }

    /// Takes every version in `role` one step on.
    pub(crate) fn step_all(&mut self, role: Role, cause: Cause, at: Mark) {
        for version in self.versions.values_mut().filter(|v| v.role == role) {
            if let Some(next) = version.role.after(cause) {
                version.role = next;
                version.changed = at;
            }
        }
    }

    /// Makes `to` live and what was live the standby; a standby that is neither is dropped.
    pub(crate) fn move_alias(&mut self, to: VersionNumber, cause: Cause, at: Mark) {
        let dropped = self.standby().map(|v| v.id.number).filter(|n| *n != to);
        if let Some(dropped) = dropped.filter(|_| !is_planted(Defect::SecondStandby)) {
            self.step(dropped, Cause::SoakEnded, at);
        }
        self.step_all(Role::Live, Cause::Replaced, at);
        self.step(to, cause, at);
        if let Some(version) = self.versions.get_mut(&to) {
            version.rolled_back = false;
        }
        self.retired = None;
        self.alias = Some(Alias {
            version: to,
            moved: at,
            soak: Soak::Unconfirmed,
        });
    }

    pub(crate) fn set_soak(&mut self, soak: Soak) {
        if let Some(alias) = &mut self.alias {
            alias.soak = soak;
        }
    }
}
