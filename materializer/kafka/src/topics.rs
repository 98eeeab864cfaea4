//! What the broker says of topics: id and partitions from one request, settings from another. A topic
//! that is missing or forbidden spoils the answer of no other.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::definition::CleanupPolicy;
use materializer_model::ports::{LogError, TopicFacts};
use materializer_model::{Topic, TopicId};
use rdkafka::client::Client;

use crate::admin::Admin;
use crate::client::{Cluster, REQUEST, shape};
use crate::errors::{Watch, kafka_error, log_error};
use crate::ffi;

/// An answer for each topic, in the order asked for.
pub(crate) type Each<T> = Vec<Result<T, LogError>>;

/// Returns what is known of each topic without its settings.
pub(crate) fn describe(
    client: &Client<Watch>,
    cluster: Cluster,
    topics: &[Topic],
) -> Result<Each<TopicFacts>, LogError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let bare = |topic: &str, id: String, partitions| TopicFacts {
        topic: Topic::new(topic),
        id: TopicId(id),
        partitions,
        policy: None,
        retention: None,
        retention_bytes: None,
        tombstone_retention: None,
    };
    if cluster == Cluster::Mock {
        // It does not answer this request, and none of its topics is ever made anew.
        let facts = topics.iter().map(|topic| {
            let partitions = shape(client, topic)?.partitions.len();
            let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
            Ok(bare(topic.as_str(), format!("mock:{topic}"), partitions))
        });
        return Ok(facts.collect());
    }
    let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    let described = ffi::describe_topics(client, &names, REQUEST)
        .map_err(|error| kafka_error(client.context(), &error, "ask for topics"))?;
    let mut found = BTreeMap::new();
    for entry in described {
        let facts = match entry.described {
            Ok((id, partitions)) => Ok(bare(&entry.topic, id, partitions)),
            Err(code) => {
                let what = format!("topic `{}`", entry.topic);
                Err(log_error(client.context(), code, &what))
            }
        };
        found.insert(entry.topic, facts);
    }
    let missing = |topic: &Topic| LogError::Unavailable(format!("topic `{topic}`: no answer"));
    let facts = topics.iter().map(|topic| {
        let answer = found.remove(topic.as_str());
        answer.unwrap_or_else(|| Err(missing(topic)))
    });
    Ok(facts.collect())
}

/// Adds the settings of those topics that are there.
pub(crate) fn add_settings(admin: &Admin, facts: &mut Each<TopicFacts>) -> Result<(), LogError> {
    let topics: Vec<Topic> = facts.iter().flatten().map(|f| f.topic.clone()).collect();
    if topics.is_empty() {
        return Ok(());
    }
    let mut settings = admin.settings(&topics)?.into_iter();
    for answer in facts.iter_mut() {
        let Ok(topic) = answer else {
            continue;
        };
        match settings.next().expect("one for each topic that is there") {
            Ok(settings) => take_settings(topic, &settings),
            Err(error) => *answer = Err(error),
        }
    }
    Ok(())
}

fn take_settings(facts: &mut TopicFacts, settings: &BTreeMap<String, String>) {
    let millis = |name| number(settings, name).map(Duration::from_millis);
    facts.policy = settings.get("cleanup.policy").and_then(|text| policy(text));
    facts.retention = millis("retention.ms");
    facts.retention_bytes = number(settings, "retention.bytes");
    facts.tombstone_retention = millis("delete.retention.ms");
}

/// Reads a setting; a negative one is unlimited.
fn number(settings: &BTreeMap<String, String>, name: &str) -> Option<u64> {
    settings.get(name)?.parse().ok()
}

fn policy(text: &str) -> Option<CleanupPolicy> {
    match (text.contains("compact"), text.contains("delete")) {
        (true, true) => Some(CleanupPolicy::CompactDelete),
        (true, false) => Some(CleanupPolicy::Compact),
        (false, true) => Some(CleanupPolicy::Delete),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_in_either_order() {
        for (text, expected) in [
            ("compact", Some(CleanupPolicy::Compact)),
            ("delete", Some(CleanupPolicy::Delete)),
            ("delete,compact", Some(CleanupPolicy::CompactDelete)),
            ("compact,delete", Some(CleanupPolicy::CompactDelete)),
            ("", None),
        ] {
            assert_eq!(policy(text), expected, "{text}");
        }
    }

    #[test]
    fn a_negative_setting_is_unlimited() {
        let settings = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        assert_eq!(number(&settings, "retention.ms"), None);
        assert_eq!(number(&settings, "retention.bytes"), None);
    }
}
