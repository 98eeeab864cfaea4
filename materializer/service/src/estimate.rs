//! What a new version will take, from a sample of each partition: records, bytes, time, memory or disk.
//!
//! An estimate is not a promise: everything is scaled from the sample, and the output says "about".

use std::fmt;
use std::time::Duration;

use materializer_model::definition::{CleanupPolicy, Target};
use materializer_model::ports::{Derive, TopicFacts};
use materializer_model::{
    Change, Clock, Ends, LogRow, Mutation, Offset, Timestamp, ViewDefinition,
};
use serde::Serialize;

use crate::output::{Bytes, Count};

/// Rows a second that one unit of a sink takes, as measured on two cores: an upper bound of a replay.
const REDIS_ROWS: u64 = 200_000;
const TANTIVY_ROWS: u64 = 30_000;
/// What Redis adds to a key and a row.
const REDIS_OVERHEAD: u64 = 96;

/// What the brokers say of a view's topics.
#[derive(Debug)]
pub(crate) struct Source {
    /// Policies and retentions.
    pub(crate) facts: Vec<TopicFacts>,
    /// The ends of each partition.
    pub(crate) ends: std::sync::Arc<Ends>,
}

/// What was seen of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sample {
    /// Records.
    pub(crate) records: u64,
    /// Records that upsert a document.
    pub(crate) documents: u64,
    /// Records that delete one.
    pub(crate) deletes: u64,
    /// Records that `only` excludes.
    pub(crate) excluded: u64,
    /// Records that cannot be taken in.
    pub(crate) failed: u64,
    /// About how many records the topics hold.
    pub(crate) all_records: u64,
    /// About how many bytes of keys and values they hold.
    pub(crate) all_bytes: u64,
    /// The bytes of the documents and their keys.
    pub(crate) row_bytes: u64,
    /// The time that deriving took.
    #[serde(skip)]
    pub(crate) derive: Duration,
    /// The time of the oldest record.
    pub(crate) oldest: Option<Timestamp>,
}

/// What a new version will take.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Estimate {
    /// The topics with their policies.
    pub(crate) topics: Vec<String>,
    /// Their partitions.
    pub(crate) partitions: i32,
    /// Their records, about.
    pub(crate) records: u64,
    /// Their bytes, uncompressed.
    pub(crate) bytes: u64,
    /// The partitions whose log does not begin at 0.
    pub(crate) genesis_gone: Vec<String>,
    /// The sample.
    pub(crate) sample: Sample,
    /// The first record that cannot be taken in, and why.
    pub(crate) first_failure: Option<String>,
    /// How long the replay takes.
    pub(crate) duration_ms: u64,
    /// Bytes that a copy needs in its sink.
    pub(crate) needed: u64,
    /// Bytes that are free there.
    pub(crate) free: Option<u64>,
    /// Where: `disk a copy`, or `memory`.
    pub(crate) place: &'static str,
    /// What retention does to the records that are still to be read.
    pub(crate) retention: Option<String>,
}

impl Sample {
    /// Derives the records of a topic's sample and adds what was seen. Returns the first record that
    /// cannot be taken in, and why.
    pub(crate) fn add(
        &mut self,
        view: &dyn Derive,
        taken: &materializer_kafka::Sample,
        clock: &dyn Clock,
    ) -> Option<String> {
        let mut first_failure = None;
        let began = clock.monotonic();
        let mut mutations: Vec<Mutation> = Vec::new();
        for row in taken.rows.rows() {
            let LogRow::Record(record) = row else {
                continue;
            };
            self.oldest = [self.oldest, record.timestamp].into_iter().flatten().min();
            mutations.clear();
            match view.apply(&record, &mut mutations) {
                Ok(()) if mutations.is_empty() => self.excluded += 1,
                Ok(()) => {}
                Err(poison) => {
                    self.failed += 1;
                    first_failure.get_or_insert_with(|| format!("{}: {poison}", record.origin()));
                }
            }
            for mutation in &mutations {
                match &mutation.change {
                    Change::Upsert { row, .. } => {
                        self.documents += 1;
                        self.row_bytes += length(&mutation.key.0) + length(&row.0);
                    }
                    Change::Delete => self.deletes += 1,
                }
            }
        }
        self.derive += clock.monotonic().since(began);
        for partition in taken.partitions.values() {
            self.records += partition.records;
            self.all_records += partition.records_estimate();
            self.all_bytes += partition.bytes_estimate();
        }
        first_failure
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Estimate {
    /// Scales a sample to the whole log.
    #[must_use]
    pub(crate) fn of(
        definition: &ViewDefinition,
        source: &Source,
        sample: Sample,
        first_failure: Option<String>,
        free: Option<u64>,
        now: Option<Timestamp>,
    ) -> Self {
        let records = sample.all_records;
        let scale = |seen: u64| scaled(seen, records, sample.records);
        let derive = u64::try_from(sample.derive.as_millis()).unwrap_or(u64::MAX);
        let documents = scale(sample.documents);
        let (rows, overhead, place) = match &definition.to {
            Target::Redis(_) | Target::Memory {} => (REDIS_ROWS, REDIS_OVERHEAD, "memory"),
            Target::Tantivy(_) => (TANTIVY_ROWS, 0, "disk a copy"),
        };
        let write = documents.saturating_mul(1_000) / rows;
        Self {
            topics: source.facts.iter().map(topic_in_words).collect(),
            partitions: source.facts.iter().map(|facts| facts.partitions).sum(),
            records,
            bytes: sample.all_bytes,
            genesis_gone: genesis_gone(source),
            duration_ms: scale(derive).max(write),
            needed: scale(sample.row_bytes).saturating_add(documents.saturating_mul(overhead)),
            free,
            place,
            retention: retention(source, &sample, now),
            sample,
            first_failure,
        }
    }
}

fn genesis_gone(source: &Source) -> Vec<String> {
    let topics = source.ends.partitions.iter();
    topics
        .flat_map(|(topic, ends)| {
            ends.iter()
                .map(move |(partition, end)| (topic, partition, end))
        })
        .filter(|(_, _, end)| end.start > Offset(0))
        .map(|(topic, partition, end)| format!("{topic}/{partition} begins at {}", end.start))
        .collect()
}

/// Returns `seen` of a sample's records as it would be of all.
fn scaled(seen: u64, all: u64, sampled: u64) -> u64 {
    if sampled == 0 {
        return 0;
    }
    let scaled = u128::from(seen) * u128::from(all) / u128::from(sampled);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn topic_in_words(facts: &TopicFacts) -> String {
    let policy = match facts.policy {
        Some(CleanupPolicy::Delete) => " (kept whole)",
        Some(CleanupPolicy::Compact) => " (compacted)",
        Some(CleanupPolicy::CompactDelete) => " (compacted, and deleted by age)",
        None => "",
    };
    let bounded = facts.retention.is_some() || facts.retention_bytes.is_some();
    match facts.policy {
        Some(CleanupPolicy::Delete) if bounded => format!("{} (deleted by age)", facts.topic),
        _ => format!("{}{policy}", facts.topic),
    }
}

/// Says when retention overtakes the beginning of the log, if it does.
fn retention(source: &Source, sample: &Sample, now: Option<Timestamp>) -> Option<String> {
    let shortest = source
        .facts
        .iter()
        .filter(|facts| facts.policy != Some(CleanupPolicy::Compact))
        .filter_map(|facts| facts.retention)
        .min()?;
    let age = now?.since(sample.oldest?);
    let left = shortest.saturating_sub(age).as_secs() / 3_600;
    Some(format!("the oldest records are deleted in about {left} h"))
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, bytes) = (Count(self.records), Bytes(self.bytes));
        write!(
            f,
            "  reads   {}, {} partitions, about {records} records, {bytes}, ",
            self.topics.join(" and "),
            self.partitions
        )?;
        if self.genesis_gone.is_empty() {
            writeln!(f, "from offset 0: genesis proved")?;
        } else {
            writeln!(
                f,
                "but the genesis is gone: {}",
                self.genesis_gone.join(", ")
            )?;
        }
        let sample = &self.sample;
        writeln!(
            f,
            "  sample  {} records: {} documents, {} deletes, {} skipped by `only`, {} failed",
            Count(sample.records),
            Count(sample.documents),
            Count(sample.deletes),
            Count(sample.excluded),
            Count(sample.failed)
        )?;
        if let Some(failure) = &self.first_failure {
            writeln!(f, "          {failure}")?;
        }
        let duration = crate::output::span(Duration::from_millis(self.duration_ms));
        write!(
            f,
            "  needs   about {duration}, {} {}",
            Bytes(self.needed),
            self.place
        )?;
        if let Some(free) = self.free {
            write!(f, " ({} free)", Bytes(free))?;
        }
        match &self.retention {
            None => f.write_str("; retention passes our position: never"),
            Some(when) => write!(f, "; {when}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_scaled_to_the_whole_log() {
        for (seen, all, sampled, expected) in [
            (10, 1_000, 100, 100),
            (0, 1_000, 100, 0),
            (10, 1_000, 0, 0),
            (u64::MAX, u64::MAX, 1, u64::MAX),
        ] {
            assert_eq!(scaled(seen, all, sampled), expected);
        }
    }
}
