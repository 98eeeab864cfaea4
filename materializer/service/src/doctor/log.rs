//! Brokers, control topics, and the topics that views are derived from.

use std::time::Duration;

use materializer_migrations::Follower;
use materializer_migrations::reports::FollowError;
use materializer_model::definition::CleanupPolicy;
use materializer_model::ports::{ControlError, ControlLog, LogObserver, TopicFacts};
use materializer_model::{Ends, Topic};

use super::Finding;
use crate::config::Config;

/// Looks at the control topics and reads them; an unreadable catalog is read as an empty one.
pub(super) fn control(log: &mut dyn ControlLog, config: &Config) -> (Follower, Vec<Finding>) {
    let mut follower = Follower::default();
    let identity = match log.identity() {
        Ok(Some(identity)) => identity,
        Ok(None) => {
            let finding = Finding::warning(
                "brokers",
                "there is no catalog yet",
                "`materializer run` (or `coordinator`) creates it",
            );
            return (follower, vec![finding]);
        }
        Err(error) => return (follower, vec![unreadable(&error, config)]),
    };
    let mut findings = vec![Finding::ok(
        "brokers",
        format!(
            "cluster `{}` at `{}`",
            identity.cluster, config.kafka.brokers
        ),
    )];
    let read = follower
        .follow(log)
        .map_err(FollowError::from)
        .and_then(|_| follower.check_identity(log));
    findings.push(match read {
        Ok(()) => {
            let events = follower.catalog().next();
            Finding::ok(
                "topics",
                format!("catalog, claims and progress; {events} events"),
            )
        }
        Err(FollowError::Log(error)) => unreadable(&error, config),
        Err(error @ (FollowError::Missing | FollowError::Foreign { .. })) => Finding::fault(
            "topics",
            error.to_string(),
            "`materializer catalog import FILE` brings a backup back, `materializer catalog adopt --reason …` binds it",
        ),
    });
    if let Some(newer) = follower.catalog().newer() {
        findings.push(Finding::fault(
            "topics",
            format!(
                "the event at offset {} is a newer release's: {}",
                newer.at, newer.why
            ),
            "use that release",
        ));
    }
    (follower, findings)
}

fn unreadable(error: &ControlError, config: &Config) -> Finding {
    let hint = match error {
        ControlError::Unavailable(_) | ControlError::Unknown(_) => format!(
            "is Kafka up at `{}`? `kafka.brokers` and `kafka.properties` say how it is reached",
            config.kafka.brokers
        ),
        ControlError::Refused(_) => {
            "set the topic as docs/operations.md says, or grant the permission".to_owned()
        }
        ControlError::Lost(_) => {
            "the topic was made anew or cut: restore it from `catalog export`".to_owned()
        }
    };
    Finding::fault("topics", error.to_string(), hint)
}

/// Looks at a topic that views are derived from.
pub(super) fn topic(observer: &dyn LogObserver, topic: &Topic) -> Vec<Finding> {
    let topics = std::slice::from_ref(topic);
    let facts = observer.fresh_facts(topics).and_then(|facts| {
        let earlier = observer.fresh_ends(topics)?;
        let ends = observer.fresh_ends(topics)?;
        Ok((facts, still_open(&earlier, (*ends).clone())))
    });
    match facts {
        Ok((facts, ends)) => facts.iter().flat_map(|facts| judge(facts, &ends)).collect(),
        Err(error) => vec![Finding::fault(
            "topics",
            format!("`{topic}`: {error}"),
            "name a topic that exists and that this user may read",
        )],
    }
}

/// Of two looks at the ends returns the later one, with the high watermarks of the earlier. A partition's
/// two ends are not told in one instant: under a writer a look may see the high watermark above the stable
/// offset with no transaction open, but then the next stable offset is past it.
fn still_open(earlier: &Ends, mut later: Ends) -> Ends {
    for (topic, ends) in &mut later.partitions {
        for (partition, end) in ends {
            if let Some(before) = earlier.get(topic, *partition) {
                end.high = before.high;
            }
        }
    }
    later
}

/// Judges a topic: pure, so that it can be held to a table.
fn judge(facts: &TopicFacts, ends: &Ends) -> Vec<Finding> {
    let topic = &facts.topic;
    let of_topic = ends.partitions.get(topic).into_iter().flatten();
    let mut findings = Vec::new();
    let mut records = 0;
    for (partition, end) in of_topic {
        records += end.stable.distance_from(end.start);
        if end.start.0 > 0 {
            findings.push(Finding::fault(
                "topics",
                format!(
                    "`{topic}`: the genesis is gone, partition {partition} begins at {}",
                    end.start
                ),
                "views are rebuilt from the whole log: restore it, or derive from a topic that is complete",
            ));
        }
        if end.high > end.stable {
            findings.push(Finding::warning(
                "topics",
                format!(
                    "`{topic}`: a transaction is open in partition {partition} at {}",
                    end.stable
                ),
                "if it stays so, find the producer and abort it: nothing behind it can be read",
            ));
        }
    }
    let compacts = facts.policy.is_some_and(CleanupPolicy::compacts);
    let deletes = facts
        .policy
        .is_some_and(|policy| policy != CleanupPolicy::Compact);
    if deletes && (facts.retention.is_some() || facts.retention_bytes.is_some()) {
        findings.push(Finding::warning(
            "topics",
            format!("`{topic}`: old records are deleted ({})", retention(facts)),
            format!(
                "kafka-configs --alter --topic {topic} --add-config retention.ms=-1,retention.bytes=-1"
            ),
        ));
    }
    if compacts
        && facts
            .tombstone_retention
            .is_some_and(|kept| kept < Duration::from_secs(86_400))
    {
        findings.push(Finding::warning(
            "topics",
            format!("`{topic}`: tombstones are kept for less than a day"),
            "a version that stands still for longer must be built anew: raise delete.retention.ms",
        ));
    }
    if findings.is_empty() {
        let partitions = facts.partitions;
        findings.push(Finding::ok(
            "topics",
            format!("`{topic}`: {partitions} partitions, about {records} records from offset 0"),
        ));
    }
    findings
}

fn retention(facts: &TopicFacts) -> String {
    let time = facts
        .retention
        .map(|span| format!("after {} h", span.as_secs() / 3_600));
    let bytes = facts
        .retention_bytes
        .map(|bytes| format!("above {bytes} bytes"));
    [time, bytes]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use materializer_model::{End, Monotonic, Offset, Partition, TopicId};

    use super::super::Level;
    use super::*;

    fn facts(policy: CleanupPolicy, retention: Option<u64>) -> TopicFacts {
        TopicFacts {
            topic: Topic::new("t"),
            id: TopicId("id".into()),
            partitions: 1,
            policy: Some(policy),
            retention: retention.map(Duration::from_secs),
            retention_bytes: None,
            tombstone_retention: Some(Duration::from_secs(86_400)),
        }
    }

    fn ends(start: u64, stable: u64, high: u64) -> Ends {
        let end = End {
            start: Offset(start),
            stable: Offset(stable),
            high: Offset(high),
            epoch: None,
            asked: Monotonic::default(),
        };
        let partitions = BTreeMap::from([(Partition(0), end)]);
        Ends {
            partitions: BTreeMap::from([(Topic::new("t"), partitions)]),
            fault: None,
        }
    }

    #[test]
    fn a_writer_between_two_requests_is_no_open_transaction() {
        let check = |earlier: Ends, later: Ends, expected: Level| {
            let ends = still_open(&earlier, later);
            let found = judge(&facts(CleanupPolicy::Delete, None), &ends);
            let level = found.first().map(|finding| finding.level);
            assert_eq!(level, Some(expected), "{found:?}");
        };
        check(ends(0, 5, 9), ends(0, 12, 14), Level::Ok);
        check(ends(0, 5, 9), ends(0, 5, 14), Level::Warning);
    }

    #[test]
    fn each_fault_of_a_topic_is_told_with_what_to_do() {
        use CleanupPolicy::{Compact, Delete};
        let check = |facts: TopicFacts, ends: Ends, expected: &[(Level, &str)]| {
            let found = judge(&facts, &ends);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (finding, (level, words)) in found.iter().zip(expected) {
                assert_eq!(finding.level, *level, "{finding}");
                assert!(finding.what.contains(words), "{finding}");
                assert_eq!(finding.hint.is_some(), *level != Level::Ok, "{finding}");
            }
        };
        check(
            facts(Delete, None),
            ends(0, 9, 9),
            &[(Level::Ok, "9 records")],
        );
        check(
            facts(Compact, Some(60)),
            ends(0, 9, 9),
            &[(Level::Ok, "1 partitions")],
        );
        check(
            facts(Delete, Some(7_200)),
            ends(3, 9, 9),
            &[(Level::Fault, "begins at 3"), (Level::Warning, "after 2 h")],
        );
        check(
            facts(Delete, None),
            ends(0, 5, 9),
            &[(Level::Warning, "transaction is open")],
        );
    }
}
