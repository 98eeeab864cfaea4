//! Observing a real log: what one observer knows of ends and topics.

use std::collections::BTreeMap;

use materializer_kafka::Pace;
use materializer_model::definition::CleanupPolicy;
use materializer_model::ports::{LogError, LogObserver, TopicAnswer};
use materializer_model::{Partition, Topic};
use rdkafka::admin::{AdminOptions, NewPartitions};

use crate::kafka_scene::Scene;
use chaos::installation::wait_until;

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn the_observer_notices_new_partitions_and_an_unknown_topic() {
    let scene = Scene::new("growth", 1, &[]);
    let observer = scene.observer();
    observer.watch(BTreeMap::from([(scene.topic.clone(), Pace::Tailing)]));
    let wait_for = |partition| {
        wait_until("the end of a partition", || {
            let ends = observer.ends();
            ends.get(&scene.topic, Partition(partition)).is_some()
        });
    };
    wait_for(0);
    let more = NewPartitions::new(scene.topic.as_str(), 3);
    let grown = scene.admin.create_partitions([&more], &AdminOptions::new());
    scene.runtime.block_on(grown).expect("grown")[0]
        .as_ref()
        .expect("grown");
    wait_for(2);
    let facts = observer
        .fresh_facts(std::slice::from_ref(&scene.topic))
        .expect("facts");
    assert_eq!(facts[0].partitions, 3);
    let error = observer
        .fresh_facts(&[Topic::new("no-such-topic")])
        .unwrap_err();
    assert!(matches!(error, LogError::Refused(_)), "{error:?}");
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn the_observer_tells_changed_settings_and_a_topic_that_is_gone_without_being_asked() {
    let scene = Scene::new("facts", 1, &[("cleanup.policy", "delete")]);
    let other = Scene::new("facts-other", 1, &[]);
    let observer = scene.observer();
    let topics = [&scene.topic, &other.topic].map(|topic| (topic.clone(), Pace::Tailing));
    observer.watch(BTreeMap::from(topics));
    let wait_for = |topic: &Topic, holds: &dyn Fn(&TopicAnswer) -> bool| {
        let mut asked = None;
        wait_until("the observer tells it", || {
            let known = observer.facts();
            asked = known
                .get(topic)
                .filter(|answer| holds(answer))
                .map(|answer| answer.asked);
            asked.is_some()
        });
        asked.expect("waited for above")
    };
    let policy = |answer: &TopicAnswer| answer.facts.as_ref().ok().and_then(|facts| facts.policy);
    let first = wait_for(&scene.topic, &|answer| {
        policy(answer) == Some(CleanupPolicy::Delete)
    });
    wait_for(&other.topic, &|answer| answer.facts.is_ok());

    scene.alter("cleanup.policy", "compact");
    other.delete();
    let later = wait_for(&scene.topic, &|answer| {
        policy(answer) == Some(CleanupPolicy::Compact)
    });
    assert!(later > first, "{later:?} {first:?}");
    wait_for(&other.topic, &|answer| {
        matches!(answer.facts, Err(LogError::Refused(_)))
    });
    let (topic, partition) = (&scene.topic, Partition(0));
    wait_until("the ends of the other stay fresh", || {
        let ends = observer.ends();
        ends.get(topic, partition)
            .is_some_and(|end| end.asked > later)
    });
}
