use std::sync::Arc;

use materializer_model::memory::{
    ManualClock, MemoryLog, MemoryReader, MemoryRecord, MemorySinkReader, MemoryStore,
    TopicSettings,
};
use materializer_model::ports::{Expect, Sink};
use materializer_model::{
    Bar, Batch, CatalogId, Change, ClaimId, Commit, Counts, Offset, Origin, Partition, Position,
    Record, Token, TopicCheckpoint, TopicId, Unit,
};

use super::*;

/// The row is the value.
struct AsItIs;

fn mutation(record: &Record<'_>, change: Change) -> Mutation {
    Mutation {
        key: Key::new(record.key.unwrap_or_default()),
        change,
        origin: record.origin(),
    }
}

impl Derive for AsItIs {
    fn apply(&self, record: &Record<'_>, out: &mut Vec<Mutation>) -> Result<(), Poison> {
        let change = record.value.map_or(Change::Delete, |value| Change::Upsert {
            row: Row::new(value),
            expires_at: None,
        });
        out.push(mutation(record, change));
        Ok(())
    }

    fn exclude(&self, record: &Record<'_>) -> Option<Mutation> {
        Some(mutation(record, Change::Delete))
    }
}

/// A log of two hundred keys, half of them deleted again, and a store.
struct Place {
    log: MemoryLog,
    store: MemoryStore,
    unit: Unit,
}

impl Place {
    fn new() -> Self {
        let log = MemoryLog::default();
        let topic = Topic::new("t");
        log.create(&topic, TopicSettings::kept(1));
        for n in 0..300 {
            let key = format!("k{}", n % 200);
            let value = (n < 200).then_some("row");
            log.produce(&topic, Partition(0), MemoryRecord::text(&key, value));
        }
        Self {
            log,
            store: MemoryStore::default(),
            unit: "v/v1/c0/s0".parse().expect("a unit"),
        }
    }

    /// Writes rows as if everything was read.
    fn fill(&self, keys: impl Iterator<Item = u32>) {
        let mut batch = Batch::default();
        for n in keys {
            let key = format!("k{n}");
            let record = MemoryRecord::text(&key, Some(if n == 150 { "other" } else { "row" }));
            batch.put(Mutation {
                key: Key::new(key.as_bytes()),
                change: Change::Upsert {
                    row: Row::new(&record.value.expect("given")),
                    expires_at: None,
                },
                origin: Origin {
                    topic: Topic::new("t"),
                    partition: Partition(0),
                    offset: Offset(0),
                },
            });
        }
        let at = Position {
            next: Offset(300),
            epoch: None,
            anchor: Timestamp(0),
        };
        let topic = TopicCheckpoint::new(
            TopicId("topic-1".into()),
            BTreeMap::from([(Partition(0), at)]),
        );
        let token = Token {
            catalog: CatalogId::new("c"),
            claim_offset: 1,
            claim: ClaimId::new("x"),
        };
        let mut sink = self.store.sink(&self.unit);
        sink.open(&token, Expect::Maybe).expect("memory");
        let commit = Commit {
            batch,
            previous: None,
            checkpoint: Checkpoint {
                seq: 1,
                topics: BTreeMap::from([(Topic::new("t"), topic)]),
                bar: Bar::default(),
                counts: Counts::default(),
            },
        };
        sink.submit(Arc::new(commit)).expect("memory");
    }

    fn verify(&self, extent: Extent, bytes_max: usize) -> Report {
        let mut reader: MemoryReader = self.log.reader();
        let mut sink: MemorySinkReader = self.store.reader(&self.unit);
        let mut subject = Subject {
            reader: &mut reader,
            derive: &AsItIs,
            check: &|_| Ok(()),
            sink: &mut sink,
            clock: &ManualClock::new(Timestamp(0)),
        };
        let request = Request {
            extent,
            bytes_max,
            examples_max: 5,
            skips: Skips::default(),
            compacted: BTreeSet::new(),
            growths: Vec::new(),
        };
        verify(&mut subject, &request).expect("the log is there")
    }
}

#[test]
fn a_missing_row_is_found_in_one_pass_or_in_many() {
    let place = Place::new();
    place.fill((100..200).filter(|n| *n != 150));
    let key = Key::new(b"k150");
    for bytes_max in [usize::MAX, 4_000] {
        let report = place.verify(Extent::Full, bytes_max);
        let lacks = Difference {
            key: key.clone(),
            should: Some(Row::new(b"row")),
            is: None,
        };
        assert_eq!(
            (report.keys, report.rows, report.stored),
            (200, 100, Some(99))
        );
        assert_eq!(report.examples, [lacks]);
        assert_eq!(report.passes > 1, bytes_max == 4_000);
    }
}

#[test]
fn missing_unexpected_and_different_rows_are_told_apart() {
    let place = Place::new();
    place.fill((50..52).chain(110..200).chain(900..901));
    let report = place.verify(Extent::Full, usize::MAX);
    let found = (report.missing, report.unexpected, report.different);
    assert_eq!(found, (10, 3, 1), "{:?}", report.examples);
    assert_eq!(report.examples.len(), 5);
}

#[test]
fn a_sample_finds_deleted_rows_that_came_back() {
    let place = Place::new();
    place.fill((0..200).filter(|n| *n != 150));
    let report = place.verify(Extent::Sample(40), usize::MAX);
    assert_eq!((report.keys, report.passes), (40, 1));
    assert_eq!(report.unexpected, 40 - report.rows, "{:?}", report.examples);
    assert!(report.unexpected > 0);
}
