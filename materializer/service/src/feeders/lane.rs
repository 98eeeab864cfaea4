//! The reading of one unit: in big fetches until every end was seen, from then on in quick ones.
//!
//! A client's fetch settings are fixed when it is made, so the one that replayed is replaced, once, by
//! one that goes on at the very next offsets. Nothing is read twice and nothing is left out.

use std::time::Duration;

use materializer_kafka::Profile;
use materializer_model::ports::{Assignment, LogError, LogReader};
use materializer_model::{LogRow, RowBatch};

/// Opens a client.
pub(super) type Open = Box<dyn FnMut(Profile) -> Result<Box<dyn LogReader>, LogError> + Send>;

/// A partition that is read.
struct Cursor {
    /// Where a new client would begin.
    at: Assignment,
    /// Whether its end was seen.
    ended: bool,
}

/// A reader that replays first and then follows.
pub(super) struct PacedLane {
    open: Open,
    reader: Box<dyn LogReader>,
    profile: Profile,
    cursors: Vec<Cursor>,
}

impl PacedLane {
    /// Opens a reader of nothing yet.
    ///
    /// # Errors
    /// [`LogError`] of the opening.
    pub(super) fn open(mut open: Open) -> Result<Self, LogError> {
        Ok(Self {
            reader: open(Profile::Building)?,
            open,
            profile: Profile::Building,
            cursors: Vec::new(),
        })
    }

    fn follow(&mut self) -> Result<(), LogError> {
        let mut reader = (self.open)(Profile::Tailing)?;
        let from: Vec<Assignment> = self
            .cursors
            .iter()
            .map(|cursor| cursor.at.clone())
            .collect();
        reader.assign(&from)?;
        self.reader = reader;
        self.profile = Profile::Tailing;
        Ok(())
    }

    /// Takes in how far rows go.
    fn note<'a>(&mut self, rows: impl Iterator<Item = LogRow<'a>>) {
        // Rows of one partition come in a row: it is looked for where the last one was.
        let mut here = 0;
        for row in rows {
            let (topic, partition) = match row {
                LogRow::Record(record) => (record.topic, record.partition),
                LogRow::End {
                    topic, partition, ..
                } => (topic, partition),
            };
            let is_it =
                |cursor: &Cursor| cursor.at.partition == partition && cursor.at.topic == *topic;
            if !self.cursors.get(here).is_some_and(is_it) {
                let Some(found) = self.cursors.iter().position(is_it) else {
                    continue; // of an earlier assignment
                };
                here = found;
            }
            let cursor = &mut self.cursors[here];
            match row {
                LogRow::Record(record) => {
                    cursor.at.next = record.offset.next();
                    cursor.at.epoch = record.epoch;
                }
                LogRow::End { end, .. } => {
                    if end > cursor.at.next {
                        // What stands just before it was not seen, nor the epoch that it is of.
                        cursor.at.next = end;
                        cursor.at.epoch = None;
                    }
                    cursor.ended = true;
                }
            }
        }
    }
}

impl LogReader for PacedLane {
    fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
        let cursor = |at: &Assignment| Cursor {
            at: at.clone(),
            ended: false,
        };
        self.cursors = from.iter().map(cursor).collect();
        self.reader.assign(from)
    }

    fn poll(&mut self, wait: Duration, out: &mut RowBatch) -> Result<(), LogError> {
        match self.profile {
            Profile::Tailing => self.reader.poll(wait, out),
            Profile::Building => {
                if !self.cursors.is_empty() && self.cursors.iter().all(|cursor| cursor.ended) {
                    self.follow()?;
                    return self.reader.poll(wait, out);
                }
                let before = out.len();
                let polled = self.reader.poll(wait, out);
                // With a fault too: what came before it is used.
                self.note(out.rows().skip(before));
                polled
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use materializer_model::memory::{MemoryLog, MemoryRecord, TopicSettings};
    use materializer_model::record::Headers;
    use materializer_model::{LeaderEpoch, Offset, Partition, Record, Topic};

    use super::*;

    #[test]
    fn after_every_end_a_quick_client_goes_on_at_the_next_offsets() {
        let log = MemoryLog::default();
        let topic = Topic::new("t");
        log.create(&topic, TopicSettings::kept(2));
        let produce = |n: usize| {
            let partition = Partition(i32::from(n.is_multiple_of(3)));
            log.produce(&topic, partition, MemoryRecord::text(&n.to_string(), None));
        };
        (0..100).for_each(produce);

        let opened: Arc<Mutex<Vec<Profile>>> = Arc::default();
        let (noted, readers) = (Arc::clone(&opened), log.clone());
        let mut lane = PacedLane::open(Box::new(move |profile| {
            noted.lock().unwrap().push(profile);
            Ok(Box::new(readers.reader()))
        }))
        .unwrap();
        let from: Vec<Assignment> = [0, 1]
            .map(|partition| Assignment {
                topic: topic.clone(),
                partition: Partition(partition),
                next: Offset(0),
                epoch: None,
            })
            .into();
        lane.assign(&from).unwrap();
        let mut keys = Vec::new();
        let mut read = |lane: &mut PacedLane| {
            let mut rows = RowBatch::default();
            lane.poll(Duration::ZERO, &mut rows).unwrap();
            for row in rows.rows() {
                if let LogRow::Record(record) = row {
                    keys.push(String::from_utf8_lossy(record.key.unwrap()).into_owned());
                }
            }
        };
        for _ in 0..20 {
            read(&mut lane);
        }
        assert_eq!(
            *opened.lock().unwrap(),
            [Profile::Building, Profile::Tailing]
        );
        (100..110).for_each(produce);
        for _ in 0..20 {
            read(&mut lane);
        }
        assert_eq!(opened.lock().unwrap().len(), 2, "once");
        keys.sort_by_key(|key| key.parse::<usize>().unwrap());
        let expected: Vec<String> = (0..110).map(|n| n.to_string()).collect();
        assert_eq!(keys, expected);
    }

    /// Delivers a record and then the end above it, and notes what is assigned.
    struct Scripted {
        rows: Vec<(Offset, Option<LeaderEpoch>)>,
        end: Offset,
        assigned: Arc<Mutex<Vec<Assignment>>>,
    }

    impl LogReader for Scripted {
        fn assign(&mut self, from: &[Assignment]) -> Result<(), LogError> {
            *self.assigned.lock().unwrap() = from.to_vec();
            Ok(())
        }

        fn poll(&mut self, _: Duration, out: &mut RowBatch) -> Result<(), LogError> {
            let topic = Topic::new("t");
            for (offset, epoch) in self.rows.drain(..) {
                let record = Record {
                    topic: &topic,
                    partition: Partition(0),
                    offset,
                    epoch,
                    timestamp: None,
                    key: None,
                    value: None,
                    headers: Headers::default(),
                };
                out.push_record(&record, []);
            }
            out.push_end(&topic, Partition(0), self.end);
            Ok(())
        }
    }

    #[test]
    fn the_epoch_of_a_record_is_not_told_of_what_stands_above_it() {
        // A later epoch's commit marker above the record: with the record's epoch the broker would say
        // that the log was truncated below it.
        for (end, epoch) in [(Offset(10), Some(LeaderEpoch(3))), (Offset(11), None)] {
            let assigned: Arc<Mutex<Vec<Assignment>>> = Arc::default();
            let noted = Arc::clone(&assigned);
            let mut lane = PacedLane::open(Box::new(move |_| {
                Ok(Box::new(Scripted {
                    rows: vec![(Offset(9), Some(LeaderEpoch(3)))],
                    end,
                    assigned: Arc::clone(&noted),
                }))
            }))
            .unwrap();
            let at = |next, epoch| Assignment {
                topic: Topic::new("t"),
                partition: Partition(0),
                next,
                epoch,
            };
            lane.assign(&[at(Offset(0), None)]).unwrap();
            for _ in 0..2 {
                lane.poll(Duration::ZERO, &mut RowBatch::default()).unwrap();
            }
            assert_eq!(*assigned.lock().unwrap(), [at(end, epoch)]);
        }
    }
}
