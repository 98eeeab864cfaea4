//! The fold of a verification: the log from its genesis, for a part of the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use materializer_model::ports::{Assignment, StoredRow};
use materializer_model::{
    Change, Checkpoint, Key, LogRow, Mutation, Offset, Partition, Record, RowBatch, Topic,
};

use super::{Request, Subject, VerifyError};

/// How long the log may bring nothing.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(100);

type Lane = (Topic, Partition);

/// Which keys are folded. A key's part depends on its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Those whose hash leaves `part` when divided by `parts`.
    OneOf { part: u64, parts: u64 },
    /// The given number with the smallest hashes.
    Smallest(usize),
}

fn hash(key: &Key) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(&key.0)
}

pub(super) struct Refold {
    part: Part,
    /// Rows as the log asks for them; `None` is a deleted one.
    pub(super) expected: BTreeMap<Key, Option<StoredRow>>,
    /// The hashes of what is kept of [`Part::Smallest`].
    hashes: BTreeSet<(u64, Key)>,
    /// The only keys that still matter, once there are suspects.
    only: Option<BTreeSet<Key>>,
    weight: usize,
    /// The next offset to be folded; a partition that is missing stands at 0.
    next: BTreeMap<Lane, Offset>,
}

impl Refold {
    /// Begins with nothing folded.
    pub(super) fn new(part: Part) -> Self {
        Self {
            part,
            expected: BTreeMap::new(),
            hashes: BTreeSet::new(),
            only: None,
            weight: 0,
            next: BTreeMap::new(),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.expected.keys()
    }

    /// Says whether a key is one of this part.
    pub(super) fn is_part(&self, key: &Key) -> bool {
        match self.part {
            Part::OneOf { part, parts } => hash(key) % parts == part,
            Part::Smallest(_) => self.expected.contains_key(key),
        }
    }

    /// Forgets every key but these.
    pub(super) fn narrow(&mut self, keys: &BTreeSet<Key>) {
        self.expected.retain(|key, _| keys.contains(key));
        let weights = self
            .expected
            .iter()
            .map(|(key, row)| weight(key, row.as_ref()));
        self.weight = weights.sum();
        self.only = Some(keys.clone());
    }

    /// Says whether the fold is that of this checkpoint.
    pub(super) fn stands_at(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint
            .positions()
            .all(|(topic, partition, at)| self.next_of(&(topic.clone(), partition)) == at.next)
    }

    /// Folds on up to a checkpoint; says whether it fitted into the memory.
    pub(super) fn advance(
        &mut self,
        subject: &mut Subject<'_>,
        request: &Request,
        target: &Checkpoint,
    ) -> Result<bool, VerifyError> {
        let mut waiting: BTreeMap<Lane, Offset> = BTreeMap::new();
        for (topic, partition, at) in target.positions() {
            let lane = (topic.clone(), partition);
            if self.next_of(&lane) < at.next {
                waiting.insert(lane, at.next);
            }
        }
        let from: Vec<Assignment> = waiting
            .keys()
            .map(|lane| Assignment {
                topic: lane.0.clone(),
                partition: lane.1,
                next: self.next_of(lane),
                epoch: None,
            })
            .collect();
        subject.reader.assign(&from)?;
        let mut rows = RowBatch::default();
        let mut moved_at = subject.clock.monotonic();
        while !waiting.is_empty() {
            rows.clear();
            subject.reader.poll(WAIT, &mut rows)?;
            let now = subject.clock.monotonic();
            if !rows.is_empty() {
                moved_at = now;
            } else if now.since(moved_at) >= STALLED_AFTER {
                return Err(VerifyError::Stalled);
            }
            for row in rows.rows() {
                self.take(row, subject, request, &mut waiting);
            }
            if self.weight > request.bytes_max && matches!(self.part, Part::OneOf { .. }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn next_of(&self, lane: &Lane) -> Offset {
        self.next.get(lane).copied().unwrap_or(Offset(0))
    }

    /// Takes a row in, if it lies below what its partition waits for; otherwise the wait is over.
    fn take(
        &mut self,
        row: LogRow<'_>,
        subject: &Subject<'_>,
        request: &Request,
        waiting: &mut BTreeMap<Lane, Offset>,
    ) {
        let (topic, partition, reached) = match row {
            LogRow::Record(record) => (record.topic, record.partition, record.offset),
            LogRow::End {
                topic,
                partition,
                end,
            } => (topic, partition, end),
        };
        let lane = (topic.clone(), partition);
        let Some(target) = waiting.get(&lane).copied() else {
            return; // read ahead
        };
        let mut next = reached.min(target);
        if let LogRow::Record(record) = row
            && record.offset < target
            && record.offset >= self.next_of(&lane)
        {
            self.fold(&record, subject, request);
            next = record.offset.next();
        }
        if next >= target {
            waiting.remove(&lane);
        }
        self.next.insert(lane, next);
    }

    /// Folds a record as its version would, poison passed over.
    fn fold(&mut self, record: &Record<'_>, subject: &Subject<'_>, request: &Request) {
        let mut mutations = Vec::new();
        let skipped = !request.skips.is_empty() && request.skips.contains(&record.origin());
        let fits = !skipped
            && subject.derive.apply(record, &mut mutations).is_ok()
            && mutations.iter().all(|m| (subject.check)(m).is_ok());
        if !fits || mutations.is_empty() {
            mutations.clear();
            if request.compacted.contains(record.topic) {
                mutations.extend(subject.derive.exclude(record));
            }
        }
        for mutation in mutations {
            self.put(mutation);
        }
    }

    fn put(&mut self, mutation: Mutation) {
        let Mutation { key, change, .. } = mutation;
        if self.only.as_ref().is_some_and(|only| !only.contains(&key)) {
            return;
        }
        let row = match change {
            Change::Upsert { row, expires_at } => Some(StoredRow { row, expires_at }),
            Change::Delete => None,
        };
        match self.part {
            Part::OneOf { part, parts } if hash(&key) % parts != part => return,
            Part::OneOf { .. } => {}
            Part::Smallest(most) => {
                let at = (hash(&key), key.clone());
                let full = self.hashes.len() >= most;
                if full && self.hashes.last().is_none_or(|last| at > *last) {
                    return;
                }
                self.hashes.insert(at);
                if self.hashes.len() > most
                    && let Some((_, largest)) = self.hashes.pop_last()
                {
                    self.expected.remove(&largest);
                }
            }
        }
        self.weight += weight(&key, row.as_ref());
        if let Some(old) = self.expected.insert(key.clone(), row) {
            self.weight -= weight(&key, old.as_ref());
        }
    }
}

fn weight(key: &Key, row: Option<&StoredRow>) -> usize {
    size_of::<(Key, Option<StoredRow>)>() + key.0.len() + row.map_or(0, |row| row.row.0.len())
}
