//! The fold of a verification: the log from its genesis, for a part of the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use materializer_model::definition::Partitioner;
use materializer_model::ports::{Assignment, StoredRow};
use materializer_model::{
    Ahead, Change, Checkpoint, Growth, Key, LogRow, Mutation, Offset, Partition, Record, RowBatch,
    Topic, TopicCheckpoint,
};

use crate::eras::{self, Eras};

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

/// The place of a record in the order of its key's records, where its topic grew: era, then offset.
type Place = (usize, Offset);

/// What the log asks for of a key.
pub(super) struct Folded {
    /// Its row; `None` is a deleted one.
    pub(super) row: Option<StoredRow>,
    /// Which record says so, where their order is not that of their arrival.
    by: Option<Place>,
}

pub(super) struct Refold {
    part: Part,
    /// Rows as the log asks for them.
    pub(super) expected: BTreeMap<Key, Folded>,
    /// The hashes of what is kept of [`Part::Smallest`].
    hashes: BTreeSet<(u64, Key)>,
    /// The only keys that still matter, once there are suspects.
    only: Option<BTreeSet<Key>>,
    weight: usize,
    /// The next offset to be folded; a partition that is missing stands at 0.
    next: BTreeMap<Lane, Offset>,
    /// Up to where the records of an old era are folded, where that is further.
    ahead: BTreeMap<Lane, Offset>,
}

/// Up to where one partition is folded.
#[derive(Clone, Copy)]
struct Until {
    next: Offset,
    ahead: Option<Ahead>,
}

impl Until {
    fn of(checkpoint: &Checkpoint, topic: &Topic, partition: Partition, next: Offset) -> Self {
        let ahead = checkpoint.ahead(topic, partition).copied();
        Self { next, ahead }
    }

    fn reach(&self) -> Offset {
        self.ahead.map_or(self.next, |ahead| ahead.at.next)
    }

    /// Says whether a record of an era, where that is known, is folded.
    fn holds(&self, at: Offset, era: Option<usize>) -> bool {
        let is_old =
            |ahead: Ahead| at < ahead.at.next && era.is_some_and(|era| era <= ahead.growth);
        at < self.next || self.ahead.is_some_and(is_old)
    }
}

/// How the records of a topic that grew are ordered.
struct Order {
    eras: Eras,
    partitioner: Partitioner,
}

/// What a record is folded by.
struct Fold<'a, 'b> {
    subject: &'a Subject<'b>,
    request: &'a Request,
    /// Up to where, and of which topics.
    target: &'a Checkpoint,
    orders: &'a BTreeMap<Topic, Order>,
}

impl Fold<'_, '_> {
    fn place(&self, record: &Record<'_>) -> Option<Place> {
        let Order { eras, partitioner } = self.orders.get(record.topic)?;
        let rank = |key| eras.rank(*partitioner, key, record.partition, record.offset);
        Some((rank(record.key?)?, record.offset))
    }
}

/// Returns the order of each topic that has got more partitions, as far as the checkpoint or a recorded growth
/// names the partitioner.
fn orders(target: &Checkpoint, growths: &[Growth]) -> BTreeMap<Topic, Order> {
    let order = |(topic, at): (&Topic, &TopicCheckpoint)| {
        let recorded = eras::of(growths, topic, &at.id);
        let known = recorded.clone().find_map(|growth| growth.partitioner);
        let eras = match Eras::recorded(recorded) {
            Some(eras) => eras,
            None if at.ahead.is_empty() => return None,
            None => Eras::one(target.bar.count(topic)),
        };
        let partitioner = known.or(match at.partitioners.as_slice() {
            [one] => Some(*one),
            _ => None,
        })?;
        Some((topic.clone(), Order { eras, partitioner }))
    };
    target.topics.iter().filter_map(order).collect()
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
            ahead: BTreeMap::new(),
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
            .map(|(key, folded)| weight(key, folded.row.as_ref()));
        self.weight = weights.sum();
        self.only = Some(keys.clone());
    }

    /// Says whether the fold is that of this checkpoint.
    pub(super) fn stands_at(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.positions().all(|(topic, partition, at)| {
            let lane = (topic.clone(), partition);
            let until = Until::of(checkpoint, topic, partition, at.next);
            let ahead = until.ahead.map(|ahead| ahead.at.next);
            self.next_of(&lane) == at.next && self.ahead.get(&lane).copied() == ahead
        })
    }

    /// Folds on up to a checkpoint; says whether it fitted into the memory.
    pub(super) fn advance(
        &mut self,
        subject: &mut Subject<'_>,
        request: &Request,
        target: &Checkpoint,
    ) -> Result<bool, VerifyError> {
        let orders = orders(target, &request.growths);
        let mut waiting: BTreeMap<Lane, Until> = BTreeMap::new();
        self.ahead.clear();
        for (topic, partition, at) in target.positions() {
            let lane = (topic.clone(), partition);
            let until = Until::of(target, topic, partition, at.next);
            if let Some(ahead) = until.ahead {
                self.ahead.insert(lane.clone(), ahead.at.next);
            }
            if self.next_of(&lane) < until.reach() {
                waiting.insert(lane, until);
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
            let fold = Fold {
                subject,
                request,
                target,
                orders: &orders,
            };
            for row in rows.rows() {
                self.take(row, &fold, &mut waiting);
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
    fn take(&mut self, row: LogRow<'_>, fold: &Fold<'_, '_>, waiting: &mut BTreeMap<Lane, Until>) {
        let (topic, partition, reached) = match row {
            LogRow::Record(record) => (record.topic, record.partition, record.offset),
            LogRow::End {
                topic,
                partition,
                end,
            } => (topic, partition, end),
        };
        let lane = (topic.clone(), partition);
        let Some(until) = waiting.get(&lane).copied() else {
            return; // read ahead
        };
        let mut next = reached;
        if let LogRow::Record(record) = row
            && record.offset < until.reach()
            && record.offset >= self.next_of(&lane)
        {
            let place = fold.place(&record);
            if until.holds(record.offset, place.map(|(era, _)| era)) {
                self.fold(&record, place, fold);
            }
            next = record.offset.next();
        }
        if next >= until.reach() {
            waiting.remove(&lane);
        }
        // What waits is read again when the checkpoint is past it.
        self.next.insert(lane, next.min(until.next));
    }

    /// Folds a record as its version would, poison passed over.
    fn fold(&mut self, record: &Record<'_>, place: Option<Place>, fold: &Fold<'_, '_>) {
        let Fold {
            subject,
            request,
            target,
            ..
        } = fold;
        let mut mutations = Vec::new();
        let topic = target.topics.get(record.topic);
        let skipped = topic.is_some_and(|topic| request.skips.hold(record, &topic.id));
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
            self.put(mutation, place);
        }
    }

    fn put(&mut self, mutation: Mutation, place: Option<Place>) {
        let Mutation { key, change, .. } = mutation;
        if self.only.as_ref().is_some_and(|only| !only.contains(&key)) {
            return;
        }
        let known = self.expected.get(&key);
        if place.is_some() && known.is_some_and(|known| known.by > place) {
            return; // a later record of the key was folded before
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
        let folded = Folded { row, by: place };
        if let Some(old) = self.expected.insert(key.clone(), folded) {
            self.weight -= weight(&key, old.row.as_ref());
        }
    }
}

fn weight(key: &Key, row: Option<&StoredRow>) -> usize {
    size_of::<(Key, Folded)>() + key.0.len() + row.map_or(0, |row| row.row.0.len())
}
