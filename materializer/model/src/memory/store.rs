//! A sink in memory: the store of all units, and the three ports on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::ids::{Token, Unit, VersionId, ViewName};
use crate::mutation::{Change, Commit, Key, Mutation};
use crate::offset::{Checkpoint, Offset};
use crate::poison::Poison;
use crate::ports::{
    AliasPointer, Counting, Expect, Retired, Scanned, Sink, SinkAdmin, SinkError, SinkReader,
    Snapshot, StoredRow, Usage,
};

/// The most rows that one call of `retire` deletes.
const RETIRE_ROWS: usize = 256;

#[derive(Clone, Debug, Default)]
struct UnitStore {
    token: Option<Token>,
    /// Counts the openings: a write that was begun before the last one is void.
    opened: u64,
    checkpoint: Option<Checkpoint>,
    rows: BTreeMap<Key, StoredRow>,
}

impl UnitStore {
    fn apply(&mut self, commit: &Commit) {
        for mutation in commit.batch.mutations() {
            let key = mutation.key.clone();
            match &mutation.change {
                Change::Upsert { row, expires_at } => {
                    let stored = StoredRow {
                        row: row.clone(),
                        expires_at: *expires_at,
                    };
                    self.rows.insert(key, stored);
                }
                Change::Delete => {
                    self.rows.remove(&key);
                }
            }
        }
        self.checkpoint = Some(commit.checkpoint.clone());
    }
}

/// All that a store holds at one instant: what a snapshot would have saved.
#[derive(Clone, Debug, Default)]
pub struct StoreImage {
    units: BTreeMap<Unit, UnitStore>,
    aliases: BTreeMap<ViewName, AliasPointer>,
    retired: BTreeMap<VersionId, Offset>,
}

/// The store. What it holds can be saved, put back and cleared, as a server's operator would.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<StoreImage>>);

impl MemoryStore {
    /// Returns a new connection that writes one unit.
    #[must_use]
    pub fn sink(&self, unit: &Unit) -> MemorySink {
        MemorySink {
            store: self.clone(),
            unit: unit.clone(),
            session: None,
            settled: None,
        }
    }

    /// Returns a reader of one unit.
    #[must_use]
    pub fn reader(&self, unit: &Unit) -> MemorySinkReader {
        MemorySinkReader {
            store: self.clone(),
            unit: unit.clone(),
        }
    }

    /// Returns what the coordinator uses.
    #[must_use]
    pub fn admin(&self) -> MemoryAdmin {
        MemoryAdmin {
            store: self.clone(),
        }
    }

    /// Returns a copy of all that is stored.
    #[must_use]
    pub fn image(&self) -> StoreImage {
        lock(&self.0).clone()
    }

    /// Puts a copy back, in place of all that is stored: a fail-over to a replica that lagged.
    pub fn restore(&self, image: StoreImage) {
        *lock(&self.0) = image;
    }

    /// Forgets everything, as `FLUSHALL` does.
    pub fn clear(&self) {
        self.restore(StoreImage::default());
    }

    /// Applies a commit whoever sends it and whatever it follows: what a sink would do that neither
    /// fences nor compares. For tests of the tests.
    pub fn overwrite(&self, unit: &Unit, commit: &Commit) {
        let mut state = lock(&self.0);
        let unit = state.units.entry(unit.clone()).or_default();
        unit.apply(commit);
    }

    /// Returns a unit's checkpoint and rows.
    #[must_use]
    pub fn unit(&self, unit: &Unit) -> (Option<Checkpoint>, BTreeMap<Key, StoredRow>) {
        let state = lock(&self.0);
        state.units.get(unit).map_or_else(Default::default, |unit| {
            (unit.checkpoint.clone(), unit.rows.clone())
        })
    }
}

/// Writes one unit to a [`MemoryStore`]; a submitted commit is applied, or refused, at once.
#[derive(Debug)]
pub struct MemorySink {
    store: MemoryStore,
    unit: Unit,
    session: Option<(Token, u64)>,
    settled: Option<Checkpoint>,
}

impl Sink for MemorySink {
    fn open(&mut self, me: &Token, expect: Expect) -> Result<Option<Checkpoint>, SinkError> {
        self.session = None;
        self.settled = None;
        let mut state = lock(&self.store.0);
        if let Some(at) = state.retired.get(&self.unit.version) {
            return Err(SinkError::Damaged(format!(
                "`{}` was retired by the event at {at}",
                self.unit.version
            )));
        }
        let unit = state.units.entry(self.unit.clone()).or_default();
        if let Some(held) = &unit.token
            && held != me
            && !me.outranks(held)
        {
            return Err(if held.catalog == me.catalog {
                SinkError::Fenced(held.clone())
            } else {
                SinkError::Damaged(format!("catalog `{}` owns the place", held.catalog))
            });
        }
        if unit.checkpoint.is_none() && expect == Expect::Data {
            return Err(SinkError::Damaged(
                "the checkpoint is missing although commits were reported".into(),
            ));
        }
        unit.token = Some(me.clone());
        unit.opened += 1;
        self.session = Some((me.clone(), unit.opened));
        Ok(unit.checkpoint.clone())
    }

    fn check(&self, _mutation: &Mutation) -> Result<(), Poison> {
        Ok(())
    }

    fn submit(&mut self, commit: Arc<Commit>) -> Result<(), SinkError> {
        let (me, opened) = self.session.as_ref().expect("opened before it is written");
        let again = |why: &str| Err(SinkError::Unavailable(why.into()));
        let mut state = lock(&self.store.0);
        if let Some(at) = state.retired.get(&self.unit.version) {
            return Err(SinkError::Damaged(format!("retired by the event at {at}")));
        }
        let Some(unit) = state.units.get_mut(&self.unit) else {
            return again("the unit is not there");
        };
        match &unit.token {
            Some(held) if held.outranks(me) => return Err(SinkError::Fenced(held.clone())),
            Some(held) if held == me && unit.opened == *opened => {}
            Some(_) | None => return again("the unit was opened by another connection"),
        }
        if unit.checkpoint != commit.previous {
            return again("the checkpoint is not the one that the commit follows");
        }
        unit.apply(&commit);
        self.settled = Some(commit.checkpoint.clone());
        Ok(())
    }

    fn settle(&mut self, _wait: Duration) -> Result<Option<Checkpoint>, SinkError> {
        Ok(self.settled.take())
    }

    fn usage(&self) -> Usage {
        let state = lock(&self.store.0);
        let rows = state
            .units
            .get(&self.unit)
            .map_or(0, |unit| unit.rows.len());
        Usage {
            documents: u64::try_from(rows).ok(),
            ..Usage::default()
        }
    }
}

/// Reads one unit of a [`MemoryStore`].
#[derive(Debug)]
pub struct MemorySinkReader {
    store: MemoryStore,
    unit: Unit,
}

impl SinkReader for MemorySinkReader {
    fn read(&mut self, keys: &[Key]) -> Result<Snapshot, SinkError> {
        let (checkpoint, rows) = self.store.unit(&self.unit);
        Ok(Snapshot {
            checkpoint,
            rows: keys.iter().map(|key| rows.get(key).cloned()).collect(),
        })
    }

    fn scan(
        &mut self,
        visit: &mut dyn FnMut(Key, StoredRow) -> bool,
    ) -> Result<Scanned, SinkError> {
        let (before, rows) = self.store.unit(&self.unit);
        for (key, row) in rows {
            if !visit(key, row) {
                break;
            }
        }
        let (after, _) = self.store.unit(&self.unit);
        Ok(Scanned { before, after })
    }
}

/// The coordinator's hand on a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryAdmin {
    store: MemoryStore,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CatalogId, ClaimId};
    use crate::mutation::{Batch, Origin, Row};
    use crate::offset::{Bar, Counts, Partition, Topic};

    fn token(claim_offset: u64) -> Token {
        Token {
            catalog: CatalogId::new("catalog"),
            claim_offset,
            claim: ClaimId::new(format!("claim-{claim_offset}")),
        }
    }

    fn commit(seq: u64, previous: Option<Checkpoint>) -> Arc<Commit> {
        let mut batch = Batch::default();
        batch.put(Mutation {
            key: Key::new(b"k"),
            change: Change::Upsert {
                row: Row::new(seq.to_string().as_bytes()),
                expires_at: None,
            },
            origin: Origin {
                topic: Topic::new("t"),
                partition: Partition(0),
                offset: Offset(seq),
            },
        });
        Arc::new(Commit {
            batch,
            previous,
            checkpoint: Checkpoint {
                seq,
                topics: BTreeMap::new(),
                bar: Bar::default(),
                counts: Counts::default(),
            },
        })
    }

    fn unit() -> Unit {
        "v/v1/c0/s0".parse().expect("a unit")
    }

    #[test]
    fn an_earlier_owner_is_fenced_from_the_moment_a_later_one_opens() {
        let store = MemoryStore::default();
        let (mut old, mut new) = (store.sink(&unit()), store.sink(&unit()));
        assert_eq!(old.open(&token(1), Expect::Maybe), Ok(None));
        assert_eq!(new.open(&token(2), Expect::Maybe), Ok(None));
        let fenced = Err(SinkError::Fenced(token(2)));
        assert_eq!(old.submit(commit(1, None)), fenced);
        assert_eq!(old.open(&token(1), Expect::Maybe).map(|_| ()), fenced);
        assert_eq!(new.submit(commit(1, None)), Ok(()));
        assert_eq!(
            store.unit(&unit()).0,
            Some(commit(1, None).checkpoint.clone())
        );
    }

    #[test]
    fn opening_again_voids_what_is_still_on_its_way() {
        let store = MemoryStore::default();
        let (mut slow, mut again) = (store.sink(&unit()), store.sink(&unit()));
        assert_eq!(slow.open(&token(1), Expect::Maybe), Ok(None));
        assert_eq!(again.open(&token(1), Expect::Maybe), Ok(None));
        let late = slow.submit(commit(1, None));
        assert!(matches!(late, Err(SinkError::Unavailable(_))), "{late:?}");
        assert_eq!(store.unit(&unit()), (None, BTreeMap::new()));
    }

    #[test]
    fn an_emptied_store_takes_no_commit_and_is_damaged_when_opened_again() {
        let store = MemoryStore::default();
        let mut sink = store.sink(&unit());
        assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
        assert_eq!(sink.submit(commit(1, None)), Ok(()));
        store.clear();
        let previous = Some(commit(1, None).checkpoint.clone());
        let refused = sink.submit(commit(2, previous));
        assert!(
            matches!(refused, Err(SinkError::Unavailable(_))),
            "{refused:?}"
        );
        let opened = sink.open(&token(1), Expect::Data);
        assert!(matches!(opened, Err(SinkError::Damaged(_))), "{opened:?}");
    }

    #[test]
    fn retirement_deletes_its_own_version_only_and_for_ever() {
        let store = MemoryStore::default();
        let other: Unit = "v/v10/c0/s0".parse().expect("a unit");
        for unit in [&unit(), &other] {
            let mut sink = store.sink(unit);
            assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
            assert_eq!(sink.submit(commit(1, None)), Ok(()));
        }
        let retired = store
            .admin()
            .retire(&unit().version, Offset(9), Duration::ZERO);
        let all = Retired {
            deleted: 1,
            finished: true,
        };
        assert_eq!(retired, Ok(all));
        let zombie = store.sink(&unit()).open(&token(2), Expect::Maybe);
        assert!(matches!(zombie, Err(SinkError::Damaged(_))), "{zombie:?}");
        assert_eq!(store.unit(&other).1.len(), 1);
    }
}
