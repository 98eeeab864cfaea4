//! A catalog with its claims and progress for tests, built by the events that would build a real one.

use std::collections::{BTreeMap, BTreeSet};

use materializer_migrations::event::{Body, Envelope, NEVER, SCHEMA, Started};
use materializer_migrations::{Catalog, Follower, Reports};
use materializer_model::memory::{ManualClock, MemoryControl, MemoryControlLog};
use materializer_model::ports::{ControlLog, ControlTopic};
use materializer_model::progress::{Claim, GateReading, Health, Lag, Phase, Progress};
use materializer_model::{
    ClaimId, EventId, Fingerprint, Offset, ProcessId, Timestamp, Token, VersionId, ViewDefinition,
    WorkerId,
};
use serde_json::json;

/// An installation's control topics, and what they add up to.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) control: MemoryControl,
    log: MemoryControlLog,
    follower: Follower,
    events: u64,
}

impl World {
    /// Begins with an empty catalog.
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let control = MemoryControl::new("main", clock.clone());
        let mut log = control.log();
        let mut follower = Follower::default();
        let mut ids = 0;
        let mut new_id = || {
            ids += 1;
            EventId::new(format!("created-{ids}"))
        };
        follower.create(&mut log, "test", &mut new_id).unwrap();
        Self {
            clock,
            control,
            log,
            follower,
            events: 0,
        }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        self.follower.catalog()
    }

    pub(crate) fn reports(&self) -> &Reports {
        self.follower.reports()
    }

    /// Appends a fact about a version's view, and reads it back; returns its offset.
    fn fact(&mut self, version: &VersionId, body: Body) -> Offset {
        self.events += 1;
        let revision = self.catalog().revision(&version.view);
        let event = Envelope {
            schema: SCHEMA,
            id: EventId::new(format!("event-{}", self.events)),
            views: BTreeMap::from([(version.view.clone(), revision)]),
            not_before: None,
            not_after: NEVER,
            who: "test".into(),
            why: "test".into(),
            answers: None,
            body,
        };
        let offset = self
            .log
            .append(ControlTopic::Catalog, None, Some(&event.encode()));
        self.follower.follow(&mut self.log).unwrap();
        offset.unwrap()
    }

    /// Starts a version that is written to the given place.
    pub(crate) fn start(&mut self, version: &str, to: serde_json::Value) {
        let version: VersionId = version.parse().unwrap();
        let started = Started {
            version: version.clone(),
            definition: Box::new(definition(&version, to)),
            fingerprint: Fingerprint("f".into()),
            shards: 1,
            because: Vec::new(),
            replaces: None,
        };
        self.fact(&version, Body::Started(started));
    }

    /// Changes how a version runs: how many copies it has.
    pub(crate) fn change(&mut self, version: &str, to: serde_json::Value) {
        self.redefine(version, |definition| {
            definition.to = serde_json::from_value(to).unwrap();
        });
    }

    /// Changes any settings of a version that are changed in place.
    pub(crate) fn redefine(&mut self, version: &str, change: impl FnOnce(&mut ViewDefinition)) {
        let version: VersionId = version.parse().unwrap();
        let held = self.catalog().version(&version).unwrap();
        let mut definition = ViewDefinition::clone(&held.definition);
        change(&mut definition);
        let changed = Body::SettingsChanged {
            version: version.clone(),
            definition: Box::new(definition),
            because: Vec::new(),
        };
        self.fact(&version, changed);
    }

    /// Makes a version live; returns the alias epoch.
    pub(crate) fn promote(&mut self, version: &str) -> Offset {
        let version: VersionId = version.parse().unwrap();
        let body = Body::Promoted {
            version: version.clone(),
            from: None,
            ends: None,
            evidence: Vec::new(),
            waived: BTreeSet::new(),
        };
        self.fact(&version, body)
    }

    /// Gives a candidate up, with nothing of it left; returns the offset of the last event.
    pub(crate) fn give_up(&mut self, version: &str) -> Offset {
        let version: VersionId = version.parse().unwrap();
        let aborted = Body::Aborted {
            version: version.clone(),
        };
        self.fact(&version, aborted);
        let retired = Body::Retired {
            version: version.clone(),
        };
        self.fact(&version, retired)
    }

    /// Claims a unit for a worker at an address; returns the token.
    pub(crate) fn claim(&mut self, unit: &str, address: &str) -> Token {
        let claim = Claim {
            claim: ClaimId::new(format!("claim-of-{address}")),
            worker: WorkerId::new("worker"),
            address: Some(address.into()),
        };
        let value = serde_json::to_vec(&claim).unwrap();
        let offset = self
            .log
            .append(ControlTopic::Claims, Some(unit), Some(&value));
        self.follower.follow(&mut self.log).unwrap();
        Token {
            catalog: self.catalog().id().unwrap().clone(),
            claim_offset: offset.unwrap().0,
            claim: claim.claim,
        }
    }

    /// Has a unit's progress reported now.
    pub(crate) fn report(&mut self, progress: &Progress) {
        let key = progress.unit.to_string();
        let value = serde_json::to_vec(progress).unwrap();
        self.log
            .append(ControlTopic::Progress, Some(&key), Some(&value))
            .unwrap();
        self.follower.follow(&mut self.log).unwrap();
    }
}

/// Returns the definition of a version that is written to the given place.
fn definition(version: &VersionId, to: serde_json::Value) -> ViewDefinition {
    let definition = json!({
        "view": version.view,
        "from": {"topics": ["shop.products"], "policy": null, "partitioner": null, "order": "partition"},
        "format": "json", "only": null, "where": null, "key": "record.key",
        "document": [{"name": "title", "value": "event.title", "index": null}],
        "to": to,
        "gates": {"lag_seconds": 10.0, "lag_records": 1000, "stable_for": 0,
            "documents_ratio": null, "queries": [], "keys": []},
        "soak": 0, "on_error": "fail", "promotion": "manual",
    });
    serde_json::from_value(definition).unwrap()
}

/// Returns where the rows of a Redis view are written.
pub(crate) fn to_redis(key: &str) -> serde_json::Value {
    json!({"redis": {"connection": "cache", "key": key, "as": "json", "ttl": null, "shards": 1}})
}

/// Returns where the documents of a tantivy view are written.
pub(crate) fn to_tantivy(copies: u16) -> serde_json::Value {
    json!({"tantivy": {"copies": copies}})
}

/// Returns the progress of a unit that serves readers.
pub(crate) fn servable(unit: &str, token: Token, address: &str) -> Progress {
    Progress {
        unit: unit.parse().unwrap(),
        worker: WorkerId::new("worker"),
        process: ProcessId::new(address),
        sequence: 1,
        token,
        checkpoint: None,
        until: None,
        phase: Phase::Tailing,
        health: Health::Ok,
        lag: Some(Lag {
            records: 2,
            seconds: 0.5,
            estimated: false,
        }),
        ends_age_ms: Some(10),
        end_records: 100,
        done_records: 98,
        held_ms: Some(120_000),
        gates: vec![GateReading {
            gate: "lag_records".into(),
            holds: true,
            reading: "2 ≤ 1000".into(),
        }],
        servable: true,
        rate: 4.0,
        waits_for: None,
        documents: Some(90),
        bytes: Some(4_096),
        bytes_free: Some(1_000_000),
        tombstones_left_ms: Some(86_400_000),
        address: Some(address.into()),
        growth: None,
    }
}
