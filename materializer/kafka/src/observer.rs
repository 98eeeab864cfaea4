//! What is known of the log's ends and topics: one thread a process asks for all units.
//!
//! Ends come from the partitions' leaders by `ListOffsets`, never from a cache: the last stable offset
//! at `read_committed`, the high watermark at `read_uncommitted`. A partition or topic that did not
//! answer keeps its older answer with that answer's age; one that never answered is missing.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use materializer_model::ports::{Facts, LogError, LogObserver, TopicAnswer, TopicFacts};
use materializer_model::{Clock, End, Ends, LeaderEpoch, Monotonic, Offset, Partition, Topic};
use rdkafka::client::Client;

use crate::admin::Admin;
use crate::client::{Cluster, KafkaSettings, REQUEST};
use crate::errors::{Watch, kafka_error, log_error};
use crate::ffi::{self, OffsetOf};
use crate::topics::{Each, add_settings, describe};

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

/// How often a topic's facts are asked for.
const FACTS_EVERY: Duration = Duration::from_secs(10);
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
    clients: Mutex<Clients>,
    watched: Mutex<BTreeMap<Topic, Pace>>,
    ends: Mutex<Arc<Ends>>,
    facts: Mutex<Arc<Facts>>,
}

/// Who asks: librdkafka's safe binding gives topics' settings to a client of their own only.
struct Clients {
    client: Client<Watch>,
    admin: Admin,
}

impl Clients {
    fn open(settings: &KafkaSettings) -> Result<Self, LogError> {
        Ok(Self {
            client: settings.asking()?,
            admin: Admin::open(settings)?,
        })
    }
}

/// When each topic was asked for last.
#[derive(Default)]
struct Rounds(BTreeMap<Topic, Monotonic>);

impl Rounds {
    /// Returns the topics that are due, and takes them for asked.
    fn due(
        &mut self,
        watched: &BTreeMap<Topic, Pace>,
        now: Monotonic,
        period: impl Fn(Pace) -> Duration,
    ) -> Vec<Topic> {
        self.0.retain(|topic, _| watched.contains_key(topic));
        let mut due = Vec::new();
        for (topic, pace) in watched {
            // Half a tick early rather than half a tick late.
            let is_fresh = |at: &Monotonic| now.since(*at) + TICK / 2 < period(*pace);
            if !self.0.get(topic).is_some_and(is_fresh) {
                self.0.insert(topic.clone(), now);
                due.push(topic.clone());
            }
        }
        due
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer {
    /// Opens the clients and starts the thread `kafka-observer`, which ends when this is dropped.
    ///
    /// # Errors
    /// [`LogError::Refused`] where librdkafka does not take a property.
    pub fn start(settings: &KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let shared = Arc::new(Shared {
            clients: Mutex::new(Clients::open(settings)?),
            settings: settings.clone(),
            clock,
            watched: Mutex::default(),
            ends: Mutex::default(),
            facts: Mutex::default(),
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

    /// Replaces the topics whose ends and facts are kept fresh. Those of others are forgotten.
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
        let (mut ends, mut facts) = (Rounds::default(), Rounds::default());
        loop {
            match woken.recv_timeout(TICK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let watched = lock(&self.watched).clone();
            let now = self.clock.monotonic();
            let due = ends.due(&watched, now, Pace::period);
            if let Err(error) = self.refresh(&due, Some(&watched)) {
                tracing::debug!(%error, "the log's ends are unknown for the moment");
            }
            let due = facts.due(&watched, now, |_| FACTS_EVERY);
            if let Err(error) = self.refresh_facts(&due, &watched) {
                tracing::debug!(%error, "topics cannot be compared for the moment");
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
        let cluster = self.settings.cluster();
        let outcome = self.ask(|clients| list_ends(&clients.client, cluster, topics, asked));
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

    /// Asks for the facts of `topics`; forgets those of topics that are not watched.
    fn refresh_facts(
        &self,
        topics: &[Topic],
        watched: &BTreeMap<Topic, Pace>,
    ) -> Result<(), LogError> {
        let asked = self.clock.monotonic();
        let outcome = self.ask_facts(topics);
        let mut known = lock(&self.facts);
        let mut next = Facts::clone(&known);
        next.retain(|topic, _| watched.contains_key(topic));
        let outcome = outcome.map(|each| {
            for (topic, facts) in topics.iter().zip(each) {
                if !matches!(facts, Err(LogError::Unavailable(_))) {
                    next.insert(topic.clone(), TopicAnswer { asked, facts });
                }
            }
        });
        *known = Arc::new(next);
        outcome
    }

    fn ask_facts(&self, topics: &[Topic]) -> Result<Each<TopicFacts>, LogError> {
        let cluster = self.settings.cluster();
        self.ask(|Clients { client, admin }| {
            let mut facts = describe(client, cluster, topics)?;
            match cluster {
                Cluster::Mock => {}
                Cluster::Production | Cluster::Dev => add_settings(admin, &mut facts)?,
            }
            Ok(facts)
        })
    }

    /// Asks something; after an error the next question is put to fresh clients, since librdkafka
    /// sends such requests to one broker that it remembers, also when that one is gone.
    fn ask<T>(&self, ask: impl FnOnce(&Clients) -> Result<T, LogError>) -> Result<T, LogError> {
        let mut clients = lock(&self.clients);
        let answer = ask(&clients);
        if answer.is_err() {
            *clients = Clients::open(&self.settings)?;
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
    let mut fault = None;
    for facts in describe(client, cluster, topics)? {
        match facts {
            Ok(TopicFacts {
                topic,
                partitions: count,
                ..
            }) => partitions.extend((0..count).map(|partition| (topic.to_string(), partition))),
            Err(error) => fault = Some(error.to_string()),
        }
    }
    let mut list = |which| -> Result<BTreeMap<_, (Offset, Option<LeaderEpoch>)>, LogError> {
        let listed = ffi::list_offsets(client, partitions.iter().cloned(), which, REQUEST)
            .map_err(|error| kafka_error(client.context(), &error, "ask for ends"))?;
        let mut offsets = BTreeMap::new();
        for entry in listed {
            match entry.offset {
                Ok(offset) => {
                    let offset = Offset(u64::try_from(offset).unwrap_or(0));
                    let epoch = entry.epoch.map(LeaderEpoch);
                    offsets.insert((entry.topic, entry.partition), (offset, epoch));
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
    for (at, (stable, epoch)) in stable {
        if let (Some((high, _)), Some((start, _))) = (high.get(&at), start.get(&at)) {
            let end = End {
                start: *start,
                stable,
                high: (*high).max(stable),
                epoch,
                asked,
            };
            let topic = ends.partitions.entry(Topic::new(&at.0)).or_default();
            topic.insert(Partition(at.1), end);
        }
    }
    Ok(ends)
}

impl LogObserver for Observer {
    fn ends(&self) -> Arc<Ends> {
        Arc::clone(&lock(&self.shared.ends))
    }

    fn fresh_ends(&self, topics: &[Topic]) -> Result<Arc<Ends>, LogError> {
        self.shared.refresh(topics, None)
    }

    fn facts(&self) -> Arc<Facts> {
        Arc::clone(&lock(&self.shared.facts))
    }

    fn fresh_facts(&self, topics: &[Topic]) -> Result<Vec<TopicFacts>, LogError> {
        self.shared.ask_facts(topics)?.into_iter().collect()
    }
}
