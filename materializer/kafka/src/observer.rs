//! What is known of the log's ends and topics: one client and one thread a process.
//!
//! Ends come from the partitions' leaders by `ListOffsets`, never from a cache: the last stable offset
//! at `read_committed`, the high watermark at `read_uncommitted`. A partition that did not answer
//! keeps its older end with that end's age; one that never answered is missing.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use materializer_model::definition::CleanupPolicy;
use materializer_model::ports::{LogError, LogObserver, TopicFacts};
use materializer_model::{Clock, End, Ends, Monotonic, Offset, Partition, Topic, TopicId};
use rdkafka::client::Client;

use crate::admin::Admin;
use crate::client::{Cluster, KafkaSettings, REQUEST, shape};
use crate::errors::{Watch, kafka_error, log_error};
use crate::ffi::{self, OffsetOf};

/// How often a topic's ends are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Every second.
    Tailing,
    /// Every five seconds.
    Building,
}

impl Pace {
    fn period(self) -> Duration {
        match self {
            Self::Tailing => Duration::from_secs(1),
            Self::Building => Duration::from_secs(5),
        }
    }
}

/// How often the thread looks whether a topic is due.
const TICK: Duration = Duration::from_secs(1);

/// The one observer of a process.
pub struct Observer {
    shared: Arc<Shared>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    settings: KafkaSettings,
    clock: Arc<dyn Clock>,
    client: Mutex<Client<Watch>>,
    watched: Mutex<BTreeMap<Topic, Pace>>,
    ends: Mutex<Arc<Ends>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer {
    /// Opens the client and starts the thread `kafka-observer`, which ends when this is dropped.
    ///
    /// # Errors
    /// [`LogError::Refused`] where librdkafka does not take a property.
    pub fn start(settings: &KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let shared = Arc::new(Shared {
            client: Mutex::new(settings.asking()?),
            settings: settings.clone(),
            clock,
            watched: Mutex::default(),
            ends: Mutex::default(),
        });
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("kafka-observer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(&woken)
            })
            .map_err(|error| LogError::Unavailable(format!("start a thread: {error}")))?;
        Ok(Self {
            shared,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Replaces the topics whose ends are kept fresh. The ends of others are forgotten.
    pub fn watch(&self, topics: BTreeMap<Topic, Pace>) {
        let mut watched = lock(&self.shared.watched);
        if *watched == topics {
            return;
        }
        *watched = topics;
        drop(watched);
        if let Some(wake) = &self.wake {
            match wake.try_send(()) {
                // Full: the thread is about to look anyway.
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread `kafka-observer` has panicked");
        }
    }
}

impl Shared {
    fn run(&self, woken: &Receiver<()>) {
        let mut asked: BTreeMap<Topic, Monotonic> = BTreeMap::new();
        loop {
            match woken.recv_timeout(TICK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let watched = lock(&self.watched).clone();
            asked.retain(|topic, _| watched.contains_key(topic));
            let now = self.clock.monotonic();
            // Half a tick early rather than half a tick late.
            let due = |topic: &Topic, pace: Pace| {
                asked
                    .get(topic)
                    .is_none_or(|at| now.since(*at) + TICK / 2 >= pace.period())
            };
            let topics: Vec<Topic> = watched
                .iter()
                .filter(|(topic, pace)| due(topic, **pace))
                .map(|(topic, _)| topic.clone())
                .collect();
            for topic in &topics {
                asked.insert(topic.clone(), now);
            }
            if let Err(error) = self.refresh(&topics, Some(&watched)) {
                tracing::debug!(%error, "the log's ends are unknown for the moment");
            }
        }
    }

    /// Asks for the ends of `topics`; with `watched`, forgets all others.
    fn refresh(
        &self,
        topics: &[Topic],
        watched: Option<&BTreeMap<Topic, Pace>>,
    ) -> Result<Arc<Ends>, LogError> {
        let asked = self.clock.monotonic();
        let outcome =
            self.with_client(|client| list_ends(client, self.settings.cluster(), topics, asked));
        let mut ends = lock(&self.ends);
        let mut next = Ends::clone(&ends);
        if let Some(watched) = watched {
            next.partitions
                .retain(|topic, _| watched.contains_key(topic));
        }
        let result = match outcome {
            Ok(fresh) => {
                next.fault = fresh.fault.clone();
                for (topic, partitions) in fresh.partitions {
                    next.partitions.entry(topic).or_default().extend(partitions);
                }
                match fresh.fault {
                    Some(why) => Err(LogError::Unavailable(why)),
                    None => Ok(()),
                }
            }
            Err(error) => {
                next.fault = Some(error.to_string());
                Err(error)
            }
        };
        *ends = Arc::new(next);
        result.map(|()| Arc::clone(&ends))
    }

    /// Asks something; after an error the next question is put to a fresh client, since librdkafka
    /// sends such requests to one broker that it remembers, also when that one is gone.
    fn with_client<T>(
        &self,
        ask: impl FnOnce(&Client<Watch>) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut client = lock(&self.client);
        let answer = ask(&client);
        if answer.is_err() {
            *client = self.settings.asking()?;
        }
        answer
    }
}

fn list_ends(
    client: &Client<Watch>,
    cluster: Cluster,
    topics: &[Topic],
    asked: Monotonic,
) -> Result<Ends, LogError> {
    let mut partitions = Vec::new();
    for facts in describe(client, cluster, topics)? {
        let topic = facts.topic.as_str();
        partitions.extend((0..facts.partitions).map(|partition| (topic.to_owned(), partition)));
    }
    let mut fault = None;
    let mut list = |which| -> Result<BTreeMap<(String, i32), Offset>, LogError> {
        let listed = ffi::list_offsets(client, partitions.iter().cloned(), which, REQUEST)
            .map_err(|error| kafka_error(client.context(), &error, "ask for ends"))?;
        let mut offsets = BTreeMap::new();
        for entry in listed {
            match entry.offset {
                Ok(offset) => {
                    let offset = Offset(u64::try_from(offset).unwrap_or(0));
                    offsets.insert((entry.topic, entry.partition), offset);
                }
                Err(code) => {
                    let at = format!("{}/{}", entry.topic, entry.partition);
                    fault = Some(log_error(client.context(), code, &at).to_string());
                }
            }
        }
        Ok(offsets)
    };
    // In this order a transaction that ends meanwhile shows less stable, never more than there was.
    let stable = list(OffsetOf::Stable)?;
    let high = list(OffsetOf::High)?;
    let start = list(OffsetOf::Start)?;
    let mut ends = Ends {
        partitions: BTreeMap::new(),
        fault,
    };
    for (at, stable) in stable {
        if let (Some(high), Some(start)) = (high.get(&at), start.get(&at)) {
            let end = End {
                start: *start,
                stable,
                high: (*high).max(stable),
                asked,
            };
            let topic = ends.partitions.entry(Topic::new(&at.0)).or_default();
            topic.insert(Partition(at.1), end);
        }
    }
    Ok(ends)
}

/// Returns what is known of each topic without its settings, in the order asked for.
pub(crate) fn describe(
    client: &Client<Watch>,
    cluster: Cluster,
    topics: &[Topic],
) -> Result<Vec<TopicFacts>, LogError> {
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
        return facts.collect();
    }
    let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    let described = ffi::describe_topics(client, &names, REQUEST)
        .map_err(|error| kafka_error(client.context(), &error, "ask for topics"))?;
    let mut found = BTreeMap::new();
    for entry in described {
        let (id, partitions) = entry.described.map_err(|code| {
            log_error(client.context(), code, &format!("topic `{}`", entry.topic))
        })?;
        let facts = bare(&entry.topic, id, partitions);
        found.insert(entry.topic, facts);
    }
    let missing = |topic: &Topic| LogError::Unavailable(format!("topic `{topic}`: no answer"));
    topics
        .iter()
        .map(|topic| found.remove(topic.as_str()).ok_or_else(|| missing(topic)))
        .collect()
}

impl LogObserver for Observer {
    fn ends(&self) -> Arc<Ends> {
        Arc::clone(&lock(&self.shared.ends))
    }

    fn fresh_ends(&self, topics: &[Topic]) -> Result<Arc<Ends>, LogError> {
        self.shared.refresh(topics, None)
    }

    fn facts(&self, topics: &[Topic]) -> Result<Vec<TopicFacts>, LogError> {
        let shared = &self.shared;
        let mut facts =
            shared.with_client(|client| describe(client, shared.settings.cluster(), topics))?;
        match shared.settings.cluster() {
            Cluster::Mock => {}
            Cluster::Production | Cluster::Dev => {
                let settings = Admin::open(&shared.settings)?.settings(topics)?;
                for (topic, settings) in facts.iter_mut().zip(settings) {
                    let millis = |name| number(&settings, name).map(Duration::from_millis);
                    topic.policy = settings.get("cleanup.policy").and_then(|text| policy(text));
                    topic.retention = millis("retention.ms");
                    topic.retention_bytes = number(&settings, "retention.bytes");
                    topic.tombstone_retention = millis("delete.retention.ms");
                }
            }
        }
        Ok(facts)
    }
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
