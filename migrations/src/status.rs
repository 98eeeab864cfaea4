//! What `status`, `wait` and the gateway's JSON show: computed from the catalog and the reports.
//!
//! *Ready* is computed here and never stored. What is unknown is absent, never zero.

mod version;

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::progress::{GateReading, Lag};
use materializer_model::{
    CatalogId, Offset, Timestamp, Unit, VersionId, VersionNumber, ViewName, WorkerId,
};
use serde::Serialize;

use crate::catalog::Catalog;
use crate::decide::ALIVE;
use crate::gates;
use crate::lifecycle::Role;
use crate::plan::Plan;
use crate::reports::{Follower, Reports};
use crate::versions::{Soak, View};
use version::version_status;

/// Everything that there is to see of an installation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The catalog's id; absent before there is one.
    pub catalog: Option<CatalogId>,
    /// Why nobody of this release decides, if so.
    pub stopped: Option<String>,
    /// The coordinators that are alive, by name.
    pub coordinators: Vec<String>,
    /// What keeps a coordinator from going on.
    pub faults: Vec<String>,
    /// The gateways that are alive, by name, and up to where each has read the catalog.
    pub gateways: BTreeMap<String, Offset>,
    /// The views, in order of their names.
    pub views: Vec<ViewStatus>,
}

/// One view.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewStatus {
    /// Its name.
    pub view: ViewName,
    /// What readers see.
    pub alias: Option<AliasStatus>,
    /// The version that a rollback goes to.
    pub standby: Option<VersionNumber>,
    /// Its versions that are not retired, the newest first.
    pub versions: Vec<VersionStatus>,
    /// Requests about it that nobody has answered, in words.
    pub requests: Vec<String>,
}

/// What readers see.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AliasStatus {
    /// The live version.
    pub version: VersionNumber,
    /// The catalog offset of the event that made it live.
    pub epoch: Offset,
    /// When that was, in the broker's time.
    pub since_ms: Timestamp,
    /// Whether it was read back from the sink and every gateway that is alive.
    pub confirmed: bool,
    /// How long until the standby is dropped; absent without one, and while it does not count.
    pub soak_left_ms: Option<u64>,
    /// Why the soak does not count, if so.
    pub soak_interrupted: Option<String>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionStatus {
    /// Its name.
    pub version: VersionId,
    /// Where it stands.
    pub role: Role,
    /// Whether a rollback left it.
    pub rolled_back: bool,
    /// Who paused it and why, if so.
    pub paused: Option<String>,
    /// The first 12 digits of its fingerprint.
    pub fingerprint: String,
    /// What it does: a building version's phase, in words.
    pub state: &'static str,
    /// How it is: the worst of its units.
    pub health: HealthStatus,
    /// Whether there are gates before it, and every one holds now.
    pub ready: bool,
    /// Records read so far and in all; absent while any unit is silent.
    pub records: Option<Counted>,
    /// How far behind it is; absent while that of any unit is unknown.
    pub lag: Option<Lag>,
    /// Records read per second by all units.
    pub rate: f64,
    /// Time until it has caught up at this rate; absent below 1 % and where nothing moves.
    pub eta_ms: Option<u64>,
    /// Every gate before its promotion, or a rollback to it, with its value against its limit.
    pub gates: Vec<GateReading>,
    /// What it waits for or is limited by, in words.
    pub waits_for: Option<String>,
    /// Rows, where they are known.
    pub documents: Option<u64>,
    /// Bytes stored by all units, where the sink tells them apart from those of others.
    pub bytes: Option<u64>,
    /// Its units.
    pub units: Vec<UnitStatus>,
}

/// How something is, with the reason and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthStatus {
    /// One of [`materializer_model::progress::Health::WORDS`], or `silent`.
    pub is: &'static str,
    /// Why, where there is more to say.
    pub why: Option<String>,
    /// What to type or change.
    pub hint: Option<String>,
}

/// How many of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Read.
    pub done: u64,
    /// In all.
    pub end: u64,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitStatus {
    /// The unit.
    pub unit: Unit,
    /// Who feeds it; absent where nobody ever did.
    pub worker: Option<WorkerId>,
    /// How it is.
    pub health: HealthStatus,
    /// Whether readers may be routed to it.
    pub servable: bool,
    /// How far behind it is.
    pub lag: Option<Lag>,
    /// What it waits for.
    pub waits_for: Option<String>,
    /// How long until tombstones that it has not read may be gone.
    pub tombstones_left_ms: Option<u64>,
}

impl Counted {
    /// Returns the share that was read, in percent; 100 where there is nothing to read.
    #[must_use]
    pub fn percent(&self) -> f64 {
        if self.end == 0 {
            return 100.0;
        }
        gates::float(self.done.min(self.end)) * 100.0 / gates::float(self.end)
    }
}

impl Status {
    /// Computes the status at a broker's time.
    #[must_use]
    pub fn at(state: &Follower, now: Timestamp) -> Self {
        let (catalog, reports) = (state.catalog(), state.reports());
        let heard = |appended: Timestamp| now <= appended.plus(ALIVE);
        let coordinators = reports.coordinators().iter();
        let coordinators = coordinators.filter(|(_, c)| heard(c.appended));
        let mut faults: Vec<String> = coordinators
            .clone()
            .flat_map(|(_, c)| c.report.faults.clone())
            .collect();
        faults.sort();
        faults.dedup();
        let gateways = reports.gateways().iter().filter(|(_, g)| heard(g.appended));
        let views = catalog.views().iter();
        Self {
            catalog: catalog.id().cloned(),
            stopped: catalog.newer().map(|newer| {
                format!(
                    "the event at offset {} is a newer program's: {}",
                    newer.at, newer.why
                )
            }),
            coordinators: coordinators.map(|(name, _)| name.clone()).collect(),
            faults,
            gateways: gateways
                .map(|(name, gateway)| (name.clone(), gateway.report.folded))
                .collect(),
            views: views
                .map(|(name, view)| view_status(catalog, reports, name, view, now))
                .collect(),
        }
    }

    /// Returns one view.
    #[must_use]
    pub fn view(&self, name: &ViewName) -> Option<&ViewStatus> {
        self.views.iter().find(|view| view.view == *name)
    }

    /// Returns one version that is not retired.
    #[must_use]
    pub fn version(&self, id: &VersionId) -> Option<&VersionStatus> {
        let versions = &self.view(&id.view)?.versions;
        versions.iter().find(|version| version.version == *id)
    }

    /// Returns the gates before a plan as they were reported last; none where it meets none. They are
    /// read anew when it is carried out.
    #[must_use]
    pub fn gates_before(&self, plan: &Plan) -> &[GateReading] {
        let version = match plan {
            Plan::Promote { version, .. } | Plan::RollBack { version, .. } => self.version(version),
            Plan::Nothing { .. }
            | Plan::Start { .. }
            | Plan::ChangeSettings { .. }
            | Plan::EndSoak { .. }
            | Plan::RetireView { .. }
            | Plan::Abort { .. }
            | Plan::Pause { .. }
            | Plan::Resume { .. }
            | Plan::Skip { .. } => None,
        };
        version.map_or(&[], |version| &version.gates)
    }
}

fn view_status(
    catalog: &Catalog,
    reports: &Reports,
    name: &ViewName,
    view: &View,
    now: Timestamp,
) -> ViewStatus {
    let versions = view.versions.values().rev();
    let versions = versions.filter(|version| version.role != Role::Retired);
    let requests = catalog.outstanding().into_iter();
    let requests = requests.filter(|(_, asked)| asked.verb.view() == name);
    let alias = alias_status(view, now);
    ViewStatus {
        view: name.clone(),
        standby: view.standby().map(|standby| standby.id.number),
        versions: versions
            .map(|version| version_status(reports, view, alias.as_ref(), version, now))
            .collect(),
        alias,
        requests: requests
            .map(|(_, asked)| format!("{} by {}: {}", asked.verb.word(), asked.who, asked.why))
            .collect(),
    }
}

fn alias_status(view: &View, now: Timestamp) -> Option<AliasStatus> {
    let alias = view.alias.as_ref()?;
    let soak = view.live()?.definition.soak;
    let (since, interrupted) = match &alias.soak {
        Soak::Unconfirmed => (None, None),
        Soak::Since(began) => (Some(*began), None),
        Soak::Interrupted(why) => (None, Some(why.clone())),
    };
    let left = |began: Timestamp| milliseconds(began.plus(soak).since(now));
    Some(AliasStatus {
        version: alias.version,
        epoch: alias.moved.offset,
        since_ms: alias.moved.appended,
        confirmed: alias.soak != Soak::Unconfirmed,
        soak_left_ms: view.standby().and(since).map(left),
        soak_interrupted: view.standby().and(interrupted),
    })
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
