//! The catalog with its claims and progress: three topics of one partition each.
//!
//! They are made on purpose, and their settings are checked before anything is read or written: a
//! catalog that retention could shorten is none. A read fetches the end first and goes up to it;
//! appends tell their offset, or that the outcome is unknown.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use materializer_model::ports::{
    Assignment, ControlError, ControlIdentity, ControlLog, ControlRecord, ControlTopic, LogError,
    LogReader as _,
};
use materializer_model::{Installation, LogRow, Offset, Partition, RowBatch, Timestamp, Topic};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use crate::admin::Admin;
use crate::client::{Cluster, KafkaSettings, REQUEST, TopicShape, find};
use crate::errors::{Watch, control_error, kafka_error, log_error};
use crate::ffi;
use crate::lane::{Lane, Profile};
use crate::produce::{Outgoing, Producer};
use crate::topics::describe;

/// Returns a control topic's name: `<installation>.materializer.<catalog|claims|progress>`.
#[must_use]
pub fn control_topic(installation: &Installation, which: ControlTopic) -> Topic {
    Topic::new(&format!("{installation}.materializer.{}", which.as_str()))
}

/// How long a read waits for the next row before it gives up; the broker has said that there is one.
const NEXT_ROW: Duration = Duration::from_secs(5);

/// How often what a cluster does not know yet is asked for again, and how long we rest in between.
const ASKS: u32 = 20;
const REST: Duration = Duration::from_millis(100);

/// Asks until the answer is one that settles it, [`ASKS`] times at most; returns the last answer.
fn ask_again<T>(ask: impl Fn() -> T, is_unsettled: impl Fn(&T) -> bool) -> T {
    for _ in 1..ASKS {
        let answer = ask();
        if !is_unsettled(&answer) {
            return answer;
        }
        thread::sleep(REST);
    }
    ask()
}

/// The replicas of a production catalog.
const REPLICAS: i32 = 3;

/// The control topics on Kafka.
pub struct KafkaControlLog {
    pub(crate) settings: KafkaSettings,
    topics: BTreeMap<ControlTopic, Topic>,
    client: Client<Watch>,
    lane: Option<Lane>,
    pub(crate) producer: Producer,
    rows: RowBatch,
}

/// A setting that a control topic must have.
pub(crate) struct Required {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
    pub(crate) why: &'static str,
}

/// Returns what a topic is made with and what is checked of it.
pub(crate) fn required(which: ControlTopic, cluster: Cluster) -> Vec<Required> {
    let of = |name, value, why| Required { name, value, why };
    let mut all = match which {
        ControlTopic::Catalog => vec![of("cleanup.policy", "delete", "every event must stay")],
        ControlTopic::Claims | ControlTopic::Progress => vec![
            of(
                "cleanup.policy",
                "compact",
                "the newest record of each unit must stay",
            ),
            // By default a segment is compacted after a week or a gigabyte of reports.
            of(
                "max.compaction.lag.ms",
                "600000",
                "every process and verb reads the topic from its beginning",
            ),
        ],
    };
    all.push(of("retention.ms", "-1", "nothing may be deleted by age"));
    all.push(of(
        "retention.bytes",
        "-1",
        "nothing may be deleted by size",
    ));
    if cluster == Cluster::Production {
        let time = "soak and expiry are counted in the broker's time";
        all.push(of("message.timestamp.type", "LogAppendTime", time));
        all.push(of(
            "min.insync.replicas",
            "2",
            "an acknowledged event must survive a broker",
        ));
        let unclean = "an acknowledged event must survive an election";
        all.push(of("unclean.leader.election.enable", "false", unclean));
    }
    all
}

impl KafkaControlLog {
    /// Takes the settings; connects with the first call.
    ///
    /// # Errors
    /// [`ControlError::Refused`] where librdkafka does not take a property.
    pub fn open(
        settings: &KafkaSettings,
        installation: &Installation,
    ) -> Result<Self, ControlError> {
        let topics = ControlTopic::ALL.map(|which| (which, control_topic(installation, which)));
        Ok(Self {
            settings: settings.clone(),
            topics: BTreeMap::from(topics),
            client: settings.asking().map_err(control_error)?,
            lane: None,
            producer: Producer::new(settings),
            rows: RowBatch::default(),
        })
    }

    pub(crate) fn topic(&self, which: ControlTopic) -> &Topic {
        self.topics
            .get(&which)
            .expect("all three were named at the start")
    }

    /// Makes the topics that are missing, with the given settings.
    pub(crate) fn make_missing(
        &self,
        settings: impl Fn(ControlTopic) -> Vec<Required>,
    ) -> Result<(), ControlError> {
        let shapes = self.shapes()?;
        let cluster = self.settings.cluster();
        let replicas = if cluster == Cluster::Production {
            REPLICAS
        } else {
            1
        };
        let missing: Vec<_> = ControlTopic::ALL
            .into_iter()
            .filter(|which| !shapes.contains_key(which))
            .collect();
        if !missing.is_empty() && cluster == Cluster::Mock {
            let why = "a mock broker's control topics are made before it is used".to_owned();
            return Err(ControlError::Refused(why));
        }
        for which in missing {
            let settings = settings(which);
            let settings: Vec<_> = settings.iter().map(|it| (it.name, it.value)).collect();
            Admin::open(&self.settings)
                .and_then(|admin| admin.create(self.topic(which), 1, replicas, &settings))
                .map_err(control_error)?;
        }
        Ok(())
    }

    /// Returns the shape of each topic that exists.
    fn shapes(&self) -> Result<BTreeMap<ControlTopic, TopicShape>, ControlError> {
        let mut shapes = BTreeMap::new();
        for (which, topic) in &self.topics {
            if let Some(found) = find(&self.client, topic).map_err(control_error)? {
                shapes.insert(*which, found);
            }
        }
        Ok(shapes)
    }

    /// Returns the shapes of all topics that exist. Where only some of them do, the others are perhaps being
    /// made, or a broker has not heard of them yet: they are looked for again.
    fn settled_shapes(&self) -> Result<BTreeMap<ControlTopic, TopicShape>, ControlError> {
        let all = self.topics.len();
        ask_again(
            || self.shapes(),
            |shapes| {
                let found = shapes.as_ref().map(BTreeMap::len);
                found.is_ok_and(|found| 0 < found && found < all)
            },
        )
    }

    /// Asks for the first offset and the end of a topic. A leader that was just elected does not know its end
    /// for a moment and says so (`OFFSET_NOT_AVAILABLE`, KIP-207): it is asked again.
    fn ask_ends(&self, topic: &Topic) -> KafkaResult<(i64, i64)> {
        ask_again(
            || self.client.fetch_watermarks(topic.as_str(), 0, REQUEST),
            |ends| {
                let code = ends.as_ref().err().and_then(KafkaError::rdkafka_error_code);
                code == Some(RDKafkaErrorCode::OffsetNotAvailable)
            },
        )
    }

    fn check(&self, shapes: &BTreeMap<ControlTopic, TopicShape>) -> Result<(), ControlError> {
        let mut faults = Vec::new();
        let cluster = self.settings.cluster();
        let settings = match cluster {
            Cluster::Mock => vec![BTreeMap::new(); self.topics.len()],
            Cluster::Production | Cluster::Dev => {
                let topics: Vec<Topic> = self.topics.values().cloned().collect();
                Admin::open(&self.settings)
                    .and_then(|admin| admin.settings(&topics)?.into_iter().collect())
                    .map_err(control_error)?
            }
        };
        for ((which, topic), settings) in self.topics.iter().zip(settings) {
            let shape = shapes
                .get(which)
                .expect("all three exist, checked by the caller");
            let partitions = shape.partitions.len();
            if partitions != 1 {
                faults.push(format!(
                    "`{topic}` has {partitions} partitions, must have 1"
                ));
            }
            let replicas = shape.replicas_min;
            if cluster == Cluster::Production && replicas < REPLICAS {
                faults.push(format!(
                    "`{topic}` has {replicas} replicas, must have {REPLICAS} (or set `dev: true`)"
                ));
            }
            if cluster == Cluster::Mock {
                continue;
            }
            for Required { name, value, why } in required(*which, cluster) {
                let found = settings.get(name).map_or("unknown", String::as_str);
                if found != value {
                    faults.push(format!(
                        "`{topic}` has {name}={found}, must be {value}: {why}"
                    ));
                }
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ControlError::Refused(faults.join("; ")))
        }
    }

    fn describe(&self) -> Result<ControlIdentity, ControlError> {
        let Some(cluster) = self.client.fetch_cluster_id(REQUEST) else {
            let why = "ask for the cluster's id: no answer in time".to_owned();
            return Err(ControlError::Unavailable(why));
        };
        let topics: Vec<Topic> = ControlTopic::ALL
            .iter()
            .map(|which| self.topic(*which).clone())
            .collect();
        let described: Vec<_> = describe(&self.client, self.settings.cluster(), &topics)
            .and_then(|each| each.into_iter().collect())
            .map_err(control_error)?;
        let mut ids = described.into_iter().map(|facts| facts.id);
        let mut next = || ids.next().expect("one answer for each topic");
        Ok(ControlIdentity {
            cluster,
            catalog: next(),
            claims: next(),
            progress: next(),
        })
    }

    /// Reads `from..end` of a topic into `out`.
    fn fetch(
        &mut self,
        topic: &Topic,
        from: Offset,
        end: Offset,
        out: &mut Vec<ControlRecord>,
    ) -> Result<(), LogError> {
        let lane = match &mut self.lane {
            Some(lane) => lane,
            empty => {
                let group = format!("{topic}.reader");
                let lane = Lane::open(&self.settings, &group, Profile::Tailing)?;
                lane.get_to_know(self.topics.values())?;
                empty.insert(lane)
            }
        };
        lane.assign(&[Assignment {
            topic: topic.clone(),
            partition: Partition(0),
            next: from,
            epoch: None,
        }])?;
        let mut next = from;
        while next < end {
            self.rows.clear();
            lane.poll(NEXT_ROW, &mut self.rows)?;
            if self.rows.is_empty() {
                let why = format!("read `{topic}`: nothing came after offset {next} of {end}");
                return Err(LogError::Unavailable(why));
            }
            for row in self.rows.rows() {
                match row {
                    LogRow::Record(record) if record.offset < end => {
                        next = record.offset.next();
                        out.push(ControlRecord {
                            offset: record.offset,
                            appended: record.timestamp.unwrap_or(Timestamp(0)),
                            key: record
                                .key
                                .map(|key| String::from_utf8_lossy(key).into_owned()),
                            value: record.value.map(<[u8]>::to_vec),
                        });
                    }
                    LogRow::Record(record) => next = record.offset.next(),
                    LogRow::End { end, .. } => next = next.max(end),
                }
            }
        }
        // Nothing is fetched between two reads.
        lane.assign(&[])
    }
}

impl ControlLog for KafkaControlLog {
    fn create(&mut self) -> Result<ControlIdentity, ControlError> {
        let cluster = self.settings.cluster();
        self.make_missing(|which| required(which, cluster))?;
        self.identity()?.ok_or_else(|| {
            ControlError::Unavailable("the control topics are not there yet".to_owned())
        })
    }

    fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError> {
        let shapes = self.settled_shapes()?;
        if shapes.is_empty() {
            return Ok(None);
        }
        for (which, topic) in &self.topics {
            if !shapes.contains_key(which) {
                let why =
                    format!("topic `{topic}` is missing beside the others of its installation");
                return Err(ControlError::Refused(why));
            }
        }
        self.check(&shapes)?;
        self.describe().map(Some)
    }

    fn append(
        &mut self,
        topic: ControlTopic,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Offset, ControlError> {
        let topic = self.topic(topic).clone();
        self.producer.append(&Outgoing {
            topic: topic.as_str(),
            partition: Some(0),
            key: key.map(str::as_bytes),
            value,
            headers: None,
            timestamp: None,
        })
    }

    fn read(
        &mut self,
        topic: ControlTopic,
        from: Offset,
        out: &mut Vec<ControlRecord>,
    ) -> Result<Offset, ControlError> {
        let topic = self.topic(topic).clone();
        let what = format!("read `{topic}`");
        let ends = self.ask_ends(&topic);
        ffi::serve(&self.client);
        let (start, end) = ends.map_err(|error| {
            let context = self.client.context();
            control_error(match error.rdkafka_error_code() {
                // Without a permission the partition is unknown to a reader.
                Some(RDKafkaErrorCode::UnknownPartition) => {
                    log_error(context, RDKafkaErrorCode::UnknownTopic, &what)
                }
                _ => kafka_error(context, &error, &what),
            })
        })?;
        let end = Offset(u64::try_from(end).unwrap_or(0));
        if start > 0 {
            let why = format!("`{topic}` starts at offset {start}: what stood before it is gone");
            return Err(ControlError::Lost(why));
        }
        if from > end {
            let why =
                format!("`{topic}` ends at offset {end}, before {from}, which was read already");
            return Err(ControlError::Lost(why));
        }
        if from < end {
            let known = out.len();
            if let Err(error) = self.fetch(&topic, from, end, out) {
                out.truncate(known);
                return Err(control_error(error));
            }
        }
        Ok(end)
    }
}
