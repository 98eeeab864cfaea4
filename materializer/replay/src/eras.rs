//! The eras of a topic that got more partitions: which counts it was written under, and how far each
//! of its older partitions has to be read before the next era begins.

use std::collections::BTreeMap;

use materializer_model::definition::Partitioner;
use materializer_model::{Growth, Monotonic, Offset, Partition, Timestamp, Topic, TopicId};

use crate::partitioner::Place;

/// A growth that was noticed and is not recorded: it has no barrier yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// How many partitions there are.
    pub(crate) to: i32,
    /// When the broker was asked that said so.
    pub(crate) noticed: Monotonic,
    /// Broker time before which there were fewer.
    pub(crate) since: Timestamp,
    /// Where the unit stood in what it reads.
    pub(crate) before: BTreeMap<Partition, Offset>,
}

/// What ends an era.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    /// Below these all records are of the era.
    before: BTreeMap<Partition, Offset>,
    barrier: BTreeMap<Partition, Offset>,
}

/// The eras of one topic, and which one a unit is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eras {
    /// The count of partitions in each era, rising.
    counts: Vec<i32>,
    /// The end of each era but the last.
    ends: Vec<End>,
    /// In which era the unit is.
    at: usize,
    pub(crate) pending: Option<Pending>,
}

impl Eras {
    /// Makes the eras of a topic that has had one count of partitions only.
    pub(crate) fn one(count: i32) -> Self {
        Self {
            counts: vec![count],
            ends: Vec::new(),
            at: 0,
            pending: None,
        }
    }

    /// Makes the eras of a topic from its recorded growths; `None` where there are none. The first of
    /// several records of one growth counts.
    pub(crate) fn recorded<'a>(growths: impl Iterator<Item = &'a Growth>) -> Option<Self> {
        let mut eras: Option<Self> = None;
        for growth in growths {
            let eras = eras.get_or_insert_with(|| Self::one(growth.from));
            if eras.last() == growth.from && growth.to > growth.from {
                eras.counts.push(growth.to);
                eras.ends.push(End {
                    before: growth.before.clone(),
                    barrier: growth.ends.clone(),
                });
            }
        }
        eras
    }

    /// Returns the count of partitions in the last era that is recorded.
    pub(crate) fn last(&self) -> i32 {
        *self.counts.last().expect("there is always an era")
    }

    /// Iterates over every count of partitions, one that is not recorded included.
    pub(crate) fn counts(&self) -> impl Iterator<Item = i32> {
        let pending = self.pending.as_ref().map(|pending| pending.to);
        self.counts.iter().copied().chain(pending)
    }

    /// Returns how many growths are recorded.
    pub(crate) fn growths(&self) -> usize {
        self.ends.len()
    }

    /// Returns after how many growths the topic had that many partitions.
    pub(crate) fn growths_until(&self, count: i32) -> Option<usize> {
        self.counts.iter().position(|known| *known == count)
    }

    /// Returns how many growths' barriers the unit has passed.
    pub(crate) fn passed(&self) -> usize {
        self.at
    }

    /// Returns the barrier at the end of the unit's era; `None` where none is recorded.
    pub(crate) fn barrier(&self) -> Option<&BTreeMap<Partition, Offset>> {
        self.barrier_of(self.at)
    }

    /// Returns the barrier of one of the recorded growths, the first one as 0.
    pub(crate) fn barrier_of(&self, growth: usize) -> Option<&BTreeMap<Partition, Offset>> {
        self.ends.get(growth).map(|end| &end.barrier)
    }

    /// Begins the next era.
    pub(crate) fn pass(&mut self) {
        self.at += 1;
    }

    /// Returns the counts of the era that the unit is in and of the one before it.
    pub(crate) fn before(&self) -> Option<(i32, i32)> {
        let before = self.at.checked_sub(1)?;
        Some((self.counts[before], self.counts[self.at]))
    }

    /// Returns the count of the era that the unit is in, and that of the next where there is one.
    pub(crate) fn now(&self) -> (i32, Option<i32>) {
        let next = self.counts.get(self.at + 1).copied();
        let pending = self.pending.as_ref().map(|pending| pending.to);
        (self.counts[self.at], next.or(pending))
    }

    /// Says whether a record is of the unit's era whatever its key.
    pub(crate) fn is_before_the_next(&self, partition: Partition, at: Offset) -> bool {
        let recorded = self.ends.get(self.at).map(|end| &end.before);
        let before = recorded.or(self.pending.as_ref().map(|pending| &pending.before));
        before.is_some_and(|before| before.get(&partition).is_some_and(|end| at < *end))
    }

    /// Returns the era of a record, which is its place in the order of its key's records: of the two that may
    /// stand there the older one that fits; one before them for a straggler. `None` where none fits.
    pub(crate) fn rank(
        &self,
        partitioner: Partitioner,
        key: &[u8],
        partition: Partition,
        at: Offset,
    ) -> Option<usize> {
        let is_past = |end: &&End| end.barrier.get(&partition).is_none_or(|end| at >= *end);
        let oldest = self.ends.iter().take_while(is_past).count();
        let fits = |era: &usize| partitioner.place(key, self.counts[*era]) == partition;
        let two = (oldest..self.counts.len()).take(2).find(fits);
        two.or_else(|| (0..oldest).rev().find(fits))
    }
}

/// Iterates over the growths of one topic.
pub(crate) fn of<'a>(
    growths: &'a [Growth],
    topic: &'a Topic,
    id: &'a TopicId,
) -> impl Iterator<Item = &'a Growth> + Clone {
    let is = move |growth: &&Growth| growth.topic == *topic && growth.id == *id;
    growths.iter().filter(is)
}
