//! Records as they come from the log, in batches that own their bytes.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::mutation::Origin;
use crate::offset::{LeaderEpoch, Offset, Partition, Topic};

/// One record of the log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a Topic,
    /// Its partition.
    pub partition: Partition,
    /// Its own offset.
    pub offset: Offset,
    /// The leader epoch it was fetched under, where the broker says it.
    pub epoch: Option<LeaderEpoch>,
    /// Its create or append time; `None` where the producer gave none.
    pub timestamp: Option<Timestamp>,
    /// Its key; `None` is a null key, which differs from an empty one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a null value, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in the order of the record.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// Returns where the record stands.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
        }
    }
}

/// A record's headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    spans: &'a [HeaderSpan],
}

impl<'a> Headers<'a> {
    /// Iterates over names and values; a name may come twice, a value may be null.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let bytes = self.bytes;
        self.spans.iter().map(move |span| {
            let value = span.value.clone().map(|value| &bytes[value]);
            (&bytes[span.name.clone()], value)
        })
    }
}

#[derive(Clone, Debug)]
struct HeaderSpan {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
enum Entry {
    Record {
        topic: usize,
        partition: Partition,
        offset: Offset,
        epoch: Option<LeaderEpoch>,
        timestamp: Option<Timestamp>,
        key: Option<Range<usize>>,
        value: Option<Range<usize>>,
        headers: Range<usize>,
    },
    End {
        topic: usize,
        partition: Partition,
        end: Offset,
    },
}

/// What a poll brings: a record, or the mark that a partition was read to its end.
#[derive(Clone, Copy, Debug)]
pub enum LogRow<'a> {
    /// A record.
    Record(Record<'a>),
    /// The reader stands at this end of the partition: everything below it has been delivered, or
    /// is not visible (aborted, compacted, a control record).
    End {
        /// The partition's topic.
        topic: &'a Topic,
        /// The partition.
        partition: Partition,
        /// The exclusive end: the next offset to be read.
        end: Offset,
    },
}

/// Rows of one poll, with one buffer for all their bytes. Reused from poll to poll.
#[derive(Clone, Debug, Default)]
pub struct RowBatch {
    topics: Vec<Topic>,
    bytes: Vec<u8>,
    headers: Vec<HeaderSpan>,
    entries: Vec<Entry>,
}

impl RowBatch {
    /// Forgets the rows, keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.headers.clear();
        self.entries.clear();
    }

    /// Returns how many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes of all keys, values and headers.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    fn topic_index(&mut self, topic: &Topic) -> usize {
        if let Some(at) = self.topics.iter().position(|known| known == topic) {
            return at;
        }
        self.topics.push(topic.clone());
        self.topics.len() - 1
    }

    fn store(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }

    /// Copies a record in. Its own `headers` are ignored: they are given beside it.
    pub fn push_record<'h>(
        &mut self,
        record: &Record<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let topic = self.topic_index(record.topic);
        let key = record.key.map(|key| self.store(key));
        let value = record.value.map(|value| self.store(value));
        let first = self.headers.len();
        for (name, value) in headers {
            let name = self.store(name);
            let value = value.map(|value| self.store(value));
            self.headers.push(HeaderSpan { name, value });
        }
        self.entries.push(Entry::Record {
            topic,
            partition: record.partition,
            offset: record.offset,
            epoch: record.epoch,
            timestamp: record.timestamp,
            key,
            value,
            headers: first..self.headers.len(),
        });
    }

    /// Adds the mark that a partition was read to `end`.
    pub fn push_end(&mut self, topic: &Topic, partition: Partition, end: Offset) {
        let topic = self.topic_index(topic);
        self.entries.push(Entry::End {
            topic,
            partition,
            end,
        });
    }

    /// Iterates over the rows in the order of the poll.
    pub fn rows(&self) -> impl Iterator<Item = LogRow<'_>> {
        self.entries.iter().map(|entry| match entry {
            Entry::Record {
                topic,
                partition,
                offset,
                epoch,
                timestamp,
                key,
                value,
                headers,
            } => LogRow::Record(Record {
                topic: &self.topics[*topic],
                partition: *partition,
                offset: *offset,
                epoch: *epoch,
                timestamp: *timestamp,
                key: key.clone().map(|key| &self.bytes[key]),
                value: value.clone().map(|value| &self.bytes[value]),
                headers: Headers {
                    bytes: &self.bytes,
                    spans: &self.headers[headers.clone()],
                },
            }),
            Entry::End {
                topic,
                partition,
                end,
            } => LogRow::End {
                topic: &self.topics[*topic],
                partition: *partition,
                end: *end,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_pushed() {
        let topic = Topic::new("t");
        let mut batch = RowBatch::default();
        let record = Record {
            topic: &topic,
            partition: Partition(1),
            offset: Offset(5),
            epoch: Some(LeaderEpoch(2)),
            timestamp: Some(Timestamp(9)),
            key: Some(b""),
            value: None,
            headers: Headers::default(),
        };
        batch.push_record(&record, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]);
        batch.push_end(&topic, Partition(1), Offset(8));
        let rows: Vec<_> = batch.rows().collect();
        let [LogRow::Record(read), LogRow::End { end: Offset(8), .. }] = rows.as_slice() else {
            panic!("{rows:?}");
        };
        assert_eq!(
            (read.key, read.value, read.offset),
            (Some(&b""[..]), None, Offset(5))
        );
        let headers: Vec<_> = read.headers.iter().collect();
        assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]);
        batch.clear();
        assert!(batch.is_empty());
    }
}
