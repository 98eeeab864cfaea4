//! Definitions and ids for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use materializer_migrations::Verb;
use materializer_model::definition::{
    Expression, Field, Format, Gates, OnError, Order, Partitioner, Promotion, Ratio, RedisShape,
    RedisTarget, Source, TantivyTarget, Target,
};
use materializer_model::{
    Bar, Checkpoint, Counts, EventId, Fingerprint, Growth, Offset, Partition, Position, Timestamp,
    Topic, TopicCheckpoint, TopicId, VersionId, VersionNumber, ViewDefinition, ViewName,
};

pub(crate) const SOAK: Duration = Duration::from_secs(3_600);

pub(crate) fn view() -> ViewName {
    "products".parse().expect("a name")
}

pub(crate) fn version(number: u32) -> VersionId {
    VersionId {
        view: view(),
        number: VersionNumber(number),
    }
}

/// A Redis view; `edition` is the one field that differs from one definition to the next.
pub(crate) fn definition(edition: &str) -> ViewDefinition {
    ViewDefinition {
        view: view(),
        from: Source {
            topics: vec![Topic::new("shop.products")],
            policy: None,
            partitioner: None,
            order: Order::Partition,
        },
        format: Format::Json,
        only: None,
        condition: None,
        key: Expression("record.key".into()),
        document: vec![Field {
            name: "title".into(),
            value: Expression(format!("event.{edition}")),
            index: None,
        }],
        to: Target::Redis(RedisTarget {
            connection: "cache".into(),
            key: "product:{key}".into(),
            shape: RedisShape::Json,
            ttl: None,
            shards: 1,
        }),
        gates: Gates {
            lag_seconds: 10.0,
            lag_records: 1_000,
            stable_for: Duration::from_secs(120),
            documents_ratio: Some(Ratio { min: 0.9, max: 1.1 }),
            queries: Vec::new(),
            keys: Vec::new(),
        },
        soak: SOAK,
        on_error: OnError::Fail,
        promotion: Promotion::Manual,
    }
}

/// A checkpoint of the two partitions of the view's topic.
pub(crate) fn checkpoint(seq: u64, next: [u64; 2]) -> Checkpoint {
    let at = |next| Position {
        next: Offset(next),
        epoch: None,
        anchor: Timestamp(0),
    };
    let topic = TopicCheckpoint::new(
        TopicId("topic".into()),
        (0..).map(Partition).zip(next.map(at)).collect(),
    );
    Checkpoint {
        seq,
        topics: [(Topic::new("shop.products"), topic)].into(),
        bar: Bar::default(),
        counts: Counts::default(),
    }
}

pub(crate) fn tantivy(edition: &str, copies: u16) -> ViewDefinition {
    ViewDefinition {
        to: Target::Tantivy(TantivyTarget { copies }),
        ..definition(edition)
    }
}

pub(crate) fn fingerprint(definition: &ViewDefinition) -> Fingerprint {
    Fingerprint(format!(
        "{}/{}",
        definition.to.kind(),
        definition.document[0].value.0
    ))
}

pub(crate) fn apply(definition: ViewDefinition) -> Verb {
    Verb::Apply {
        fingerprint: fingerprint(&definition),
        definition: Box::new(definition),
        because: vec!["`document.title` changed".into()],
        replace: false,
        rebuild: false,
    }
}

pub(crate) fn promote(number: u32) -> Verb {
    Verb::Promote {
        version: version(number),
        waive: BTreeSet::new(),
    }
}

pub(crate) fn rollback() -> Verb {
    Verb::Rollback {
        view: view(),
        waive: BTreeSet::new(),
    }
}

/// Ids that a test can tell apart: `prefix-1`, `prefix-2`, …
pub(crate) fn ids(prefix: &str) -> Box<dyn FnMut() -> EventId + Send> {
    let prefix = prefix.to_owned();
    let mut last = 0;
    Box::new(move || {
        last += 1;
        EventId::new(format!("{prefix}-{last}"))
    })
}

/// Returns a topic that got one partition more.
pub(crate) fn growth() -> Growth {
    Growth {
        topic: Topic::new("shop.products"),
        id: TopicId("abc".into()),
        from: 2,
        to: 3,
        before: BTreeMap::from([(Partition(0), Offset(40))]),
        ends: BTreeMap::from([(Partition(0), Offset(42)), (Partition(1), Offset(7))]),
        since: Timestamp(1_000),
        partitioner: Some(Partitioner::Murmur2),
    }
}
