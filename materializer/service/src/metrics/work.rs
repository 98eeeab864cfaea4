//! What the workers of this process do, and how long each part of it takes.
//!
//! A worker counts for itself and knows of no registry. Whoever drives it hands its totals over after each
//! step; what they have grown by is added here.

use std::time::Duration;

use materializer_model::Unit;
use materializer_replay::Work;
use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{UNIT, names, registered};

const UNIT_OUTCOME: [&str; 5] = ["view", "version", "copy", "shard", "outcome"];
const UNIT_STAGE: [&str; 5] = ["view", "version", "copy", "shard", "stage"];

/// Bounds in seconds, none of which is a whole number, as for requests.
const SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.5, 5.5, 20.5];

/// Returns how many records had each outcome.
fn outcomes(work: &Work) -> [(&'static str, u64); 6] {
    [
        ("upsert", work.upserts),
        ("delete", work.deletes),
        ("excluded", work.excluded),
        ("skipped", work.skipped),
        ("dead_letter", work.dead_letters),
        ("failed", work.failed),
    ]
}

/// Returns the time that was spent in each stage.
fn stages(work: &Work) -> [(&'static str, Duration); 5] {
    [
        ("open", work.opening),
        ("fetch", work.fetching),
        ("derive", work.deriving),
        ("submit", work.submitting),
        ("settle", work.settling),
    ]
}

/// What the workers of this process do.
#[derive(Clone)]
pub struct WorkMetrics {
    records: IntCounterVec,
    bytes: IntCounterVec,
    retries: IntCounterVec,
    stages: CounterVec,
    commits: HistogramVec,
}

impl WorkMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let records = Opts::new(
            "records_consumed_total",
            "Records of the log, by what became of them; what is done again counts again.",
        );
        let bytes = Opts::new(
            "bytes_consumed_total",
            "Bytes of keys, values and headers that the log delivered.",
        );
        let retries = Opts::new(
            "retries_total",
            "Faults that pass by themselves, after each of which the unit waited.",
        );
        let stages = Opts::new(
            "stage_seconds_total",
            "Time of the unit's thread, by what it was spent on.",
        );
        let commits = HistogramOpts::new(
            "commit_duration_seconds",
            "Time from a commit's submission until it was known to be applied.",
        );
        let commits = commits.buckets(SECONDS.to_vec());
        Ok(Self {
            records: registered(registry, IntCounterVec::new(records, &UNIT_OUTCOME))?,
            bytes: registered(registry, IntCounterVec::new(bytes, &UNIT))?,
            retries: registered(registry, IntCounterVec::new(retries, &UNIT))?,
            stages: registered(registry, CounterVec::new(stages, &UNIT_STAGE))?,
            commits: registered(registry, HistogramVec::new(commits, &UNIT))?,
        })
    }

    /// Begins the series of a unit, at 0.
    #[must_use]
    pub fn begin(&self, unit: &Unit) -> UnitWork {
        let mut series = UnitWork {
            metrics: self.clone(),
            names: names(unit),
            shown: Work::default(),
        };
        series.show(&Work::default());
        series
    }
}

/// The series of a unit that is fed here, until this is dropped.
pub struct UnitWork {
    metrics: WorkMetrics,
    names: [String; 4],
    shown: Work,
}

impl UnitWork {
    /// Shows the totals of the unit's worker. Called after every step, so that each commit is seen alone.
    pub fn show(&mut self, work: &Work) {
        let (metrics, shown) = (&self.metrics, &self.shown);
        let unit = self.names.each_ref().map(String::as_str);
        let [view, version, copy, shard] = unit;
        for ((outcome, had), (_, has)) in outcomes(shown).into_iter().zip(outcomes(work)) {
            let labels = [view, version, copy, shard, outcome];
            let records = metrics.records.with_label_values(&labels);
            records.inc_by(has - had);
        }
        for ((stage, had), (_, has)) in stages(shown).into_iter().zip(stages(work)) {
            let labels = [view, version, copy, shard, stage];
            let seconds = metrics.stages.with_label_values(&labels);
            seconds.inc_by((has - had).as_secs_f64());
        }
        let bytes = metrics.bytes.with_label_values(&unit);
        bytes.inc_by(work.bytes - shown.bytes);
        let retries = metrics.retries.with_label_values(&unit);
        retries.inc_by(work.retries - shown.retries);
        let commits = metrics.commits.with_label_values(&unit);
        if work.commits > shown.commits {
            commits.observe((work.committing - shown.committing).as_secs_f64());
        }
        self.shown = *work;
    }
}

impl Drop for UnitWork {
    fn drop(&mut self) {
        let unit = self.names.each_ref().map(String::as_str);
        let [view, version, copy, shard] = unit;
        let metrics = &self.metrics;
        // Each is there: nobody else removes it.
        metrics.bytes.remove_label_values(&unit).ok();
        metrics.retries.remove_label_values(&unit).ok();
        metrics.commits.remove_label_values(&unit).ok();
        for (outcome, _) in outcomes(&self.shown) {
            let labels = [view, version, copy, shard, outcome];
            metrics.records.remove_label_values(&labels).ok();
        }
        for (stage, _) in stages(&self.shown) {
            let labels = [view, version, copy, shard, stage];
            metrics.stages.remove_label_values(&labels).ok();
        }
    }
}
