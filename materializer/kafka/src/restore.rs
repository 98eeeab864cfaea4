//! Writing a backup of the catalog into topics of its own, each event at its offset and with its append
//! time.
//!
//! A topic takes append times from its producer only while it says `CreateTime`; batches keep the kind of
//! time that they were written with. So the catalog's topic is made so, filled, read back and compared,
//! and only then becomes what every process demands. Until then nobody decides on it: outside of `dev`
//! the setting is refused, and in every cluster the events name other topics than these.

use materializer_model::Offset;
use materializer_model::ports::{ControlError, ControlLog as _, ControlRecord, ControlTopic};

use crate::admin::Admin;
use crate::client::Cluster;
use crate::control_log::{KafkaControlLog, Required, required};
use crate::errors::control_error;
use crate::produce::Outgoing;

/// The setting that says whose time a record has.
const TIME: &str = "message.timestamp.type";
const CREATE_TIME: &str = "CreateTime";

/// What was written by a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How many events were there already, from a restore that was cut short.
    pub found: usize,
    /// How many were appended.
    pub appended: usize,
}

/// What the catalog's topic is made with while it is restored.
fn while_restoring(cluster: Cluster) -> Vec<Required> {
    let all = required(ControlTopic::Catalog, cluster).into_iter();
    let mut all: Vec<_> = all.filter(|setting| setting.name != TIME).collect();
    all.push(Required {
        name: TIME,
        value: CREATE_TIME,
        why: "each event gets its own append time",
    });
    all
}

impl KafkaControlLog {
    /// Writes events into the catalog's topic, which is made where it is missing, as the others are.
    /// Offsets begin at 0 and leave none out. What an earlier call that was cut short has written is
    /// compared and gone on from.
    ///
    /// Nobody else may write to the topic meanwhile; who did is told, since all is read back at the end.
    ///
    /// # Errors
    /// [`ControlError::Refused`] where the topic holds anything else; otherwise calling again goes on.
    pub fn restore(&mut self, events: &[ControlRecord]) -> Result<Restored, ControlError> {
        let cluster = self.settings.cluster();
        self.make_missing(|which| match which {
            ControlTopic::Catalog => while_restoring(cluster),
            ControlTopic::Claims | ControlTopic::Progress => required(which, cluster),
        })?;
        let found = self.compare(events)?;
        if found < events.len() {
            self.takes_times()?;
        }
        for event in &events[found..] {
            let at = self.append_at(event)?;
            if at != event.offset {
                let why = format!(
                    "the event at offset {} was appended at {at}: somebody else writes to it",
                    event.offset
                );
                return Err(self.in_the_way(&why));
            }
        }
        let whole = self.compare(events)?;
        if whole < events.len() {
            let why = format!(
                "it holds {whole} events after {} were written",
                events.len()
            );
            return Err(ControlError::Unknown(why));
        }
        if cluster == Cluster::Production {
            self.end_restoring()?;
        }
        Ok(Restored {
            found,
            appended: events.len() - found,
        })
    }

    /// Returns how many of the events the topic holds.
    fn compare(&mut self, events: &[ControlRecord]) -> Result<usize, ControlError> {
        let mut found = Vec::new();
        self.read(ControlTopic::Catalog, Offset(0), &mut found)?;
        let differs = |(found, event): &(&ControlRecord, &ControlRecord)| found != event;
        if let Some((found, _)) = found.iter().zip(events).find(differs) {
            let why = format!(
                "it holds another event at offset {} than the backup",
                found.offset
            );
            return Err(self.in_the_way(&why));
        }
        if found.len() > events.len() {
            let why = format!("it goes on after the {} events of the backup", events.len());
            return Err(self.in_the_way(&why));
        }
        Ok(found.len())
    }

    fn in_the_way(&self, why: &str) -> ControlError {
        let topic = self.topic(ControlTopic::Catalog);
        ControlError::Refused(format!(
            "topic `{topic}`: {why}; to restore into a new one, delete it first"
        ))
    }

    /// Checks that the topic was made for a restore: elsewhere the events would get the time of now.
    fn takes_times(&self) -> Result<(), ControlError> {
        let topic = self.topic(ControlTopic::Catalog).clone();
        let admin = Admin::open(&self.settings).map_err(control_error)?;
        let settings = admin.settings(&[topic]).map_err(control_error)?;
        let settings = settings
            .into_iter()
            .next()
            .expect("one answer for one topic");
        let settings = settings.map_err(control_error)?;
        match settings.get(TIME).map(String::as_str) {
            Some(CREATE_TIME) => Ok(()),
            Some(_) | None => Err(self.in_the_way("it was not made by a restore")),
        }
    }

    fn append_at(&mut self, event: &ControlRecord) -> Result<Offset, ControlError> {
        let topic = self.topic(ControlTopic::Catalog).clone();
        self.producer.append(&Outgoing {
            topic: topic.as_str(),
            partition: Some(0),
            key: event.key.as_deref().map(str::as_bytes),
            value: event.value.as_deref(),
            headers: None,
            timestamp: Some(event.appended),
        })
    }

    fn end_restoring(&self) -> Result<(), ControlError> {
        let settings = required(ControlTopic::Catalog, self.settings.cluster());
        let settings: Vec<_> = settings.iter().map(|it| (it.name, it.value)).collect();
        Admin::open(&self.settings)
            .and_then(|admin| admin.set(self.topic(ControlTopic::Catalog), &settings))
            .map_err(control_error)
    }
}
