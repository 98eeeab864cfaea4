//! Every event ever stored is read for ever: one of each body, byte by byte.
//!
//! `UPDATE_GOLDEN=1` rewrites the file; a changed line in its diff is a broken format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use materializer_migrations::event::{Body, Envelope, Read, SCHEMA, Started, Verb};
use materializer_migrations::plan::Plan;
use materializer_model::ports::ControlIdentity;
use materializer_model::progress::GateReading;
use materializer_model::{
    CatalogId, EventId, Offset, Origin, Partition, Timestamp, Topic, TopicId, VersionNumber,
};

use crate::sample::{apply, definition, fingerprint, growth, tantivy, version, view};

pub(crate) fn topics() -> ControlIdentity {
    let id = |name: &str| TopicId(format!("{name}-id"));
    ControlIdentity {
        cluster: "cluster".into(),
        catalog: id("catalog"),
        claims: id("claims"),
        progress: id("progress"),
    }
}

fn evidence() -> Vec<GateReading> {
    vec![GateReading {
        gate: "lag_records".into(),
        holds: true,
        reading: "lag 3 ≤ 1000".into(),
    }]
}

fn waived() -> BTreeSet<String> {
    BTreeSet::from(["documents_ratio".to_owned()])
}

fn record() -> Origin {
    Origin {
        topic: Topic::new("shop.products"),
        partition: Partition(3),
        offset: Offset(42),
    }
}

fn verbs() -> Vec<Verb> {
    vec![
        apply(definition("a")),
        Verb::Promote {
            version: version(2),
            waive: waived(),
        },
        Verb::Rollback {
            view: view(),
            waive: BTreeSet::new(),
        },
        Verb::Pause {
            version: version(2),
        },
        Verb::Resume {
            version: version(2),
        },
        Verb::Skip {
            version: version(2),
            at: record(),
            topic_id: None,
        },
        Verb::Retire {
            view: view(),
            version: None,
        },
        Verb::Retire {
            view: view(),
            version: Some(VersionNumber(1)),
        },
        Verb::Abort {
            version: version(2),
        },
    ]
}

fn plans() -> Vec<Plan> {
    let version = version(2);
    let because = vec!["`document.brand` was added".to_owned()];
    let (from, soak_ms) = (VersionNumber(1), 86_400_000);
    vec![
        Plan::Start {
            version: version.clone(),
            live: Some(from),
            replaces: None,
            because: because.clone(),
        },
        Plan::Promote {
            version: version.clone(),
            from: Some(from),
            ends: None,
            soak_ms,
        },
        Plan::RollBack {
            version: version.clone(),
            from,
            soak_ms,
        },
        Plan::Pause {
            version: version.clone(),
        },
        Plan::Resume {
            version: version.clone(),
        },
        Plan::Skip {
            version: version.clone(),
            at: record(),
            topic_id: None,
        },
        Plan::RetireView {
            view: view(),
            versions: vec![from, version.number],
        },
        Plan::EndSoak {
            version: version.clone(),
        },
        Plan::Abort {
            version: version.clone(),
        },
        Plan::ChangeSettings { version, because },
        Plan::Nothing {
            why: "`products@v2` is live".into(),
        },
    ]
}

fn facts() -> Vec<Body> {
    let (version, view) = (version(2), view());
    vec![
        Body::CatalogCreated {
            catalog: CatalogId::new("catalog"),
            topics: topics(),
        },
        Body::Adopted {
            topics: topics(),
            claims_from: 0,
            numbers: BTreeMap::new(),
        },
        Body::Taken {},
        Body::Refused {
            why: "`products@v2` is not ready".into(),
            hint: Some("wait".into()),
            gates: evidence(),
        },
        Body::Nothing {
            why: "`products@v2` is live".into(),
        },
        Body::NoOp {},
        Body::Started(Started {
            version: version.clone(),
            fingerprint: fingerprint(&tantivy("b", 2)),
            definition: Box::new(tantivy("b", 2)),
            shards: 1,
            because: vec!["`to` changed".into()],
            replaces: Some(VersionNumber(1)),
        }),
        Body::SettingsChanged {
            version: version.clone(),
            definition: Box::new(definition("b")),
            because: vec!["`soak` 24 h → 1 h".into()],
        },
        Body::Promoted {
            version: version.clone(),
            from: Some(VersionNumber(1)),
            ends: None,
            evidence: evidence(),
            waived: waived(),
        },
        Body::RolledBack {
            version: version.clone(),
            from: VersionNumber(3),
            evidence: evidence(),
            waived: BTreeSet::new(),
        },
        Body::AliasConfirmed {
            view: view.clone(),
            epoch: Offset(17),
        },
        Body::SoakInterrupted {
            version: version.clone(),
            why: "`products/v2/c0/s0` is silent".into(),
        },
        Body::SoakRestarted {
            version: version.clone(),
        },
        Body::SoakEnded {
            version: version.clone(),
        },
        Body::ViewRetired { view: view.clone() },
        Body::Retiring {
            version: version.clone(),
        },
        Body::Retired {
            version: version.clone(),
        },
        Body::Aborted {
            version: version.clone(),
        },
        Body::Paused {
            version: version.clone(),
        },
        Body::Resumed { version },
        Body::Skipped {
            view,
            at: record(),
            topic_id: None,
        },
    ]
}

/// What a folder of definitions leaves in the catalog.
fn declared() -> [Body; 2] {
    let digest = "6f1d".to_owned();
    let asked = Body::Request {
        verb: Verb::Retire {
            view: view(),
            version: None,
        },
        plan: Plan::Nothing { why: String::new() },
        declaration: Some(digest.clone()),
    };
    let settled = Body::Declared {
        view: view(),
        declaration: digest,
        refused: Some("`products@v2` was rolled back".into()),
    };
    [asked, settled]
}

/// A skip is bound to its topic's id; those of older releases, above, are not.
fn skips_by_id() -> [Body; 2] {
    let topic_id = Some(TopicId("products-id".into()));
    let asked = Body::Request {
        verb: Verb::Skip {
            version: version(2),
            at: record(),
            topic_id: topic_id.clone(),
        },
        plan: Plan::Skip {
            version: version(2),
            at: record(),
            topic_id: topic_id.clone(),
        },
        declaration: None,
    };
    let done = Body::Skipped {
        view: view(),
        at: record(),
        topic_id,
    };
    [asked, done]
}

fn events() -> Vec<Envelope> {
    let nothing = Plan::Nothing { why: String::new() };
    let asked = verbs().into_iter().map(|verb| Body::Request {
        verb,
        plan: nothing.clone(),
        declaration: None,
    });
    let planned = plans().into_iter().map(|plan| Body::Request {
        verb: Verb::Abort {
            version: version(2),
        },
        plan,
        declaration: None,
    });
    // Added since: at the end, so that the lines before stay as they were written.
    let restored = Body::Adopted {
        topics: topics(),
        claims_from: 1_764_000_000_000,
        numbers: BTreeMap::from([(view(), VersionNumber(7))]),
    };
    let bodies = facts().into_iter().chain(asked).chain(planned);
    let bodies = bodies.chain([restored, Body::Grown(growth())]);
    let bodies = bodies.chain(declared());
    let bodies = bodies.chain(skips_by_id());
    bodies
        .enumerate()
        .map(|(number, body)| Envelope {
            schema: SCHEMA,
            id: EventId::new(format!("event-{number}")),
            views: BTreeMap::from([(view(), 12)]),
            not_before: number.is_multiple_of(2).then_some(Timestamp(1_000)),
            not_after: Timestamp(16_000),
            who: "ada".into(),
            why: "SHOP-412".into(),
            answers: None,
            body,
        })
        .collect()
}

#[test]
fn every_event_ever_stored_is_written_and_read_as_it_was() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events.jsonl");
    let lines = events().into_iter().map(|event| event.encode());
    let written: String = lines
        .map(|line| String::from_utf8(line).expect("JSON is text") + "\n")
        .collect();
    #[expect(clippy::disallowed_methods, reason = "the switch of golden tests")]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &written).expect("the golden file is written");
    }
    let golden = fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(written, golden, "a stored format changed");
    for (line, event) in golden.lines().zip(events()) {
        assert_eq!(Envelope::read(line.as_bytes()), Read::Known(event));
    }
}

#[test]
fn what_this_release_does_not_know_is_told_from_what_cannot_be_read() {
    let event = |schema: u32, body: &str| {
        format!(
            r#"{{"schema":{schema},"id":"x","views":{{}},"not_before":null,"not_after":1,"who":"","why":"","answers":null,"body":{body}}}"#
        )
    };
    let check = |stored: &str, expected: &str| {
        let found = match Envelope::read(stored.as_bytes()) {
            Read::Known(_) => "known",
            Read::NewerBody(_) => "newer",
            Read::Unreadable(_) => "unreadable",
        };
        assert_eq!(found, expected, "{stored}");
    };
    check(&event(1, r#"{"no_op":{}}"#), "known");
    check(&event(2, r#"{"no_op":{}}"#), "newer");
    check(&event(1, r#"{"split":{}}"#), "newer");
    check(
        &event(1, r#"{"paused":{"version":"products@v1","until":5}}"#),
        "newer",
    );
    check(&event(1, "7"), "newer");
    check("hello", "unreadable");
    check("{}", "unreadable");
    check("", "unreadable");
}
