//! How a unit is: its gates, lag, health and progress, as of the last step.

use std::time::Duration;

use materializer_model::definition::OnError;
use materializer_model::progress::{
    Directive, Feed, Health, Lag, Phase, Progress, StoredCheckpoint,
};
use materializer_model::{Checkpoint, Monotonic};

use super::open::tombstones_end;
use super::{State, Worker};
use crate::defect::Defect;
use crate::gates::{self, ENDS_AGE_MAX, Evidence};
use crate::lanes::{Lanes, millis};
use materializer_model::defect::is_planted;

/// A committed position that has not moved for this long, with lag, is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Over how long the rate is averaged.
const RATE_OVER: Duration = Duration::from_secs(2);

impl Worker {
    /// Says how far the unit is.
    pub(super) fn phase(&self) -> Phase {
        if self.lanes.is_none() && self.committed.is_none() {
            return Phase::Starting;
        }
        if self
            .committed
            .as_ref()
            .is_some_and(Checkpoint::has_reached_bar)
        {
            Phase::Tailing
        } else {
            Phase::Replaying
        }
    }

    /// Evaluates lag and gates at the end of a step.
    pub(super) fn judge(&mut self, directive: &Directive) {
        let now = self.now();
        self.measure_rate(now);
        let ends_age = self.lanes.as_ref().and_then(|lanes| oldest_end(lanes, now));
        let lag = self.lag(ends_age, now);
        if lag.is_none_or(|lag| lag.records == 0) {
            self.moved_at = now;
        }
        let lanes = self.lanes.iter().flat_map(|lanes| &lanes.lanes);
        let dead_limit = match &directive.on_error {
            OnError::DeadLetter { limit, .. } => Some(*limit),
            OnError::Fail | OnError::Skip => None,
        };
        let stopped = matches!(self.state, State::Stopped { .. }) || self.blocked.is_some();
        let evidence = Evidence {
            bar_passed: self
                .committed
                .as_ref()
                .is_some_and(Checkpoint::has_reached_bar),
            ends_age,
            lag,
            failed: self.counts.failed + u64::from(stopped),
            dead: self.counts.dead,
            dead_limit,
            held_back: lanes.filter_map(|lane| lane.ends.held_back()).max(),
        };
        let gates = gates::evaluate(&evidence, &directive.gates);
        let ahead = self.lanes.as_ref().is_some_and(Lanes::are_ahead);
        let is_well = matches!(self.state, State::Open) && self.rewind.is_none() && !ahead;
        let all_hold = is_well && gates.iter().all(|gate| gate.holds);
        self.reading.held.note(all_hold, now);
        self.reading.held_for = self.reading.held.time(now);
        self.reading.lagging = self.phase() == Phase::Tailing
            && gates
                .iter()
                .any(|gate| !gate.holds && gate.gate.starts_with("lag_"));
        self.reading.gates = gates;
        self.reading.lag = lag;
        self.reading.ends_age = ends_age;
        self.reading.waits_for = self.waits_for(directive, now);
        self.reading.until = self.until(directive).cloned();
    }

    /// Returns what was reported of the unit and is not, or not known to be, in the sink.
    fn until<'a>(&'a self, directive: &'a Directive) -> Option<&'a Checkpoint> {
        let reported = directive.last_reported.as_ref().map(|stored| &stored.0);
        let until = self.rewind.as_ref().map(|rewind| &rewind.until);
        let is_missing = |had: &&Checkpoint| {
            let committed = self.committed.as_ref();
            committed.is_none_or(|has| has.is_behind(had))
        };
        until.or(reported).filter(is_missing)
    }

    /// Returns the lag; `None` where an end is unknown or too old.
    fn lag(&self, ends_age: Option<Duration>, now: Monotonic) -> Option<Lag> {
        ends_age.filter(|age| *age <= ENDS_AGE_MAX || is_planted(Defect::OldEndsBelieved))?;
        let broker = self.broker();
        let ends = self.ports.observer.ends();
        let mut sources = self.lanes.iter().flat_map(|lanes| &lanes.sources);
        if sources.any(|source| self.has_more(source, &ends)) {
            return None;
        }
        let mut lag = Lag {
            records: 0,
            seconds: 0.0,
            estimated: false,
        };
        for lane in &self.lanes.as_ref()?.lanes {
            lag.records += lane.ends.end()?.distance_from(lane.committed);
            let behind = lane.ends.behind(lane.committed, now, broker, lane.oldest());
            if let Some((span, estimated)) = behind {
                lag.seconds = lag.seconds.max(span.as_secs_f64());
                lag.estimated |= estimated;
            }
        }
        Some(lag)
    }

    fn measure_rate(&mut self, now: Monotonic) {
        let span = now.since(self.rate.since);
        if span < RATE_OVER {
            return;
        }
        let records = u32::try_from(self.rate.records).unwrap_or(u32::MAX);
        self.reading.rate = f64::from(records) / span.as_secs_f64();
        self.rate.since = now;
        self.rate.records = 0;
    }

    fn waits_for(&self, directive: &Directive, now: Monotonic) -> Option<String> {
        let waits = match &self.state {
            State::Closed { why, .. } => Some(why.clone()),
            State::Stopped { .. } | State::Left(_) => None,
            State::Open if !self.proving.is_empty() => {
                Some("the log, which is to show that it holds what was read".to_owned())
            }
            State::Open => match (&self.log_wait, &self.outstanding) {
                (Some((_, why)), _) => Some(why.clone()),
                (None, Some(_)) if self.batch.weight() >= self.settings.pacing.fold_bytes_max => {
                    Some("the sink: the fold is full".to_owned())
                }
                (None, Some(_)) if now.since(self.submitted_at) >= Duration::from_secs(1) => {
                    Some("the sink".to_owned())
                }
                (None, Some(_) | None) => self.waits_for_growth(),
            },
        };
        match &directive.feed {
            Feed::Hold { why } => Some(format!("paused: {why}")),
            Feed::Drain | Feed::Delete => waits.or_else(|| Some("draining".to_owned())),
            Feed::Feed => waits,
        }
    }

    fn health(&self) -> Health {
        match &self.state {
            State::Stopped { health, .. } => return health.clone(),
            State::Closed { .. } | State::Open | State::Left(_) => {}
        }
        if let Some(failure) = &self.blocked {
            return Health::Failed {
                why: failure.why.clone(),
                at: failure.at.clone(),
                hint: failure.hint.clone(),
            };
        }
        if let Some(rewind) = self
            .rewind
            .as_ref()
            .filter(|_| !is_planted(Defect::RewindUnsaid))
        {
            return Health::Rewound {
                from: rewind.until.seq,
                to: rewind.to,
            };
        }
        if let Some(why) = &self.reading.waits_for {
            return Health::Waiting { why: why.clone() };
        }
        if self.now().since(self.moved_at) >= STALLED_AFTER {
            return Health::Stalled {
                why: "there are records to read, and the committed position stands still".into(),
            };
        }
        if self.reading.lagging {
            return Health::Lagging;
        }
        Health::Ok
    }

    /// Returns how the unit is, as of the last step. Who reports it, and under which `sequence`, is
    /// the driver's business.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let lanes = self.lanes.iter().flat_map(|lanes| &lanes.lanes);
        let usage = self.ports.sink.usage();
        let phase = self.phase();
        Progress {
            unit: self.settings.unit.clone(),
            worker: self.settings.worker.clone(),
            process: self.settings.process.clone(),
            sequence: 0,
            token: self.settings.token.clone(),
            checkpoint: self.committed.clone().map(StoredCheckpoint),
            until: self.reading.until.clone().map(StoredCheckpoint),
            phase,
            health: self.health(),
            lag: self.reading.lag,
            ends_age_ms: self.reading.ends_age.map(millis),
            end_records: lanes
                .clone()
                .filter_map(|lane| lane.ends.end())
                .map(|end| end.0)
                .sum(),
            done_records: lanes.map(|lane| lane.committed.0).sum(),
            held_ms: self.reading.held_for.map(millis),
            gates: self.reading.gates.clone(),
            servable: phase == Phase::Tailing && !self.is_damaged() && self.ports.sink.is_proven(),
            rate: self.reading.rate,
            waits_for: self.reading.waits_for.clone(),
            documents: usage.documents,
            bytes: usage.bytes,
            bytes_free: usage.bytes_free,
            tombstones_left_ms: self.tombstones_left(),
            address: self.settings.address.clone(),
            growth: self.settled_growth(),
        }
    }

    fn is_damaged(&self) -> bool {
        matches!(
            self.state,
            State::Stopped {
                health: Health::Damaged { .. },
                ..
            }
        )
    }

    fn tombstones_left(&self) -> Option<u64> {
        let (lanes, broker) = (self.lanes.as_ref()?, self.broker()?);
        lanes
            .lanes
            .iter()
            .filter_map(|lane| tombstones_end(&lanes.sources[lane.source], lane))
            .min()
            .map(|end| millis(end.since(broker)))
    }
}

/// Returns the age of the oldest end; `None` where one is unknown.
fn oldest_end(lanes: &Lanes, now: Monotonic) -> Option<Duration> {
    let mut oldest = Duration::ZERO;
    for lane in &lanes.lanes {
        oldest = oldest.max(lane.ends.age(now)?);
    }
    Some(oldest)
}
