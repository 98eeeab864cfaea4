//! When a fold is committed, and how long is waited.

use std::time::Duration;

use materializer_model::Monotonic;

/// How a unit is paced. No part of a fingerprint: it changes when things are written, never what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// The most bytes that a fold holds; reading stops there.
    pub fold_bytes_max: usize,
    /// Replaying: a fold of this many bytes is committed.
    pub replaying_bytes: usize,
    /// Replaying: a fold of this age is committed.
    pub replaying_age: Duration,
    /// Tailing: a fold of this many keys is committed.
    pub tailing_keys: usize,
    /// Tailing: a fold of this age is committed.
    pub tailing_age: Duration,
    /// How often at most a checkpoint moves over records that changed nothing.
    pub empty_age: Duration,
    /// How long an idle unit leaves its sink alone: then it commits where it stands once more, and so
    /// notices one that was emptied, or went back, and keeps what is stored far from the tombstones' horizon.
    pub idle_age: Duration,
    /// How long one step waits for the log or the sink.
    pub wait: Duration,
    /// The first wait after a fault; each further one is twice as long.
    pub retry_min: Duration,
    /// The longest wait after a fault, and so how much later than a server is back it may be noticed.
    pub retry_max: Duration,
    /// How often a unit that failed looks whether it can go on.
    pub failed_retry: Duration,
    /// How long after a topic got more partitions all its producers know of them.
    pub growth_settles: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            fold_bytes_max: 64 << 20,
            replaying_bytes: 8 << 20,
            replaying_age: Duration::from_secs(1),
            tailing_keys: 500,
            tailing_age: Duration::from_millis(5),
            empty_age: Duration::from_secs(1),
            idle_age: Duration::from_secs(10),
            wait: Duration::from_millis(50),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
            failed_retry: Duration::from_secs(30),
            growth_settles: Duration::from_secs(10 * 60),
        }
    }
}

/// Waits that grow from fault to fault.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// Returns when to try again after one more fault.
    pub(crate) fn after(&mut self, now: Monotonic, pacing: &Pacing) -> Monotonic {
        self.0 = (self.0 * 2).clamp(pacing.retry_min, pacing.retry_max);
        now.plus(self.0)
    }

    pub(crate) fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_away_for_long_is_asked_again_within_the_time_that_a_fail_over_may_take() {
        /// What is promised from a replica's first answer to the first commit.
        const FAILOVER: Duration = Duration::from_secs(3);
        let (mut backoff, now) = (Backoff::default(), Monotonic::default());
        let waits = (0..100).map(|_| backoff.after(now, &Pacing::default()).since(now));
        let longest = waits.max().expect("waits");
        assert!(longest <= FAILOVER - Duration::from_secs(1), "{longest:?}");
    }
}
