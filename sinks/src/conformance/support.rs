//! What the cases are written in: a writer that keeps its checkpoint, and rows as texts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::ports::{Expect, Sink, SinkError, SinkReader, StoredRow};
use materializer_model::{
    Bar, Batch, CatalogId, Change, Checkpoint, ClaimId, Commit, Counts, Key, LeaderEpoch, Mutation,
    Offset, Origin, Partition, Position, Row, Timestamp, Token, Topic, TopicCheckpoint, TopicId,
    Unit,
};

use super::Place;

/// How often, and how long each time, a commit is waited for: half a minute.
const WAITS: usize = 300;
const WAIT: Duration = Duration::from_millis(100);

pub(super) fn unit(text: &str) -> Unit {
    text.parse().expect("a unit")
}

pub(super) fn first() -> Unit {
    unit("products/v1/c0/s0")
}

pub(super) fn token(claim_offset: u64) -> Token {
    token_of("catalog", claim_offset)
}

pub(super) fn token_of(catalog: &str, claim_offset: u64) -> Token {
    Token {
        catalog: CatalogId::new(catalog),
        claim_offset,
        claim: ClaimId::new(format!("claim-{claim_offset}")),
    }
}

/// Returns a row of the view that all places have.
pub(super) fn row(title: &str, n: u64) -> Row {
    let title = serde_json::to_string(title).expect("a text");
    Row::new(format!(r#"{{"title":{title},"n":{n}}}"#).as_bytes())
}

fn mutation(key: &[u8], change: Change) -> Mutation {
    Mutation {
        key: Key::new(key),
        change,
        origin: Origin {
            topic: Topic::new("shop.products"),
            partition: Partition(0),
            offset: Offset(1),
        },
    }
}

pub(super) fn set(key: impl AsRef<[u8]>, row: Row) -> Mutation {
    set_until(key, row, None)
}

pub(super) fn set_until(
    key: impl AsRef<[u8]>,
    row: Row,
    expires_at: Option<Timestamp>,
) -> Mutation {
    mutation(key.as_ref(), Change::Upsert { row, expires_at })
}

pub(super) fn delete(key: impl AsRef<[u8]>) -> Mutation {
    mutation(key.as_ref(), Change::Delete)
}

/// Returns a checkpoint with so many partitions, all at `seq`.
pub(super) fn checkpoint(seq: u64, partitions: i32) -> Checkpoint {
    let topic = Topic::new("shop.products");
    let position = Position {
        next: Offset(seq),
        epoch: Some(LeaderEpoch(3)),
        anchor: Timestamp(1_700_000_000_000),
    };
    let numbers = || (0..partitions).map(Partition);
    Checkpoint {
        seq,
        topics: BTreeMap::from([(
            topic.clone(),
            TopicCheckpoint::new(
                TopicId("topic-id".into()),
                numbers().map(|partition| (partition, position)).collect(),
            ),
        )]),
        bar: Bar(BTreeMap::from([(
            topic,
            numbers()
                .map(|partition| (partition, Offset(1 << 40)))
                .collect(),
        )])),
        counts: Counts {
            skipped: seq,
            failed: 0,
            dead: 0,
        },
    }
}

/// Returns a commit that follows `previous`.
pub(super) fn commit_after(previous: Option<&Checkpoint>, mutations: Vec<Mutation>) -> Arc<Commit> {
    let mut batch = Batch::default();
    for mutation in mutations {
        batch.put(mutation);
    }
    Arc::new(Commit {
        batch,
        previous: previous.cloned(),
        checkpoint: checkpoint(previous.map_or(1, |at| at.seq + 1), 2),
    })
}

/// Submits a commit and waits for its outcome.
pub(super) fn apply(sink: &mut dyn Sink, commit: &Arc<Commit>) -> Result<Checkpoint, SinkError> {
    for mutation in commit.batch.mutations() {
        assert_eq!(sink.check(mutation), Ok(()), "{:?}", mutation.key);
    }
    sink.submit(Arc::clone(commit))?;
    for _ in 0..WAITS {
        if let Some(checkpoint) = sink.settle(WAIT)? {
            return Ok(checkpoint);
        }
    }
    panic!("a commit was not settled in {WAITS} waits of {WAIT:?}");
}

/// An open unit that commits one batch after another.
pub(super) struct Writer {
    pub(super) sink: Box<dyn Sink>,
    pub(super) at: Option<Checkpoint>,
}

impl Writer {
    /// Opens a unit that nobody wrote before, as the claim at offset 1.
    pub(super) fn begin(place: &dyn Place, unit: &Unit) -> Self {
        let writer = Self::open(place, unit, 1, Expect::Maybe);
        assert_eq!(writer.at, None, "{unit} begins empty");
        writer
    }

    pub(super) fn open(place: &dyn Place, unit: &Unit, claim: u64, expect: Expect) -> Self {
        let mut sink = place.sink(unit);
        let at = sink
            .open(&token(claim), expect)
            .unwrap_or_else(|fault| panic!("open {unit} as claim {claim}: {fault:?}"));
        Self { sink, at }
    }

    pub(super) fn try_commit(&mut self, mutations: Vec<Mutation>) -> Result<(), SinkError> {
        let commit = commit_after(self.at.as_ref(), mutations);
        let checkpoint = apply(&mut *self.sink, &commit)?;
        assert_eq!(checkpoint, commit.checkpoint);
        self.at = Some(checkpoint);
        Ok(())
    }

    pub(super) fn commit(&mut self, mutations: Vec<Mutation>) {
        self.try_commit(mutations).expect("a commit of the owner");
    }
}

/// Returns all that a scan of a unit's version sees.
pub(super) fn scan(reader: &mut dyn SinkReader) -> BTreeMap<Key, StoredRow> {
    let mut rows = BTreeMap::new();
    reader
        .scan(&mut |key, row| {
            rows.insert(key, row);
            true
        })
        .expect("a scan");
    rows
}

/// Checks that a unit holds exactly these rows, by a scan and by key, at this checkpoint.
pub(super) fn check_holds<K: AsRef<[u8]>>(
    place: &dyn Place,
    unit: &Unit,
    at: Option<&Checkpoint>,
    expected: &[(K, Row)],
) {
    let mut reader = place.reader(unit);
    let expected: BTreeMap<Key, Row> = expected
        .iter()
        .filter_map(|(key, row)| Some((Key::new(key.as_ref()), reader.stored(row)?)))
        .collect();
    let scanned: BTreeMap<Key, Row> = scan(&mut *reader)
        .into_iter()
        .map(|(key, stored)| (key, stored.row))
        .collect();
    assert!(
        scanned == expected,
        "{unit} holds {:?} and not {:?}",
        scanned.keys(),
        expected.keys()
    );
    let keys: Vec<Key> = expected.keys().cloned().collect();
    let snapshot = reader.read(&keys).expect("a read");
    assert_eq!(snapshot.checkpoint.as_ref(), at, "checkpoint of {unit}");
    let read: Vec<_> = snapshot
        .rows
        .into_iter()
        .map(|stored| stored.map(|stored| stored.row))
        .collect();
    assert!(
        read.iter()
            .map(Option::as_ref)
            .eq(expected.values().map(Some)),
        "{unit} gives other rows by key than by scan"
    );
}

/// Checks that a result is an error of the kind, named as in [`SinkError`].
pub(super) fn check_fails<T: std::fmt::Debug>(result: Result<T, SinkError>, kind: &str) {
    let found = match &result {
        Ok(_) => "no error",
        Err(SinkError::Unavailable(_)) => "Unavailable",
        Err(SinkError::Full(_)) => "Full",
        Err(SinkError::Fenced(_)) => "Fenced",
        Err(SinkError::Damaged(_)) => "Damaged",
        Err(SinkError::Refused(_)) => "Refused",
    };
    assert_eq!(found, kind, "{result:?}");
}
