//! The first rows of an order, those behind a cursor, and the number of all: one collector.
//!
//! Inside a segment every key is a number: a value's order-preserving image, or the place of a text in
//! the segment's dictionary. [`Rank`]s of numbers are compared as they are; only the few rows that
//! are kept have their texts looked up, to be compared across segments and to be a cursor. The record
//! that a row comes from decides last, and is unique.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use materializer_model::definition::FieldType;
use materializer_model::{Clock, Monotonic};
use serde::{Deserialize, Serialize};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{BytesColumn, Column, TermOrdHit};
use tantivy::query::Weight;
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader, TERMINATED, TantivyError};

use super::{Missing, Order};
use crate::tantivy::schema::{OFFSET, PART};

/// Where a row stands by one key. Comparing gives the order that was asked for: directions and missing
/// values are turned into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Rank {
    /// No value, before all others.
    First,
    /// A number's image; a text's place within one segment.
    Number(u64),
    /// A text, ascending.
    Up(Vec<u8>),
    /// A text, descending.
    Down(Reverse<Vec<u8>>),
    /// No value, after all others.
    Last,
}

/// One key of an order.
#[derive(Clone, Debug)]
pub(super) enum Key {
    /// The score, the greatest first or last.
    Score(Order),
    /// A column.
    Field {
        name: String,
        kind: FieldType,
        order: Order,
        missing: Missing,
    },
}

/// A row that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) ranks: Vec<Rank>,
    /// `_part` and `_offset`.
    pub(super) record: (u64, u64),
    pub(super) at: DocAddress,
}

/// What was found: how many, and the first of them in order, with their scores.
pub(super) type Top = (u64, Vec<(Kept, Score)>);

/// Where a page begins: behind this row.
#[derive(Clone, Debug)]
pub(super) struct After {
    pub(super) ranks: Vec<Rank>,
    pub(super) record: (u64, u64),
}

/// Collects the first `keep` rows of an order.
pub(super) struct TopRows {
    pub(super) keys: Vec<Key>,
    pub(super) after: Option<After>,
    pub(super) keep: usize,
}

impl Collector for TopRows {
    type Fruit = Top;
    type Child = SegmentTop;

    fn for_segment(
        &self,
        ordinal: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> tantivy::Result<SegmentTop> {
        let columns: Vec<SegmentKey> = self
            .keys
            .iter()
            .map(|key| SegmentKey::open(key, segment))
            .collect::<tantivy::Result<_>>()?;
        let after = self.after.as_ref().map(|after| {
            let ranks = columns.iter().zip(&after.ranks);
            let ranks = ranks.map(|(column, rank)| column.localise(rank));
            Ok::<_, TantivyError>((ranks.collect::<io::Result<Vec<Rank>>>()?, after.record))
        });
        Ok(SegmentTop {
            after: after.transpose()?,
            columns,
            part: segment.fast_fields().u64(PART)?,
            offset: segment.fast_fields().u64(OFFSET)?,
            ordinal,
            keep: self.keep,
            total: 0,
            heap: BinaryHeap::new(),
            ranks: Vec::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        self.keys.iter().any(|key| matches!(key, Key::Score(_)))
    }

    fn merge_fruits(&self, fruits: Vec<tantivy::Result<Top>>) -> tantivy::Result<Top> {
        let (mut total, mut rows) = (0, Vec::new());
        for fruit in fruits {
            let (found, kept) = fruit?;
            total += found;
            rows.extend(kept);
        }
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        rows.truncate(self.keep);
        Ok((total, rows))
    }
}

/// A key's column in one segment.
struct SegmentKey {
    order: Order,
    missing: Missing,
    column: SegmentColumn,
}

enum SegmentColumn {
    Score,
    /// No row of the segment has a value.
    Empty,
    Number(Column<u64>),
    Text(BytesColumn),
}

impl SegmentKey {
    fn open(key: &Key, segment: &SegmentReader) -> tantivy::Result<Self> {
        let (name, kind, order, missing) = match key {
            Key::Score(order) => {
                return Ok(Self {
                    order: *order,
                    missing: Missing::Last,
                    column: SegmentColumn::Score,
                });
            }
            Key::Field {
                name,
                kind,
                order,
                missing,
            } => (name, kind, *order, *missing),
        };
        let fast = segment.fast_fields();
        let column = match kind {
            FieldType::Text | FieldType::String => fast
                .str(name)?
                .map(|column| SegmentColumn::Text(column.into())),
            FieldType::Bytes => fast.bytes(name)?.map(SegmentColumn::Text),
            FieldType::I64 => fast.column_opt::<i64>(name)?.map(SegmentColumn::number),
            FieldType::U64 => fast.column_opt::<u64>(name)?.map(SegmentColumn::number),
            FieldType::F64 => fast.column_opt::<f64>(name)?.map(SegmentColumn::number),
            FieldType::Bool => fast.column_opt::<bool>(name)?.map(SegmentColumn::number),
            FieldType::Date => fast
                .column_opt::<tantivy::DateTime>(name)?
                .map(SegmentColumn::number),
            FieldType::Json => None,
        };
        Ok(Self {
            order,
            missing,
            column: column.unwrap_or(SegmentColumn::Empty),
        })
    }

    fn rank(&self, doc: DocId, score: Score) -> Rank {
        let value = match &self.column {
            SegmentColumn::Score => Some(tantivy::f64_to_u64(f64::from(score))),
            SegmentColumn::Empty => None,
            SegmentColumn::Number(column) => column.first(doc),
            // Doubled, so that a cursor's text that this segment lacks stands between two places.
            SegmentColumn::Text(column) => column.ords().first(doc).map(|place| 2 * place + 1),
        };
        match (value, self.missing) {
            (Some(value), _) => Rank::Number(self.directed(value)),
            (None, Missing::First) => Rank::First,
            (None, Missing::Last) => Rank::Last,
        }
    }

    fn directed(&self, value: u64) -> u64 {
        match self.order {
            Order::Asc => value,
            Order::Desc => !value,
        }
    }

    /// Turns a rank that means the same everywhere into one of this segment.
    fn localise(&self, rank: &Rank) -> io::Result<Rank> {
        let (Rank::Up(text) | Rank::Down(Reverse(text))) = rank else {
            return Ok(rank.clone());
        };
        let SegmentColumn::Text(column) = &self.column else {
            // Without any text the rows here are before or behind all texts alike.
            return Ok(Rank::Number(0));
        };
        let terms = u64::try_from(column.num_terms()).unwrap_or(u64::MAX / 2);
        let place = match column.dictionary().term_ord_or_next(text)? {
            TermOrdHit::Exact(place) => 2 * place + 1,
            TermOrdHit::Next(place) => 2 * place.min(terms),
        };
        Ok(Rank::Number(self.directed(place)))
    }

    /// Turns a rank of this segment into one that means the same everywhere.
    fn globalise(&self, rank: Rank) -> io::Result<Rank> {
        let (SegmentColumn::Text(column), Rank::Number(place)) = (&self.column, &rank) else {
            return Ok(rank);
        };
        let mut text = Vec::new();
        column.ord_to_bytes(self.directed(*place) / 2, &mut text)?;
        Ok(match self.order {
            Order::Asc => Rank::Up(text),
            Order::Desc => Rank::Down(Reverse(text)),
        })
    }
}

impl SegmentColumn {
    fn number<T: tantivy::columnar::MonotonicallyMappableToU64 + std::fmt::Debug>(
        column: Column<T>,
    ) -> Self {
        Self::Number(column.to_u64_monotonic())
    }
}

/// Collects the first rows of one segment.
pub(super) struct SegmentTop {
    columns: Vec<SegmentKey>,
    after: Option<(Vec<Rank>, (u64, u64))>,
    part: Column<u64>,
    offset: Column<u64>,
    ordinal: SegmentOrdinal,
    keep: usize,
    total: u64,
    /// The last of those that are kept is on top.
    heap: BinaryHeap<(Kept, ScoreBits)>,
    /// The ranks of the row at hand, to spare an allocation for each that is not kept.
    ranks: Vec<Rank>,
}

/// A score that takes no part in the order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ScoreBits(u32);

impl SegmentCollector for SegmentTop {
    type Fruit = tantivy::Result<Top>;

    fn collect(&mut self, doc: DocId, score: Score) {
        self.total += 1;
        self.ranks.clear();
        let ranks = self.columns.iter().map(|column| column.rank(doc, score));
        self.ranks.extend(ranks);
        let record = (
            self.part.first(doc).unwrap_or(0),
            self.offset.first(doc).unwrap_or(0),
        );
        if let Some((ranks, last)) = &self.after
            && (&self.ranks, &record) <= (ranks, last)
        {
            return;
        }
        if self.heap.len() >= self.keep {
            match self.heap.peek() {
                Some((last, _)) if (&self.ranks, &record) < (&last.ranks, &last.record) => {
                    self.heap.pop();
                }
                Some(_) | None => return,
            }
        }
        let kept = Kept {
            ranks: self.ranks.clone(),
            record,
            at: DocAddress::new(self.ordinal, doc),
        };
        self.heap.push((kept, ScoreBits(score.to_bits())));
    }

    fn harvest(self) -> Self::Fruit {
        let mut rows = Vec::with_capacity(self.heap.len());
        for (mut kept, ScoreBits(bits)) in self.heap {
            let ranks = kept.ranks.into_iter().zip(&self.columns);
            kept.ranks = ranks
                .map(|(rank, column)| column.globalise(rank))
                .collect::<io::Result<_>>()?;
            rows.push((kept, Score::from_bits(bits)));
        }
        Ok((self.total, rows))
    }
}

/// Ends another collector's work at a deadline.
pub(super) struct Bounded<C> {
    pub(super) inner: C,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) end: Monotonic,
    /// Set when the time was over.
    pub(super) late: Arc<AtomicBool>,
}

/// After how many rows the clock is asked again.
const ROWS_PER_LOOK: u32 = 1024;

impl<C: Collector> Collector for Bounded<C> {
    type Fruit = C::Fruit;
    type Child = C::Child;

    fn for_segment(
        &self,
        ordinal: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> tantivy::Result<C::Child> {
        self.inner.for_segment(ordinal, segment)
    }

    fn requires_scoring(&self) -> bool {
        self.inner.requires_scoring()
    }

    fn merge_fruits(
        &self,
        fruits: Vec<<C::Child as SegmentCollector>::Fruit>,
    ) -> tantivy::Result<C::Fruit> {
        self.inner.merge_fruits(fruits)
    }

    fn collect_segment(
        &self,
        weight: &dyn Weight,
        ordinal: u32,
        segment: &SegmentReader,
    ) -> tantivy::Result<<C::Child as SegmentCollector>::Fruit> {
        let mut child = self.inner.for_segment(ordinal, segment)?;
        let scoring = self.inner.requires_scoring();
        let mut scorer = weight.scorer(segment, 1.0)?;
        let mut doc = scorer.doc();
        let mut until_look = 0;
        while doc != TERMINATED {
            if until_look == 0 {
                if self.clock.monotonic() > self.end {
                    self.late.store(true, Ordering::Relaxed);
                    let why = "the time is over".to_owned();
                    return Err(TantivyError::InternalError(why));
                }
                until_look = ROWS_PER_LOOK;
            }
            until_look -= 1;
            if !segment.is_deleted(doc) {
                child.collect(doc, if scoring { scorer.score() } else { 0.0 });
            }
            doc = scorer.advance();
        }
        Ok(child.harvest())
    }
}
