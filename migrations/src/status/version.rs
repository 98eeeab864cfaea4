//! The status of one version: what its units report, the gates before it, and what it waits for.

use std::time::Duration;

use materializer_model::progress::{GateReading, Health, Phase, Progress};
use materializer_model::{Offset, Timestamp, Unit, VersionId};

use super::{AliasStatus, Counted, HealthStatus, UnitStatus, VersionStatus, milliseconds};
use crate::decide::ALIVE;
use crate::gates::{self, Evidence};
use crate::lifecycle::Role;
use crate::reports::{CoordinatorReport, Heard, Reports};
use crate::versions::{Version, View};
use crate::words::{Count, rough};

/// Computes the status of a version at a broker's time.
pub(super) fn version_status(
    reports: &Reports,
    view: &View,
    alias: Option<&AliasStatus>,
    version: &Version,
    now: Timestamp,
) -> VersionStatus {
    let evidence = Evidence::collect(version, reports, Offset(0));
    let fed = version.role.is_fed();
    let units: Vec<UnitStatus> = version
        .units()
        .map(|unit| unit_status(reports.unit(&unit), unit, version.role, now))
        .collect();
    let alive = units.iter().all(|unit| unit.health.is != SILENT);
    let gates = gate_readings(reports, view, version, now);
    let ready = !gates.is_empty() && alive && gates.iter().all(|reading| reading.holds);
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
        waits_for: waits_for(version, alias, &evidence, &gates),
        gates,
        documents: evidence.documents(),
        // Redis tells what the whole server holds, and no documents.
        bytes: evidence
            .documents()
            .and_then(|_| evidence.reports().map(|heard| heard.report.bytes).sum()),
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
    role: Role,
    now: Timestamp,
) -> UnitStatus {
    let fed = role.is_fed();
    let recent = heard.filter(|heard| !fed || now <= heard.appended.plus(ALIVE));
    let progress = heard.map(|heard| &heard.report);
    let health = match (progress, recent) {
        // What it waited for was said while it was fed: it waits for nothing any more.
        (Some(progress), Some(_)) if !fed && is_waiting(progress) => WELL,
        (Some(progress), Some(_)) => health_status(&progress.health, &unit.version, role),
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

fn is_waiting(progress: &Progress) -> bool {
    matches!(progress.health, Health::Waiting { .. })
}

const WELL: HealthStatus = HealthStatus {
    is: "ok",
    why: None,
    hint: None,
};

fn health_status(health: &Health, version: &VersionId, role: Role) -> HealthStatus {
    let (why, hint) = match health {
        Health::Ok | Health::Lagging => (None, None),
        Health::Waiting { why } | Health::Stalled { why } => (Some(why.clone()), None),
        Health::Rewound { from, to } => (
            Some(format!("the sink went back from commit {from} to {to}")),
            None,
        ),
        Health::Damaged { why } => (Some(why.clone()), way_out(version, role)),
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

/// Returns what helps where a version's data is lost, which is never refilled; nothing where it goes
/// anyway.
fn way_out(version: &VersionId, role: Role) -> Option<String> {
    match role {
        Role::Building => Some(
            "`materializer apply FILE --replace --rebuild` builds another one in its place"
                .to_owned(),
        ),
        Role::Live => Some(format!(
            "`materializer rollback {}` if its standby is well; `materializer apply FILE --rebuild` builds a new version",
            version.view
        )),
        // Its soak does not count while it is like this, and so would never end.
        Role::Standby => Some(format!("`materializer retire {version}` lets it go")),
        Role::Draining | Role::Retiring | Role::Retired => None,
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
    worst.map_or(WELL, |unit| unit.health.clone())
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

/// Returns the gates that the version's next change has to pass: of its promotion while it is built, of
/// a rollback to it, or its promotion anew, while it stands by. A version that is live has done with
/// gates; the sampled ones are read of candidates alone.
fn gate_readings(
    reports: &Reports,
    view: &View,
    version: &Version,
    now: Timestamp,
) -> Vec<GateReading> {
    let evidence = Evidence::collect(version, reports, Offset(0));
    let stable_for = version.definition.gates.stable_for;
    match version.role {
        Role::Building => {
            let live = view.live();
            let stable_for = live.map_or(Duration::ZERO, |_| stable_for);
            let mut readings = gates::continuous(&evidence, stable_for);
            readings.extend(sampled(reports, version, live, now));
            readings
        }
        Role::Standby if version.rolled_back => gates::continuous(&evidence, stable_for),
        Role::Standby => gates::continuous(&evidence, Duration::ZERO),
        Role::Live | Role::Draining | Role::Retiring | Role::Retired => Vec::new(),
    }
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

/// Returns what keeps a version from the next step of its life, in words.
fn waits_for(
    version: &Version,
    alias: Option<&AliasStatus>,
    evidence: &Evidence<'_>,
    gates: &[GateReading],
) -> Option<String> {
    if let Some(paused) = &version.paused {
        return Some(format!("paused by {paused}"));
    }
    let said = || {
        evidence
            .reports()
            .find_map(|heard| heard.report.waits_for.clone())
    };
    match version.role {
        Role::Building => said()
            .or_else(|| bar_left(evidence))
            .or_else(|| failing_gate(gates)),
        Role::Live => said(),
        Role::Standby => Some(soak_left(alias?)),
        Role::Draining => Some("until no reader uses it".to_owned()),
        Role::Retiring => Some("what it stored is being deleted".to_owned()),
        Role::Retired => None,
    }
}

/// Says how many records a replay has to read before any gate can hold; nothing past the bar.
fn bar_left(evidence: &Evidence<'_>) -> Option<String> {
    let mut units = evidence.reports().map(|heard| &heard.report);
    if units.any(|unit| unit.phase == Phase::Replaying && unit.checkpoint.is_none()) {
        return Some("for the first commit".to_owned());
    }
    let below = |heard: &Heard<Progress>| {
        let checkpoint = &heard.report.checkpoint.as_ref()?.0;
        let left = checkpoint.positions().filter_map(|(topic, partition, at)| {
            let bar = checkpoint.bar.get(topic, partition)?;
            Some(bar.distance_from(at.next))
        });
        Some(left.sum::<u64>())
    };
    let left: u64 = evidence.reports().filter_map(below).sum();
    (left > 0).then(|| format!("{} records to the bar", Count(left)))
}

fn failing_gate(gates: &[GateReading]) -> Option<String> {
    let gate = gates.iter().find(|reading| !reading.holds)?;
    Some(format!("{} {}", gate.gate, gate.reading))
}

fn soak_left(alias: &AliasStatus) -> String {
    match (&alias.soak_interrupted, alias.soak_left_ms) {
        (Some(why), _) => format!("soak interrupted: {why}"),
        (None, Some(left)) => format!("soak ends in {}", rough(Duration::from_millis(left))),
        (None, None) => format!("until every gateway serves {}", alias.version),
    }
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
