//! The control topics in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::clock::ManualClock;
use super::lock;
use crate::offset::{Offset, TopicId};
use crate::ports::{ControlError, ControlIdentity, ControlLog, ControlRecord, ControlTopic};

#[derive(Debug, Default)]
struct Topics {
    created: bool,
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

    fn identity(&self) -> ControlIdentity {
        let id = |topic: ControlTopic| TopicId(format!("{}.{}", self.installation, topic.as_str()));
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
        lock(&self.0.topics).created = true;
        Ok(self.0.identity())
    }

    fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError> {
        Ok(lock(&self.0.topics).created.then(|| self.0.identity()))
    }

    fn append(
        &mut self,
        topic: ControlTopic,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Offset, ControlError> {
        let appended = self.0.clock.now();
        let mut topics = lock(&self.0.topics);
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
