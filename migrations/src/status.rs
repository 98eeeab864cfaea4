//! What `status`, `wait` and the gateway's JSON show: computed from the catalog and the reports.
//!
//! *Ready* is computed here and never stored. What is unknown is absent, never zero.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::progress::{GateReading, Health, Lag, Phase, Progress};
use materializer_model::{
    CatalogId, Offset, Timestamp, Unit, VersionId, VersionNumber, ViewName, WorkerId,
};
use serde::Serialize;

use crate::catalog::Catalog;
use crate::decide::ALIVE;
use crate::gates::{self, Evidence};
use crate::lifecycle::Role;
use crate::reports::{CoordinatorReport, Follower, Heard, Reports};
use crate::versions::{Soak, Version, View};

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
    /// Whether every gate holds now.
    pub ready: bool,
    /// Records read so far and in all; absent while any unit is silent.
    pub records: Option<Counted>,
    /// How far behind it is; absent while that of any unit is unknown.
    pub lag: Option<Lag>,
    /// Records read per second by all units.
    pub rate: f64,
    /// Time until it has caught up at this rate; absent below 1 % and where nothing moves.
    pub eta_ms: Option<u64>,
    /// Every gate that applies, with its value against its limit.
    pub gates: Vec<GateReading>,
    /// What it waits for or is limited by, in words.
    pub waits_for: Option<String>,
    /// Rows, where they are known.
    pub documents: Option<u64>,
    /// Bytes stored by all units, where they are known.
    pub bytes: Option<u64>,
    /// Its units.
    pub units: Vec<UnitStatus>,
}

/// How something is, with the reason and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthStatus {
    /// One of [`Health::WORDS`], or `silent`.
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
    ViewStatus {
        view: name.clone(),
        alias: alias_status(view, now),
        standby: view.standby().map(|standby| standby.id.number),
        versions: versions
            .map(|version| version_status(reports, view, version, now))
            .collect(),
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

fn version_status(
    reports: &Reports,
    view: &View,
    version: &Version,
    now: Timestamp,
) -> VersionStatus {
    let evidence = Evidence::collect(version, reports, Offset(0));
    let fed = version.role.is_fed();
    let units: Vec<UnitStatus> = version
        .units()
        .map(|unit| unit_status(reports.unit(&unit), unit, fed, now))
        .collect();
    let alive = units.iter().all(|unit| unit.health.is != SILENT);
    let gates = if fed {
        gate_readings(reports, view, version, now)
    } else {
        Vec::new()
    };
    let ready = fed && alive && gates.iter().all(|reading| reading.holds);
    let records = records(&evidence).filter(|_| alive);
    let lag = evidence.lag().filter(|_| alive && fed);
    let rate = evidence.reports().map(|heard| heard.report.rate).sum();
    VersionStatus {
        version: version.id.clone(),
        role: version.role,
        rolled_back: version.rolled_back,
        paused: version.paused.clone(),
        fingerprint: version.fingerprint.short().to_owned(),
        state: state(version, &evidence, ready),
        health: worst(&units),
        ready,
        records,
        lag,
        rate,
        eta_ms: records.and_then(|records| eta(records, rate)),
        waits_for: waits_for(version, &evidence, &gates),
        gates,
        documents: evidence.documents(),
        bytes: evidence.reports().map(|heard| heard.report.bytes).sum(),
        units,
    }
}

fn records(evidence: &Evidence<'_>) -> Option<Counted> {
    evidence.is_complete().then(|| Counted {
        done: evidence
            .reports()
            .map(|heard| heard.report.done_records)
            .sum(),
        end: evidence
            .reports()
            .map(|heard| heard.report.end_records)
            .sum(),
    })
}

/// Returns the time until `end` at this rate: none below 1 %, where it would be a guess.
fn eta(records: Counted, rate: f64) -> Option<u64> {
    let left = records.end.saturating_sub(records.done);
    if left == 0 || records.percent() < 1.0 || rate < 1.0 {
        return None;
    }
    let seconds = Duration::try_from_secs_f64(gates::float(left) / rate).ok()?;
    Some(milliseconds(seconds))
}

/// The health of a unit that nobody has reported of for a while.
const SILENT: &str = "silent";

fn unit_status(
    heard: Option<&Heard<Progress>>,
    unit: Unit,
    fed: bool,
    now: Timestamp,
) -> UnitStatus {
    let recent = heard.filter(|heard| !fed || now <= heard.appended.plus(ALIVE));
    let progress = heard.map(|heard| &heard.report);
    let health = match (progress, recent) {
        (Some(progress), Some(_)) => health_status(&progress.health),
        (Some(progress), None) => HealthStatus {
            is: SILENT,
            why: Some(format!("worker `{}` no longer reports", progress.worker)),
            hint: None,
        },
        (None, _) => HealthStatus {
            is: SILENT,
            why: Some("no worker has claimed it".to_owned()),
            hint: Some("start a worker: `materializer worker`".to_owned()),
        },
    };
    UnitStatus {
        worker: progress.map(|progress| progress.worker.clone()),
        health,
        servable: recent.is_some_and(|heard| heard.report.servable),
        lag: recent.and_then(|heard| heard.report.lag),
        waits_for: recent.and_then(|heard| heard.report.waits_for.clone()),
        tombstones_left_ms: recent.and_then(|heard| heard.report.tombstones_left_ms),
        unit,
    }
}

fn health_status(health: &Health) -> HealthStatus {
    let (why, hint) = match health {
        Health::Ok | Health::Lagging => (None, None),
        Health::Waiting { why } | Health::Stalled { why } => (Some(why.clone()), None),
        Health::Rewound { from, to } => (
            Some(format!("the sink went back from commit {from} to {to}")),
            None,
        ),
        Health::Damaged { why } => {
            let hint = "build the version anew, or roll back to a healthy standby";
            (Some(why.clone()), Some(hint.to_owned()))
        }
        Health::Failed { why, at, hint } => {
            let at = at
                .as_ref()
                .map_or_else(String::new, |at| format!(" at {at}"));
            (Some(format!("{why}{at}")), hint.clone())
        }
    };
    HealthStatus {
        is: health.word(),
        why,
        hint,
    }
}

/// Returns the health of the unit that is worst off; a silent one is worse than one that waits.
fn worst(units: &[UnitStatus]) -> HealthStatus {
    let order = |unit: &&UnitStatus| match unit.health.is {
        "damaged" => 7,
        "failed" => 6,
        "rewound" => 5,
        SILENT => 4,
        "stalled" => 3,
        "waiting" => 2,
        "lagging" => 1,
        _ => 0,
    };
    // Of equals the first one speaks.
    let worst = units.iter().rev().max_by_key(order);
    worst.map_or_else(|| health_status(&Health::Ok), |unit| unit.health.clone())
}

fn state(version: &Version, evidence: &Evidence<'_>, ready: bool) -> &'static str {
    match version.role {
        Role::Building if ready => "ready",
        Role::Building => {
            let phases = evidence.reports().map(|heard| heard.report.phase);
            let phases: Vec<Phase> = phases.collect();
            if phases.is_empty() || phases.contains(&Phase::Starting) {
                "starting"
            } else if phases.contains(&Phase::Replaying) {
                "replaying"
            } else {
                "catching up"
            }
        }
        Role::Live => "serving",
        Role::Standby => "following",
        Role::Draining => "draining",
        Role::Retiring => "deleting",
        Role::Retired => "retired",
    }
}

/// Returns the gates that apply to the next change of the version: of its promotion while it is
/// built or was rolled back, of a rollback to it while it stands by.
fn gate_readings(
    reports: &Reports,
    view: &View,
    version: &Version,
    now: Timestamp,
) -> Vec<GateReading> {
    let evidence = Evidence::collect(version, reports, Offset(0));
    let promotable = version.role == Role::Building || version.rolled_back;
    let live = view.live().filter(|_| promotable);
    let stable_for = live.map_or(Duration::ZERO, |_| version.definition.gates.stable_for);
    let mut readings = gates::continuous(&evidence, stable_for);
    if promotable {
        readings.extend(sampled(reports, version, live, now));
    }
    readings
}

/// The sampled gates as a coordinator reported them last; unknown where none did.
fn sampled(
    reports: &Reports,
    version: &Version,
    live: Option<&Version>,
    now: Timestamp,
) -> Vec<GateReading> {
    let unread = || {
        let collect = |version| Evidence::collect(version, reports, Offset(0));
        let gates = &version.definition.gates;
        gates::sampled(gates, None, &collect(version), live.map(collect).as_ref())
    };
    let recent = |c: &&Heard<CoordinatorReport>| now <= c.appended.plus(ALIVE);
    let coordinators = reports.coordinators().values().filter(recent);
    let reported = coordinators
        .filter_map(|c| Some((c.appended, c.report.sampled.get(&version.id)?)))
        .max_by_key(|(appended, _)| *appended);
    reported.map_or_else(unread, |(_, readings)| readings.clone())
}

/// Returns what keeps a version: a pause, what a unit says, or the first gate that does not hold.
fn waits_for(version: &Version, evidence: &Evidence<'_>, gates: &[GateReading]) -> Option<String> {
    if let Some(paused) = &version.paused {
        return Some(format!("paused by {paused}"));
    }
    let said = evidence
        .reports()
        .find_map(|heard| heard.report.waits_for.clone());
    let gate = gates.iter().find(|reading| !reading.holds);
    said.or_else(|| gate.map(|gate| format!("{} {}", gate.gate, gate.reading)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_estimate_below_one_percent_nor_at_rest_nor_at_the_end() {
        let check = |done, end, rate, expected| {
            assert_eq!(
                eta(Counted { done, end }, rate),
                expected,
                "{done}/{end} at {rate}"
            );
        };
        check(9, 1_000, 100.0, None);
        check(10, 1_000, 100.0, Some(9_900));
        check(500, 1_000, 0.0, None);
        check(1_000, 1_000, 100.0, None);
    }
}
