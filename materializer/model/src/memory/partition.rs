//! One partition of a log in memory: its records, its gaps, its ends.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{MemoryRecord, Transaction};
use crate::offset::{LeaderEpoch, Offset};

/// What stands at an offset that was not compacted away.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// A record that readers see.
    Committed(MemoryRecord),
    /// A record of a transaction under way: the stable offset stops before it.
    Open(Transaction, MemoryRecord),
    /// A record of an aborted transaction, or a transaction's marker: never delivered.
    Hidden,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) epoch: LeaderEpoch,
    pub(super) slot: Slot,
}

/// A partition. Offsets that hold nothing were compacted away.
#[derive(Clone, Debug)]
pub(super) struct PartitionLog {
    pub(super) start: Offset,
    pub(super) high: Offset,
    pub(super) epoch: LeaderEpoch,
    stored: BTreeMap<u64, Stored>,
    /// The end of each epoch that is over: what a broker answers to OffsetsForLeaderEpoch.
    epoch_ends: BTreeMap<LeaderEpoch, Offset>,
}

impl PartitionLog {
    pub(super) fn new() -> Self {
        Self {
            start: Offset(0),
            high: Offset(0),
            epoch: LeaderEpoch(0),
            stored: BTreeMap::new(),
            epoch_ends: BTreeMap::new(),
        }
    }

    pub(super) fn append(&mut self, slot: Slot) -> Offset {
        let at = self.high;
        let epoch = self.epoch;
        self.stored.insert(at.0, Stored { epoch, slot });
        self.high = at.next();
        at
    }

    /// Returns the last stable offset: the first record of a transaction under way, or the high
    /// watermark.
    pub(super) fn stable(&self) -> Offset {
        self.stored
            .iter()
            .find(|(_, stored)| matches!(stored.slot, Slot::Open(..)))
            .map_or(self.high, |(at, _)| Offset(*at))
    }

    /// Iterates over the records that readers see, from `from` up to the stable offset.
    pub(super) fn visible(
        &self,
        from: Offset,
    ) -> impl Iterator<Item = (Offset, LeaderEpoch, &MemoryRecord)> {
        let stable = self.stable().max(from);
        self.stored
            .range(from.0..stable.0)
            .filter_map(|(at, stored)| match &stored.slot {
                Slot::Committed(record) => Some((Offset(*at), stored.epoch, record)),
                Slot::Open(..) | Slot::Hidden => None,
            })
    }

    /// Ends a transaction here, if it wrote here, and appends its marker.
    pub(super) fn end(&mut self, transaction: Transaction, commit: bool) {
        let mut wrote = false;
        for stored in self.stored.values_mut() {
            if let Slot::Open(of, record) = &stored.slot
                && *of == transaction
            {
                wrote = true;
                stored.slot = if commit {
                    Slot::Committed(record.clone())
                } else {
                    Slot::Hidden
                };
            }
        }
        if wrote {
            self.append(Slot::Hidden);
        }
    }

    /// Keeps the last record of each key below `below`, drops what is hidden there, and where
    /// `tombstones` says so also the tombstones. Never touches what is not stable.
    pub(super) fn compact(&mut self, below: Offset, tombstones: bool) {
        let below = below.min(self.stable());
        let mut seen = BTreeSet::new();
        let mut dropped = Vec::new();
        for (at, stored) in self.stored.range(..below.0).rev() {
            let Slot::Committed(record) = &stored.slot else {
                dropped.push(*at);
                continue;
            };
            let newest = seen.insert(record.key.clone());
            if !newest || (tombstones && record.value.is_none()) {
                dropped.push(*at);
            }
        }
        for at in dropped {
            self.stored.remove(&at);
        }
    }

    pub(super) fn raise_start(&mut self, to: Offset) {
        self.start = self.start.max(to.min(self.high));
        self.stored = self.stored.split_off(&self.start.0);
    }

    pub(super) fn elect(&mut self) {
        self.epoch_ends.insert(self.epoch, self.high);
        self.epoch = LeaderEpoch(self.epoch.0 + 1);
    }

    /// Cuts the log back: the new leader lacks what stood from `to` on.
    pub(super) fn truncate(&mut self, to: Offset) {
        self.high = self.high.min(to.max(self.start));
        self.stored.split_off(&self.high.0);
        for end in self.epoch_ends.values_mut() {
            *end = (*end).min(self.high);
        }
        self.elect();
    }

    /// Says whether the log was cut back below `next`, whose last record was read under `epoch`.
    pub(super) fn is_truncated_below(&self, next: Offset, epoch: Option<LeaderEpoch>) -> bool {
        epoch
            .and_then(|epoch| self.epoch_ends.get(&epoch))
            .is_some_and(|end| *end < next)
    }
}
