//! A lane: one librdkafka client that reads some partitions in order.
//!
//! It assigns and never joins a group; it stops rather than jumps where an offset is out of range;
//! end-of-partition marks carry the end itself, since librdkafka's own position is one too high after
//! them. Back-pressure is not polling; a partition is never paused.

use std::time::Duration;

use materializer_model::ports::{Assignment, LogError, LogReader};
use materializer_model::record::Headers;
use materializer_model::{LeaderEpoch, Offset, Partition, Record, RowBatch, Timestamp, Topic};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{self, TopicPartitionList};

use crate::client::{KafkaSettings, REQUEST, find};
use crate::errors::{kafka_error, log_error};
use crate::ffi::{self, Consumer, Row};

/// What a lane is tuned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A replay: 16 MiB of queue, big fetches.
    Building,
    /// Following the end: 1 MiB of queue, quick fetches.
    Tailing,
}

impl Profile {
    /// Bytes bound the queue, not `queued.min.messages`.
    fn properties(self) -> [(&'static str, &'static str); 6] {
        let (kbytes, fetch, wait) = match self {
            Self::Building => ("16384", "4194304", "100"),
            Self::Tailing => ("1024", "1048576", "20"),
        };
        [
            ("queued.min.messages", "10000000"),
            ("queued.max.messages.kbytes", kbytes),
            ("fetch.message.max.bytes", fetch),
            ("fetch.min.bytes", "1"),
            ("fetch.wait.max.ms", wait),
            ("check.crcs", "true"),
        ]
    }
}

/// One lane.
pub struct Lane {
    consumer: Consumer,
    topics: Vec<Topic>,
}

impl Lane {
    /// Opens a lane. `group` is `<installation>.<view>.v<N>`: librdkafka demands one, it is never joined.
    ///
    /// # Errors
    /// [`LogError::Refused`] where librdkafka does not take a property.
    pub fn open(settings: &KafkaSettings, group: &str, profile: Profile) -> Result<Self, LogError> {
        let consumer = Consumer::open(&settings.reading(group, &profile.properties()))
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))?;
        Ok(Self {
            consumer,
            topics: Vec::new(),
        })
    }

    /// Asks about topics that are assigned later, one after the other: one that a running client does
    /// not know yet waits for librdkafka's next look at its topics, which is up to a second away.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn get_to_know<'a>(
        &self,
        topics: impl Iterator<Item = &'a Topic>,
    ) -> Result<(), LogError> {
        for topic in topics {
            find(self.consumer.client(), topic)?;
        }
        Ok(())
    }

    /// Says why an offset could not be read: retention overtook it, or the log was cut back.
    fn gone(&self, topic: Topic, partition: Partition, at: Offset, why: &str) -> LogError {
        let why = why.to_owned();
        let ends = self
            .consumer
            .client()
            .fetch_watermarks(topic.as_str(), partition.0, REQUEST);
        let past_the_end = ends.is_ok_and(|(_, end)| i64::try_from(at.0).is_ok_and(|at| at > end));
        if past_the_end || why.contains("truncation") {
            LogError::Truncated {
                topic,
                partition,
                at,
                why,
            }
        } else {
            LogError::OutOfRange {
                topic,
                partition,
                at,
                why,
            }
        }
    }
}

/// A row that is an error, copied out of librdkafka's buffers.
struct Fault {
    code: RDKafkaErrorCode,
    text: String,
    topic: String,
    partition: Partition,
    offset: Offset,
}

impl LogReader for Lane {
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
        let mut list = TopicPartitionList::with_capacity(from.len());
        for at in from {
            let offset = i64::try_from(at.next.0).unwrap_or(i64::MAX);
            let offset = topic_partition_list::Offset::Offset(offset);
            list.add_partition_offset(at.topic.as_str(), at.partition.0, offset)
                .map_err(|error| LogError::Refused(format!("assign `{}`: {error}", at.topic)))?;
        }
        let epochs: Vec<_> = from
            .iter()
            .map(|at| at.epoch.map(|epoch| epoch.0))
            .collect();
        ffi::set_leader_epochs(&mut list, &epochs);
        self.topics = from.iter().map(|at| at.topic.clone()).collect();
        self.topics.sort_unstable();
        self.topics.dedup();
        self.consumer.assign(&list).map_err(|error| {
            kafka_error(
                self.consumer.client().context(),
                &error,
                "assign partitions",
            )
        })
    }

    fn poll(&mut self, wait: Duration, out: &mut RowBatch) -> Result<(), LogError> {
        let before = out.len();
        let mut fault = None;
        let topics = &self.topics;
        self.consumer.poll(wait, |row| {
            // librdkafka goes on behind a batch that it cannot read, as one with a wrong checksum.
            if fault.is_none() {
                fault = copy(row, topics, out).err();
            }
        });
        let context = self.consumer.client().context();
        if let Some(fault) = fault {
            let Fault {
                code,
                text,
                topic,
                partition,
                offset,
            } = fault;
            return Err(match code {
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                    self.gone(Topic::new(&topic), partition, offset, &text)
                }
                _ if topic.is_empty() => log_error(context, code, &text),
                _ => log_error(context, code, &format!("read `{topic}`: {text}")),
            });
        }
        match context.take_fault() {
            Some(fault) if out.len() == before => Err(fault),
            Some(_) | None => Ok(()),
        }
    }
}

/// Copies a record or an end mark; an error that matters is returned.
fn copy(row: &Row<'_>, topics: &[Topic], out: &mut RowBatch) -> Result<(), Fault> {
    let partition = Partition(row.partition());
    let offset = Offset(u64::try_from(row.offset()).unwrap_or(0));
    let code = row.error();
    // Assigning still looks for the group's coordinator, which may be forbidden and is not needed.
    if code == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
        return Ok(());
    }
    let topic = topics.iter().find(|topic| topic.as_str() == row.topic());
    match (code, topic) {
        (Some(RDKafkaErrorCode::PartitionEOF), Some(topic)) => {
            out.push_end(topic, partition, offset);
            Ok(())
        }
        (Some(code), _) => Err(Fault {
            code,
            text: row.error_text().to_owned(),
            topic: row.topic().to_owned(),
            partition,
            offset,
        }),
        (None, Some(topic)) => {
            let record = Record {
                topic,
                partition,
                offset,
                epoch: row.leader_epoch().map(LeaderEpoch),
                timestamp: row.timestamp().map(Timestamp),
                key: row.key(),
                value: row.value(),
                headers: Headers::default(),
            };
            out.push_record(&record, row.headers());
            Ok(())
        }
        // A late row of an earlier assignment: librdkafka drops these itself.
        (None, None) => Ok(()),
    }
}
