//! What follows from the facts of a view: its alias, the soak, the drain, the deletion.
//!
//! Each step looks at the catalog and at what is seen, and is taken again after a crash. The order
//! is: the catalog says who is live → the alias follows and is read back, from the sink and from every
//! gateway that is alive → the standby soaks → it drains until no gateway can route to it → it is
//! deleted, and its alias was read back a few seconds before → what was reported of it is forgotten.

use std::time::Duration;

use materializer_model::definition::Target;
use materializer_model::ports::AliasPointer;
use materializer_model::progress::Health;
use materializer_model::{Offset, Timestamp, ViewName};

use crate::catalog::Catalog;
use crate::decide::{ALIVE, Action, AliasSeen, EVIDENCE_EXPIRES, Fact, Observed};
use crate::defect::Defect;
use crate::event::Body;
use crate::lifecycle::Role;
use crate::reports::{COORDINATOR, GATEWAY};
use crate::versions::{Alias, Soak, Version, View};
use materializer_model::defect::is_planted;

/// How long a gateway that is silent may still be about to route to a version.
const GATEWAY_FORGOTTEN: Duration = Duration::from_secs(60);
/// How long a unit of a standby may be silent before its soak is interrupted.
const STANDBY_SILENT: Duration = Duration::from_secs(60);
/// How long a holder that has to delete its directory is waited for. Later it is swept at its start.
const HOLDER_SILENT: Duration = Duration::from_secs(600);
/// How long the key of a process that is gone is kept.
const PROCESS_FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Returns what is to be done for a view.
pub(crate) fn follow_up(
    catalog: &Catalog,
    seen: &Observed<'_>,
    name: &ViewName,
    view: &View,
) -> Vec<Action> {
    let mut actions = Vec::new();
    if let (Some(alias), Some(live)) = (&view.alias, view.live()) {
        match alias_at(seen, view, live) {
            Ok(()) => actions.extend(soak(catalog, seen, view, alias, live)),
            Err(action) => actions.extend(action),
        }
    } else if let (Some(_), Some(newest)) = (view.retired, view.versions.values().next_back()) {
        // A coordinator that woke late may have set the alias of a retired view again.
        actions.extend(alias_at(seen, view, newest).err().flatten());
    }
    for version in view.versions.values() {
        match version.role {
            Role::Draining => actions.extend(drain(catalog, seen, name, view, version)),
            Role::Retiring => actions.extend(delete(catalog, seen, name, view, version)),
            Role::Building | Role::Live | Role::Standby | Role::Retired => {}
        }
    }
    actions
}

/// Holds the alias in the sink of a version against the catalog.
///
/// In the sink of the live version, and of any other in the same place, it is the catalog's; elsewhere
/// there is none, once nobody can go back there. Where it is not so, returns what to do about it;
/// nothing where that is not known, or is somebody else's to do.
fn alias_at(seen: &Observed<'_>, view: &View, version: &Version) -> Result<(), Option<Action>> {
    if is_planted(Defect::ConfirmedUnread) {
        return Ok(());
    }
    let stored = match seen.aliases.get(&version.id) {
        None => return Err(Some(Action::ReadAlias(version.id.clone()))),
        Some(AliasSeen::Held) => return Ok(()),
        Some(AliasSeen::Fault(_)) => return Err(None),
        Some(AliasSeen::Is(stored)) => stored.as_ref(),
    };
    let live = view.live().filter(|live| same_place(live, version));
    if let (Some(live), Some(pointer)) = (live, view.pointer()) {
        return if stored == Some(&pointer) {
            Ok(())
        } else {
            Err(Some(Action::MoveAlias(live.id.clone(), pointer)))
        };
    }
    match (stored, gone(view)) {
        (None, _) => Ok(()),
        (Some(_), Some(_)) if is_planted(Defect::AliasLeft) => Ok(()),
        (Some(stored), Some(gone)) if stored.epoch < gone => {
            Err(Some(Action::RemoveAlias(version.id.clone(), gone)))
        }
        (Some(stored), _) if is_in_the_way(view, version, stored) => Err(None),
        (Some(_), _) => Ok(()),
    }
}

/// Returns the event since which the view has no alias where its live version is not.
fn gone(view: &View) -> Option<Offset> {
    let moved = view.alias.as_ref().map(|alias| alias.moved.offset);
    moved.or(view.retired.map(|at| at.offset))
}

/// Says whether an alias that was read where a version lies keeps it from being deleted: it names it,
/// where none should be, and is not ours to remove: another catalog's, or written by hand.
pub(crate) fn is_in_the_way(view: &View, version: &Version, stored: &AliasPointer) -> bool {
    let belongs = view.live().is_some_and(|live| same_place(live, version));
    let is_ours = gone(view).is_some_and(|gone| stored.epoch < gone);
    !belongs && !is_ours && stored.version == version.id.number
}

fn same_place(a: &Version, b: &Version) -> bool {
    match (&a.definition.to, &b.definition.to) {
        (Target::Memory {}, Target::Memory {}) | (Target::Tantivy(_), Target::Tantivy(_)) => true,
        (Target::Redis(a), Target::Redis(b)) => a.connection == b.connection,
        (Target::Memory {} | Target::Redis(_) | Target::Tantivy(_), _) => false,
    }
}

/// Says whether every gateway heard within `patience` routes by a catalog that is past `event`.
fn gateways_are_past(seen: &Observed<'_>, event: Offset, patience: Duration) -> bool {
    let heard = seen.reports.gateways().values();
    heard
        .filter(|gateway| seen.now <= gateway.appended.plus(patience))
        .all(|gateway| gateway.report.folded > event)
}

/// The alias was read back from the sink: confirms it, and counts the standby's soak.
fn soak(
    catalog: &Catalog,
    seen: &Observed<'_>,
    view: &View,
    alias: &Alias,
    live: &Version,
) -> Option<Action> {
    let name = &live.id.view;
    let fact = |body| Fact::new(catalog, name, body);
    if alias.soak == Soak::Unconfirmed {
        let epoch = alias.moved.offset;
        let view = name.clone();
        let mut confirmed = fact(Body::AliasConfirmed { view, epoch });
        // Whoever sleeps before it is appended does not know any more what readers see.
        confirmed.not_after = seen.now.plus(EVIDENCE_EXPIRES);
        return gateways_are_past(seen, epoch, ALIVE).then(|| confirmed.append());
    }
    let standby = view.standby()?;
    let version = standby.id.clone();
    match &alias.soak {
        Soak::Unconfirmed => None,
        Soak::Since(began) => {
            if let Some(why) = unwell(seen, standby, STANDBY_SILENT) {
                return Some(fact(Body::SoakInterrupted { version, why }).append());
            }
            let over = began.plus(live.definition.soak);
            let mut ended = fact(Body::SoakEnded { version });
            ended.not_before = Some(over).filter(|_| !is_planted(Defect::SoakByOwnClock));
            (seen.now >= over).then(|| ended.append())
        }
        Soak::Interrupted(_) => {
            let well = unwell(seen, standby, ALIVE).is_none();
            well.then(|| fact(Body::SoakRestarted { version }).append())
        }
    }
}

/// Says why a rollback to the standby would not be fresh, where it would not.
fn unwell(seen: &Observed<'_>, standby: &Version, silent: Duration) -> Option<String> {
    if let Some(why) = &standby.paused {
        return Some(format!("paused by {why}"));
    }
    standby.units().find_map(|unit| {
        let heard = seen.reports.unit(&unit);
        let heard = heard.filter(|heard| seen.now <= heard.appended.plus(silent));
        let Some(heard) = heard else {
            return Some(format!("`{unit}` is silent"));
        };
        match &heard.report.health {
            Health::Ok | Health::Waiting { .. } | Health::Lagging => None,
            Health::Stalled { why } | Health::Damaged { why } | Health::Failed { why, .. } => {
                Some(format!("`{unit}` is {}: {why}", heard.report.health.word()))
            }
            Health::Rewound { .. } => Some(format!("`{unit}` is rewound")),
        }
    })
}

/// Waits until no reader can be routed to the version, then lets its deletion begin.
fn drain(
    catalog: &Catalog,
    seen: &Observed<'_>,
    name: &ViewName,
    view: &View,
    version: &Version,
) -> Option<Action> {
    if let Err(action) = alias_at(seen, view, version) {
        return action;
    }
    let drain = if is_planted(Defect::DeletedUndrained) {
        Duration::ZERO
    } else {
        seen.drain
    };
    let over = version.changed.appended.plus(drain);
    let past = gateways_are_past(seen, version.changed.offset, GATEWAY_FORGOTTEN);
    let past = past || is_planted(Defect::GatewaysUnheard);
    if seen.now < over || !past {
        return None;
    }
    let version = version.id.clone();
    let mut fact = Fact::new(catalog, name, Body::Retiring { version });
    fact.not_before = Some(over);
    Some(fact.append())
}

/// Deletes what the version stored, or waits until its holders have.
fn delete(
    catalog: &Catalog,
    seen: &Observed<'_>,
    name: &ViewName,
    view: &View,
    version: &Version,
) -> Option<Action> {
    if let Err(action) = alias_at(seen, view, version) {
        return action;
    }
    let id = version.id.clone();
    let gone = if seen.aliases.get(&id) == Some(&AliasSeen::Held) {
        holders_are_done(seen, version)
    } else if seen.deleted.contains(&id) {
        true
    } else {
        return Some(Action::Delete(id, version.changed.offset));
    };
    let retired = Fact::new(catalog, name, Body::Retired { version: id });
    gone.then(|| retired.append())
}

/// A holder that has deleted its directory takes its report back.
fn holders_are_done(seen: &Observed<'_>, version: &Version) -> bool {
    version.units().all(|unit| {
        let heard = seen.reports.unit(&unit);
        heard.is_none_or(|heard| seen.now > heard.appended.plus(HOLDER_SILENT))
    })
}

/// Takes back what was claimed and reported of retired versions, and by processes that are gone.
pub(crate) fn forget(catalog: &Catalog, seen: &Observed<'_>) -> Vec<Action> {
    let quiet = |appended: Timestamp, patience| seen.now > appended.plus(patience);
    let retired = |view: &View| -> Vec<Action> {
        let versions = view.versions.values();
        let retired = versions.filter(|version| version.role == Role::Retired);
        retired
            .filter(|version| quiet(version.changed.appended, GATEWAY_FORGOTTEN))
            .flat_map(Version::units)
            .filter(|unit| seen.reports.unit(unit).is_some() || seen.reports.claim(unit).is_some())
            .filter(|unit| {
                let heard = seen.reports.unit(unit);
                heard.is_none_or(|heard| quiet(heard.appended, GATEWAY_FORGOTTEN))
            })
            .map(|unit| Action::Forget(unit.to_string()))
            .collect()
    };
    let units = catalog.views().values().flat_map(retired);
    let gateways = seen.reports.gateways().iter();
    let gateways = gateways
        .filter(|(_, gateway)| quiet(gateway.appended, PROCESS_FORGOTTEN))
        .map(|(name, _)| Action::Forget(format!("{GATEWAY}{name}")));
    let coordinators = seen.reports.coordinators().iter();
    let coordinators = coordinators
        .filter(|(_, other)| quiet(other.appended, PROCESS_FORGOTTEN))
        .map(|(name, _)| Action::Forget(format!("{COORDINATOR}{name}")));
    units.chain(gateways).chain(coordinators).collect()
}
