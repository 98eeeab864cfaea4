//! Proves a unit right: reads the log again from its genesis up to the sink's checkpoint, folds it, and
//! compares keys and values with what is stored.
//!
//! The sink may be fed meanwhile. A key that differs is read again together with the checkpoint, the
//! fold goes on up to it, and only what then still differs is told. Memory is bounded: a fold that
//! outgrows it is done again in more passes, each over a part of the keys by hash.

mod refold;

use std::collections::{BTreeMap, BTreeSet};

use materializer_model::ports::{Derive, LogError, LogReader, SinkError, SinkReader, StoredRow};
use materializer_model::{Checkpoint, Clock, Key, Mutation, Origin, Poison, Row, Timestamp, Topic};

use refold::{Part, Refold};

/// How often keys that differ are read again while the sink moves on.
const ROUNDS: usize = 10;
/// How many keys are read at once.
const KEYS_AT_ONCE: usize = 500;
/// The most keys that are looked at again.
const SUSPECTS: usize = 100_000;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// About that many keys, chosen by hash.
    Sample(usize),
    /// Every key.
    Full,
}

/// What is compared, and within which bounds.
#[derive(Clone, Debug)]
pub struct Request {
    /// How much.
    pub extent: Extent,
    /// The most bytes that a fold holds.
    pub bytes_max: usize,
    /// The most examples in the report.
    pub examples_max: usize,
    /// Records that every build of the view passes over.
    pub skips: BTreeSet<Origin>,
    /// Which of the topics are compacted.
    pub compacted: BTreeSet<Topic>,
}

/// Everything that a verification reads.
pub struct Subject<'a> {
    /// A reader of the log of its own.
    pub reader: &'a mut dyn LogReader,
    /// The version's derivation.
    pub derive: &'a dyn Derive,
    /// What the sink can take: [`materializer_model::ports::Sink::check`].
    pub check: &'a dyn Fn(&Mutation) -> Result<(), Poison>,
    /// The unit as it is stored.
    pub sink: &'a mut dyn SinkReader,
    /// The time.
    pub clock: &'a dyn Clock,
}

/// A key whose row is not what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Key,
    /// What the log says; `None` is no row.
    pub should: Option<Row>,
    /// What is stored; `None` is no row.
    pub is: Option<Row>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys compared, those of deleted rows included.
    pub keys: u64,
    /// Rows that the log asks for, among them.
    pub rows: u64,
    /// Rows that are stored, where all were compared.
    pub stored: Option<u64>,
    /// Rows that are not there.
    pub missing: u64,
    /// Rows that should not be there.
    pub unexpected: u64,
    /// Rows with another value.
    pub different: u64,
    /// Some of what differs.
    pub examples: Vec<Difference>,
    /// In how many passes over the log.
    pub passes: u64,
}

impl Report {
    /// Says whether the sink holds what the log says.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.missing == 0 && self.unexpected == 0 && self.different == 0
    }

    fn add(&mut self, difference: Difference, examples_max: usize) {
        match (&difference.should, &difference.is) {
            (Some(_), None) => self.missing += 1,
            (None, Some(_)) => self.unexpected += 1,
            (Some(_), Some(_)) | (None, None) => self.different += 1,
        }
        if self.examples.len() < examples_max {
            self.examples.push(difference);
        }
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The unit holds no checkpoint.
    #[error("the unit has no checkpoint yet: there is nothing to compare")]
    Empty,
    /// The log could not be read from its genesis.
    #[error("read the log again")]
    Log(#[from] LogError),
    /// The sink could not be read.
    #[error("read the sink")]
    Sink(#[from] SinkError),
    /// The log stands still below the checkpoint.
    #[error("the log brings nothing more below the sink's checkpoint: is it another log?")]
    Stalled,
    /// More differs than can be looked at again.
    #[error("more than {SUSPECTS} keys differ: the unit is not of this log or definition")]
    TooMany,
}

/// Verifies one unit.
///
/// # Errors
/// [`VerifyError`]; what differs is no error but in the [`Report`].
pub fn verify(subject: &mut Subject<'_>, request: &Request) -> Result<Report, VerifyError> {
    match request.extent {
        Extent::Sample(keys) => {
            let mut report = Report::default();
            let part = Part::Smallest(keys);
            pass(subject, request, part, &mut report)?;
            Ok(report)
        }
        Extent::Full => {
            let mut parts = 1;
            loop {
                if let Some(report) = full(subject, request, parts)? {
                    return Ok(report);
                }
                parts *= 2;
            }
        }
    }
}

/// Verifies every key in that many parts; `None` where one of them outgrows the memory.
fn full(
    subject: &mut Subject<'_>,
    request: &Request,
    parts: u64,
) -> Result<Option<Report>, VerifyError> {
    let mut report = Report::default();
    for part in 0..parts {
        if !pass(subject, request, Part::OneOf { part, parts }, &mut report)? {
            return Ok(None);
        }
    }
    Ok(Some(report))
}

/// Verifies the keys of one part; says whether they fitted into the memory.
fn pass(
    subject: &mut Subject<'_>,
    request: &Request,
    part: Part,
    report: &mut Report,
) -> Result<bool, VerifyError> {
    let target = subject
        .sink
        .read(&[])?
        .checkpoint
        .ok_or(VerifyError::Empty)?;
    let mut refold = Refold::new(part);
    if !refold.advance(subject, request, &target)? {
        return Ok(false);
    }
    report.passes += 1;
    let mut suspects = BTreeSet::new();
    let keys: Vec<Key> = refold.keys().cloned().collect();
    report.keys += u64::try_from(keys.len()).unwrap_or(u64::MAX);
    let rows = refold.expected.values().filter(|row| row.is_some()).count();
    report.rows += u64::try_from(rows).unwrap_or(u64::MAX);
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let (_, differing) = compare(subject, &refold.expected, keys)?;
        suspects.extend(differing.into_iter().map(|difference| difference.key));
    }
    if let Part::OneOf { .. } = part {
        let mut stored = 0;
        subject.sink.scan(&mut |key, _| {
            if refold.is_part(&key) {
                stored += 1;
                if refold.expected.get(&key).is_none_or(Option::is_none) {
                    suspects.insert(key);
                }
            }
            suspects.len() <= SUSPECTS
        })?;
        *report.stored.get_or_insert(0) += stored;
    }
    if suspects.len() > SUSPECTS {
        return Err(VerifyError::TooMany);
    }
    for difference in confirm(subject, request, &mut refold, suspects)? {
        report.add(difference, request.examples_max);
    }
    Ok(true)
}

/// Looks at keys again until the fold stands where the sink stands.
fn confirm(
    subject: &mut Subject<'_>,
    request: &Request,
    refold: &mut Refold,
    mut suspects: BTreeSet<Key>,
) -> Result<Vec<Difference>, VerifyError> {
    let mut differing = Vec::new();
    refold.narrow(&suspects);
    for _ in 0..ROUNDS {
        differing.clear();
        let mut newest: Option<Checkpoint> = None;
        let mut moved = false;
        let keys: Vec<Key> = suspects.iter().cloned().collect();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let (checkpoint, found) = compare(subject, &refold.expected, keys)?;
            moved |= !refold.stands_at(&checkpoint);
            newest = Some(checkpoint);
            differing.extend(found);
        }
        suspects = differing
            .iter()
            .map(|difference| difference.key.clone())
            .collect();
        match newest {
            Some(newest) if moved && !suspects.is_empty() => {
                refold.narrow(&suspects);
                refold.advance(subject, request, &newest)?;
            }
            Some(_) | None => break,
        }
    }
    Ok(differing)
}

/// Reads keys and the checkpoint in one instant, and returns what is not as expected.
fn compare(
    subject: &mut Subject<'_>,
    expected: &BTreeMap<Key, Option<StoredRow>>,
    keys: &[Key],
) -> Result<(Checkpoint, Vec<Difference>), VerifyError> {
    let snapshot = subject.sink.read(keys)?;
    let checkpoint = snapshot.checkpoint.ok_or(VerifyError::Empty)?;
    let now = subject.clock.broker();
    let mut differing = Vec::new();
    for (key, is) in keys.iter().zip(snapshot.rows) {
        let should = expected.get(key).cloned().flatten();
        let should = should.and_then(|should| {
            let row = subject.sink.stored(&should.row)?;
            Some(StoredRow { row, ..should })
        });
        let gone = |row: &Option<StoredRow>| row.as_ref().is_none_or(|row| has_expired(row, now));
        if should != is && !(gone(&should) && gone(&is)) {
            differing.push(Difference {
                key: key.clone(),
                should: should.map(|row| row.row),
                is: is.map(|row| row.row),
            });
        }
    }
    Ok((checkpoint, differing))
}

fn has_expired(row: &StoredRow, now: Option<Timestamp>) -> bool {
    row.expires_at.zip(now).is_some_and(|(end, now)| end <= now)
}

/// Compares two versions key by key, as they are stored; expired rows count as they are.
///
/// # Errors
/// [`VerifyError::Sink`].
pub fn against(
    one: &mut dyn SinkReader,
    other: &mut dyn SinkReader,
    examples_max: usize,
) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    half(one, other, &mut report, examples_max, false)?;
    half(other, one, &mut report, examples_max, true)?;
    report.passes = 1;
    Ok(report)
}

/// Looks up in `other` what `one` holds. The second time only what `other` lacks is news.
fn half(
    one: &mut dyn SinkReader,
    other: &mut dyn SinkReader,
    report: &mut Report,
    examples_max: usize,
    second: bool,
) -> Result<(), VerifyError> {
    let mut page: Vec<(Key, StoredRow)> = Vec::new();
    let mut fault = None;
    let mut look_up = |page: &mut Vec<(Key, StoredRow)>| -> Result<(), SinkError> {
        let keys: Vec<Key> = page.iter().map(|(key, _)| key.clone()).collect();
        let snapshot = other.read(&keys)?;
        for ((key, has), had) in page.drain(..).zip(snapshot.rows) {
            let (has, had) = (Some(has.row), had.map(|had| had.row));
            let (should, is) = if second { (had, has) } else { (has, had) };
            if !second {
                report.keys += 1;
                report.rows += 1;
            } else {
                *report.stored.get_or_insert(0) += 1;
            }
            if should != is && (!second || should.is_none()) {
                report.add(Difference { key, should, is }, examples_max);
            }
        }
        Ok(())
    };
    one.scan(&mut |key, row| {
        page.push((key, row));
        if page.len() == KEYS_AT_ONCE
            && let Err(error) = look_up(&mut page)
        {
            fault = Some(error);
        }
        fault.is_none()
    })?;
    if let Some(error) = fault {
        return Err(error.into());
    }
    Ok(look_up(&mut page)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use materializer_model::memory::{
        ManualClock, MemoryLog, MemoryReader, MemoryRecord, MemorySinkReader, MemoryStore,
        TopicSettings,
    };
    use materializer_model::ports::{Expect, Sink};
    use materializer_model::{
        Bar, Batch, CatalogId, Change, ClaimId, Commit, Counts, Offset, Partition, Position,
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
            let topic = TopicCheckpoint {
                id: TopicId("topic-1".into()),
                partitioner: None,
                partitions: BTreeMap::from([(Partition(0), at)]),
            };
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
                skips: BTreeSet::new(),
                compacted: BTreeSet::new(),
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
}
