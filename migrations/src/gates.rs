//! The gates of a promotion and of a rollback: each a value against its limit, in words.
//!
//! The continuous ones are evaluated by the workers; here their fresh reports are put together. The
//! sampled ones are evaluated here from what the coordinator read. All fail closed: what is unknown,
//! or was read too early, does not hold. A waiver covers neither a version that could not be served
//! rightly nor evidence that proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use materializer_model::definition::{Gates, Ratio};
use materializer_model::progress::{GateReading, Health, Lag, Progress};
use materializer_model::{Offset, Timestamp, Unit};

use crate::defect::Defect;
use crate::reports::{Heard, Reports};
use crate::versions::Version;
use crate::words::clock;
use materializer_model::defect::is_planted;

/// Whether every unit reported freshly, under its newest claim.
pub const REPORTS: &str = "reports";
/// Whether no unit is damaged, rewound or failed.
pub const HEALTH: &str = "health";
/// Whether readers may be routed to every unit.
pub const SERVABLE: &str = "servable";
/// How long the continuous gates have held without a break.
pub const HELD: &str = "stable_for";
/// The count of documents against the live version's.
pub const DOCUMENTS: &str = "documents_ratio";
/// Searches that must find something.
pub const QUERIES: &str = "queries";
/// Keys that must exist.
pub const KEYS: &str = "keys";
/// Whether the candidate is at least as fresh as the live version.
pub const FRESH: &str = "fresh_as_live";

/// The continuous gates that workers evaluate, in the order in which they are shown.
pub const CONTINUOUS: [&str; 6] = [
    "bar",
    "ends",
    "lag_records",
    "lag_seconds",
    "failed",
    "stable_offset",
];

/// The gates whose limits a definition sets.
pub const CHOSEN: [&str; 6] = ["lag_records", "lag_seconds", HELD, DOCUMENTS, QUERIES, KEYS];

/// The gates that no waiver covers.
pub const UNWAIVABLE: [&str; 4] = [REPORTS, HEALTH, SERVABLE, "ends"];

/// Every gate, as waivers name them.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let others = [
        REPORTS, HEALTH, SERVABLE, HELD, DOCUMENTS, QUERIES, KEYS, FRESH,
    ];
    others.into_iter().chain(CONTINUOUS).collect()
}

/// The fresh reports of a version's units.
#[derive(Debug)]
pub struct Evidence<'a> {
    units: Vec<(Unit, Result<&'a Heard<Progress>, String>)>,
    /// The units whose sink is not known to have what was once reported of them.
    behind: Vec<Unit>,
}

impl<'a> Evidence<'a> {
    /// Collects the reports of a version's units that stand at or past `since`, which is the end of
    /// the progress topic when the decision began.
    #[must_use]
    pub fn collect(version: &Version, reports: &'a Reports, since: Offset) -> Self {
        let fresh = |unit: &Unit| -> Result<&'a Heard<Progress>, String> {
            let heard = reports
                .unit(unit)
                .ok_or_else(|| format!("`{unit}` has never reported"))?;
            if heard.offset < since && !is_planted(Defect::OldEvidence) {
                return Err(format!("`{unit}` has not reported since"));
            }
            if !reports.holds(unit, &heard.report.token) {
                return Err(format!("`{unit}` reported under an older claim"));
            }
            Ok(heard)
        };
        let units = version.units().map(|unit| {
            let report = fresh(&unit);
            (unit, report)
        });
        let count = if is_planted(Defect::OneUnitSuffices) {
            1
        } else {
            usize::MAX
        };
        let units: Vec<_> = units.take(count).collect();
        let is_behind = |heard: &&Heard<Progress>| {
            let Progress { unit, worker, .. } = &heard.report;
            let expected = reports.expected(version, unit, worker);
            let has = heard.report.checkpoint.as_ref();
            expected.is_some_and(|had| has.is_none_or(|has| has.0.is_behind(&had.0)))
        };
        let fresh = units.iter().filter_map(|(_, report)| report.as_ref().ok());
        Self {
            behind: fresh
                .copied()
                .filter(is_behind)
                .map(|heard| heard.report.unit.clone())
                .collect(),
            units,
        }
    }

    /// Says whether every unit has reported.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.units.iter().all(|(_, report)| report.is_ok())
    }

    /// Returns the append time of the oldest report.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.reports().map(|heard| heard.appended).min()
    }

    /// Iterates over the reports that there are.
    pub fn reports(&self) -> impl Iterator<Item = &'a Heard<Progress>> {
        self.units
            .iter()
            .filter_map(|(_, report)| report.as_ref().ok().copied())
    }

    /// Says whether the data is lost: no copy is left that has all of it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        let damaged = self.damaged_copies();
        let mut copies = self.units.iter().map(|(unit, _)| unit.copy);
        !damaged.is_empty() && copies.all(|copy| damaged.contains(&copy))
    }

    fn damaged_copies(&self) -> BTreeSet<u16> {
        let reports = self.reports().map(|heard| &heard.report);
        let damaged = reports.filter(|r| matches!(r.health, Health::Damaged { .. }));
        damaged.map(|report| report.unit.copy).collect()
    }

    /// Iterates over the reports on those copies that have their data; on all where none has.
    fn of_whole_copies(&self) -> impl Iterator<Item = &'a Progress> {
        let left_out = if self.is_damaged() {
            BTreeSet::new()
        } else {
            self.damaged_copies()
        };
        let reports = self.reports().map(|heard| &heard.report);
        reports.filter(move |report| !left_out.contains(&report.unit.copy))
    }

    /// Returns the lag in records, the sum over shards and the most of all copies; `None` while that
    /// of any unit is unknown.
    #[must_use]
    pub fn lag_records(&self) -> Option<u64> {
        let lag = self.lag()?;
        Some(lag.records)
    }

    /// Returns the lag of the copy that is furthest behind; `None` while that of any unit is unknown.
    /// One that lost its data does not count beside others, here and in the count of documents.
    #[must_use]
    pub fn lag(&self) -> Option<Lag> {
        if !self.is_complete() {
            return None;
        }
        let mut copies: BTreeMap<u16, Lag> = BTreeMap::new();
        for report in self.of_whole_copies() {
            let lag = report.lag?;
            let sum = copies.entry(report.unit.copy).or_insert(Lag {
                records: 0,
                seconds: 0.0,
                estimated: false,
            });
            sum.records = sum.records.saturating_add(lag.records);
            sum.seconds = sum.seconds.max(lag.seconds);
            sum.estimated |= lag.estimated;
        }
        copies.into_values().max_by_key(|lag| lag.records)
    }

    /// Returns the count of documents of the copy that has the fewest, where every unit can tell it.
    #[must_use]
    pub fn documents(&self) -> Option<u64> {
        if !self.is_complete() {
            return None;
        }
        let mut copies: BTreeMap<u16, u64> = BTreeMap::new();
        for report in self.of_whole_copies() {
            let sum = copies.entry(report.unit.copy).or_default();
            *sum = sum.saturating_add(report.documents?);
        }
        copies.into_values().min()
    }
}

/// What the coordinator read of a candidate for its sampled gates. `Err` is unknown, and says why.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The candidate's count of documents and the live version's.
    pub documents: Result<(u64, u64), String>,
    /// The hits of each query of the gates.
    pub hits: Vec<Result<u64, String>>,
    /// Which keys of the gates exist.
    pub keys: Result<Vec<bool>, String>,
}

/// Evaluates the continuous gates of a version.
#[must_use]
pub fn continuous(evidence: &Evidence<'_>, stable_for: Duration) -> Vec<GateReading> {
    let mut readings = vec![reports(evidence), health(evidence), servable(evidence)];
    readings.extend(CONTINUOUS.iter().map(|gate| of_workers(evidence, gate)));
    readings.push(held(evidence, stable_for));
    readings
}

/// Evaluates the sampled gates of a candidate; those against a live version only where there is one
/// that has its data: nothing is to be compared with one that lost it, and what repairs it is urgent.
#[must_use]
pub fn sampled(
    gates: &Gates,
    sampled: Option<&Sampled>,
    candidate: &Evidence<'_>,
    live: Option<&Evidence<'_>>,
) -> Vec<GateReading> {
    let mut readings = Vec::new();
    if let Some(live) = live.filter(|live| !live.is_damaged()) {
        readings.push(fresh_as_live(gates, candidate, live));
        let documents = gates.documents_ratio;
        readings.extend(documents.map(|ratio| documents_ratio(ratio, sampled)));
    }
    if !gates.queries.is_empty() {
        readings.push(queries(gates, sampled));
    }
    if !gates.keys.is_empty() {
        readings.push(keys(gates, sampled));
    }
    readings
}

/// Returns the readings that stand in the way: those that do not hold and are not waived.
#[must_use]
pub fn failing<'a>(readings: &'a [GateReading], waived: &BTreeSet<String>) -> Vec<&'a GateReading> {
    let covered = |r: &GateReading| waived.contains(&r.gate) && is_waivable(&r.gate);
    readings
        .iter()
        .filter(|reading| !reading.holds && !covered(reading))
        .collect()
}

/// Says whether a gate can be done without.
#[must_use]
pub fn is_waivable(gate: &str) -> bool {
    names().contains(&gate) && !UNWAIVABLE.contains(&gate)
}

fn reading(gate: &str, holds: bool, reading: String) -> GateReading {
    GateReading {
        gate: gate.to_owned(),
        holds,
        reading,
    }
}

fn unknown(gate: &str, why: &str) -> GateReading {
    reading(gate, false, format!("unknown: {why}"))
}

fn reports(evidence: &Evidence<'_>) -> GateReading {
    let missing = evidence.units.iter().find_map(|(_, r)| r.as_ref().err());
    let fresh = evidence.reports().count();
    match missing {
        Some(why) => reading(REPORTS, false, why.clone()),
        None => reading(REPORTS, true, format!("{fresh}/{fresh} units fresh")),
    }
}

fn health(evidence: &Evidence<'_>) -> GateReading {
    let bad = evidence
        .reports()
        .find_map(|heard| match &heard.report.health {
            Health::Damaged { why } => Some(format!("`{}` is damaged: {why}", heard.report.unit)),
            Health::Failed { why, .. } => Some(format!("`{}` failed: {why}", heard.report.unit)),
            Health::Rewound { from, to } => Some(format!(
                "`{}` went back from commit {from} to {to}",
                heard.report.unit
            )),
            Health::Ok | Health::Waiting { .. } | Health::Lagging | Health::Stalled { .. } => None,
        });
    let behind = || {
        let unit = evidence.behind.first()?;
        Some(format!("`{unit}` is behind what was reported of it"))
    };
    match bad.or_else(behind) {
        Some(why) => reading(HEALTH, false, why),
        None if evidence.is_complete() => reading(HEALTH, true, "whole".to_owned()),
        None => unknown(HEALTH, "not every unit has reported"),
    }
}

fn servable(evidence: &Evidence<'_>) -> GateReading {
    let all = evidence.units.len();
    let servable = evidence
        .reports()
        .filter(|heard| heard.report.servable)
        .count();
    reading(
        SERVABLE,
        servable == all,
        format!("{servable}/{all} units servable"),
    )
}

/// Puts the readings of all units together: the first that does not hold, or else the first.
fn of_workers(evidence: &Evidence<'_>, gate: &str) -> GateReading {
    let mut first = None;
    for (unit, report) in &evidence.units {
        let gates = report.as_ref().map_or(&[][..], |heard| &heard.report.gates);
        match gates.iter().find(|reading| reading.gate == gate) {
            None => return unknown(gate, &format!("`{unit}` does not report it")),
            Some(reading) if !reading.holds => return reading.clone(),
            Some(reading) => first = first.or(Some(reading)),
        }
    }
    first
        .cloned()
        .unwrap_or_else(|| unknown(gate, "there is no unit"))
}

fn held(evidence: &Evidence<'_>, stable_for: Duration) -> GateReading {
    let held = |heard: &Heard<Progress>| heard.report.held_ms;
    let held = evidence
        .is_complete()
        .then(|| evidence.reports().map(held).min());
    let limit = u64::try_from(stable_for.as_millis()).unwrap_or(u64::MAX);
    match held.flatten().flatten() {
        Some(ms) if ms >= limit => reading(HELD, true, format!("{} ≥ {}", clock(ms), clock(limit))),
        Some(ms) => reading(HELD, false, format!("{} of {}", clock(ms), clock(limit))),
        None => reading(HELD, false, format!("0:00 of {}", clock(limit))),
    }
}

fn fresh_as_live(gates: &Gates, candidate: &Evidence<'_>, live: &Evidence<'_>) -> GateReading {
    match (candidate.lag_records(), live.lag_records()) {
        (Some(ours), Some(theirs)) => {
            let limit = theirs.saturating_add(gates.lag_records);
            let holds = ours <= limit;
            let sign = if holds { '≤' } else { '>' };
            let words = format!("{ours} {sign} {theirs} + {}", gates.lag_records);
            reading(FRESH, holds, words)
        }
        (None, _) => unknown(FRESH, "the candidate's lag"),
        (Some(_), None) => unknown(FRESH, "the live version's lag"),
    }
}

fn documents_ratio(limit: Ratio, sampled: Option<&Sampled>) -> GateReading {
    let counts = match sampled.map(|sampled| &sampled.documents) {
        None => return unknown(DOCUMENTS, "not counted yet"),
        Some(Err(why)) => return unknown(DOCUMENTS, why),
        Some(Ok(counts)) => *counts,
    };
    let (ours, theirs) = counts;
    let range = format!("{}..{}", limit.min, limit.max);
    // Two empty versions are alike.
    let ratio = if ours == theirs {
        1.0
    } else {
        float(ours) / float(theirs)
    };
    let holds = ratio >= limit.min && ratio <= limit.max;
    let words = if holds { "in" } else { "is outside" };
    let detail = format!("{ratio:.3} {words} {range} ({ours} against live's {theirs})");
    reading(DOCUMENTS, holds, detail)
}

/// Exact below 2^53, which no count of documents reaches.
#[expect(
    clippy::as_conversions,
    reason = "there is no lossless conversion, and none is needed"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

fn queries(gates: &Gates, sampled: Option<&Sampled>) -> GateReading {
    let all = gates.queries.len();
    let Some(sampled) = sampled.filter(|sampled| sampled.hits.len() == all) else {
        return unknown(QUERIES, "not asked yet");
    };
    for (query, hits) in gates.queries.iter().zip(&sampled.hits) {
        match hits {
            Err(why) => return unknown(QUERIES, &format!("`{}`: {why}", query.q)),
            Ok(hits) if *hits < query.hits_min => {
                let words = format!("`{}` found {hits} of {}", query.q, query.hits_min);
                return reading(QUERIES, false, words);
            }
            Ok(_) => {}
        }
    }
    reading(QUERIES, true, format!("{all}/{all}"))
}

fn keys(gates: &Gates, sampled: Option<&Sampled>) -> GateReading {
    let all = gates.keys.len();
    let exist = match sampled.map(|sampled| &sampled.keys) {
        Some(Ok(exist)) if exist.len() == all => exist,
        Some(Err(why)) => return unknown(KEYS, why),
        Some(Ok(_)) | None => return unknown(KEYS, "not asked yet"),
    };
    let missing = gates.keys.iter().zip(exist).find(|(_, exists)| !**exists);
    match missing {
        Some((key, _)) => reading(KEYS, false, format!("`{key}` does not exist")),
        None => reading(KEYS, true, format!("{all}/{all}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_documents_is_inclusive_and_two_empty_versions_are_alike() {
        let check = |ours, theirs, expected: (bool, &str)| {
            let sampled = Sampled {
                documents: Ok((ours, theirs)),
                hits: Vec::new(),
                keys: Ok(Vec::new()),
            };
            let found = documents_ratio(Ratio { min: 0.9, max: 1.1 }, Some(&sampled));
            assert_eq!((found.holds, found.reading.as_str()), expected);
        };
        check(90, 100, (true, "0.900 in 0.9..1.1 (90 against live's 100)"));
        check(0, 0, (true, "1.000 in 0.9..1.1 (0 against live's 0)"));
        check(
            89,
            100,
            (false, "0.890 is outside 0.9..1.1 (89 against live's 100)"),
        );
        check(
            1,
            0,
            (false, "inf is outside 0.9..1.1 (1 against live's 0)"),
        );
    }

    #[test]
    fn what_was_not_read_does_not_hold() {
        assert!(!documents_ratio(Ratio { min: 0.0, max: 9.0 }, None).holds);
        let none = Evidence {
            units: Vec::new(),
            behind: Vec::new(),
        };
        for reading in continuous(&none, Duration::ZERO) {
            let vacuous = [REPORTS, HEALTH, SERVABLE].contains(&reading.gate.as_str());
            assert!(vacuous || !reading.holds, "{reading:?}");
        }
    }

    #[test]
    fn a_waiver_covers_every_gate_but_those_that_prove_the_evidence() {
        for gate in names() {
            let failed = [reading(gate, false, String::new())];
            let waived = BTreeSet::from([gate.to_owned()]);
            let stands = !failing(&failed, &waived).is_empty();
            assert_eq!(stands, UNWAIVABLE.contains(&gate), "{gate}");
        }
    }
}
