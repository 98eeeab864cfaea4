//! Committing: when what was taken in is due, its way to the sink, and what is learned of its outcome.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::progress::{Directive, Feed, Phase};
use materializer_model::{Batch, Commit};
use tracing::info;

use super::{Rewind, Worker};
use crate::defect::Defect;
use crate::halt::Halt;
use crate::lanes::Lanes;
use materializer_model::defect::is_planted;

impl Worker {
    /// Learns the outcome of the outstanding commit, if it is there.
    pub(super) fn settle(&mut self, directive: &Directive) -> Result<(), Halt> {
        if self.outstanding.is_none() {
            return Ok(());
        }
        let full = self.batch.weight() >= self.settings.pacing.fold_bytes_max;
        // Where nothing is read meanwhile there is nothing else to wait for.
        let wait = if full || directive.feed != Feed::Feed {
            self.settings.pacing.wait
        } else {
            Duration::ZERO
        };
        let settled = self.timed(
            |work| &mut work.settling,
            |worker| worker.ports.sink.settle(wait),
        );
        if settled?.is_some() {
            self.landed();
        }
        Ok(())
    }

    /// Takes the outstanding commit for applied.
    pub(super) fn landed(&mut self) {
        let Some(commit) = self.outstanding.take() else {
            return;
        };
        let (now, broker) = (self.now(), self.broker());
        self.work.commits += 1;
        self.work.committing += now.since(self.submitted_at);
        let checkpoint = commit.checkpoint.clone();
        if let Some(lanes) = &mut self.lanes {
            for at in 0..lanes.lanes.len() {
                if lanes.committed(at, &checkpoint) {
                    self.moved_at = now;
                }
                lanes.lanes[at].settle(now, broker);
            }
        }
        let passed = |rewind: &Rewind| !checkpoint.is_behind(&rewind.until);
        if self.rewind.as_ref().is_some_and(passed) {
            info!(unit = %self.settings.unit, "the unit is past its last reported position again");
            self.rewind = None;
        }
        self.committed = Some(checkpoint);
        self.committed_at = now;
        self.backoff.reset();
    }

    pub(super) fn has_more_to_commit(&self) -> bool {
        let moved = self.lanes.as_ref().is_some_and(Lanes::moved);
        moved || !self.batch.is_empty() || (self.lanes.is_some() && self.committed.is_none())
    }

    pub(super) fn is_due(&self, directive: &Directive) -> bool {
        let Some(lanes) = &self.lanes else {
            return false;
        };
        // Where a unit begins is stored before its first row: of a sink that holds some parts of a commit
        // and no checkpoint nobody could tell how old they are, and tombstones of their keys may be gone.
        if self.committed.is_none() {
            return true;
        }
        let pacing = &self.settings.pacing;
        let now = self.now();
        let full = self.batch.weight() >= pacing.fold_bytes_max;
        // The whole gap in one window, so that readers do not see values go back.
        if let Some(rewind) = &self.rewind
            && !lanes.covers(&rewind.until)
            && !full
        {
            return false;
        }
        if self.batch.is_empty() {
            let moved = self.has_more_to_commit() || lanes.have_new_epochs();
            let age = now.since(self.committed_at);
            let waited = age >= pacing.empty_age || directive.feed == Feed::Drain;
            return (moved && waited) || age >= pacing.idle_age;
        }
        let age = now.since(self.batch_since);
        let due = match self.phase() {
            Phase::Tailing => self.batch.len() >= pacing.tailing_keys || age >= pacing.tailing_age,
            Phase::Starting | Phase::Replaying => {
                self.batch.weight() >= pacing.replaying_bytes || age >= pacing.replaying_age
            }
        };
        due || full || directive.feed != Feed::Feed
    }

    /// Sends what was taken in to the sink; says whether it did.
    pub(super) fn submit(&mut self) -> Result<bool, Halt> {
        let waits = self.letters_unflushed && !is_planted(Defect::LettersUnacknowledged);
        if waits && !self.flush_letters()? {
            return Ok(false);
        }
        let (now, broker) = (self.now(), self.broker());
        let Some(lanes) = &mut self.lanes else {
            return Ok(false);
        };
        let hollow = is_planted(Defect::CheckpointBeforeData) && lanes.moved();
        let seq = self.committed.as_ref().map_or(0, |held| held.seq) + 1;
        let commit = Arc::new(Commit {
            batch: if hollow {
                Batch::default()
            } else {
                mem::take(&mut self.batch)
            },
            previous: self.committed.clone(),
            checkpoint: lanes.checkpoint(seq, self.counts, now, broker),
        });
        for lane in &mut lanes.lanes {
            lane.oldest_sent = lane.oldest_folded.take();
        }
        self.outstanding = Some(Arc::clone(&commit));
        self.submitted_at = now;
        self.ports.sink.submit(commit)?;
        Ok(true)
    }

    /// Waits for a while until the dead letters are acknowledged; says whether all are.
    pub(super) fn flush_letters(&mut self) -> Result<bool, Halt> {
        match self.ports.dead_letters.flushed(self.settings.pacing.wait) {
            Ok(flushed) => {
                self.letters_unflushed = !flushed;
                Ok(flushed)
            }
            Err(error) => {
                // Letters are lost, and which is not told: their records are read again.
                self.forget();
                Err(error.into())
            }
        }
    }
}
