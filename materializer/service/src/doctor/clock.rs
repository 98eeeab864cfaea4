//! The brokers' clock and this machine's, held against each other.
//!
//! Nothing is decided by this machine's clock. But producers date their records by theirs, and retention,
//! `ttl` and the lag of a replay go by those dates: a clock that is off shows here first.

use std::time::{Duration, SystemTime};

use materializer_migrations::Follower;
use materializer_migrations::reports::CLIENT;
use materializer_model::Timestamp;
use materializer_model::clock::millis;
use materializer_model::ports::{ControlError, ControlLog, ControlTopic};

use super::Finding;
use crate::output::span;

/// A difference that is worth a look: NTP keeps machines within milliseconds.
const SKEW_MAX: Duration = Duration::from_secs(2);

/// Asks the broker for its time, by a record of progress as `status` does.
pub(super) fn examine(log: &mut dyn ControlLog, follower: &mut Follower) -> Finding {
    let before = wall();
    match ask(log, follower) {
        Ok(broker) => judge(before, broker, wall()),
        Err(error) => Finding::fault(
            "clocks",
            format!("the broker did not tell its time: {error}"),
            "every process reports in the progress topic: see whether this user may write it",
        ),
    }
}

fn ask(log: &mut dyn ControlLog, follower: &mut Follower) -> Result<Timestamp, ControlError> {
    log.append(ControlTopic::Progress, Some(CLIENT), Some(b"{}"))?;
    follower.follow(log)?;
    let newest = follower.reports().newest();
    Ok(newest.expect("a record was appended and read back"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is examined is this machine's clock"
)]
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since_epoch.map_or(0, millis))
}

/// Judges the broker's time, which it gave between two instants of this machine.
fn judge(before: Timestamp, broker: Timestamp, after: Timestamp) -> Finding {
    let (behind, ahead) = (before.since(broker), broker.since(after));
    let (skew, word) = if behind > ahead {
        (behind, "behind")
    } else {
        (ahead, "ahead of")
    };
    if skew <= SKEW_MAX {
        return Finding::ok("clocks", "the broker and this machine agree");
    }
    Finding::warning(
        "clocks",
        format!("the broker's clock is {} {word} this machine's", span(skew)),
        "see to NTP on both: records are dated by their producers, and deleted by those dates",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn clocks_agree_within_the_time_that_asking_took_and_two_seconds() {
        let check = |broker, level, words| {
            let found = judge(Timestamp(100_000), Timestamp(broker), Timestamp(101_000));
            assert_eq!(found.level, level, "{broker}: {found}");
            assert!(found.what.contains(words), "{broker}: {found}");
        };
        check(98_000, Level::Ok, "agree");
        check(103_000, Level::Ok, "agree");
        check(90_000, Level::Warning, "10s behind");
        check(106_000, Level::Warning, "5s ahead of");
    }
}
