//! Takes rows in: each record once, in order, as its mutations or as what takes their place.

use std::mem;

use materializer_model::definition::OnError;
use materializer_model::ports::DeadLetter;
use materializer_model::progress::Directive;
use materializer_model::{Change, LogRow, Mutation, Poison, Record, RowBatch};
use tracing::error;
use tracing::field::display;

use super::Worker;
use crate::defect::Defect;
use crate::halt::{Failure, Halt};
use crate::order::Place;
use materializer_model::defect::is_planted;

impl Worker {
    /// Takes in the rows at hand, as far as memory and poison let it.
    pub(super) fn take_rows(&mut self, directive: &Directive) -> Result<(), Halt> {
        let rows = mem::take(&mut self.rows);
        let outcome = self.take_from(&rows, directive);
        self.rows = rows;
        let turned = outcome?;
        if turned {
            self.assign()?;
        }
        Ok(())
    }

    /// Says whether the reader has to be told where to go on: a lane stands at the barrier of a growth, or all
    /// are past it.
    fn take_from(&mut self, rows: &RowBatch, directive: &Directive) -> Result<bool, Halt> {
        if rows.len() == self.rows_taken {
            return Ok(false); // what it stands before is still to come
        }
        let stood_at = self.blocked.take().and_then(|failure| failure.at);
        let now = self.now();
        for row in rows.rows().skip(self.rows_taken) {
            if self.batch.weight() >= self.settings.pacing.fold_bytes_max {
                return Ok(false);
            }
            match row {
                LogRow::Record(record) => {
                    if !self.take_record(&record, directive)? {
                        if let Some(Failure { why, at, hint }) = &self.blocked
                            && *at != stood_at
                        {
                            self.work.failed += 1;
                            let (unit, at) = (&self.settings.unit, at.as_ref().map(display));
                            let hint = hint.as_deref();
                            error!(%unit, at, why, hint, "the unit stands before a record that it cannot take in");
                        }
                        return Ok(false);
                    }
                }
                LogRow::End {
                    topic,
                    partition,
                    end,
                } => {
                    let lanes = self.lanes.as_mut().expect("read because it is open");
                    if let Some(at) = lanes.find(topic, partition)
                        && !is_planted(Defect::EndMarksIgnored)
                    {
                        lanes.lanes[at].ends.sample(end, now);
                        lanes.reach(at, end, now);
                    }
                }
            }
            self.rows_taken += 1;
            if self.pass_barriers() || mem::take(&mut self.at_barrier) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes one record in; says whether it is done with.
    fn take_record(&mut self, record: &Record<'_>, directive: &Directive) -> Result<bool, Halt> {
        let lanes = self.lanes.as_mut().expect("read because it is open");
        let Some(at) = lanes.find(record.topic, record.partition) else {
            return Ok(true);
        };
        if record.offset < lanes.lanes[at].next {
            return Ok(true); // delivered again
        }
        let source = &lanes.sources[lanes.lanes[at].source];
        let compacts = source.compacts;
        let is_skipped = directive.skips.hold(record, &source.id);
        let misplaced = match self.place(at, record)? {
            Ok(Place::Here) => None,
            Ok(place @ (Place::Later | Place::Done | Place::Beyond)) => {
                self.put_by(at, place, record);
                return Ok(true);
            }
            Err(failure) => Some(failure),
        };
        self.scratch.clear();
        if is_skipped {
            self.counts.skipped += 1;
            self.work.skipped += 1;
            self.pass_over(record, compacts);
        } else if let Some(failure) = misplaced {
            self.blocked = Some(failure);
            return Ok(false);
        } else {
            match self.derive(record) {
                Ok(()) if self.scratch.is_empty() => {
                    self.work.excluded += 1;
                    self.pass_over(record, compacts);
                }
                Ok(()) if self.scratch.iter().all(is_delete) => self.work.deletes += 1,
                Ok(()) => self.work.upserts += 1,
                Err(poison) => {
                    if !self.set_aside(record, poison, directive)? {
                        return Ok(false);
                    }
                    self.pass_over(record, compacts);
                }
            }
        }
        self.fold();
        let lanes = self.lanes.as_mut().expect("read because it is open");
        lanes.lanes[at].take(record.offset, record.epoch, record.timestamp);
        self.rate.records += 1;
        Ok(true)
    }

    /// Derives a record's mutations into the scratch, each of which the sink can take.
    fn derive(&mut self, record: &Record<'_>) -> Result<(), Poison> {
        self.ports.derive.apply(record, &mut self.scratch)?;
        for mutation in &self.scratch {
            self.ports.sink.check(mutation)?;
        }
        Ok(())
    }

    /// Puts the delete of a passed-over record's row in place of its mutations: on a compacted topic
    /// the record below it, whose row is stored, may be gone for the next rebuild.
    fn pass_over(&mut self, record: &Record<'_>, compacts: bool) {
        self.scratch.clear();
        if !compacts || is_planted(Defect::ExcludedWithoutDelete) {
            return;
        }
        let delete = self.ports.derive.exclude(record);
        // A key that the sink cannot take was never stored.
        self.scratch
            .extend(delete.filter(|delete| self.ports.sink.check(delete).is_ok()));
    }

    /// Does with poison what the view says; says whether the record is done with.
    fn set_aside(
        &mut self,
        record: &Record<'_>,
        poison: Poison,
        directive: &Directive,
    ) -> Result<bool, Halt> {
        let origin = record.origin();
        match &directive.on_error {
            OnError::Fail => {
                self.blocked = Some(Failure {
                    hint: Some(self.skip_hint(record)),
                    why: located(&poison),
                    at: Some(origin),
                });
                Ok(false)
            }
            OnError::Skip => {
                self.counts.skipped += 1;
                self.work.skipped += 1;
                Ok(true)
            }
            OnError::DeadLetter { limit, .. } if self.counts.dead >= *limit => {
                self.blocked = Some(Failure {
                    hint: Some(format!(
                        "{}, or raise `on_error.dead_letter.limit`",
                        self.skip_hint(record)
                    )),
                    why: format!("more than {limit} dead letters: {}", located(&poison)),
                    at: Some(origin),
                });
                Ok(false)
            }
            OnError::DeadLetter { topic, .. } => {
                let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
                let letter = DeadLetter {
                    topic: topic.clone(),
                    version: self.settings.unit.version.clone(),
                    origin,
                    poison,
                    key: bytes(record.key),
                    value: bytes(record.value),
                    headers: record
                        .headers
                        .iter()
                        .map(|(name, value)| (name.to_vec(), bytes(value)))
                        .collect(),
                    timestamp: record.timestamp,
                };
                if let Err(error) = self.ports.dead_letters.send(letter) {
                    // Where too many wait for their acknowledgement: a rewound unit commits nothing, which
                    // would wait for them, before it is through its gap.
                    self.flush_letters()?;
                    self.wait_for_log(error)?;
                    return Ok(false);
                }
                self.letters_unflushed = true;
                self.counts.dead += 1;
                self.work.dead_letters += 1;
                Ok(true)
            }
        }
    }

    fn skip_hint(&self, record: &Record<'_>) -> String {
        let version = &self.settings.unit.version;
        format!(
            "`materializer skip {version} --at {} --reason '…'`",
            record.origin()
        )
    }

    /// Folds the scratch into the batch.
    fn fold(&mut self) {
        if self.scratch.is_empty() {
            return;
        }
        if self.batch.is_empty() {
            self.batch_since = self.now();
        }
        let mut scratch = mem::take(&mut self.scratch);
        for mutation in scratch.drain(..) {
            if is_planted(Defect::UnseenDeleteDropped) && self.is_unseen_delete(&mutation) {
                continue;
            }
            self.batch.put(mutation);
        }
        self.scratch = scratch;
    }

    fn is_unseen_delete(&self, mutation: &Mutation) -> bool {
        let seen = self.batch.mutations().iter();
        is_delete(mutation) && !seen.into_iter().any(|m| m.key == mutation.key)
    }
}

fn is_delete(mutation: &Mutation) -> bool {
    mutation.change == Change::Delete
}

fn located(poison: &Poison) -> String {
    if poison.place.is_empty() {
        poison.why.clone()
    } else {
        format!("`{}`: {}", poison.place, poison.why)
    }
}
