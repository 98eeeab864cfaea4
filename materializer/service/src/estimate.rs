//! What a new version will take, from a sample of each partition: records, bytes, time, memory or disk.
//!
//! An estimate is not a promise: everything is scaled from the sample, and the output says "about".

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use materializer_model::definition::{CleanupPolicy, Target};
use materializer_model::ports::{Derive, TopicFacts};
use materializer_model::{
    Change, Clock, Ends, Key, LogRow, Mutation, Offset, Partition, Timestamp, ViewDefinition,
};
use serde::Serialize;

use crate::output::{Bytes, Count};

// Measured with a development build on two cores that were busy with other work, with the log of
// docs/quickstart.md: 2 000 000 JSON records of 140 bytes in six partitions, 1 720 000 of them upserts,
// 165 000 documents in the end. The Redis view took 17 s and the index 51 s, of which deriving takes 8 s;
// a Redis row took 181 bytes of memory, 66 of which are its key and value.

/// Rows a second that one unit writes, beside deriving them.
const REDIS_ROWS: u64 = 200_000;
const TANTIVY_ROWS: u64 = 40_000;
/// What Redis adds to a key and a row: the prefix of the version, and its own.
const REDIS_OVERHEAD: u64 = 115;

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
    /// Keys, and how many of them were seen once and twice.
    #[serde(skip)]
    pub(crate) keys: u64,
    #[serde(skip)]
    pub(crate) once: u64,
    #[serde(skip)]
    pub(crate) twice: u64,
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
    /// How many documents there will be: fewer than upserts, where keys come again.
    pub(crate) documents: u64,
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
        let mut keys = Keys::default();
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
                keys.take(record.partition, &mutation.key);
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
        self.take_keys(&keys);
        for partition in taken.partitions.values() {
            self.records += partition.records;
            self.all_records += partition.records_estimate();
            self.all_bytes += partition.bytes_estimate();
        }
        first_failure
    }

    fn take_keys(&mut self, keys: &Keys) {
        for times in keys.0.values().flat_map(BTreeMap::values) {
            self.keys += 1;
            self.once += u64::from(*times == 1);
            self.twice += u64::from(*times == 2);
        }
    }

    /// Returns how many keys there are, those that were not seen included: Chao's estimate, from how many
    /// were seen once and twice. Right where keys come equally often, too low where some are rare.
    fn all_keys(&self) -> u64 {
        let pairs = self.once.saturating_mul(self.once.saturating_sub(1)) / 2;
        self.keys.saturating_add(pairs / (self.twice + 1))
    }

    /// Returns how many documents the whole log leaves: as many as its upserts at most.
    fn documents_left(&self) -> u64 {
        let upserts = scaled(self.documents, self.all_records, self.records);
        let mutations = self.documents + self.deletes;
        scaled(self.documents, self.all_keys(), mutations).min(upserts)
    }
}

/// How often each key was seen, by partition.
#[derive(Debug, Default)]
struct Keys(BTreeMap<Partition, BTreeMap<Key, u64>>);

impl Keys {
    fn take(&mut self, partition: Partition, key: &Key) {
        let of_partition = self.0.entry(partition).or_default();
        *of_partition.entry(key.clone()).or_default() += 1;
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
        let upserts = scale(sample.documents);
        let documents = sample.documents_left();
        let row_bytes = scaled(sample.row_bytes, documents, sample.documents);
        let (rows, overhead, place) = match &definition.to {
            Target::Redis(_) | Target::Memory {} => (REDIS_ROWS, REDIS_OVERHEAD, "memory"),
            Target::Tantivy(_) => (TANTIVY_ROWS, 0, "disk a copy"),
        };
        let write = upserts.saturating_mul(1_000) / rows;
        Self {
            topics: source.facts.iter().map(topic_in_words).collect(),
            partitions: source.facts.iter().map(|facts| facts.partitions).sum(),
            records,
            bytes: sample.all_bytes,
            genesis_gone: genesis_gone(source),
            duration_ms: scale(derive).saturating_add(write),
            documents,
            needed: row_bytes.saturating_add(documents.saturating_mul(overhead)),
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
        write!(f, " for about {} documents", Count(self.documents))?;
        match &self.retention {
            None => Ok(()),
            Some(when) => write!(f, "; {when}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_from_how_often_keys_come_again() {
        // 10 000 records of one partition, 1 000 of them sampled, all upserts or deletes.
        let check = |keys: usize, deletes: u64, expected: std::ops::RangeInclusive<u64>| {
            let mut seen = Keys::default();
            for record in 0..1_000_usize {
                // Steps of a prime walk over all keys before one comes again.
                let key = record * 7_919 % keys;
                seen.take(Partition(0), &Key(key.to_string().into_bytes().into()));
            }
            let mut sample = Sample {
                records: 1_000,
                all_records: 10_000,
                documents: 1_000 - deletes,
                deletes,
                ..Sample::default()
            };
            sample.take_keys(&seen);
            let left = sample.documents_left();
            assert!(expected.contains(&left), "{left} of {keys} keys");
        };
        check(100, 0, 100..=120);
        check(100, 500, 50..=60);
        // No key came twice: nothing is known but the number of upserts.
        check(5_000, 0, 10_000..=10_000);
        check(1, 0, 1..=1);
    }

    #[test]
    fn a_key_that_takes_half_of_the_records_hides_no_other() {
        let mut seen = Keys::default();
        for record in 0..1_000_u32 {
            let key = if record % 2 == 0 { 0 } else { record };
            seen.take(Partition(0), &Key(key.to_string().into_bytes().into()));
        }
        let mut sample = Sample::default();
        sample.take_keys(&seen);
        assert!(sample.all_keys() >= 501, "{}", sample.all_keys());
    }

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
