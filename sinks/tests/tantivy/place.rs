//! Views, sinks and commits for the tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::ports::{Expect, Sink, SinkError};
use materializer_model::{
    Bar, Batch, CatalogId, Change, Checkpoint, ClaimId, Commit, Counts, Fingerprint, Key, Mutation,
    Offset, Origin, Partition, Position, Row, Timestamp, Token, Topic, TopicCheckpoint, TopicId,
    Unit, ViewDefinition,
};
use materializer_sinks::tantivy::{TantivySettings, TantivySink};
use serde_json::{Value, json};

pub(crate) const TOPIC: &str = "shop.products";

/// Returns a view of these fields: name and how it is indexed.
pub(crate) fn view(fields: &[(&str, Value)]) -> ViewDefinition {
    let document: Vec<Value> = fields
        .iter()
        .map(|(name, index)| {
            let mut all = json!({
                "language": null, "tokenizer": null,
                "stored": true, "sort": false, "facet": false, "missing": null,
            });
            for (key, value) in index.as_object().expect("an object") {
                all[key] = value.clone();
            }
            json!({"name": name, "value": format!("event.{name}"), "index": all})
        })
        .collect();
    serde_json::from_value(json!({
        "view": "products",
        "from": {"topics": [TOPIC], "policy": null, "partitioner": null, "order": "partition"},
        "format": "json",
        "only": null,
        "where": null,
        "key": "record.key",
        "document": document,
        "to": {"tantivy": {"copies": 1}},
        "gates": {
            "lag_seconds": 10.0, "lag_records": 1000, "stable_for": 0,
            "documents_ratio": null, "queries": [], "keys": [],
        },
        "soak": 0,
        "on_error": "fail",
        "promotion": "manual",
    }))
    .expect("a definition")
}

/// Returns the view that the shared suite writes.
pub(crate) fn suite_view() -> ViewDefinition {
    view(&[
        ("title", json!({"type": "text"})),
        ("n", json!({"type": "i64", "sort": true})),
    ])
}

pub(crate) fn settings(dir: &Path) -> TantivySettings {
    TantivySettings {
        writer_memory_bytes: 15_000_000,
        disk_free_bytes_min: 0,
        ..TantivySettings::new(dir, "main".parse().expect("a name"))
    }
}

pub(crate) fn fingerprint() -> Fingerprint {
    Fingerprint("f".repeat(64))
}

pub(crate) fn unit() -> Unit {
    "products/v1/c0/s0".parse().expect("a unit")
}

pub(crate) fn token(claim_offset: u64) -> Token {
    Token {
        catalog: CatalogId::new("catalog"),
        claim_offset,
        claim: ClaimId::new(format!("claim-{claim_offset}")),
    }
}

pub(crate) fn sink(settings: &TantivySettings, definition: &ViewDefinition) -> TantivySink {
    TantivySink::new(settings.clone(), &unit(), definition, &fingerprint()).expect("a sink")
}

pub(crate) fn mutation(key: &str, offset: u64, row: Option<&Value>) -> Mutation {
    Mutation {
        key: Key::new(key.as_bytes()),
        change: row.map_or(Change::Delete, |row| Change::Upsert {
            row: Row::new(row.to_string().as_bytes()),
            expires_at: None,
        }),
        origin: Origin {
            topic: Topic::new(TOPIC),
            partition: Partition(0),
            offset: Offset(offset),
        },
    }
}

/// Returns the checkpoint of a commit, its bar passed.
pub(crate) fn checkpoint(seq: u64) -> Checkpoint {
    let position = Position {
        next: Offset(seq),
        epoch: None,
        anchor: Timestamp(0),
    };
    let topic = Topic::new(TOPIC);
    Checkpoint {
        seq,
        topics: BTreeMap::from([(
            topic.clone(),
            TopicCheckpoint::new(
                TopicId("id".into()),
                BTreeMap::from([(Partition(0), position)]),
            ),
        )]),
        bar: Bar(BTreeMap::from([(
            topic,
            BTreeMap::from([(Partition(0), Offset(0))]),
        )])),
        counts: Counts::default(),
    }
}

/// Commits, after what the sink holds, and waits for the outcome.
pub(crate) fn commit(
    sink: &mut TantivySink,
    seq: u64,
    mutations: Vec<Mutation>,
) -> Result<(), SinkError> {
    let mut batch = Batch::default();
    for mutation in mutations {
        batch.put(mutation);
    }
    sink.submit(Arc::new(Commit {
        batch,
        previous: (seq > 1).then(|| checkpoint(seq - 1)),
        checkpoint: checkpoint(seq),
    }))?;
    for _ in 0..600 {
        if let Some(settled) = sink.settle(Duration::from_millis(100))? {
            assert_eq!(settled, checkpoint(seq));
            return Ok(());
        }
    }
    panic!("a commit was not settled within a minute");
}

/// Returns an open sink that holds these rows.
pub(crate) fn filled(
    settings: &TantivySettings,
    definition: &ViewDefinition,
    rows: &[(String, Value)],
) -> TantivySink {
    let mut sink = sink(settings, definition);
    assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
    let mutations = (0..)
        .zip(rows)
        .map(|(offset, (key, row))| mutation(key, offset, Some(row)));
    let mutations: Vec<Mutation> = mutations.collect();
    for mutation in &mutations {
        assert_eq!(sink.check(mutation), Ok(()), "{}", mutation.key);
    }
    commit(&mut sink, 1, mutations).expect("a commit");
    sink
}
