//! Whether a worker may claim a unit now. Pure: facts and a clock's reading in, a decision out.
//!
//! A unit is claimed if nobody owns it, if its owner has been silent for long enough, or if its owner is
//! this worker's own earlier identity. Each claim waits a random while first, so that of several
//! workers that see the same free unit one is early and the others see its claim.

use std::time::Duration;

use materializer_model::{Monotonic, WorkerId};

/// How long an owner must give no sign of life before another worker takes its unit.
pub(super) const SILENT: Duration = Duration::from_secs(10);
/// The longest random wait before a claim.
pub(super) const JITTER: Duration = Duration::from_secs(2);
/// The longest wait after claims that came to nothing.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long a worker leaves a second copy of a version to others.
const SECOND_COPY: Duration = Duration::from_secs(5);

/// What is known of a unit that this worker does not feed.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    /// The worker of the newest claim, and how long it has given no sign of life.
    pub(super) owner: Option<(&'a WorkerId, Duration)>,
    /// How long it must be silent: longer for a copy, which another worker would build anew.
    pub(super) silent: Duration,
    /// Whether this worker feeds another copy of the same version.
    pub(super) holds_another_copy: bool,
}

/// A worker's patience with one unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    claimable_since: Option<Monotonic>,
    /// Whether this worker fed another copy when the wait began.
    beside_another: bool,
    failures: u32,
    not_before: Monotonic,
}

impl Patience {
    /// Says whether to claim the unit now. `jitter` is this round's random wait, at most [`JITTER`].
    pub(super) fn decide(
        &mut self,
        me: &WorkerId,
        facts: &Facts<'_>,
        jitter: Duration,
        now: Monotonic,
    ) -> bool {
        let wait = match facts.owner {
            // Nobody else has this worker's id: no need to be polite.
            Some((owner, _)) if owner == me => Duration::ZERO,
            Some((_, silence)) if silence < facts.silent => {
                self.claimable_since = None;
                return false;
            }
            Some(_) | None if facts.holds_another_copy => SECOND_COPY + jitter,
            Some(_) | None => jitter,
        };
        if facts.holds_another_copy && !self.beside_another {
            // The wait began before this worker took the other copy: the longer one begins now.
            self.claimable_since = None;
        }
        self.beside_another = facts.holds_another_copy;
        let since = *self.claimable_since.get_or_insert_with(|| {
            self.not_before = self.not_before.max(now.plus(wait));
            now
        });
        now >= self.not_before && now >= since
    }

    /// Says whether the next try is to wait still.
    pub(super) fn waits(&self, now: Monotonic) -> bool {
        now < self.not_before
    }

    /// Takes in that the unit was lost, or a try came to nothing: the next one waits longer.
    pub(super) fn failed(&mut self, now: Monotonic) {
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.claimable_since = None;
        self.not_before = now.plus(wait);
    }

    /// Takes in that the unit is fed.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    /// Returns the second at which a unit with these facts is claimed, looking every second.
    fn claimed_at(facts: &Facts<'_>, jitter: u64) -> Option<u64> {
        let me = WorkerId::new("me");
        let mut patience = Patience::default();
        (0..30).find(|second| patience.decide(&me, facts, Duration::from_secs(jitter), at(*second)))
    }

    #[test]
    fn a_unit_is_claimed_if_nobody_feeds_it() {
        let (me, other) = (WorkerId::new("me"), WorkerId::new("other"));
        let seconds = Duration::from_secs;
        let check = |owner, silent, holds_another_copy, jitter, expected| {
            let facts = Facts {
                owner,
                silent,
                holds_another_copy,
            };
            assert_eq!(claimed_at(&facts, jitter), expected, "{facts:?}");
        };
        check(None, SILENT, false, 0, Some(0));
        check(None, SILENT, false, 2, Some(2));
        check(None, SILENT, true, 1, Some(6));
        check(Some((&me, seconds(0))), SILENT, true, 2, Some(0));
        check(Some((&other, seconds(9))), SILENT, false, 0, None);
        check(Some((&other, seconds(10))), SILENT, false, 1, Some(1));
        check(Some((&other, seconds(599))), seconds(600), false, 0, None);
    }

    #[test]
    fn a_worker_that_has_just_taken_one_copy_leaves_the_other_to_others_for_a_while() {
        let me = WorkerId::new("me");
        let facts = |holds_another_copy| Facts {
            owner: None,
            silent: SILENT,
            holds_another_copy,
        };
        let mut patience = Patience::default();
        let jitter = Duration::from_secs(1);
        assert!(!patience.decide(&me, &facts(false), jitter, at(0)));
        assert!(
            !patience.decide(&me, &facts(true), jitter, at(1)),
            "it has the other one now"
        );
        assert!(!patience.decide(&me, &facts(true), jitter, at(6)));
        assert!(patience.decide(&me, &facts(true), jitter, at(7)));
    }

    #[test]
    fn a_worker_that_lost_a_unit_waits_longer_each_time() {
        let me = WorkerId::new("me");
        let facts = Facts {
            owner: None,
            silent: SILENT,
            holds_another_copy: false,
        };
        let mut patience = Patience::default();
        patience.failed(at(0));
        assert!(!patience.decide(&me, &facts, Duration::ZERO, at(0)));
        assert!(patience.decide(&me, &facts, Duration::ZERO, at(1)));
        patience.failed(at(1));
        assert!(!patience.decide(&me, &facts, Duration::ZERO, at(2)));
        assert!(patience.decide(&me, &facts, Duration::ZERO, at(3)));
        patience.succeeded();
        assert!(patience.decide(&me, &facts, Duration::ZERO, at(4)));
    }
}
