//! The order of the records of one key in a topic that got more partitions: all of the old era, then all
//! of the new one.
//!
//! A lane takes in what is old, or has not moved, up to the barrier; what is new waits there. When every
//! lane of the unit stands at its barrier the next era begins: each goes back to the first record that
//! waits, takes in what is new, and goes on; and what was added is read.

use materializer_model::Record;
use materializer_model::defect::is_planted;

use crate::defect::Defect;
use crate::lanes::Lanes;
use crate::partitioner::{Misfit, Side};

/// What becomes of a record now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is taken in.
    Here,
    /// It is of the next era, and waits for its beginning.
    Later,
    /// It was taken in when its era was read.
    Done,
    /// It stands past the barrier: the lane waits before it.
    Beyond,
}

impl Lanes {
    /// Says what becomes of the next record of a lane.
    pub(crate) fn place(&mut self, at: usize, record: &Record<'_>) -> Result<Place, Misfit> {
        if self.bound(at).is_some_and(|bound| record.offset >= bound) {
            return Ok(Place::Beyond);
        }
        let lane = &self.lanes[at];
        let source = &mut self.sources[lane.source];
        let eras = &source.eras;
        // Not by where the lane stands: what is not visible may lie between that and the record.
        let until = lane.again_until(eras.passed());
        let again = until.is_some_and(|until| record.offset < until);
        let known = if again { Place::Done } else { Place::Here };
        let (Some(fitting), Some(key)) = (&mut source.fitting, record.key) else {
            return Ok(known);
        };
        if is_planted(Defect::ErasIgnored) {
            return Ok(Place::Here);
        }
        if let Some(counts) = eras.before().filter(|_| again) {
            return match fitting.side(key, record.partition, counts) {
                Ok(Side::New) => Ok(Place::Here),
                // One that had no place then was passed over by a verb.
                Ok(Side::Old) | Err(Misfit::Misplaced) => Ok(Place::Done),
                Err(Misfit::Undecided) => Err(Misfit::Undecided),
            };
        }
        let (count, next) = eras.now();
        let next = next.filter(|_| !eras.is_before_the_next(record.partition, record.offset));
        match next {
            None if fitting.fits(key, record.partition, count) => Ok(Place::Here),
            None => Err(Misfit::Misplaced),
            Some(next) => match fitting.side(key, record.partition, (count, next))? {
                Side::Old => Ok(Place::Here),
                Side::New => Ok(Place::Later),
            },
        }
    }
}
