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
    moved: bool,
}

/// A partition whose end was lost.
#[derive(Clone, Debug)]
struct Cut {
    partition: i32,
    /// All that stood in it.
    written: Vec<Written>,
}

/// Everything that was ever written, by partition.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    written: BTreeMap<i32, Vec<Written>>,
    compacted: bool,
    cut: Option<Cut>,
    /// The records that somebody asked to pass over, by partition and offset. Whether one was taken in before
    /// that is not known here.
    skipped: BTreeSet<(i32, u64)>,
}

/// What a sink must hold at some positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The rows by key.
    pub rows: BTreeMap<String, String>,
    /// Keys that a later record of a compacted topic may already have made unknown below, and those of records
    /// that somebody asked to pass over.
    pub unsure: BTreeSet<String>,
    /// The poison passed so far, by partition and offset.
    pub poison: BTreeSet<(i32, u64)>,
}

impl Oracle {
    /// Begins with nothing written; `compacted` says whether older records may disappear.
    #[must_use]
    pub fn new(compacted: bool) -> Self {
        Self {
            compacted,
            ..Self::default()
        }
    }

    /// Notes a record, of a transaction or visible at once; whether its key `moved` here when the topic grew.
    pub fn wrote(
        &mut self,
        (partition, offset): (i32, u64),
        key: &str,
        value: Value,
        in_transaction: Option<u64>,
        moved: bool,
    ) {
        self.written.entry(partition).or_default().push(Written {
            offset,
            key: key.to_owned(),
            value,
            fate: in_transaction.map_or(Fate::Visible, Fate::Open),
            moved,
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

    /// Notes that a record is to be passed over by whoever has not read it yet.
    pub fn skipped(&mut self, partition: i32, offset: u64) {
        self.skipped.insert((partition, offset));
    }

    /// Notes that a partition lost, once, what stood from an offset on. Who had read that before may still
    /// store it, and must say so.
    pub fn cut(&mut self, partition: i32, to: u64) {
        let written = self.written.entry(partition).or_default();
        self.cut = Some(Cut {
            partition,
            written: written.clone(),
        });
        written.retain(|record| record.offset < to);
    }

    /// Returns what must be stored by whoever has read each of these partitions up to its position, and what
    /// did not move to it up to `unmoved`.
    #[must_use]
    pub fn at(&self, next: &BTreeMap<i32, u64>, unmoved: &BTreeMap<i32, u64>) -> Expected {
        self.fold(next, unmoved, None)
    }

    /// Returns what must be stored by whoever had read what was lost before it was.
    #[must_use]
    pub fn before_cut(&self, next: &BTreeMap<i32, u64>) -> Option<Expected> {
        let cut = self.cut.as_ref()?;
        Some(self.fold(next, next, Some(cut)))
    }

    fn records<'a>(&'a self, partition: i32, cut: Option<&'a Cut>) -> &'a [Written] {
        match cut {
            Some(cut) if cut.partition == partition => &cut.written,
            Some(_) | None => self.written.get(&partition).map_or(&[], Vec::as_slice),
        }
    }

    /// Of each key all records from before it moved come first.
    fn fold(
        &self,
        next: &BTreeMap<i32, u64>,
        unmoved: &BTreeMap<i32, u64>,
        cut: Option<&Cut>,
    ) -> Expected {
        let mut expected = Expected::default();
        for (reach, moved) in [(unmoved, false), (next, true)] {
            for (partition, next) in reach {
                let records = self.records(*partition, cut).iter();
                for record in
                    records.filter(|record| record.fate == Fate::Visible && record.moved == moved)
                {
                    self.take(&mut expected, *partition, *next, record);
                }
            }
        }
        expected
    }

    fn take(&self, expected: &mut Expected, partition: i32, next: u64, record: &Written) {
        if record.offset >= next {
            if self.compacted {
                expected.unsure.insert(record.key.clone());
            }
            return;
        }
        if self.skipped.contains(&(partition, record.offset)) {
            expected.unsure.insert(record.key.clone());
        }
        if let Some(row) = self.row(&record.value) {
            expected.rows.remove(&record.key);
            let row = row.map(|row| (record.key.clone(), row.to_owned()));
            expected.rows.extend(row);
        }
        if record.value == Value::Poison {
            expected.poison.insert((partition, record.offset));
        }
    }

    /// Returns what a record makes of its key's row, if anything.
    #[expect(
        clippy::option_option,
        reason = "a row, none, or the one that is there"
    )]
    fn row<'a>(&self, value: &'a Value) -> Option<Option<&'a str>> {
        match value {
            Value::Row(row) => Some(Some(row)),
            Value::Tombstone => Some(None),
            Value::Excluded | Value::Poison => self.compacted.then_some(None),
        }
    }

    /// Says whether a record of some positions, and before others, makes this of a key's row, or did before
    /// it was lost: what a part of a commit has written whose last part did not come.
    #[must_use]
    pub fn makes(
        &self,
        key: &str,
        row: Option<&str>,
        from: &BTreeMap<i32, u64>,
        until: &BTreeMap<i32, u64>,
    ) -> bool {
        until.iter().any(|(partition, until)| {
            let from = from.get(partition).copied().unwrap_or(0);
            let span = from..*until;
            let lost = self.cut.iter().filter(|cut| cut.partition == *partition);
            let lost = lost.flat_map(|cut| &cut.written);
            self.records(*partition, None)
                .iter()
                .chain(lost)
                .any(|record| {
                    span.contains(&record.offset)
                        && record.fate == Fate::Visible
                        && record.key == key
                        && self.row(&record.value) == Some(row)
                })
        })
    }
}
