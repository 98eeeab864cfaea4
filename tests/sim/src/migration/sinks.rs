//! The sinks as a coordinator sees them: calls fail, and a write that timed out was applied, was lost, or
//! is applied later.

use std::fmt::Debug;
use std::time::Duration;

use materializer_migrations::ViewSinks;
use materializer_model::definition::QueryGate;
use materializer_model::memory::MemoryStore;
use materializer_model::ports::{AliasPointer, Counting, Retired, SinkAdmin, SinkError};
use materializer_model::{Offset, Unit, VersionId, ViewDefinition, ViewName};

use crate::chaos::{Flaw, Life};

/// The point between a decision and the move of an alias.
pub(super) const MOVED: &str = "move_alias";

pub(super) struct SimSinks {
    pub(super) life: Life,
    pub(super) store: MemoryStore,
}

fn away() -> SinkError {
    SinkError::Unavailable("the server is away".into())
}

impl SimSinks {
    fn read<T>(
        &self,
        call: &str,
        does: impl FnOnce() -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        if self.life.shared.fails() {
            return Err(away());
        }
        self.life.around(call, does)
    }

    fn write<T: Debug>(
        &self,
        call: &'static str,
        does: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let shared = &self.life.shared;
        if !shared.fails() {
            return self.life.around(call, does);
        }
        match shared.below(3) {
            0 => {} // lost
            1 => {
                self.life.around(call, does)?;
            }
            _ => shared.delay(Box::new(move || format!("{call}: {:?}", does()))),
        }
        Err(away())
    }
}

impl ViewSinks for SimSinks {
    fn admin(&mut self, _: &ViewDefinition) -> Result<Option<&mut dyn SinkAdmin>, SinkError> {
        Ok(Some(self))
    }

    fn hits(&mut self, _: &QueryGate, _: &[(Unit, String)]) -> Result<u64, SinkError> {
        Err(SinkError::Refused("a map cannot be searched".into()))
    }
}

impl SinkAdmin for SimSinks {
    fn alias(&mut self, view: &ViewName) -> Result<Option<AliasPointer>, SinkError> {
        self.read("alias", || self.store.admin().alias(view))
    }

    fn move_alias(&mut self, view: &ViewName, to: &AliasPointer) -> Result<(), SinkError> {
        let mut admin = self.store.admin();
        let (view, to) = (view.clone(), to.clone());
        let overwrites = self.life.shared.has(Flaw::AliasOverwritten);
        self.write(MOVED, move || {
            if overwrites {
                admin.remove_alias(&view, Offset(u64::MAX))?;
            }
            admin.move_alias(&view, &to)
        })
    }

    fn remove_alias(&mut self, view: &ViewName, at: Offset) -> Result<(), SinkError> {
        let mut admin = self.store.admin();
        let view = view.clone();
        self.write("remove_alias", move || admin.remove_alias(&view, at))
    }

    fn retire(
        &mut self,
        version: &VersionId,
        at: Offset,
        budget: Duration,
    ) -> Result<Retired, SinkError> {
        let mut admin = self.store.admin();
        let version = version.clone();
        self.write("retire", move || admin.retire(&version, at, budget))
    }

    fn count(&mut self, version: &VersionId, budget: Duration) -> Result<Counting, SinkError> {
        self.read("count", || self.store.admin().count(version, budget))
    }

    fn exist(&mut self, version: &VersionId, keys: &[String]) -> Result<Vec<bool>, SinkError> {
        self.read("exist", || self.store.admin().exist(version, keys))
    }
}
