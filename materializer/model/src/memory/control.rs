//! The control topics in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::clock::ManualClock;
use super::lock;
use crate::clock::Timestamp;
use crate::offset::{Offset, TopicId};
use crate::ports::{ControlError, ControlIdentity, ControlLog, ControlRecord, ControlTopic};

#[derive(Debug, Default)]
struct Topics {
    created: bool,
    /// How often they were made anew.
    renewals: u64,
    /// How far the broker's clock is ahead of the one that moves it, in milliseconds.
    ahead_ms: i64,
    records: BTreeMap<ControlTopic, Vec<ControlRecord>>,
}

/// One installation's control topics, appended to at the time of a clock.
#[derive(Clone, Debug)]
pub struct MemoryControl {
    installation: String,
    clock: ManualClock,
    topics: Arc<Mutex<Topics>>,
}

impl MemoryControl {
    /// Makes room for the topics of an installation; none exists yet.
    #[must_use]
    pub fn new(installation: &str, clock: ManualClock) -> Self {
        Self {
            installation: installation.to_owned(),
            clock,
            topics: Arc::default(),
        }
    }

    /// Returns one process's client.
    #[must_use]
    pub fn log(&self) -> MemoryControlLog {
        MemoryControlLog(self.clone())
    }

    /// Sets the broker's clock ahead, or back.
    pub fn set_ahead(&self, ms: i64) {
        lock(&self.topics).ahead_ms = ms;
    }

    /// Cuts the catalog back: a leader is elected that lacks what stood from `to` on.
    pub fn cut_back(&self, to: Offset) {
        let mut topics = lock(&self.topics);
        let catalog = topics.records.entry(ControlTopic::Catalog).or_default();
        catalog.retain(|record| record.offset < to);
    }

    /// Makes the topics anew under the same names: nothing of them is left.
    pub fn renew(&self) {
        let mut topics = lock(&self.topics);
        topics.records.clear();
        topics.renewals += 1;
    }

    fn identity(&self, renewals: u64) -> ControlIdentity {
        let age = match renewals {
            0 => String::new(),
            times => format!(".{times}"),
        };
        let id =
            |topic: ControlTopic| TopicId(format!("{}.{}{age}", self.installation, topic.as_str()));
        ControlIdentity {
            cluster: "memory".into(),
            catalog: id(ControlTopic::Catalog),
            claims: id(ControlTopic::Claims),
            progress: id(ControlTopic::Progress),
        }
    }
}

/// Reads and appends [`MemoryControl`]'s topics.
#[derive(Clone, Debug)]
pub struct MemoryControlLog(MemoryControl);

fn missing() -> ControlError {
    ControlError::Refused("the control topics are missing".into())
}

impl ControlLog for MemoryControlLog {
    fn create(&mut self) -> Result<ControlIdentity, ControlError> {
        let mut topics = lock(&self.0.topics);
        topics.created = true;
        Ok(self.0.identity(topics.renewals))
    }

    fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError> {
        let topics = lock(&self.0.topics);
        let identity = || self.0.identity(topics.renewals);
        Ok(topics.created.then(identity))
    }

    fn append(
        &mut self,
        topic: ControlTopic,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Offset, ControlError> {
        let mut topics = lock(&self.0.topics);
        let appended = Timestamp(self.0.clock.now().0 + topics.ahead_ms);
        if !topics.created {
            return Err(missing());
        }
        let records = topics.records.entry(topic).or_default();
        let offset = end_of(records);
        records.push(ControlRecord {
            offset,
            appended,
            key: key.map(Into::into),
            value: value.map(Into::into),
        });
        Ok(offset)
    }

    fn read(
        &mut self,
        topic: ControlTopic,
        from: Offset,
        out: &mut Vec<ControlRecord>,
    ) -> Result<Offset, ControlError> {
        let topics = lock(&self.0.topics);
        if !topics.created {
            return Err(missing());
        }
        let records = topics.records.get(&topic).map_or(&[][..], Vec::as_slice);
        let end = end_of(records);
        if end < from {
            return Err(ControlError::Lost(format!(
                "the {} ends at {end}, before {from}",
                topic.as_str()
            )));
        }
        out.extend(records.iter().filter(|r| r.offset >= from).cloned());
        Ok(end)
    }
}

/// A client of [`MemoryControl`] whose appends go through a function, which may lose, delay or count them.
pub struct MeddledControlLog<F> {
    /// The client itself.
    pub log: MemoryControlLog,
    /// Appends, or does not, and says what is told of it.
    pub append: F,
}

impl<F> ControlLog for MeddledControlLog<F>
where
    F: FnMut(
            &mut MemoryControlLog,
            ControlTopic,
            Option<&str>,
            Option<&[u8]>,
        ) -> Result<Offset, ControlError>
        + Send,
{
    fn create(&mut self) -> Result<ControlIdentity, ControlError> {
        self.log.create()
    }

    fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError> {
        self.log.identity()
    }

    fn append(
        &mut self,
        topic: ControlTopic,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Offset, ControlError> {
        (self.append)(&mut self.log, topic, key, value)
    }

    fn read(
        &mut self,
        topic: ControlTopic,
        from: Offset,
        out: &mut Vec<ControlRecord>,
    ) -> Result<Offset, ControlError> {
        self.log.read(topic, from, out)
    }
}

fn end_of(records: &[ControlRecord]) -> Offset {
    records.last().map_or(Offset(0), |last| last.offset.next())
}
