//! The proof: what was counted and measured, and what of it must be how.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::readers::{FRESH_WITHIN, Seen};
use crate::output::Count;

/// The versions that must answer, one after the other, after v1: promoted, rolled back, promoted again.
const MOVES: [u32; 3] = [2, 1, 2];

/// A distribution of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        let at = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100).max(1) - 1;
            all.get(rank).map_or(0.0, |time| millis(*time))
        };
        Self {
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

/// Returns a time in milliseconds with one decimal.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// What the demo has shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Proof {
    /// Records in the log, all still there.
    pub(super) events: u64,
    /// Keys that were ever written.
    pub(super) keys: u64,
    /// Documents that each view must hold in the end.
    pub(super) documents: u64,
    /// Views that were migrated.
    pub(super) views: u64,
    /// Documents that are missing in the end.
    pub(super) lost: u64,
    /// Documents of products that are hidden or gone.
    pub(super) resurrected: u64,
    /// Documents that are not their product's last.
    pub(super) differing: u64,
    /// Answers to readers.
    pub(super) reads: u64,
    pub(super) stale_reads: u64,
    pub(super) mixed_reads: u64,
    pub(super) failed_reads: u64,
    /// Changes of the answering version that a reader saw although the alias had not moved, or did not
    /// see although it had.
    pub(super) wrong_moves: u64,
    /// Between a reader's last answer of one version and its first of the next.
    pub(super) swap_ms: Times,
    /// From the verb to the moment when every reader was answered by the version before.
    pub(super) rollback_ms: f64,
    /// The longest that an answer after the rollback was behind the log.
    pub(super) rollback_staleness_ms: f64,
    /// From the kill to the moment when all that the worker fed was being fed again.
    pub(super) resume_ms: f64,
    /// Every version's role in the end.
    pub(super) versions: BTreeMap<String, String>,
    /// What is not as it must be.
    pub(super) unmet: Vec<String>,
}

impl Proof {
    /// Takes in what the readers have seen.
    pub(super) fn take(&mut self, readers: &[Seen]) {
        let sum = |of: fn(&Seen) -> u64| readers.iter().map(of).sum();
        self.reads = sum(|seen| seen.reads);
        self.stale_reads = sum(|seen| seen.stale);
        self.mixed_reads = sum(|seen| seen.mixed);
        self.failed_reads = sum(|seen| seen.failed);
        let wrong = readers.iter().filter(|seen| {
            let moves: Vec<u32> = seen.moves.iter().map(|moved| moved.to.0).collect();
            moves != MOVES
        });
        self.wrong_moves = u64::try_from(wrong.count()).unwrap_or(u64::MAX);
        let moves = readers.iter().flat_map(|seen| &seen.moves);
        self.swap_ms = Times::of(moves.map(|moved| moved.gap).collect());
        self.unmet
            .extend(readers.iter().filter_map(|seen| seen.first_fault.clone()));
    }

    /// Holds everything against what it must be.
    pub(super) fn conclude(&mut self, events_min: u64, written: u64, is_whole: bool) {
        let zeros = [
            ("lost", self.lost),
            ("resurrected", self.resurrected),
            ("differing", self.differing),
            ("stale reads", self.stale_reads),
            ("mixed reads", self.mixed_reads),
            ("failed reads", self.failed_reads),
            (
                "readers that saw other moves of the alias",
                self.wrong_moves,
            ),
        ];
        let nonzero = zeros.into_iter().filter(|(_, count)| *count > 0);
        let mut unmet: Vec<String> = nonzero
            .map(|(what, count)| format!("{what}: {count}, must be 0"))
            .collect();
        let mut must = |so: bool, what: String| {
            if !so {
                unmet.push(what);
            }
        };
        let Self { events, .. } = *self;
        must(is_whole, "the log no longer begins at offset 0".to_owned());
        must(
            events == written,
            format!("the log has {events} records of {written}"),
        );
        must(
            events >= events_min,
            format!("{events} events, must be {events_min}"),
        );
        must(self.reads > 0, "nobody read".to_owned());
        let behind = self.rollback_staleness_ms;
        let fresh = behind <= millis(FRESH_WITHIN);
        must(fresh, format!("the rollback was {behind} ms behind"));
        for (what, time) in [("rollback", self.rollback_ms), ("resume", self.resume_ms)] {
            must(time > 0.0, format!("the {what} was not measured"));
        }
        for (version, role) in &self.versions {
            let expected = if version.ends_with("@v1") {
                "retired"
            } else {
                "live"
            };
            must(
                role == expected,
                format!("`{version}` is {role}, must be {expected}"),
            );
        }
        let count = u64::try_from(self.versions.len()).unwrap_or(u64::MAX);
        must(
            count == 2 * self.views,
            format!("there are {count} versions"),
        );
        self.unmet.extend(unmet);
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |f: &mut fmt::Formatter<'_>, what, count, note: &str| {
            writeln!(f, "  {what:<24}{:>12}   {note}", Count(count).to_string())
        };
        count(
            f,
            "events",
            self.events,
            "all still in the log, from offset 0",
        )?;
        count(f, "keys", self.keys, "products that were ever made")?;
        count(
            f,
            "documents",
            self.documents,
            "products to be seen in the end, compared one by one",
        )?;
        count(f, "lost", self.lost, "must be 0")?;
        count(f, "resurrected", self.resurrected, "must be 0")?;
        count(f, "differing", self.differing, "must be 0")?;
        count(f, "reads", self.reads, "by alias, without a pause")?;
        count(f, "stale reads", self.stale_reads, "must be 0")?;
        count(f, "mixed reads", self.mixed_reads, "must be 0")?;
        count(f, "failed reads", self.failed_reads, "must be 0")?;
        let Times { p50, p99, max } = self.swap_ms;
        let time = |f: &mut fmt::Formatter<'_>, what, time: String, note: &str| {
            writeln!(f, "  {what:<24}{time:>12}   {note}")
        };
        time(
            f,
            "swap",
            format!("{p50} ms"),
            &format!("between a reader's answers; p99 {p99} ms, max {max} ms"),
        )?;
        let ms = |value: f64| format!("{value} ms");
        time(
            f,
            "rollback",
            ms(self.rollback_ms),
            "from the verb until every reader was back on v1",
        )?;
        time(
            f,
            "staleness then",
            ms(self.rollback_staleness_ms),
            "the most that an answer was behind the log",
        )?;
        time(
            f,
            "resume after kill -9",
            ms(self.resume_ms),
            "until all was being fed again",
        )?;
        for (version, role) in &self.versions {
            writeln!(f, "  {version:<24}{role:>12}")?;
        }
        if self.unmet.is_empty() {
            return write!(f, "proved");
        }
        write!(f, "NOT proved:")?;
        self.unmet
            .iter()
            .try_for_each(|what| write!(f, "\n  {what}"))
    }
}

#[cfg(test)]
mod tests {
    use materializer_model::{Monotonic, VersionNumber};

    use super::super::readers::Moved;
    use super::*;

    fn seen() -> Seen {
        let moved = |to| Moved {
            to: VersionNumber(to),
            at: Monotonic::default(),
            gap: Duration::from_millis(3),
        };
        Seen {
            reads: 10,
            moves: MOVES.map(moved).to_vec(),
            ..Seen::default()
        }
    }

    fn proof() -> Proof {
        let roles = [("p@v1", "retired"), ("p@v2", "live")];
        Proof {
            events: 5,
            views: 1,
            rollback_ms: 1.0,
            resume_ms: 1.0,
            versions: roles
                .map(|(v, role)| (v.to_owned(), role.to_owned()))
                .into(),
            ..Proof::default()
        }
    }

    #[test]
    fn a_proof_stands_if_everything_is_as_it_must_be_and_falls_with_any_one_of_it() {
        let concluded = |change: fn(&mut Proof, &mut Seen)| {
            let (mut proof, mut seen) = (proof(), seen());
            change(&mut proof, &mut seen);
            proof.take(&[seen]);
            proof.conclude(5, 5, true);
            proof.unmet
        };
        assert_eq!(concluded(|_, _| {}), [""; 0]);
        let breaks: [fn(&mut Proof, &mut Seen); 15] = [
            |proof, _| proof.lost = 1,
            |proof, _| proof.resurrected = 1,
            |proof, _| proof.differing = 1,
            |proof, _| proof.events = 4,
            |proof, _| proof.events = 6,
            |proof, _| proof.rollback_ms = 0.0,
            |proof, _| proof.resume_ms = 0.0,
            |proof, _| proof.rollback_staleness_ms = 10_000.1,
            |proof, _| drop(proof.versions.insert("p@v1".into(), "draining".into())),
            |proof, _| drop(proof.versions.remove("p@v1")),
            |_, seen| seen.stale = 1,
            |_, seen| seen.mixed = 1,
            |_, seen| seen.failed = 1,
            |_, seen| seen.reads = 0,
            |_, seen| {
                seen.moves.pop();
            },
        ];
        for (at, change) in breaks.into_iter().enumerate() {
            assert_ne!(concluded(change), [""; 0], "break {at}");
        }
        let mut cut = proof();
        cut.take(&[seen()]);
        cut.conclude(5, 5, false);
        assert_ne!(cut.unmet, [""; 0], "the log was cut");
    }

    #[test]
    fn percentiles_are_of_the_times_that_were_seen() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.p50, times.p99, times.max), (50.0, 99.0, 100.0));
        assert_eq!(Times::of(Vec::new()), Times::default());
    }
}
