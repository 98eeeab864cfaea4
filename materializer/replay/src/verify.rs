//! Proves a unit right: reads the log again from its genesis up to the sink's checkpoint, folds it, and
//! compares keys and values with what is stored.
//!
//! The sink may be fed meanwhile. A key that differs is read again together with the checkpoint, the
//! fold goes on up to it, and only what then still differs is told. Memory is bounded: a fold that
//! outgrows it is done again in more passes, each over a part of the keys by hash.

mod against;
mod refold;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use materializer_model::ports::{Derive, LogError, LogReader, SinkError, SinkReader, StoredRow};
use materializer_model::{
    Checkpoint, Clock, Growth, Key, Mutation, Poison, Row, Skips, Timestamp, Topic,
};

pub use against::against;
use refold::{Folded, Part, Refold};

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
    pub skips: Skips,
    /// Which of the topics are compacted.
    pub compacted: BTreeSet<Topic>,
    /// The recorded growths of the topics.
    pub growths: Vec<Growth>,
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
    let rows = refold
        .expected
        .values()
        .filter(|folded| folded.row.is_some())
        .count();
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
                if refold
                    .expected
                    .get(&key)
                    .is_none_or(|folded| folded.row.is_none())
                {
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
    expected: &BTreeMap<Key, Folded>,
    keys: &[Key],
) -> Result<(Checkpoint, Vec<Difference>), VerifyError> {
    let snapshot = subject.sink.read(keys)?;
    let checkpoint = snapshot.checkpoint.ok_or(VerifyError::Empty)?;
    let now = subject.clock.broker();
    let mut differing = Vec::new();
    for (key, is) in keys.iter().zip(snapshot.rows) {
        let should = expected.get(key).and_then(|folded| folded.row.clone());
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
