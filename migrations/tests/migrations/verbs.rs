//! What each verb does, and what it is refused for.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_migrations::client::Outcome;
use materializer_migrations::desired::desired;
use materializer_migrations::event::{NEVER, SCHEMA};
use materializer_migrations::{Body, Envelope, Role, Verb};
use materializer_model::definition::{QueryGate, Target};
use materializer_model::ports::{ControlLog, ControlTopic};
use materializer_model::progress::{Directive, Feed, Health};
use materializer_model::{
    EventId, Offset, Origin, Partition, Skip, Skips, Topic, ViewDefinition, WorkerId,
};

use crate::coordinator::two_versions;
use crate::sample::{
    apply, checkpoint, definition, fingerprint, promote, rollback, tantivy, version, view,
};
use crate::world::{Said, World};

fn failing(outcome: &Outcome) -> Vec<&str> {
    let Outcome::GateFailed { gates, .. } = outcome else {
        return Vec::new();
    };
    let failing = gates.iter().filter(|reading| !reading.holds);
    failing.map(|reading| reading.gate.as_str()).collect()
}

/// Promotes v2 while the workers say this of v1 and v2.
fn check_promotion(v1: Said, v2: Said, expected: &[&str]) {
    let mut world = two_versions();
    let shown = format!("v1 {v1:?}, v2 {v2:?}");
    world.said.insert(1, v1);
    world.said.insert(2, v2);
    let outcome = world.ask(promote(2));
    assert_eq!(failing(&outcome), expected, "{shown}: {outcome:?}");
    let role = if expected.is_empty() {
        Role::Live
    } else {
        Role::Building
    };
    assert_eq!(world.role(2), Some(role), "{shown}");
}

#[test]
fn a_promotion_is_refused_by_each_gate_that_does_not_hold() {
    let well = Said::default;
    let unhealthy = |health| Said { health, ..well() };
    check_promotion(well(), well(), &[]);
    let held = |ms| Said {
        held_ms: Some(ms),
        ..well()
    };
    check_promotion(well(), held(119_999), &["stable_for"]);
    check_promotion(well(), held(120_000), &[]);
    let lagging = |lag_records| Said {
        lag_records,
        ..well()
    };
    check_promotion(well(), lagging(1_004), &["fresh_as_live"]);
    check_promotion(well(), lagging(1_003), &[]);
    let documents = |documents| Said {
        documents: Some(documents),
        ..well()
    };
    check_promotion(well(), documents(89), &["documents_ratio"]);
    check_promotion(well(), documents(90), &[]);
    check_promotion(documents(0), documents(0), &[]);
    check_promotion(documents(0), documents(1), &["documents_ratio"]);
    let why = String::from("seen");
    for health in [
        Health::Damaged { why: why.clone() },
        Health::Rewound { from: 7, to: 5 },
        Health::Failed {
            why: why.clone(),
            at: None,
            hint: None,
        },
    ] {
        check_promotion(well(), unhealthy(health.clone()), &["health"]);
        check_promotion(unhealthy(health), well(), &[]);
    }
    let emptied = unhealthy(Health::Damaged { why });
    check_promotion(emptied, documents(1), &[]);
}

#[test]
fn a_report_made_before_the_request_or_under_an_older_claim_proves_nothing() {
    let silent = Said {
        silent: true,
        ..Said::default()
    };
    let zombie = Said {
        zombie: true,
        ..Said::default()
    };
    for (said, why) in [
        (silent.clone(), "has not reported since"),
        (zombie, "reported under an older claim"),
    ] {
        let mut world = two_versions();
        let v2 = version(2);
        assert!(
            world.status().version(&v2).is_some_and(|v2| v2.ready),
            "it was ready"
        );
        world.said.insert(2, said);
        let outcome = world.ask(promote(2));
        assert!(failing(&outcome).contains(&"reports"), "{outcome:?}");
        assert!(format!("{outcome:?}").contains(why), "{outcome:?}");
        assert_eq!(world.role(2), Some(Role::Building));
    }
    let mut world = two_versions();
    world.said.insert(1, silent);
    let outcome = world.ask(promote(2));
    assert_eq!(failing(&outcome), ["fresh_as_live"], "{outcome:?}");
}

#[test]
fn a_waiver_covers_a_gate_and_is_recorded_but_never_evidence_or_health() {
    let check = |said: Said, waive: &[&str], promoted: bool| {
        let mut world = two_versions();
        world.said.insert(2, said);
        let verb = Verb::Promote {
            version: version(2),
            waive: waive.iter().map(|gate| (*gate).to_owned()).collect(),
        };
        let outcome = world.ask(verb);
        assert_eq!(outcome == Outcome::Done, promoted, "{waive:?}: {outcome:?}");
    };
    let few = Said {
        documents: Some(1),
        ..Said::default()
    };
    check(few.clone(), &[], false);
    check(few.clone(), &["documents_ratio"], true);
    check(few.clone(), &["fresh_as_live"], false);
    check(few.clone(), &["documents_ratio", "no_such_gate"], false);
    let damaged = Said {
        health: Health::Damaged { why: "lost".into() },
        ..few
    };
    check(damaged.clone(), &["documents_ratio"], false);
    check(damaged, &["documents_ratio", "health"], false);
}

#[test]
fn a_rollback_is_gated_by_the_standby_alone() {
    let check = |standby: Said, expected: &[&str]| {
        let mut world = two_versions();
        assert_eq!(world.ask(promote(2)), Outcome::Done);
        let dead = Said {
            silent: true,
            documents: Some(1),
            ..Said::default()
        };
        world.said.insert(2, dead);
        world.said.insert(1, standby);
        let outcome = world.ask(rollback());
        assert_eq!(failing(&outcome), expected, "{outcome:?}");
    };
    let just_held = Said {
        held_ms: Some(0),
        ..Said::default()
    };
    check(just_held, &[]);
    let behind = Said {
        held_ms: None,
        ..Said::default()
    };
    let continuous = [
        "bar",
        "ends",
        "lag_records",
        "lag_seconds",
        "failed",
        "stable_offset",
        "stable_for",
    ];
    check(behind, &continuous);
}

#[test]
fn a_rolled_back_version_is_left_alone_until_somebody_promotes_it() {
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(rollback()), Outcome::Done);
    let refused = |verb: Verb| world.client.plan(&verb).expect_err("refused").to_string();
    assert!(refused(apply(definition("b"))).contains("was rolled back"));
    assert!(refused(rollback()).contains("was itself rolled back"));
    world.ticks(600);
    assert_eq!(world.role(1), Some(Role::Live));
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    let v2 = world.status().version(&version(2)).cloned().expect("v2");
    assert!(!v2.rolled_back);
}

#[test]
fn apply_follows_the_fingerprint() {
    let mut world = two_versions();
    let check = |world: &World, definition: ViewDefinition, expected: &str| {
        let planned = match world.client.plan(&apply(definition)) {
            Ok(plan) => plan.to_string(),
            Err(refusal) => refusal.to_string(),
        };
        assert!(planned.contains(expected), "{planned}");
    };
    check(
        &world,
        definition("a"),
        "nothing to do: `products@v1` is live",
    );
    check(
        &world,
        definition("b"),
        "nothing to do: `products@v2` is building",
    );
    check(&world, definition("c"), "`products@v2` is being built");
    let mut patient = definition("a");
    patient.soak = Duration::from_secs(60);
    check(&world, patient.clone(), "1 change products@v1 in place");
    let mut sharded = definition("a");
    if let Target::Redis(redis) = &mut sharded.to {
        redis.shards = 2;
    }
    check(&world, sharded, "was started with 1 shards");

    assert_eq!(world.ask(apply(patient.clone())), Outcome::Done);
    let v1 = world.client.state().catalog().version(&version(1)).cloned();
    assert_eq!(*v1.expect("v1").definition, patient);

    let Verb::Apply {
        definition: c,
        fingerprint,
        because,
        ..
    } = apply(definition("c"))
    else {
        unreachable!();
    };
    let replace = Verb::Apply {
        definition: c,
        fingerprint,
        because,
        replace: true,
        rebuild: false,
    };
    assert_eq!(world.ask(replace), Outcome::Done);
    assert_eq!(world.role(3), Some(Role::Building));
    world.until("v2 is retired", |w| w.role(2) == Some(Role::Retired));
    check(&world, definition("b"), "is being built");

    assert_eq!(world.ask(promote(3)), Outcome::Done);
    check(&world, patient, "1 check that v1 is fresh");
    check(&world, definition("b"), "1 build v4 from genesis");
}

/// What lost its data is never mended in place: the same definition is built once more beside it.
#[test]
fn a_version_is_built_anew_only_if_that_is_asked_for() {
    let mut world = two_versions();
    let once_more = |replace| {
        let definition = definition("a");
        Verb::Apply {
            fingerprint: fingerprint(&definition),
            definition: Box::new(definition),
            because: Vec::new(),
            replace,
            rebuild: true,
        }
    };
    let refused = world.client.plan(&once_more(false)).expect_err("beside v2");
    assert_eq!(refused.to_string(), "`products@v2` is being built");
    assert_eq!(world.ask(once_more(true)), Outcome::Done);
    assert_eq!(world.role(1), Some(Role::Live));
    assert_eq!(world.role(3), Some(Role::Building));
}

#[test]
fn keys_that_a_gateway_could_not_tell_apart_are_refused() {
    let world = two_versions();
    let check = |key: &str, refused: bool| {
        let mut other = definition("a");
        other.view = "other".parse().expect("a name");
        if let Target::Redis(redis) = &mut other.to {
            redis.key = key.to_owned();
        }
        assert_eq!(world.client.plan(&apply(other)).is_err(), refused, "{key}");
    };
    check("product:{key}", true);
    check("product:x:{key}", true);
    check("pro{key}", true);
    check("{key}", true);
    check("products:{key}", false);
    check("order:{key}", false);
}

#[test]
fn a_live_version_cannot_be_retired_and_a_live_or_standby_one_cannot_be_aborted() {
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    let retire = |number| Verb::Retire {
        view: view(),
        version: Some(materializer_model::VersionNumber(number)),
    };
    let abort = |number| Verb::Abort {
        version: version(number),
    };
    for verb in [retire(2), abort(2), abort(1), promote(1), promote(9)] {
        assert!(world.client.plan(&verb).is_err(), "{verb:?}");
    }
}

fn directive(world: &World, number: u32) -> Directive {
    let state = world.client.state();
    let directives = desired(state.catalog(), state.reports(), &WorkerId::new("worker"));
    let mut units = directives.into_iter();
    let of = units.find(|(unit, _)| unit.version == version(number));
    of.expect("fed").1
}

#[test]
fn pause_holds_every_unit_until_resume() {
    let mut world = two_versions();
    let pause = Verb::Pause {
        version: version(2),
    };
    assert_eq!(world.ask(pause.clone()), Outcome::Done);
    let feed = directive(&world, 2).feed;
    assert!(matches!(&feed, Feed::Hold { why } if why == "ada: a test"));
    assert!(matches!(world.ask(pause), Outcome::Nothing(_)));
    let resume = Verb::Resume {
        version: version(2),
    };
    assert_eq!(world.ask(resume), Outcome::Done);
    assert_eq!(directive(&world, 2).feed, Feed::Feed);
}

fn skipped(topic: &str) -> Origin {
    Origin {
        topic: Topic::new(topic),
        partition: Partition(0),
        offset: Offset(9),
    }
}

#[test]
fn a_skip_is_for_every_build_that_reads_the_topic_which_its_version_reads() {
    let mut world = two_versions();
    let at = skipped("shop.products");
    let refusal = |world: &World, at: &Origin| {
        let verb = world.client.skip(version(2), at.clone());
        world.client.plan(&verb).expect_err("refused").to_string()
    };
    assert_eq!(
        refusal(&world, &skipped("shop.orders")),
        "`products@v2` does not read topic `shop.orders`"
    );
    assert_eq!(
        refusal(&world, &at),
        "`products@v2` has not said yet which topic `shop.products` it reads"
    );
    let read = checkpoint(7, [70, 70]);
    let id = read.topics[&at.topic].id.clone();
    let said = Said {
        checkpoint: Some(read),
        ..Said::default()
    };
    world.said.insert(2, said);
    world.ticks(2);
    let skip = world.client.skip(version(2), at.clone());
    assert_eq!(world.ask(skip.clone()), Outcome::Done);
    assert!(matches!(world.ask(skip), Outcome::Nothing(_)));
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(apply(definition("c"))), Outcome::Done);
    let skips = Skips::from_iter([Skip { at, id: Some(id) }]);
    for number in 1..=3 {
        assert_eq!(directive(&world, number).skips, skips, "v{number}");
    }
}

#[test]
fn a_skip_of_an_older_release_holds_for_the_versions_that_were_there() {
    let mut world = two_versions();
    let at = skipped("shop.products");
    let old = Envelope {
        schema: SCHEMA,
        id: EventId::new("an older release"),
        views: BTreeMap::from([(view(), world.client.state().catalog().revision(&view()))]),
        not_before: None,
        not_after: NEVER,
        who: "ada".into(),
        why: String::new(),
        answers: None,
        body: Body::Skipped {
            view: view(),
            at: at.clone(),
            topic_id: None,
        },
    };
    let mut log = world.control.log();
    log.append(ControlTopic::Catalog, None, Some(&old.encode()))
        .expect("memory answers");
    world.ticks(2);
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(apply(definition("c"))), Outcome::Done);
    let skips = Skips::from_iter([Skip { at, id: None }]);
    assert_eq!(directive(&world, 1).skips, skips);
    assert_eq!(directive(&world, 2).skips, skips);
    assert_eq!(directive(&world, 3).skips, Skips::default());
}

#[test]
fn a_paused_version_is_not_made_live_before_it_is_resumed() {
    let mut world = two_versions();
    for (number, to_live) in [(2, promote(2)), (1, rollback())] {
        let version = version(number);
        let pause = Verb::Pause {
            version: version.clone(),
        };
        assert_eq!(world.ask(pause), Outcome::Done);
        let refusal = world.client.plan(&to_live).unwrap_err().to_string();
        assert!(refusal.contains("is paused"), "{refusal}");
        assert_eq!(world.ask(Verb::Resume { version }), Outcome::Done);
        assert_eq!(world.ask(to_live), Outcome::Done);
    }
}

#[test]
fn canary_queries_are_asked_again_at_the_promotion() {
    let mut world = World::new();
    let query = |q: &str| {
        let mut view = tantivy(q, 2);
        view.gates.queries.push(QueryGate {
            q: format!("hits:{q}"),
            hits_min: 5,
        });
        view
    };
    assert_eq!(world.ask(apply(query("4"))), Outcome::Done);
    world.ticks(30);
    assert_eq!(world.role(1), Some(Role::Building), "4 hits are too few");
    let outcome = world.ask(promote(1));
    assert_eq!(failing(&outcome), ["queries"]);
    let abort = Verb::Abort {
        version: version(1),
    };
    assert_eq!(world.ask(abort), Outcome::Done);
    assert_eq!(world.ask(apply(query("5"))), Outcome::Done);
    world.until("v2 is live", |w| w.role(2) == Some(Role::Live));
}

#[test]
fn documents_that_no_unit_reports_are_counted_in_the_sink() {
    let mut world = two_versions();
    let untold = Said {
        documents: None,
        ..Said::default()
    };
    world.said.insert(1, untold.clone());
    world.said.insert(2, untold);
    assert_eq!(world.ask(promote(2)), Outcome::Done, "both hold no rows");
}

#[test]
fn a_unit_that_is_behind_what_was_reported_of_it_is_no_target_whatever_it_says() {
    let at = |seq, next| Said {
        checkpoint: Some(checkpoint(seq, next)),
        ..Said::default()
    };
    let mut world = two_versions();
    world.said.insert(2, at(7, [70, 70]));
    world.ticks(2);
    world.said.insert(2, at(9, [60, 60]));
    assert_eq!(failing(&world.ask(promote(2))), ["health"]);
    world.said.insert(2, at(8, [70, 71]));
    assert_eq!(world.ask(promote(2)), Outcome::Done);

    world.said.insert(1, at(3, [30, 30]));
    world.ticks(2);
    world.said.insert(1, at(4, [30, 29]));
    assert_eq!(failing(&world.ask(rollback())), ["health"]);
}

#[test]
fn whoever_asked_is_told_the_gates_that_a_promotion_rests_on() {
    let mut world = two_versions();
    let plan = world.client.plan(&promote(2)).expect("a plan");
    let request = world.client.ask(promote(2), plan, "").expect("asked");
    assert!(
        world.client.gates_of(&request).is_empty(),
        "nothing is done"
    );
    assert_eq!(world.answer(&request), Outcome::Done);
    let gates = world.client.gates_of(&request);
    assert_eq!(gates.len(), 12);
    assert!(gates.iter().all(|gate| gate.holds), "{gates:?}");
}
