//! A sink in memory: the store of all units, and the ports that write and read one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::admin::MemoryAdmin;
use super::lock;
use crate::ids::{Token, Unit, VersionId, ViewName};
use crate::mutation::{Change, Commit, Key, Mutation};
use crate::offset::{Checkpoint, Offset};
use crate::poison::Poison;
use crate::ports::{
    AliasPointer, Expect, Scanned, Sink, SinkError, SinkReader, Snapshot, StoredRow, Usage,
};

#[derive(Clone, Debug, Default)]
pub(super) struct UnitStore {
    pub(super) token: Option<Token>,
    /// The number of its last opening: a write that was begun before it is void.
    opened: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) rows: BTreeMap<Key, StoredRow>,
    /// Where the furthest commit ends whose last part did not come.
    unfinished: Option<Checkpoint>,
}

impl UnitStore {
    /// Applies a part of a commit; the last one moves the checkpoint.
    fn apply(&mut self, part: &[Mutation], commit: &Commit, is_last: bool) {
        for mutation in part {
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
        let ends = &commit.checkpoint;
        if is_last {
            self.checkpoint = Some(ends.clone());
            self.unfinished.take_if(|until| !ends.is_behind(until));
        } else {
            let until = self.unfinished.get_or_insert_with(|| ends.clone());
            until.raise_to(ends);
        }
    }
}

/// All that a store holds at one instant: what a snapshot would have saved.
#[derive(Clone, Debug, Default)]
pub struct StoreImage {
    pub(super) units: BTreeMap<Unit, UnitStore>,
    pub(super) aliases: BTreeMap<ViewName, AliasPointer>,
    pub(super) retired: BTreeMap<VersionId, Offset>,
    /// What was deleted to its end.
    pub(super) deleted: BTreeSet<VersionId>,
    /// Counts the openings of all units, and the restorations.
    openings: u64,
}

/// The store. What it holds can be saved, put back and cleared, as a server's operator would.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(pub(super) Arc<Mutex<StoreImage>>);

impl MemoryStore {
    /// Returns a new connection that writes one unit.
    #[must_use]
    pub fn sink(&self, unit: &Unit) -> MemorySink {
        MemorySink {
            store: self.clone(),
            unit: unit.clone(),
            session: None,
            part_keys: usize::MAX,
            under_way: None,
            settled: None,
            unfinished: None,
            unproven: Arc::default(),
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
        MemoryAdmin::new(self.clone())
    }

    /// Returns a copy of all that is stored.
    #[must_use]
    pub fn image(&self) -> StoreImage {
        lock(&self.0).clone()
    }

    /// Puts a copy back, in place of all that is stored: a fail-over to a replica that lagged. Nobody's
    /// connection survives it. A deletion that was over had reached every replica, and stays.
    pub fn restore(&self, mut image: StoreImage) {
        let mut state = lock(&self.0);
        let is_left = |unit: &Unit| !state.deleted.contains(&unit.version);
        image.units.retain(|unit, _| is_left(unit));
        image.deleted.clone_from(&state.deleted);
        image.openings = state.openings + 1;
        for unit in image.units.values_mut() {
            unit.opened = image.openings;
        }
        *state = image;
    }

    /// Forgets everything, as `FLUSHALL` does.
    pub fn clear(&self) {
        self.restore(StoreImage::default());
    }

    /// Applies the first `keys` of a commit whoever sends it and whatever it follows: what a sink would do
    /// that neither fences nor compares. For tests of the tests.
    pub fn overwrite(&self, unit: &Unit, commit: &Commit, keys: usize) {
        let mut state = lock(&self.0);
        let unit = state.units.entry(unit.clone()).or_default();
        let mutations = commit.batch.mutations();
        let part = &mutations[..keys.min(mutations.len())];
        unit.apply(part, commit, part.len() == mutations.len());
    }

    /// Returns a unit's checkpoint.
    #[must_use]
    pub fn checkpoint(&self, unit: &Unit) -> Option<Checkpoint> {
        let state = lock(&self.0);
        state.units.get(unit)?.checkpoint.clone()
    }

    /// Returns the token of a unit's owner.
    #[must_use]
    pub fn owner(&self, unit: &Unit) -> Option<Token> {
        let state = lock(&self.0);
        state.units.get(unit)?.token.clone()
    }

    /// Forgets a unit's owner, so that anybody is the next one. For tests of the tests.
    pub fn forget_owner(&self, unit: &Unit) {
        let mut state = lock(&self.0);
        if let Some(unit) = state.units.get_mut(unit) {
            unit.token = None;
        }
    }

    /// Returns where the furthest commit ends of which some parts were written and the last was not:
    /// until the checkpoint is there, rows may be ahead of it. Written and removed together with rows.
    #[must_use]
    pub fn unfinished(&self, unit: &Unit) -> Option<Checkpoint> {
        let state = lock(&self.0);
        state.units.get(unit)?.unfinished.clone()
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

/// Writes one unit to a [`MemoryStore`]; a submitted commit is applied, or refused, at once, unless it is
/// to be written in parts.
#[derive(Debug)]
pub struct MemorySink {
    store: MemoryStore,
    unit: Unit,
    session: Option<(Token, u64)>,
    part_keys: usize,
    /// The commit whose parts are being written, and how many of its keys are.
    under_way: Option<(Arc<Commit>, usize)>,
    settled: Option<Checkpoint>,
    /// As the last opening found it.
    unfinished: Option<Checkpoint>,
    /// Whether something of it is still to be proven.
    unproven: Arc<AtomicBool>,
}

impl MemorySink {
    /// Has something to prove for as long as a test says so.
    #[must_use]
    pub fn unproven(self, unproven: &Arc<AtomicBool>) -> Self {
        Self {
            unproven: Arc::clone(unproven),
            ..self
        }
    }

    /// Writes at most that many keys at once: the first of them when a commit is submitted, more whenever it
    /// is to be settled, and with the last of them the checkpoint.
    #[must_use]
    pub fn in_parts(self, keys: usize) -> Self {
        Self {
            part_keys: keys,
            ..self
        }
    }

    /// Writes the next part, if everything is as it must be for the commit.
    fn write_part(&mut self, commit: Arc<Commit>, written: usize) -> Result<(), SinkError> {
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
        let rest = &commit.batch.mutations()[written..];
        let part = &rest[..rest.len().min(self.part_keys)];
        let is_last = part.len() == rest.len();
        unit.apply(part, &commit, is_last);
        if is_last {
            self.settled = Some(commit.checkpoint.clone());
        } else {
            let written = written + part.len();
            self.under_way = Some((commit, written));
        }
        Ok(())
    }
}

impl Sink for MemorySink {
    fn open(&mut self, me: &Token, expect: Expect) -> Result<Option<Checkpoint>, SinkError> {
        self.session = None;
        self.under_way = None;
        self.settled = None;
        let mut state = lock(&self.store.0);
        if let Some(at) = state.retired.get(&self.unit.version) {
            return Err(SinkError::Damaged(format!(
                "`{}` was retired by the event at {at}",
                self.unit.version
            )));
        }
        state.openings += 1;
        let openings = state.openings;
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
        unit.opened = openings;
        self.session = Some((me.clone(), unit.opened));
        self.unfinished = unit.unfinished.clone();
        Ok(unit.checkpoint.clone())
    }

    fn unfinished(&self) -> Option<&Checkpoint> {
        self.unfinished.as_ref()
    }

    fn check(&self, _mutation: &Mutation) -> Result<(), Poison> {
        Ok(())
    }

    fn submit(&mut self, commit: Arc<Commit>) -> Result<(), SinkError> {
        self.write_part(commit, 0)
    }

    fn settle(&mut self, _wait: Duration) -> Result<Option<Checkpoint>, SinkError> {
        if let Some((commit, written)) = self.under_way.take() {
            self.write_part(commit, written)?;
        }
        Ok(self.settled.take())
    }

    fn is_proven(&self) -> bool {
        !self.unproven.load(Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CatalogId, ClaimId};
    use crate::mutation::{Batch, Origin, Row};
    use crate::offset::{Bar, Counts, Partition, Topic};
    use crate::ports::{Retired, SinkAdmin};

    fn token(claim_offset: u64) -> Token {
        Token {
            catalog: CatalogId::new("catalog"),
            claim_offset,
            claim: ClaimId::new(format!("claim-{claim_offset}")),
        }
    }

    fn origin(offset: u64) -> Origin {
        Origin {
            topic: Topic::new("t"),
            partition: Partition(0),
            offset: Offset(offset),
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
            origin: origin(seq),
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
    fn an_earlier_owner_writes_no_further_part() {
        let store = MemoryStore::default();
        let mut batch = Batch::default();
        for key in [b"a", b"b"] {
            batch.put(Mutation {
                key: Key::new(key),
                change: Change::Delete,
                origin: origin(1),
            });
        }
        let whole = commit(1, None);
        let split = Arc::new(Commit {
            batch,
            previous: None,
            checkpoint: whole.checkpoint.clone(),
        });
        let (mut old, mut new) = (store.sink(&unit()).in_parts(1), store.sink(&unit()));
        assert_eq!(old.open(&token(1), Expect::Maybe), Ok(None));
        assert_eq!(old.submit(split), Ok(()));
        assert_eq!(store.unit(&unit()).0, None);
        assert_eq!(store.unfinished(&unit()), Some(whole.checkpoint.clone()));
        assert_eq!(new.open(&token(2), Expect::Maybe), Ok(None));
        let fenced = old.settle(Duration::ZERO);
        assert_eq!(fenced, Err(SinkError::Fenced(token(2))));
        assert_eq!(new.submit(commit(1, None)), Ok(()));
        assert_eq!(store.unfinished(&unit()), None);
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
