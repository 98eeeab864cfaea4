//! The topics that views send their poison to.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use materializer_model::definition::{CleanupPolicy, OnError};
use materializer_model::ports::{LogObserver, TopicFacts};
use materializer_model::{Topic, ViewDefinition, ViewName};

use super::Finding;
use crate::output::span;

/// Who looks at letters once a working day should find them after a weekend.
const KEPT_MIN: Duration = Duration::from_secs(3 * 86_400);

/// Looks at each view's dead-letter topic.
pub(super) fn examine(observer: &dyn LogObserver, definitions: &[ViewDefinition]) -> Vec<Finding> {
    let topics: BTreeMap<&Topic, &ViewName> = definitions.iter().filter_map(letters_to).collect();
    let look = |(topic, view): (&Topic, &ViewName)| {
        let facts = observer.fresh_facts(slice::from_ref(topic));
        match facts.as_deref() {
            Ok([facts, ..]) => judge(facts, view),
            Ok([]) => missing(topic, view, "the brokers say nothing of it"),
            Err(error) => missing(topic, view, &error.to_string()),
        }
    };
    topics.into_iter().map(look).collect()
}

fn letters_to(definition: &ViewDefinition) -> Option<(&Topic, &ViewName)> {
    match &definition.on_error {
        OnError::DeadLetter { topic, .. } => Some((topic, &definition.view)),
        OnError::Fail | OnError::Skip => None,
    }
}

fn missing(topic: &Topic, view: &ViewName, why: &str) -> Finding {
    Finding::fault(
        "topics",
        format!("`{topic}`, for the dead letters of `{view}`: {why}"),
        format!("kafka-topics --create --topic {topic} --config retention.ms=-1"),
    )
}

/// Judges a topic: pure, so that it can be held to a table.
fn judge(facts: &TopicFacts, view: &ViewName) -> Finding {
    let topic = &facts.topic;
    let alter =
        |config: &str| format!("kafka-configs --alter --topic {topic} --add-config {config}");
    if facts.policy.is_some_and(CleanupPolicy::compacts) {
        return Finding::warning(
            "topics",
            format!("`{topic}`: compaction keeps one dead letter of `{view}` a key"),
            alter("cleanup.policy=delete"),
        );
    }
    match facts.retention {
        Some(kept) if kept < KEPT_MIN => Finding::warning(
            "topics",
            format!(
                "`{topic}`: dead letters of `{view}` are deleted after {}",
                span(kept)
            ),
            alter("retention.ms=-1"),
        ),
        Some(kept) => Finding::ok(
            "topics",
            format!(
                "`{topic}`: dead letters of `{view}`, kept for {}",
                span(kept)
            ),
        ),
        None => Finding::ok("topics", format!("`{topic}`: dead letters of `{view}`")),
    }
}

#[cfg(test)]
mod tests {
    use materializer_model::TopicId;

    use super::super::Level;
    use super::*;

    #[test]
    fn dead_letters_are_to_be_found_after_a_weekend() {
        use CleanupPolicy::{Compact, Delete};
        let check = |policy, hours: Option<u64>, level, words| {
            let facts = TopicFacts {
                topic: Topic::new("letters"),
                id: TopicId("id".into()),
                partitions: 1,
                policy: Some(policy),
                retention: hours.map(|hours| Duration::from_secs(hours * 3_600)),
                retention_bytes: None,
                tombstone_retention: None,
            };
            let found = judge(&facts, &"products".parse().expect("a name"));
            assert_eq!(found.level, level, "{found}");
            assert!(found.what.contains(words), "{found}");
            assert_eq!(found.hint.is_some(), level != Level::Ok, "{found}");
        };
        check(Delete, None, Level::Ok, "dead letters of `products`");
        check(Delete, Some(168), Level::Ok, "kept for 7d 0h");
        check(Delete, Some(24), Level::Warning, "deleted after 1d 0h");
        check(
            Compact,
            None,
            Level::Warning,
            "one dead letter of `products` a key",
        );
    }
}
