//! Binding a restored catalog to the topics and sinks that are there: what `catalog adopt` decides.
//!
//! A backup ends somewhere, and what happened since is known to the sinks alone, and not all of it. So
//! nothing of it is taken for known: tokens, alias epochs and version numbers go on above all that was
//! ever given out, and where a sink is ahead of the catalog a person says whether that is meant.

use std::collections::BTreeMap;
use std::fmt;

use materializer_model::ports::{AliasPointer, ControlIdentity};
use materializer_model::{Offset, Timestamp, VersionId, VersionNumber, ViewName};
use serde::Serialize;

use crate::catalog::Catalog;
use crate::lifecycle::Role;
use crate::reports::Follower;
use crate::versions::View;

/// How many events a sink may be ahead of the catalog. Each is made up for by an event that says
/// nothing; more is no backup of this catalog.
pub const BEHIND_MAX: u64 = 100_000;

/// What stands in one place where versions are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The place, in words.
    pub place: String,
    /// The alias of each view.
    pub aliases: BTreeMap<ViewName, AliasPointer>,
    /// The offset in the token of each version that was claimed; the highest of its units.
    pub claimed: BTreeMap<VersionId, u64>,
    /// The event that retired each version that leaves a mark.
    pub retired: BTreeMap<VersionId, Offset>,
}

/// What binding the catalog anew does. Shown before it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adoption {
    /// The topics that it is bound to until now.
    pub from: Option<ControlIdentity>,
    /// The topics that it is bound to from then on.
    pub to: ControlIdentity,
    /// What is added to a claim's offset to make a token.
    pub claims_from: u64,
    /// The highest number of each view that has one above the catalog's.
    pub numbers: BTreeMap<ViewName, VersionNumber>,
    /// The lowest offset at which it may stand: above every epoch and mark in the sinks, and all that a
    /// process has read of the catalog.
    pub at: Offset,
    /// Where sinks are ahead of the catalog, and what comes of it, in words. Empty where the backup
    /// holds all that happened.
    pub ahead: Vec<String>,
}

impl Adoption {
    /// Decides how the catalog that was read is bound to topics, given all that its sinks hold.
    ///
    /// `now` is the broker's time. Fewer than one claim a millisecond was ever made, so that it is
    /// above every token, also of those on a disk that nobody can look at now.
    #[must_use]
    pub fn plan(state: &Follower, to: ControlIdentity, found: &[Found], now: Timestamp) -> Self {
        let catalog = state.catalog();
        let claimed = found.iter().flat_map(|place| place.claimed.values());
        let highest = claimed.max().map_or(0, |highest| highest.saturating_add(1));
        let now = u64::try_from(now.0).unwrap_or(0);
        let aliases = found.iter().flat_map(|place| place.aliases.values());
        let epochs = aliases.map(|alias| alias.epoch);
        let marks = found
            .iter()
            .flat_map(|place| place.retired.values())
            .copied();
        let above = epochs.chain(marks).max().map_or(Offset(0), Offset::next);
        let read = state.reports().furthest().map(|(read, _)| read);
        Self {
            from: catalog.topics().cloned(),
            to,
            claims_from: now.max(highest).max(catalog.claims_from()),
            numbers: numbers(catalog, found),
            at: catalog.next().max(above).max(read.unwrap_or_default()),
            ahead: found
                .iter()
                .flat_map(|place| ahead(catalog, place))
                .collect(),
        }
    }

    /// Returns how many events say nothing, so that the next one stands high enough.
    #[must_use]
    pub fn behind(&self, catalog: &Catalog) -> u64 {
        self.at.0.saturating_sub(catalog.next().0)
    }
}

/// Returns every version that a place has a trace of.
fn versions(place: &Found) -> impl Iterator<Item = &VersionId> {
    place.claimed.keys().chain(place.retired.keys())
}

fn numbers(catalog: &Catalog, found: &[Found]) -> BTreeMap<ViewName, VersionNumber> {
    let mut numbers: BTreeMap<ViewName, VersionNumber> = BTreeMap::new();
    for id in found.iter().flat_map(versions) {
        let known = catalog.view(&id.view).and_then(|view| view.last_number);
        if known.is_none_or(|known| known < id.number) {
            let number = numbers.entry(id.view.clone()).or_insert(id.number);
            *number = (*number).max(id.number);
        }
    }
    numbers
}

/// Says where a place knows of what the catalog does not.
fn ahead(catalog: &Catalog, place: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    let at = &place.place;
    for (view, alias) in &place.aliases {
        if alias.epoch < catalog.next() {
            continue;
        }
        let live = catalog.view(view).and_then(View::live);
        let then = live.map_or_else(
            || "its readers find it as it is now, and nobody feeds it".to_owned(),
            |live| format!("its readers go back to `{}`", live.id),
        );
        let (version, epoch) = (alias.version, alias.epoch);
        lines.push(format!(
            "{at}: `{view}` leads to {version} since event {epoch}: {then}"
        ));
    }
    for id in versions(place).filter(|id| catalog.version(id).is_none()) {
        lines.push(format!(
            "{at}: `{id}` is not in the catalog: nobody feeds it, and what it stored stays until you delete it"
        ));
    }
    for (id, event) in &place.retired {
        let gone = |role| match role {
            Role::Draining | Role::Retiring | Role::Retired => true,
            Role::Building | Role::Live | Role::Standby => false,
        };
        if let Some(version) = catalog.version(id).filter(|version| !gone(version.role)) {
            let role = version.role;
            lines.push(format!(
                "{at}: `{id}` was retired by event {event}: it is {role} in the catalog and will be damaged"
            ));
        }
    }
    lines
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map(ControlIdentity::to_string);
        let from = from.unwrap_or_else(|| "none".to_owned());
        write!(f, "plan  bind to  {}", self.to)?;
        write!(f, "\n      was      {from}")?;
        write!(f, "\n      tokens   from {} on", self.claims_from)?;
        write!(
            f,
            "\n      aliases  at epoch {}; every soak begins anew",
            self.at
        )?;
        for (view, number) in &self.numbers {
            let next = VersionNumber(number.0.saturating_add(1));
            write!(f, "\n      numbers  of `{view}` go on with {next}")?;
        }
        for line in &self.ahead {
            write!(f, "\n      ahead    {line}")?;
        }
        Ok(())
    }
}
