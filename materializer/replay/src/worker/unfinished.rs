//! Commits in parts whose last part did not come.
//!
//! Their rows are ahead of the checkpoint, and are written again once the records that made them are read
//! again. A leader that is elected uncleanly may lack these records, although it has all below the
//! checkpoint: then nobody would ever delete the rows. So the end of such a commit is a position of the
//! unit, too, and the broker is asked whether its log still is the one that was read up to there, as a
//! resume asks it: by assigning the reader there, under the epoch that was read.

use materializer_model::LogRow;
use materializer_model::defect::is_planted;
use materializer_model::ports::{Assignment, LogError};
use tracing::info;

use super::Worker;
use crate::defect::Defect;
use crate::halt::Halt;
use crate::lanes::Lanes;

impl Worker {
    /// Notes in new lanes up to where the sink's rows may be ahead of its checkpoint.
    pub(super) fn with_unfinished(&self, mut lanes: Lanes) -> Lanes {
        let Some(end) = self.ports.sink.unfinished() else {
            return lanes;
        };
        for lane in &mut lanes.lanes {
            let topic = &lanes.sources[lane.source].topic;
            let ahead = end.ahead(topic, lane.partition).map(|ahead| &ahead.at);
            if let Some(at) = ahead.or(end.position(topic, lane.partition)) {
                lane.is_ahead_to(at);
            }
        }
        if lanes.are_ahead() {
            info!(unit = %self.settings.unit, "a commit was interrupted between its parts");
        }
        lanes
    }

    /// Has the log prove what it has to; says whether it is still at it. Nothing is read or committed
    /// meanwhile.
    pub(super) fn prove_unfinished(&mut self) -> Result<bool, Halt> {
        if self.proving.is_empty() && !self.ask_for_proof()? {
            return Ok(false);
        }
        self.rows.clear();
        self.rows_taken = 0;
        let polled = self
            .ports
            .reader
            .poll(self.settings.pacing.wait, &mut self.rows);
        let lanes = self.lanes.as_mut().expect("there is something to prove");
        for row in self.rows.rows() {
            let (topic, partition) = match row {
                LogRow::Record(record) => (record.topic, record.partition),
                LogRow::End {
                    topic, partition, ..
                } => (topic, partition),
            };
            // Whatever comes from there on comes after what was read.
            if let Some(at) = lanes.find(topic, partition)
                && self.proving.remove(&at)
            {
                lanes.lanes[at].prove();
            }
        }
        polled.map_err(lost)?;
        if self.proving.is_empty() {
            self.assign()?;
        }
        Ok(true)
    }

    /// Assigns the reader to the ends that have to be proved; says whether there are any.
    fn ask_for_proof(&mut self) -> Result<bool, Halt> {
        let Some(lanes) = &self.lanes else {
            return Ok(false);
        };
        let mut proving = Vec::new();
        let mut from = Vec::new();
        for (at, lane) in lanes.lanes.iter().enumerate() {
            if let Some((next, epoch)) = lane.unproved()
                && !is_planted(Defect::PartsUnproved)
            {
                proving.push(at);
                from.push(Assignment {
                    topic: lanes.sources[lane.source].topic.clone(),
                    partition: lane.partition,
                    next,
                    epoch,
                });
            }
        }
        if from.is_empty() {
            return Ok(false);
        }
        self.ports.reader.assign(&from)?;
        self.proving.extend(proving);
        Ok(true)
    }
}

/// Judges a fault of the log where the end of a commit is looked for.
fn lost(error: LogError) -> Halt {
    match error {
        LogError::OutOfRange { .. } | LogError::Truncated { .. } => Halt::Damaged(format!(
            "parts of a commit are stored whose records the log may have lost: {error}"
        )),
        LogError::Unavailable(_) | LogError::Refused(_) => error.into(),
    }
}
