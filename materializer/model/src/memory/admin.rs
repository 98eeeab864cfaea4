//! What the coordinator does to a sink in memory.

use std::time::Duration;

use super::lock;
use super::store::MemoryStore;
use crate::ids::{VersionId, ViewName};
use crate::mutation::Key;
use crate::offset::Offset;
use crate::ports::{AliasPointer, Counting, Retired, SinkAdmin, SinkError};

/// The most rows that one call of `retire` deletes.
const RETIRE_ROWS: usize = 256;

/// The coordinator's hand on a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryAdmin {
    store: MemoryStore,
}

impl MemoryAdmin {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self { store }
    }
}

impl SinkAdmin for MemoryAdmin {
    fn alias(&mut self, view: &ViewName) -> Result<Option<AliasPointer>, SinkError> {
        Ok(lock(&self.store.0).aliases.get(view).cloned())
    }

    fn move_alias(&mut self, view: &ViewName, to: &AliasPointer) -> Result<(), SinkError> {
        let mut state = lock(&self.store.0);
        if let Some(held) = state.aliases.get(view)
            && held != to
            && held.epoch >= to.epoch
        {
            return Err(SinkError::Damaged(format!(
                "the alias `{view}` is at epoch {}, past {}",
                held.epoch, to.epoch
            )));
        }
        let version = VersionId {
            view: view.clone(),
            number: to.version,
        };
        let mut units = state.units.iter();
        let is_there =
            units.any(|(unit, stored)| unit.version == version && stored.token.is_some());
        if !is_there || state.retired.contains_key(&version) {
            return Err(SinkError::Damaged(format!("there is no `{version}`")));
        }
        state.aliases.insert(view.clone(), to.clone());
        Ok(())
    }

    fn remove_alias(&mut self, view: &ViewName, at: Offset) -> Result<(), SinkError> {
        let mut state = lock(&self.store.0);
        if state.aliases.get(view).is_some_and(|held| held.epoch < at) {
            state.aliases.remove(view);
        }
        Ok(())
    }

    fn retire(
        &mut self,
        version: &VersionId,
        at: Offset,
        _budget: Duration,
    ) -> Result<Retired, SinkError> {
        let mut state = lock(&self.store.0);
        state.retired.entry(version.clone()).or_insert(at);
        let mut room = RETIRE_ROWS;
        state.units.retain(|unit, stored| {
            if unit.version != *version {
                return true;
            }
            stored.checkpoint = None;
            while room > 0 && stored.rows.pop_first().is_some() {
                room -= 1;
            }
            !stored.rows.is_empty()
        });
        let finished = !state.units.keys().any(|unit| unit.version == *version);
        if finished {
            state.deleted.insert(version.clone());
        }
        Ok(Retired {
            deleted: u64::try_from(RETIRE_ROWS - room).unwrap_or(u64::MAX),
            finished,
        })
    }

    fn count(&mut self, version: &VersionId, _budget: Duration) -> Result<Counting, SinkError> {
        let state = lock(&self.store.0);
        let units = state
            .units
            .iter()
            .filter(|(unit, _)| unit.version == *version);
        let rows: usize = units.map(|(_, stored)| stored.rows.len()).sum();
        Ok(Counting {
            rows: u64::try_from(rows).unwrap_or(u64::MAX),
            finished: true,
        })
    }

    fn exist(&mut self, version: &VersionId, keys: &[String]) -> Result<Vec<bool>, SinkError> {
        let state = lock(&self.store.0);
        let holds = |key: &String| {
            let key = Key::new(key.as_bytes());
            state
                .units
                .iter()
                .any(|(unit, stored)| unit.version == *version && stored.rows.contains_key(&key))
        };
        Ok(keys.iter().map(holds).collect())
    }
}
