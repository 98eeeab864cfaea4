//! What a sink must hold: a fold of everything that producers ever wrote, kept apart from the log and
//! sharing no code with the worker.

use std::collections::{BTreeMap, BTreeSet};

/// What a record's value asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The row of its key is this text.
    Row(String),
    /// There is no row of its key.
    Tombstone,
    /// The view's `only` excludes it.
    Excluded,
    /// The view cannot take it in, and passes it over.
    Poison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Visible,
    Open(u64),
    Aborted,
}

#[derive(Clone, Debug)]
struct Written {
    offset: u64,
    key: String,
    value: Value,
    fate: Fate,
}

/// Everything that was ever written, by partition.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    written: BTreeMap<i32, Vec<Written>>,
    compacted: bool,
}

/// What a sink must hold at some positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The rows by key.
    pub rows: BTreeMap<String, String>,
    /// Keys that a later record of a compacted topic may already have made unknown below.
    pub unsure: BTreeSet<String>,
    /// The poison passed so far, by partition and offset.
    pub poison: BTreeSet<(i32, u64)>,
}

impl Oracle {
    /// Begins with nothing written; `compacted` says whether older records may disappear.
    #[must_use]
    pub fn new(compacted: bool) -> Self {
        Self {
            written: BTreeMap::new(),
            compacted,
        }
    }

    /// Notes a record, of a transaction or visible at once.
    pub fn wrote(
        &mut self,
        partition: i32,
        offset: u64,
        key: &str,
        value: Value,
        in_transaction: Option<u64>,
    ) {
        self.written.entry(partition).or_default().push(Written {
            offset,
            key: key.to_owned(),
            value,
            fate: in_transaction.map_or(Fate::Visible, Fate::Open),
        });
    }

    /// Notes how a transaction ended.
    pub fn ended(&mut self, transaction: u64, commit: bool) {
        for record in self.written.values_mut().flatten() {
            if record.fate == Fate::Open(transaction) {
                record.fate = if commit { Fate::Visible } else { Fate::Aborted };
            }
        }
    }

    /// Returns what must be stored by whoever has read each partition up to its position.
    #[must_use]
    pub fn at(&self, next: &BTreeMap<i32, u64>) -> Expected {
        let mut expected = Expected::default();
        for (partition, records) in &self.written {
            let next = next.get(partition).copied().unwrap_or(0);
            for record in records.iter().filter(|record| record.fate == Fate::Visible) {
                if record.offset >= next {
                    if self.compacted {
                        expected.unsure.insert(record.key.clone());
                    }
                    continue;
                }
                match &record.value {
                    Value::Row(row) => {
                        expected.rows.insert(record.key.clone(), row.clone());
                    }
                    Value::Tombstone => {
                        expected.rows.remove(&record.key);
                    }
                    Value::Excluded | Value::Poison => {
                        if self.compacted {
                            expected.rows.remove(&record.key);
                        }
                    }
                }
                if record.value == Value::Poison {
                    expected.poison.insert((*partition, record.offset));
                }
            }
        }
        expected
    }
}
