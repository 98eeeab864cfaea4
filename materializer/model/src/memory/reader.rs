//! Reads a log in memory as a `read_committed` client would.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::lock;
use super::log::{LogState, MemoryLog, TopicLog};
use crate::clock::Clock;
use crate::ends::{End, Ends};
use crate::offset::{LeaderEpoch, Offset, Partition, Topic};
use crate::ports::{Assignment, Facts, LogError, LogObserver, LogReader, TopicAnswer, TopicFacts};
use crate::record::{Headers, Record, RowBatch};

/// The most records that one poll brings of one partition: few, so that tests see what stands between
/// two polls.
const RECORDS_PER_PARTITION: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: Offset,
    epoch: Option<LeaderEpoch>,
    /// The end that was told last, so that each is told once.
    told: Option<Offset>,
}

/// A lane over a [`MemoryLog`]. Like librdkafka it goes on silently in a topic that was made anew.
#[derive(Debug)]
pub struct MemoryReader {
    log: MemoryLog,
    cursors: BTreeMap<(Topic, Partition), Cursor>,
}

impl MemoryReader {
    pub(super) fn new(log: MemoryLog) -> Self {
        Self {
            log,
            cursors: BTreeMap::new(),
        }
    }
}

impl LogReader for MemoryReader {
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
        self.cursors = from
            .iter()
            .map(|at| {
                let cursor = Cursor {
                    next: at.next,
                    epoch: at.epoch,
                    told: None,
                };
                ((at.topic.clone(), at.partition), cursor)
            })
            .collect();
        Ok(())
    }

    fn poll(&mut self, _wait: Duration, out: &mut RowBatch) -> Result<(), LogError> {
        let state = lock(&self.log.0);
        for ((topic, partition), cursor) in &mut self.cursors {
            read(&state, topic, *partition, cursor, out)?;
        }
        Ok(())
    }
}

fn read(
    state: &LogState,
    topic: &Topic,
    partition: Partition,
    cursor: &mut Cursor,
    out: &mut RowBatch,
) -> Result<(), LogError> {
    let Some(log) = state.partition(topic, partition) else {
        return Ok(()); // a client of a deleted topic hears nothing
    };
    let at = cursor.next;
    if log.is_truncated_below(at, cursor.epoch) {
        return Err(LogError::Truncated {
            topic: topic.clone(),
            partition,
            at,
            why: "the leader's log of that epoch ends before it".into(),
        });
    }
    if at < log.start || at > log.high {
        return Err(LogError::OutOfRange {
            topic: topic.clone(),
            partition,
            at,
            why: format!("the log holds {} to {}", log.start, log.high),
        });
    }
    let stable = log.stable();
    let mut room = RECORDS_PER_PARTITION;
    for (offset, epoch, record) in log.visible(at) {
        if room == 0 {
            return Ok(());
        }
        room -= 1;
        let headers = record.headers.iter();
        out.push_record(
            &Record {
                topic,
                partition,
                offset,
                epoch: Some(epoch),
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: Headers::default(),
            },
            headers.map(|(name, value)| (name.as_slice(), value.as_deref())),
        );
        cursor.next = offset.next();
        cursor.epoch = Some(epoch);
    }
    if stable > cursor.next {
        cursor.next = stable;
        cursor.epoch = Some(log.epoch);
    }
    if cursor.told != Some(cursor.next) {
        out.push_end(topic, partition, cursor.next);
        cursor.told = Some(cursor.next);
    }
    Ok(())
}

/// Observes a [`MemoryLog`]: what it says is always of this instant.
#[derive(Clone)]
pub struct MemoryObserver {
    log: MemoryLog,
    clock: Arc<dyn Clock>,
}

impl MemoryObserver {
    pub(super) fn new(log: MemoryLog, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock }
    }
}

impl fmt::Debug for MemoryObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryObserver").finish_non_exhaustive()
    }
}

impl LogObserver for MemoryObserver {
    fn ends(&self) -> Arc<Ends> {
        let asked = self.clock.monotonic();
        let state = lock(&self.log.0);
        let mut ends = Ends::default();
        for (topic, log) in &state.topics {
            let of_topic = ends.partitions.entry(topic.clone()).or_default();
            for (number, partition) in (0..).zip(&log.partitions) {
                let end = End {
                    start: partition.start,
                    stable: partition.stable(),
                    high: partition.high,
                    epoch: Some(partition.epoch),
                    asked,
                };
                of_topic.insert(Partition(number), end);
            }
        }
        Arc::new(ends)
    }

    fn fresh_ends(&self, topics: &[Topic]) -> Result<Arc<Ends>, LogError> {
        self.fresh_facts(topics)?;
        Ok(self.ends())
    }

    fn facts(&self) -> Arc<Facts> {
        let asked = self.clock.monotonic();
        let state = lock(&self.log.0);
        let answer = |(topic, log): (&Topic, &TopicLog)| {
            let facts = Ok(log.facts(topic));
            (topic.clone(), TopicAnswer { asked, facts })
        };
        Arc::new(state.topics.iter().map(answer).collect())
    }

    fn fresh_facts(&self, topics: &[Topic]) -> Result<Vec<TopicFacts>, LogError> {
        topics
            .iter()
            .map(|topic| {
                self.log
                    .facts_of(topic)
                    .ok_or_else(|| LogError::Refused(format!("there is no topic `{topic}`")))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryRecord, TopicSettings};
    use crate::record::LogRow;

    const P: Partition = Partition(0);

    fn log() -> (MemoryLog, Topic) {
        let log = MemoryLog::default();
        let topic = Topic::new("t");
        log.create(&topic, TopicSettings::compacted(1));
        (log, topic)
    }

    fn reader(log: &MemoryLog, topic: &Topic, next: u64, epoch: Option<i32>) -> MemoryReader {
        let mut reader = log.reader();
        let from = Assignment {
            topic: topic.clone(),
            partition: P,
            next: Offset(next),
            epoch: epoch.map(LeaderEpoch),
        };
        reader.assign(&[from]).expect("assign");
        reader
    }

    /// Polls once; records as `offset:key`, end marks as `end`.
    fn poll(reader: &mut MemoryReader) -> Result<Vec<String>, LogError> {
        let mut rows = RowBatch::default();
        reader.poll(Duration::ZERO, &mut rows)?;
        Ok(rows
            .rows()
            .map(|row| match row {
                LogRow::Record(record) => {
                    let key = record.key.unwrap_or_default();
                    format!("{}:{}", record.offset, key.escape_ascii())
                }
                LogRow::End { end, .. } => format!("end {end}"),
            })
            .collect())
    }

    #[test]
    fn an_open_transaction_holds_the_stable_end_and_an_aborted_one_leaves_a_gap() {
        let (log, topic) = log();
        log.produce(&topic, P, MemoryRecord::text("a", Some("1")));
        let open = log.begin();
        log.produce_in(open, &topic, P, MemoryRecord::text("b", Some("1")));
        log.produce(&topic, P, MemoryRecord::text("c", Some("1")));
        let mut lane = reader(&log, &topic, 0, None);
        assert_eq!(poll(&mut lane), Ok(vec!["0:a".into(), "end 1".into()]));
        log.abort(open);
        assert_eq!(poll(&mut lane), Ok(vec!["2:c".into(), "end 4".into()]));
        assert_eq!(poll(&mut lane), Ok(vec![]), "an end is told once");
    }

    #[test]
    fn compaction_keeps_the_last_record_of_each_key() {
        let (log, topic) = log();
        for (key, value) in [("a", Some("1")), ("b", Some("1")), ("a", None), ("c", None)] {
            log.produce(&topic, P, MemoryRecord::text(key, value));
        }
        log.compact(&topic, P, Offset(3), false);
        let rows = ["1:b", "2:a", "3:c", "end 4"].map(String::from);
        assert_eq!(poll(&mut reader(&log, &topic, 0, None)), Ok(rows.into()));
        log.compact(&topic, P, Offset(3), true);
        let rows = ["1:b", "3:c", "end 4"].map(String::from);
        assert_eq!(poll(&mut reader(&log, &topic, 0, None)), Ok(rows.into()));
    }

    #[test]
    fn a_position_that_the_log_lost_is_told() {
        let (log, topic) = log();
        for _ in 0..4 {
            log.produce(&topic, P, MemoryRecord::text("a", Some("1")));
        }
        log.truncate(&topic, P, Offset(2));
        for _ in 0..4 {
            log.produce(&topic, P, MemoryRecord::text("b", Some("1")));
        }
        let lost = poll(&mut reader(&log, &topic, 3, Some(0)));
        assert!(matches!(lost, Err(LogError::Truncated { .. })), "{lost:?}");
        let kept = poll(&mut reader(&log, &topic, 2, Some(0))).map(|rows| rows.len());
        assert_eq!(kept, Ok(5));
        log.raise_start(&topic, P, Offset(3));
        let gone = poll(&mut reader(&log, &topic, 2, Some(0)));
        assert!(matches!(gone, Err(LogError::OutOfRange { .. })), "{gone:?}");
    }
}
