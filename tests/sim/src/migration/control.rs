//! The control topics as a process sees them: calls fail, and an append whose outcome nobody tells has
//! arrived, is lost, or arrives later.

use materializer_model::Offset;
use materializer_model::memory::MemoryControlLog;
use materializer_model::ports::{
    ControlError, ControlIdentity, ControlLog, ControlRecord, ControlTopic,
};

use crate::chaos::Life;

/// The point between a decision and its append.
pub(super) const DECIDED: &str = "append to the catalog";

pub(super) struct SimControl {
    pub(super) life: Life,
    pub(super) inner: MemoryControlLog,
}

impl SimControl {
    fn reach(&self) -> Result<(), ControlError> {
        if self.life.shared.fails() {
            return Err(ControlError::Unavailable("the broker is away".into()));
        }
        Ok(())
    }
}

impl ControlLog for SimControl {
    fn create(&mut self) -> Result<ControlIdentity, ControlError> {
        self.reach()?;
        self.life.around("create", || self.inner.create())
    }

    fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError> {
        self.reach()?;
        self.life.around("identity", || self.inner.identity())
    }

    fn append(
        &mut self,
        topic: ControlTopic,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Offset, ControlError> {
        self.life.point(match topic {
            ControlTopic::Catalog => DECIDED,
            ControlTopic::Claims | ControlTopic::Progress => "append",
        });
        let shared = self.life.shared.clone();
        if !shared.fails() {
            let appended = self.inner.append(topic, key, value);
            self.life.point("appended");
            return appended;
        }
        match shared.below(4) {
            0 => return Err(ControlError::Unavailable("the broker is away".into())),
            1 => {} // lost
            2 => {
                self.inner.append(topic, key, value)?;
            }
            _ => {
                let mut log = self.inner.clone();
                let (key, value) = (key.map(str::to_owned), value.map(<[u8]>::to_vec));
                shared.delay(Box::new(move || {
                    let at = log.append(topic, key.as_deref(), value.as_deref());
                    format!("append of {key:?} to the {}: {at:?}", topic.as_str())
                }));
            }
        }
        Err(ControlError::Unknown("no acknowledgement came".into()))
    }

    fn read(
        &mut self,
        topic: ControlTopic,
        from: Offset,
        out: &mut Vec<ControlRecord>,
    ) -> Result<Offset, ControlError> {
        self.reach()?;
        self.life
            .around("read", || self.inner.read(topic, from, out))
    }
}
