//! A look at a topic: which there are, and some records of each partition, spread over it.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::ports::{Assignment, LogError, LogReader as _};
use materializer_model::{LogRow, Offset, Partition, RowBatch, Topic};

use crate::client::{KafkaSettings, REQUEST, shape};
use crate::errors::{kafka_error, log_error};
use crate::ffi::{self, OffsetOf};
use crate::lane::{Lane, Profile};

/// At how many places of a partition records are taken.
const PLACES: u64 = 8;

/// How long one place may take.
const PLACE: Duration = Duration::from_secs(5);

/// What is known of one partition after a sample of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionSample {
    /// The log start.
    pub start: Offset,
    /// The last stable offset.
    pub end: Offset,
    /// Records seen.
    pub records: u64,
    /// Offsets that those records were spread over: more than `records` where a log is compacted.
    pub offsets: u64,
    /// Bytes of keys and values seen.
    pub bytes: u64,
}

impl PartitionSample {
    /// Returns about how many records the partition holds.
    #[must_use]
    pub fn records_estimate(&self) -> u64 {
        self.scaled(self.records)
    }

    /// Returns about how many bytes of keys and values the partition holds, uncompressed.
    #[must_use]
    pub fn bytes_estimate(&self) -> u64 {
        self.scaled(self.bytes)
    }

    fn scaled(&self, seen: u64) -> u64 {
        let all = u128::from(self.end.distance_from(self.start)) * u128::from(seen);
        u64::try_from(all / u128::from(self.offsets.max(1))).unwrap_or(u64::MAX)
    }
}

/// A sample of a topic.
#[derive(Debug, Default)]
pub struct Sample {
    /// The records, and end marks.
    pub rows: RowBatch,
    /// Each partition.
    pub partitions: BTreeMap<Partition, PartitionSample>,
}

/// Returns the topics that this login sees with their numbers of partitions, without Kafka's own.
///
/// # Errors
/// [`LogError`].
pub fn list_topics(settings: &KafkaSettings) -> Result<BTreeMap<Topic, usize>, LogError> {
    let client = settings.asking()?;
    let metadata = client.fetch_metadata(None, REQUEST);
    ffi::serve(&client);
    let metadata = metadata.map_err(|e| kafka_error(client.context(), &e, "list topics"))?;
    let topics = metadata
        .topics()
        .iter()
        .filter(|topic| !topic.name().starts_with("__"));
    Ok(topics
        .map(|topic| (Topic::new(topic.name()), topic.partitions().len()))
        .collect())
}

/// Returns how many brokers there are.
///
/// # Errors
/// [`LogError`].
pub fn broker_count(settings: &KafkaSettings) -> Result<usize, LogError> {
    let client = settings.asking()?;
    let metadata = client.fetch_metadata(None, REQUEST);
    ffi::serve(&client);
    let metadata = metadata.map_err(|e| kafka_error(client.context(), &e, "count the brokers"))?;
    Ok(metadata.brokers().len())
}

/// Reads about `per_partition` records of each partition, at places spread evenly over it.
///
/// # Errors
/// [`LogError`]; `Refused` for an unknown topic.
pub fn sample(
    settings: &KafkaSettings,
    topic: &Topic,
    per_partition: u64,
) -> Result<Sample, LogError> {
    let mut sample = Sample {
        partitions: bounds(settings, topic)?,
        ..Sample::default()
    };
    let mut lane = Lane::open(settings, "materializer.sample", Profile::Tailing)?;
    let places = PLACES.min(per_partition.max(1));
    let share = per_partition.div_ceil(places);
    for place in 0..places {
        // A place ends where the next one begins, so that no record is taken twice.
        let mut open: BTreeMap<Partition, (Offset, Offset)> = BTreeMap::new();
        for (partition, known) in &sample.partitions {
            let length = known.end.distance_from(known.start);
            let at = |place| Offset(known.start.0 + length / places * place);
            let to = if place + 1 == places {
                known.end
            } else {
                at(place + 1)
            };
            if at(place) < to {
                open.insert(*partition, (at(place), to));
            }
        }
        take(&mut lane, topic, open, share, &mut sample)?;
    }
    Ok(sample)
}

fn bounds(
    settings: &KafkaSettings,
    topic: &Topic,
) -> Result<BTreeMap<Partition, PartitionSample>, LogError> {
    let client = settings.asking()?;
    let shape = shape(&client, topic)?;
    let mut bounds: BTreeMap<Partition, PartitionSample> = BTreeMap::new();
    for which in [OffsetOf::Start, OffsetOf::Stable] {
        let partitions = shape
            .partitions
            .iter()
            .map(|p| (topic.as_str().to_owned(), *p));
        let listed = ffi::list_offsets(&client, partitions, which, REQUEST)
            .map_err(|error| kafka_error(client.context(), &error, "ask for ends"))?;
        for entry in listed {
            let offset = entry.offset.map_err(|code| {
                log_error(
                    client.context(),
                    code,
                    &format!("{topic}/{}", entry.partition),
                )
            })?;
            let offset = Offset(u64::try_from(offset).unwrap_or(0));
            let known = bounds.entry(Partition(entry.partition)).or_default();
            match which {
                OffsetOf::Start => known.start = offset,
                OffsetOf::Stable | OffsetOf::High => known.end = offset,
            }
        }
    }
    Ok(bounds)
}

/// Takes up to `share` records of each open range.
fn take(
    lane: &mut Lane,
    topic: &Topic,
    mut open: BTreeMap<Partition, (Offset, Offset)>,
    share: u64,
    sample: &mut Sample,
) -> Result<(), LogError> {
    let from: Vec<Assignment> = open
        .iter()
        .map(|(partition, (next, _))| Assignment {
            topic: topic.clone(),
            partition: *partition,
            next: *next,
            epoch: None,
        })
        .collect();
    lane.assign(&from)?;
    let mut taken: BTreeMap<Partition, u64> = BTreeMap::new();
    let mut rows = RowBatch::default();
    while !open.is_empty() {
        rows.clear();
        lane.poll(PLACE, &mut rows)?;
        if rows.is_empty() {
            return Err(LogError::Unavailable(format!(
                "sample `{topic}`: nothing came"
            )));
        }
        for row in rows.rows() {
            let (partition, next) = match row {
                LogRow::Record(record) => (record.partition, record.offset.next()),
                LogRow::End { partition, end, .. } => (partition, end),
            };
            let Some((position, to)) = open.get_mut(&partition) else {
                continue;
            };
            let known = sample.partitions.entry(partition).or_default();
            known.offsets += next.min(*to).distance_from(*position);
            *position = next;
            let mut full = next >= *to;
            if let LogRow::Record(record) = row
                && record.offset < *to
            {
                let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                known.records += 1;
                known.bytes += u64::try_from(size).unwrap_or(u64::MAX);
                sample.rows.push_record(&record, record.headers.iter());
                let taken = taken.entry(partition).or_default();
                *taken += 1;
                full |= *taken == share;
            }
            if full {
                open.remove(&partition);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compacted_partition_is_estimated_by_the_offsets_that_its_records_span() {
        let half_gone = PartitionSample {
            start: Offset(0),
            end: Offset(1_000),
            records: 50,
            offsets: 100,
            bytes: 5_000,
        };
        assert_eq!(
            (half_gone.records_estimate(), half_gone.bytes_estimate()),
            (500, 50_000)
        );
        assert_eq!(PartitionSample::default().records_estimate(), 0);
    }
}
