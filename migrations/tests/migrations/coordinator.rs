//! The loop of a view's life, over memory doubles.

use materializer_migrations::Role;
use materializer_migrations::client::Outcome;
use materializer_migrations::versions::Soak;
use materializer_model::definition::Promotion;
use materializer_model::progress::Health;
use materializer_model::{Bar, Offset, Partition};

use crate::sample::{SOAK, apply, definition, promote, rollback, tantivy, view};
use crate::world::{DRAIN, Said, TICK, World};

/// A world with v1 live and v2 built and ready.
pub(crate) fn two_versions() -> World {
    let mut world = World::new();
    assert_eq!(world.ask(apply(definition("a"))), Outcome::Done);
    world.until("v1 is live", |w| w.role(1) == Some(Role::Live));
    assert_eq!(world.ask(apply(definition("b"))), Outcome::Done);
    world.ticks(4);
    world
}

pub(crate) fn soak(world: &World) -> Soak {
    let view = world.client.state().catalog().view(&view());
    let alias = view.and_then(|view| view.alias.clone());
    alias.expect("a version is live").soak
}

#[test]
fn the_whole_loop_ends_with_one_version_and_nothing_of_the_other() {
    let mut world = two_versions();
    assert_eq!(
        world.alias(),
        (Some(1), Some(1)),
        "the first version needs no verb"
    );
    assert!(
        world
            .status()
            .version(&crate::sample::version(2))
            .expect("v2")
            .ready
    );

    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(2);
    assert_eq!(world.alias(), (Some(2), Some(2)));
    assert_eq!(world.role(1), Some(Role::Standby));

    assert_eq!(world.ask(rollback()), Outcome::Done);
    world.ticks(2);
    assert_eq!(world.alias(), (Some(1), Some(1)));
    assert_eq!(world.role(2), Some(Role::Standby));

    assert_eq!(world.ask(promote(2)), Outcome::Done);
    let promoted = world.clock.now();
    world.until("v1 is retired", |w| w.role(1) == Some(Role::Retired));
    assert!(world.clock.now().since(promoted) >= SOAK + DRAIN);
    assert_eq!(world.alias(), (Some(2), Some(2)));
    let unit = "products/v1/c0/s0".parse().expect("a unit");
    assert_eq!(world.store.unit(&unit), Default::default());
    world.until("nothing is kept of its units", |w| {
        let reports = w.client.state().reports();
        reports.unit(&unit).is_none() && reports.claim(&unit).is_none()
    });
}

#[test]
fn each_version_says_what_keeps_it_from_the_next_step_of_its_life() {
    let mut world = two_versions();
    let waits = |world: &World, number| {
        let status = world.status();
        let version = status.version(&crate::sample::version(number));
        version.expect("not retired").waits_for.clone()
    };
    let mut replaying = crate::sample::checkpoint(7, [70, 30]);
    let topic = replaying.topics.keys().next().expect("a topic").clone();
    let ends = [(0, 70), (1, 1_530)].map(|(p, end)| (Partition(p), Offset(end)));
    replaying.bar = Bar([(topic, ends.into())].into());
    let said = Said {
        checkpoint: Some(replaying),
        held_ms: None,
        ..Said::default()
    };
    world.said.insert(2, said);
    world.ticks(4);
    assert_eq!(
        waits(&world, 2).as_deref(),
        Some("1 500 records to the bar")
    );
    let past = Said {
        checkpoint: Some(crate::sample::checkpoint(8, [70, 1_530])),
        ..Said::default()
    };
    world.said.insert(2, past);

    world.gateway = false;
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(waits(&world, 2), None, "it is live");
    let unconfirmed = "until every gateway serves v2";
    assert_eq!(waits(&world, 1).as_deref(), Some(unconfirmed));
    world.gateway = true;
    world.until("confirmed", |w| matches!(soak(w), Soak::Since(_)));
    assert_eq!(waits(&world, 1).as_deref(), Some("soak ends in 59m 59s"));
    world.until("v1 drains", |w| w.role(1) == Some(Role::Draining));
    let readers = "until no reader uses it";
    assert_eq!(waits(&world, 1).as_deref(), Some(readers));
}

#[test]
fn gates_stand_before_a_promotion_and_a_rollback_and_not_before_what_is_live() {
    let mut world = two_versions();
    let gates = |world: &World, number| {
        let status = world.status();
        let version = status.version(&crate::sample::version(number));
        version.expect("not retired").gates.len()
    };
    assert_eq!((gates(&world, 1), gates(&world, 2)), (0, 12));
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(2);
    assert_eq!((gates(&world, 1), gates(&world, 2)), (10, 0));
    assert_eq!(world.ask(rollback()), Outcome::Done);
    world.ticks(2);
    assert_eq!((gates(&world, 1), gates(&world, 2)), (0, 10));
}

#[test]
fn the_gates_before_a_plan_are_those_of_the_version_that_would_be_live() {
    let mut world = two_versions();
    let rewound = Said {
        health: Health::Rewound { from: 7, to: 5 },
        ..Said::default()
    };
    let failing = |world: &World, verb| {
        let plan = world.client.plan(&verb).expect("a plan");
        let status = world.status();
        let gates = status.gates_before(&plan);
        let failing = gates.iter().filter(|gate| !gate.holds);
        let failing: Vec<String> = failing.map(|gate| gate.gate.clone()).collect();
        (!gates.is_empty()).then_some(failing)
    };
    world.said.insert(2, rewound.clone());
    world.ticks(4);
    let health = vec!["health".to_owned()];
    assert_eq!(failing(&world, promote(2)), Some(health.clone()));
    let abort = materializer_migrations::Verb::Abort {
        version: crate::sample::version(2),
    };
    assert_eq!(failing(&world, abort), None);
    world.said.remove(&2);
    world.ticks(4);
    assert_eq!(failing(&world, promote(2)), Some(Vec::new()));
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.said.insert(1, rewound);
    world.ticks(4);
    assert_eq!(failing(&world, rollback()), Some(health));
}

#[test]
fn two_coordinators_do_what_one_does() {
    let mut world = two_versions();
    world.add_coordinator("c2");
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(rollback()), Outcome::Done);
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("v1 is retired", |w| w.role(1) == Some(Role::Retired));
    assert_eq!(world.alias(), (Some(2), Some(2)));
}

#[test]
fn a_candidate_of_promotion_auto_is_promoted_when_it_is_ready_and_not_before() {
    let mut world = World::new();
    assert_eq!(world.ask(apply(definition("a"))), Outcome::Done);
    world.until("v1 is live", |w| w.role(1) == Some(Role::Live));
    let held = |held_ms| Said {
        held_ms,
        ..Said::default()
    };
    world.said.insert(2, held(Some(119_999)));
    let mut auto = definition("b");
    auto.promotion = Promotion::Auto;
    assert_eq!(world.ask(apply(auto)), Outcome::Done);
    world.ticks(60);
    assert_eq!(
        world.role(2),
        Some(Role::Building),
        "held for too short a time"
    );
    world.said.insert(2, held(Some(120_000)));
    world.until("v2 is live", |w| w.role(2) == Some(Role::Live));
}

#[test]
fn the_soak_begins_anew_when_an_unhealthy_standby_is_well_again() {
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("confirmed", |w| matches!(soak(w), Soak::Since(_)));
    let sick = Said {
        health: Health::Damaged { why: "lost".into() },
        ..Said::default()
    };
    world.said.insert(1, sick);
    world.until("interrupted", |w| matches!(soak(w), Soak::Interrupted(_)));
    world.clock.advance(SOAK);
    world.ticks(10);
    assert_eq!(
        world.role(1),
        Some(Role::Standby),
        "it is not dropped while it does not count"
    );
    world.said.remove(&1);
    world.until("restarted", |w| matches!(soak(w), Soak::Since(_)));
    let again = world.clock.now();
    world.until("dropped", |w| w.role(1) == Some(Role::Draining));
    assert!(world.clock.now().since(again) + TICK * 2 >= SOAK);
}

#[test]
fn what_helps_a_damaged_version_depends_on_its_role() {
    let mut world = two_versions();
    let damaged = Said {
        health: Health::Damaged { why: "lost".into() },
        ..Said::default()
    };
    let hint = |world: &World, number| {
        let status = world.status();
        let version = status.version(&crate::sample::version(number));
        version.expect("not retired").health.hint.clone()
    };
    let check = |world: &World, number, verbs: &[&str]| {
        let hint = hint(world, number).expect("it is damaged");
        let said: Vec<&str> = hint.split('`').skip(1).step_by(2).collect();
        assert_eq!(said, verbs, "{hint}");
    };
    world.said.insert(2, damaged.clone());
    world.ticks(2);
    check(&world, 2, &["materializer apply FILE --replace --rebuild"]);
    world.said.remove(&2);
    world.ticks(2);
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.said.extend([(1, damaged.clone()), (2, damaged)]);
    world.until("interrupted", |w| matches!(soak(w), Soak::Interrupted(_)));
    let rollback = "materializer rollback products";
    check(&world, 2, &[rollback, "materializer apply FILE --rebuild"]);
    check(&world, 1, &["materializer retire products@v1"]);
    let retire = materializer_migrations::Verb::Retire {
        view: view(),
        version: Some(materializer_model::VersionNumber(1)),
    };
    assert_eq!(world.ask(retire), Outcome::Done);
    assert_eq!(hint(&world, 1), None, "it is on its way out");
}

#[test]
fn the_soak_begins_when_every_gateway_that_is_alive_has_the_alias() {
    let mut world = two_versions();
    world.gateway = false;
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(10);
    assert_eq!(
        soak(&world),
        Soak::Unconfirmed,
        "the gateway was heard 5 s ago"
    );
    world.gateway = true;
    world.until("confirmed", |w| matches!(soak(w), Soak::Since(_)));
}

#[test]
fn a_version_drains_until_no_gateway_can_route_to_it() {
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(4);
    let retire = materializer_migrations::Verb::Retire {
        view: view(),
        version: Some(materializer_model::VersionNumber(1)),
    };
    world.gateway = false;
    assert_eq!(world.ask(retire), Outcome::Done);
    assert_eq!(world.role(1), Some(Role::Draining));
    let silent = world.clock.now();
    world.until("its deletion begins", |w| w.role(1) != Some(Role::Draining));
    let waited = world.clock.now().since(silent);
    assert!(
        waited > std::time::Duration::from_secs(55),
        "waited {waited:?} for a silent gateway"
    );
}

#[test]
fn copies_are_deleted_by_their_holders_before_the_version_is_retired() {
    let mut world = World::new();
    assert_eq!(world.ask(apply(tantivy("a", 2))), Outcome::Done);
    world.until("v1 is live", |w| w.role(1) == Some(Role::Live));
    assert_eq!(world.alias(), (Some(1), None), "gateways are the alias");
    let retire = materializer_migrations::Verb::Retire {
        view: view(),
        version: None,
    };
    assert_eq!(world.ask(retire), Outcome::Done);
    world.until("its deletion begins", |w| w.role(1) == Some(Role::Retiring));
    world.until("retired", |w| w.role(1) == Some(Role::Retired));
}

#[test]
fn a_retired_view_has_no_alias_and_begins_anew_with_the_next_number() {
    let mut world = two_versions();
    let retire = materializer_migrations::Verb::Retire {
        view: view(),
        version: None,
    };
    assert_eq!(world.ask(retire), Outcome::Done);
    assert_eq!(world.role(1), Some(Role::Draining));
    assert_eq!(
        world.role(2),
        Some(Role::Retiring),
        "the candidate goes, too"
    );
    world.until("retired", |w| w.role(1) == Some(Role::Retired));
    assert_eq!(world.alias(), (None, None));
    assert_eq!(world.ask(apply(definition("a"))), Outcome::Done);
    world.until("v3 is live", |w| w.role(3) == Some(Role::Live));
    world.ticks(2);
    assert_eq!(world.alias(), (Some(3), Some(3)));
}

#[test]
fn an_alias_that_somebody_else_changed_is_put_right() {
    use materializer_model::ports::{AliasPointer, SinkAdmin};
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(2);
    let mut admin = world.store.admin();
    let later = materializer_model::Offset(u64::MAX);
    admin.remove_alias(&view(), later).expect("memory answers");
    world.ticks(14);
    assert_eq!(world.alias(), (Some(2), Some(2)), "it was missing");
    let old = AliasPointer {
        version: materializer_model::VersionNumber(1),
        epoch: materializer_model::Offset(1),
    };
    admin.remove_alias(&view(), later).expect("memory answers");
    admin.move_alias(&view(), &old).expect("memory answers");
    world.ticks(14);
    assert_eq!(world.alias(), (Some(2), Some(2)), "it was older");
}

#[test]
fn an_emptied_version_gets_no_alias_and_that_is_told_until_another_one_is_live() {
    let mut world = World::new();
    assert_eq!(world.ask(apply(definition("a"))), Outcome::Done);
    world.until("v1 is live", |w| w.role(1) == Some(Role::Live));
    assert_eq!(world.alias(), (Some(1), Some(1)));
    world.store.clear();
    world.until("it is told", |w| !w.status().faults.is_empty());
    assert_eq!(world.ask(apply(definition("b"))), Outcome::Done);
    for _ in 0..40 {
        world.tick();
        assert_eq!(world.alias(), (Some(1), None));
        let faults = world.status().faults;
        assert_eq!(
            faults,
            ["alias of `products@v1`: there is no `products@v1`"]
        );
    }
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(4);
    assert_eq!(world.alias(), (Some(2), Some(2)));
    assert_eq!(world.status().faults, [""; 0]);
}

#[test]
fn a_candidate_is_compared_with_the_copies_that_are_left_of_the_live_version() {
    let check = |damaged_copies, documents, expected| {
        let mut world = World::new();
        assert_eq!(world.ask(apply(tantivy("a", 2))), Outcome::Done);
        world.until("v1 is live", |w| w.role(1) == Some(Role::Live));
        assert_eq!(world.ask(apply(tantivy("b", 1))), Outcome::Done);
        let v1 = Said {
            damaged_copies,
            ..Said::default()
        };
        let v2 = Said {
            documents: Some(documents),
            ..Said::default()
        };
        world.said.extend([(1, v1), (2, v2)]);
        world.ticks(4);
        let outcome = world.ask(promote(2));
        assert_eq!(outcome == Outcome::Done, expected, "{outcome:?}");
    };
    check(1, 100, true);
    check(1, 1, false);
    check(2, 1, true); // nothing is left to compare with
}
