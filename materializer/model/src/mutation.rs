//! What is written to a sink: rows by key, folded, committed together with a checkpoint.

use std::fmt;
use std::hash::BuildHasher;
use std::mem;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::offset::{Checkpoint, Offset, Partition, Topic};

/// The key of a row: any bytes, also none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Box<[u8]>);

impl Key {
    /// Takes a key's bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shows the key as text with escapes where it is not printable; for messages, not for storing.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => write!(f, "{}", text.escape_debug()),
            Err(_) => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

/// The value of a row: canonical compact JSON, one object with its fields in the definition's
/// order, the same bytes in every sink; or any bytes where the view says `as: bytes`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Row(pub Box<[u8]>);

impl Row {
    /// Takes a row's bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

/// The record that a mutation comes from: for messages, and for the sink's hidden fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The record's topic.
    pub topic: Topic,
    /// The record's partition.
    pub partition: Partition,
    /// The record's own offset.
    pub offset: Offset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// What happens to the row of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The row is this from now on.
    Upsert {
        /// The whole new value.
        row: Row,
        /// When the row ends by itself: the record's time plus the view's `ttl`, so that a rebuild
        /// gives the same.
        expires_at: Option<Timestamp>,
    },
    /// There is no row from now on. Deleting what is not there is no fault.
    Delete,
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The row's key.
    pub key: Key,
    /// What happens to it.
    pub change: Change,
    /// The record it comes from.
    pub origin: Origin,
}

impl Mutation {
    /// Returns the bytes that this mutation takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let row = match &self.change {
            Change::Upsert { row, .. } => row.0.len(),
            Change::Delete => 0,
        };
        self.key.0.len() + row + mem::size_of::<Self>()
    }
}

/// Mutations folded to the last one of each key, in order of each key's first appearance.
///
/// A fold keeps every delete, also of keys that it has not seen: the sink may hold them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    mutations: Vec<Mutation>,
    /// Positions in `mutations`, by hash of the key. Looked up, never iterated.
    by_key: HashTable<usize>,
    hasher: foldhash::fast::FixedState,
    weight: usize,
    taken: u64,
}

impl Batch {
    /// Takes a mutation in, in place of an earlier one of the same key.
    pub fn put(&mut self, mutation: Mutation) {
        let Self {
            mutations,
            by_key,
            hasher,
            weight,
            taken,
        } = self;
        let hash_of = |key: &Key| hasher.hash_one(&key.0);
        *taken += 1;
        *weight += mutation.weight();
        let found = by_key.find(hash_of(&mutation.key), |&at| {
            mutations[at].key == mutation.key
        });
        if let Some(&at) = found {
            *weight -= mutations[at].weight();
            mutations[at] = mutation;
            return;
        }
        let at = mutations.len();
        by_key.insert_unique(hash_of(&mutation.key), at, |&at| {
            hash_of(&mutations[at].key)
        });
        mutations.push(mutation);
    }

    /// Returns the mutations, at most one of each key.
    #[must_use]
    pub fn mutations(&self) -> &[Mutation] {
        &self.mutations
    }

    /// Returns how many keys are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mutations.len()
    }

    /// Says whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mutations.is_empty()
    }

    /// Returns the bytes held, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Returns how many mutations were taken in, those that were folded away included.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

/// A batch and the checkpoint that describes it: applied together, or not at all.
#[derive(Clone, Debug)]
pub struct Commit {
    /// What is written.
    pub batch: Batch,
    /// The checkpoint that the sink holds before this commit; `None` for a unit's first.
    pub previous: Option<Checkpoint>,
    /// The checkpoint that the sink holds afterwards.
    pub checkpoint: Checkpoint,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation(key: &str, offset: u64, row: Option<&str>) -> Mutation {
        Mutation {
            key: Key::new(key.as_bytes()),
            change: row.map_or(Change::Delete, |row| Change::Upsert {
                row: Row::new(row.as_bytes()),
                expires_at: None,
            }),
            origin: Origin {
                topic: Topic::new("t"),
                partition: Partition(0),
                offset: Offset(offset),
            },
        }
    }

    #[test]
    fn a_batch_keeps_the_last_mutation_of_each_key_and_every_delete() {
        let mut batch = Batch::default();
        for m in [
            mutation("a", 0, Some("1")),
            mutation("b", 1, None),
            mutation("a", 2, Some("22")),
            mutation("c", 3, Some("3")),
            mutation("c", 4, None),
        ] {
            batch.put(m);
        }
        let expected = [
            mutation("a", 2, Some("22")),
            mutation("b", 1, None),
            mutation("c", 4, None),
        ];
        assert_eq!(batch.mutations(), expected);
        assert_eq!(batch.taken(), 5);
        assert_eq!(
            batch.weight(),
            expected.iter().map(Mutation::weight).sum::<usize>()
        );
    }
}
