//! What is known of one partition's end, and how far behind it a position is.
//!
//! Each end is kept with the instant it was first and last seen at, on the worker's clock. From that
//! come the lag in seconds without comparing two machines' clocks, and the anchor of the tombstone
//! horizon.

use std::collections::VecDeque;
use std::time::Duration;

use materializer_model::{End, Monotonic, Offset, Timestamp};

/// The most samples that are kept.
const SAMPLES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    end: Offset,
    first: Monotonic,
    last: Monotonic,
}

/// The ends of one partition as this worker saw them.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndTrack {
    /// Ends above the committed position, rising.
    samples: VecDeque<Sample>,
    /// The first end ever seen: below it, time is estimated from records.
    first: Option<Sample>,
    /// The highest end ever seen.
    end: Option<Offset>,
    /// When the newest end was seen that the committed position has reached.
    reached: Option<Monotonic>,
    /// What the observer said last.
    observed: Option<End>,
    /// Since when the stable end is seen where it is, below the high watermark.
    held_since: Option<Monotonic>,
}

impl EndTrack {
    /// Takes in what the observer says.
    pub(crate) fn observe(&mut self, end: &End) {
        if self.observed.is_some_and(|known| known.asked >= end.asked) {
            return;
        }
        let same = self
            .observed
            .is_some_and(|known| known.stable == end.stable);
        self.held_since =
            (end.high > end.stable).then(|| self.held_since.filter(|_| same).unwrap_or(end.asked));
        self.observed = Some(*end);
        self.sample(end.stable, end.asked);
    }

    /// Takes in an end that a reader or the observer has seen.
    pub(crate) fn sample(&mut self, end: Offset, at: Monotonic) {
        self.end = self.end.max(Some(end));
        let sample = Sample {
            end,
            first: at,
            last: at,
        };
        self.first.get_or_insert(sample);
        match self.samples.back_mut() {
            Some(newest) if newest.end == end => newest.last = newest.last.max(at),
            Some(newest) if newest.end > end => {}
            Some(_) | None => self.samples.push_back(sample),
        }
        if self.samples.len() > SAMPLES {
            self.thin();
        }
    }

    /// Merges neighbours: the end of the later with the first instant of the earlier, so that a lag
    /// is never made smaller than it is.
    fn thin(&mut self) {
        let all: Vec<Sample> = self.samples.drain(..).collect();
        self.samples = all
            .chunks(2)
            .filter_map(|pair| {
                let (earlier, later) = (pair.first()?, pair.last()?);
                Some(Sample {
                    first: earlier.first,
                    ..*later
                })
            })
            .collect();
    }

    /// Forgets the ends that the committed position has reached.
    pub(crate) fn pass(&mut self, committed: Offset) {
        while let Some(sample) = self.samples.front().copied()
            && sample.end <= committed
        {
            self.reached = self.reached.max(Some(sample.last));
            self.samples.pop_front();
        }
    }

    /// Returns when the newest end was seen that `next` has reached.
    pub(crate) fn reached(&self, next: Offset) -> Option<Monotonic> {
        let newer = self.samples.iter().take_while(|sample| sample.end <= next);
        newer.map(|sample| sample.last).max().max(self.reached)
    }

    /// Returns the highest end that is known.
    pub(crate) fn end(&self) -> Option<Offset> {
        self.end
    }

    /// Returns how long ago the observer last asked.
    pub(crate) fn age(&self, now: Monotonic) -> Option<Duration> {
        self.observed.map(|end| now.since(end.asked))
    }

    /// Returns the log start that the observer saw last.
    pub(crate) fn start(&self) -> Option<Offset> {
        self.observed.map(|end| end.start)
    }

    /// Returns for how long the stable end was seen to stand still below the high watermark.
    pub(crate) fn held_back(&self) -> Option<Duration> {
        let (end, since) = self.observed.zip(self.held_since)?;
        Some(end.asked.since(since))
    }

    /// Returns how long `committed` has been behind, and whether that is an estimate from the time
    /// of `record`, the oldest that is read and not committed. Nothing where it is not behind.
    pub(crate) fn behind(
        &self,
        committed: Offset,
        now: Monotonic,
        broker: Option<Timestamp>,
        record: Option<Timestamp>,
    ) -> Option<(Duration, bool)> {
        let waiting = self.samples.iter().find(|sample| sample.end > committed)?;
        let first = self.first?;
        if committed >= first.end {
            return Some((now.since(waiting.first), false));
        }
        let by_record = broker.zip(record).map(|(now, then)| now.since(then));
        let since_seen = now.since(first.first);
        Some((by_record.unwrap_or_default().max(since_seen), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn behind(track: &EndTrack, committed: u64, now: u64) -> Option<(u64, bool)> {
        let (span, estimated) = track.behind(Offset(committed), at(now), None, None)?;
        Some((span.as_secs(), estimated))
    }

    #[test]
    fn lag_counts_from_when_an_end_was_first_seen_above_the_position() {
        let mut track = EndTrack::default();
        for (end, seen) in [(10, 1), (20, 2), (20, 3), (30, 4)] {
            track.sample(Offset(end), at(seen));
        }
        assert_eq!(behind(&track, 5, 9), Some((8, true)), "below the first end");
        assert_eq!(behind(&track, 10, 9), Some((7, false)));
        assert_eq!(behind(&track, 20, 9), Some((5, false)));
        assert_eq!(behind(&track, 30, 9), None);
        assert_eq!(track.reached(Offset(29)), Some(at(3)));
        track.pass(Offset(20));
        assert_eq!(behind(&track, 20, 9), Some((5, false)));
        assert_eq!(track.reached(Offset(20)), Some(at(3)));
    }

    #[test]
    fn a_stable_end_is_held_back_only_while_it_is_seen_still_and_below_the_high_watermark() {
        let mut track = EndTrack::default();
        for (asked, stable, high, expected) in [
            (1, 10, 10, None),
            (60, 10, 12, Some(0)),
            (62, 10, 13, Some(2)),
            (63, 11, 13, Some(0)),
            (70, 11, 14, Some(7)),
            (71, 14, 14, None),
            (72, 14, 15, Some(0)),
        ] {
            track.observe(&End {
                start: Offset(0),
                stable: Offset(stable),
                high: Offset(high),
                epoch: None,
                asked: at(asked),
            });
            let held = track.held_back().map(|span| span.as_secs());
            assert_eq!(held, expected, "at {asked}");
        }
    }

    #[test]
    fn thinning_never_makes_a_lag_smaller() {
        let mut track = EndTrack::default();
        for n in 1..=200 {
            track.sample(Offset(n * 10), at(n));
        }
        assert!(track.samples.len() <= SAMPLES);
        for committed in (10..2_000).step_by(10) {
            let exact = 300 - (committed / 10 + 1);
            let (told, _) = behind(&track, committed, 300).expect("it is behind");
            assert!(told >= exact, "{told} < {exact} at {committed}");
        }
    }
}
