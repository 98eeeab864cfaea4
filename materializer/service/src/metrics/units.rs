//! What the units that this process feeds say of themselves.

use materializer_model::progress::{Health, Phase, Progress};
use materializer_model::{Checkpoint, Ends, Offset, Partition, Topic};

use super::{UNIT, names, scraped};

/// How many partitions of a unit are shown one by one; with more, the unit's sums alone.
const PARTITIONS_MAX: usize = 256;

const UNIT_GATE: [&str; 5] = ["view", "version", "copy", "shard", "gate"];
const UNIT_HEALTH: [&str; 5] = ["view", "version", "copy", "shard", "health"];
const UNIT_REASON: [&str; 5] = ["view", "version", "copy", "shard", "reason"];
const PARTITION: [&str; 6] = ["view", "version", "copy", "shard", "topic", "partition"];

scraped! {
    /// Gauges of the units that this process feeds.
    UnitGauges {
        claim_offset: IntGaugeVec[UNIT] "unit_claim_offset"
            "Offset of the claim under which this process holds the unit.";
        health: IntGaugeVec[UNIT_HEALTH] "unit_health"
            "1 for the unit's health, 0 for the others.";
        servable: IntGaugeVec[UNIT] "unit_servable"
            "1 if readers may be sent to the unit.";
        lag_records: IntGaugeVec[UNIT] "lag_records"
            "Last stable offset minus committed next offset, summed over the unit's partitions; absent while an end is unknown.";
        lag_seconds: GaugeVec[UNIT] "lag_seconds"
            "How long the oldest record that is not committed has waited, of the worst partition; absent while unknown.";
        committed: IntCounterVec[UNIT] "committed_offsets_total"
            "Committed next offsets, summed over the unit's partitions.";
        replay_target: IntGaugeVec[UNIT] "replay_target_offsets"
            "The bar: the ends that the replay must reach, summed.";
        replay_done: IntGaugeVec[UNIT] "replay_done_offsets"
            "How much of the bar is committed.";
        catchup_eta: GaugeVec[UNIT] "catchup_eta_seconds"
            "Lag divided by the rate of the last seconds; +Inf if nothing is read; absent below 1 % and once the bar is passed.";
        gate_holds: IntGaugeVec[UNIT_GATE] "gate_holds"
            "1 if a continuous gate of the unit holds.";
        gates_held: GaugeVec[UNIT] "gates_held_seconds"
            "How long all continuous gates have held without a break; 0 while one does not.";
        set_aside: IntCounterVec[UNIT_REASON] "records_set_aside_total"
            "Records that the version could not take in, as its checkpoint counts them.";
        documents: IntGaugeVec[UNIT] "sink_documents"
            "Rows in the unit, where the sink knows it at no cost.";
        bytes: IntGaugeVec[UNIT] "sink_bytes"
            "Bytes that the unit takes, where the sink knows it; of a Redis, what the whole server holds.";
        bytes_free: IntGaugeVec[UNIT] "sink_free_bytes"
            "Bytes that are free in the same place, where the sink knows it.";
        tombstones_left: GaugeVec[UNIT] "tombstones_left_seconds"
            "How long until tombstones that the unit has not read may be compacted away.";
        partition_committed: IntGaugeVec[PARTITION] "partition_committed_offset"
            "The next offset to read, as committed with the data.";
        partition_stable: IntGaugeVec[PARTITION] "partition_stable_offset"
            "The last stable offset: the end that lag is measured against.";
        partition_high: IntGaugeVec[PARTITION] "partition_high_watermark_offset"
            "The high watermark: above the last stable offset while a transaction is open.";
        partition_start: IntGaugeVec[PARTITION] "partition_log_start_offset"
            "The first offset that the log still has.";
        partition_lag: IntGaugeVec[PARTITION] "partition_lag_records"
            "Last stable offset minus committed next offset.";
    }
}

/// Returns a number as a gauge takes it.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns a span of milliseconds in seconds.
fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

impl UnitGauges {
    /// Shows a unit as its last report says it is, against the ends that this process knows.
    pub fn set(&self, progress: &Progress, ends: &Ends) {
        let names = names(&progress.unit);
        let labels = names.each_ref().map(String::as_str);
        let offset = whole(progress.token.claim_offset);
        self.claim_offset.with_label_values(&labels).set(offset);
        let servable = i64::from(progress.servable);
        self.servable.with_label_values(&labels).set(servable);
        self.set_health(labels, &progress.health);
        self.set_lag(labels, progress);
        self.set_gates(labels, progress);
        self.set_sink(labels, progress);
        if let Some(checkpoint) = &progress.checkpoint {
            self.set_checkpoint(labels, &checkpoint.0);
            if checkpoint.0.positions().count() <= PARTITIONS_MAX {
                self.set_partitions(labels, &checkpoint.0, ends);
            }
        }
    }

    fn set_health(&self, [view, version, copy, shard]: [&str; 4], health: &Health) {
        for word in Health::WORDS {
            let labels = [view, version, copy, shard, word];
            let is = i64::from(word == health.word());
            self.health.with_label_values(&labels).set(is);
        }
    }

    fn set_lag(&self, labels: [&str; 4], progress: &Progress) {
        let Some(lag) = progress.lag else {
            return;
        };
        let records = self.lag_records.with_label_values(&labels);
        records.set(whole(lag.records));
        self.lag_seconds.with_label_values(&labels).set(lag.seconds);
        let below_the_bar = match progress.phase {
            Phase::Starting | Phase::Replaying => true,
            Phase::Tailing => false,
        };
        // Below 1 % a rate says little about the whole.
        if below_the_bar && progress.done_records >= progress.end_records.div_ceil(100) {
            let eta = eta_seconds(lag.records, progress.rate);
            self.catchup_eta.with_label_values(&labels).set(eta);
        }
    }

    fn set_gates(&self, labels: [&str; 4], progress: &Progress) {
        let [view, version, copy, shard] = labels;
        for gate in &progress.gates {
            let labels = [view, version, copy, shard, &gate.gate];
            let holds = i64::from(gate.holds);
            self.gate_holds.with_label_values(&labels).set(holds);
        }
        let held = progress.held_ms.map_or(0.0, seconds);
        self.gates_held.with_label_values(&labels).set(held);
    }

    fn set_sink(&self, labels: [&str; 4], progress: &Progress) {
        if let Some(documents) = progress.documents {
            let gauge = self.documents.with_label_values(&labels);
            gauge.set(whole(documents));
        }
        if let Some(bytes) = progress.bytes {
            self.bytes.with_label_values(&labels).set(whole(bytes));
        }
        if let Some(bytes) = progress.bytes_free {
            self.bytes_free.with_label_values(&labels).set(whole(bytes));
        }
        if let Some(left) = progress.tombstones_left_ms {
            let gauge = self.tombstones_left.with_label_values(&labels);
            gauge.set(seconds(left));
        }
    }

    fn set_checkpoint(&self, labels: [&str; 4], checkpoint: &Checkpoint) {
        let [view, version, copy, shard] = labels;
        let (mut committed, mut done, mut target) = (0, 0, 0);
        for (topic, partition, at) in checkpoint.positions() {
            committed += at.next.0;
            // A partition without a bar has none to reach.
            let bar = checkpoint.bar.get(topic, partition).unwrap_or(Offset(0));
            target += bar.0;
            done += at.next.min(bar).0;
        }
        let total = self.committed.with_label_values(&labels);
        total.inc_by(committed);
        let gauge = self.replay_target.with_label_values(&labels);
        gauge.set(whole(target));
        self.replay_done.with_label_values(&labels).set(whole(done));
        let counts = checkpoint.counts;
        let reasons = [
            ("skipped", counts.skipped),
            ("failed", counts.failed),
            ("dead_letter", counts.dead),
        ];
        for (reason, count) in reasons {
            let labels = [view, version, copy, shard, reason];
            self.set_aside.with_label_values(&labels).inc_by(count);
        }
    }

    fn set_partitions(&self, labels: [&str; 4], checkpoint: &Checkpoint, ends: &Ends) {
        for (topic, partition, at) in checkpoint.positions() {
            self.set_partition(labels, topic, partition, at.next, ends);
        }
    }

    fn set_partition(
        &self,
        [view, version, copy, shard]: [&str; 4],
        topic: &Topic,
        partition: Partition,
        next: Offset,
        ends: &Ends,
    ) {
        let number = partition.to_string();
        let labels = [view, version, copy, shard, topic.as_str(), number.as_str()];
        let gauge = self.partition_committed.with_label_values(&labels);
        gauge.set(whole(next.0));
        let Some(end) = ends.get(topic, partition) else {
            return;
        };
        let of_log = [
            (&self.partition_stable, end.stable.0),
            (&self.partition_high, end.high.0),
            (&self.partition_start, end.start.0),
        ];
        for (gauge, offset) in of_log {
            gauge.with_label_values(&labels).set(whole(offset));
        }
        // Not clamped: below 0 the log has lost what was committed from it.
        let lag = whole(end.stable.0) - whole(next.0);
        self.partition_lag.with_label_values(&labels).set(lag);
    }
}

/// Returns how long `records` take at a rate per second.
fn eta_seconds(records: u64, rate: f64) -> f64 {
    // Above 2^32 records a few more or less are no matter.
    let records = f64::from(u32::try_from(records).unwrap_or(u32::MAX));
    if records > 0.0 && rate <= 0.0 {
        return f64::INFINITY;
    }
    if records == 0.0 { 0.0 } else { records / rate }
}
