//! What a declaration does to a view: once, and nothing that a person did since is undone.

use std::collections::BTreeMap;

use materializer_migrations::declare::Step;
use materializer_migrations::event::{Body, Envelope, NEVER, Read, SCHEMA};
use materializer_migrations::{Declaration, Outcome, Role};
use materializer_model::ports::{ControlLog as _, ControlTopic};
use materializer_model::{EventId, ViewDefinition};

use crate::sample::{definition, fingerprint, promote, rollback, version, view};
use crate::world::{Said, World};

fn declared(definition: ViewDefinition) -> Declaration {
    let fingerprint = fingerprint(&definition);
    Declaration {
        digest: format!("{} {:?}", fingerprint.0, definition.soak),
        fingerprint,
        definition,
        retire: false,
    }
}

fn retired(declaration: Declaration) -> Declaration {
    Declaration {
        digest: format!("{} retire", declaration.digest),
        retire: true,
        ..declaration
    }
}

impl World {
    fn declare(&mut self, declaration: &Declaration) -> Step {
        let because = vec!["`document.title` changed".into()];
        let declared = self.client.declare(declaration, because, "views.yaml");
        declared.expect("memory answers").0
    }

    /// Declares until it is settled, as a process does that looks at a folder again and again.
    fn settle(&mut self, declaration: &Declaration) {
        for _ in 0..50 {
            if self.declare(declaration) == Step::Settled {
                return;
            }
            self.tick();
        }
        panic!("never settled: {:#?}", self.status());
    }

    fn requests(&self) -> usize {
        let events = self.events();
        let of_folder = |value: &[u8]| String::from_utf8_lossy(value).contains("\"declaration\"");
        let values = events.iter().filter_map(|event| event.value.as_deref());
        values.filter(|value| of_folder(value)).count()
    }
}

#[test]
fn a_process_that_asks_late_undoes_nothing_that_a_person_did_since() {
    let (mut world, a, _) = two_declared();
    world.ask(promote(2));
    // It has read the catalog, and stands still before it asks.
    let mut late = world.other_client("late");
    world.settle(&a);
    assert_eq!(world.alias(), (Some(1), Some(1)));
    world.ask(promote(2));
    assert_eq!(world.alias(), (Some(2), Some(2)));
    let (step, request) = late.declare(&a, Vec::new(), "views.yaml").expect("asked");
    assert!(matches!(step, Step::Ask { .. }), "{step:?}");
    let answer = world.answer(&request.expect("asked"));
    assert!(matches!(answer, Outcome::Refused { .. }), "{answer:?}");
    assert_eq!(world.alias(), (Some(2), Some(2)));
}

#[test]
fn a_coordinator_that_takes_a_request_late_brings_no_earlier_declaration_back() {
    let (mut world, a, b) = two_declared();
    let events = world.events();
    let asked = events.iter().find_map(|event| match Envelope::of(event) {
        Read::Known(Envelope {
            id,
            body: Body::Request { declaration, .. },
            ..
        }) => declaration.is_some_and(|it| it == a.digest).then_some(id),
        Read::Known(_) | Read::NewerBody(_) | Read::Unreadable(_) => None,
    });
    let taken = Envelope {
        schema: SCHEMA,
        id: EventId::new("late"),
        views: BTreeMap::new(),
        not_before: None,
        not_after: NEVER,
        who: "coordinator c2".into(),
        why: String::new(),
        answers: asked,
        body: Body::Taken {},
    };
    let mut log = world.control.log();
    log.append(ControlTopic::Catalog, None, Some(&taken.encode()))
        .expect("memory answers");
    world.ticks(2);
    assert!(b.is_settled(world.client.state().catalog()));
    world.settle(&a);
    world.ticks(4);
    assert_ne!(world.role(2), Some(Role::Building), "it is given up for A");
}

fn two_declared() -> (World, Declaration, Declaration) {
    let (a, b) = (declared(definition("a")), declared(definition("b")));
    let mut world = World::new();
    world.settle(&a);
    world.until("v1 is live", |w| w.role(1) == Some(Role::Live));
    world.settle(&b);
    world.ticks(4);
    (world, a, b)
}

#[test]
fn a_declaration_is_carried_out_once_whatever_a_person_does_afterwards() {
    let (mut world, _, b) = two_declared();
    assert_eq!(world.role(2), Some(Role::Building), "a person promotes");
    world.ask(promote(2));
    world.ask(rollback());
    assert_eq!(world.alias(), (Some(1), Some(1)));
    let before = world.events().len();
    for _ in 0..20 {
        assert_eq!(world.declare(&b), Step::Settled);
        world.tick();
    }
    assert_eq!(world.alias(), (Some(1), Some(1)));
    let asked = world.requests();
    assert_eq!(asked, 2, "of {before} events");
}

#[test]
fn a_declaration_that_goes_back_is_a_rollback_while_the_standby_is_fed() {
    let (mut world, a, _) = two_declared();
    world.ask(promote(2));
    assert_eq!(world.alias(), (Some(2), Some(2)));
    world.settle(&a);
    assert_eq!(world.alias().0, Some(1));
    assert_eq!(world.role(2), Some(Role::Standby));
}

#[test]
fn a_rollback_whose_standby_lags_is_asked_for_again_until_it_is_fresh() {
    let (mut world, a, _) = two_declared();
    world.ask(promote(2));
    let lagging = Said {
        lag_records: 5_000,
        held_ms: None,
        ..Said::default()
    };
    world.said.insert(1, lagging);
    world.ticks(2);
    for _ in 0..30 {
        assert_ne!(
            world.declare(&a),
            Step::Settled,
            "a gate does not settle it"
        );
        world.tick();
    }
    assert_eq!(world.alias().0, Some(2));
    world.said.remove(&1);
    world.settle(&a);
    assert_eq!(world.alias().0, Some(1));
}

#[test]
fn a_candidate_that_is_declared_no_more_is_given_up() {
    let (mut world, a, b) = two_declared();
    world.settle(&a);
    world.ticks(4);
    assert_ne!(world.role(2), Some(Role::Building));
    assert_eq!(world.alias().0, Some(1));
    world.settle(&b);
    world.settle(&declared(definition("c")));
    assert_eq!(world.role(4), Some(Role::Building));
    assert_ne!(world.role(3), Some(Role::Building), "the newest one counts");
}

#[test]
fn what_was_rolled_back_is_not_built_again_by_a_declaration() {
    let (mut world, _, b) = two_declared();
    world.ask(promote(2));
    world.ask(rollback());
    let again = Declaration {
        digest: "the same in other words".into(),
        ..b
    };
    let Step::Settle { refused: Some(why) } = world.declare(&again) else {
        panic!("{:#?}", world.status());
    };
    assert!(why.contains("was rolled back"), "{why}");
    world.client.refresh().expect("memory answers");
    assert_eq!(world.declare(&again), Step::Settled);
    let view = world.client.state().catalog().view(&view()).cloned();
    let kept = view.and_then(|view| view.declared);
    assert_eq!(kept.and_then(|kept| kept.refused), Some(why));
    assert!(
        world
            .client
            .state()
            .catalog()
            .version(&version(3))
            .is_none()
    );
}

#[test]
fn a_view_is_retired_only_where_that_is_declared_and_can_begin_anew() {
    let (mut world, a, _) = two_declared();
    world.settle(&retired(a.clone()));
    world.until("nothing is left", |w| w.role(1) == Some(Role::Retired));
    assert_eq!(world.alias(), (None, None));
    world.settle(&a);
    world.until("v3 is live", |w| w.role(3) == Some(Role::Live));
    let mut empty = World::new();
    empty.settle(&retired(a));
    assert_eq!(empty.role(1), None);
}

#[test]
fn what_only_says_how_a_version_runs_is_changed_in_place() {
    let (mut world, _, b) = two_declared();
    let mut slower = b.definition.clone();
    slower.soak *= 2;
    world.settle(&declared(slower.clone()));
    let catalog = world.client.state().catalog();
    let candidate = catalog.version(&version(2)).expect("it is built on");
    assert_eq!(candidate.definition.soak, slower.soak);
    assert!(catalog.version(&version(3)).is_none());
}

#[test]
fn two_processes_with_one_folder_do_what_one_does() {
    let a = declared(definition("a"));
    let mut world = World::new();
    // Both decide on the same catalog, before either's request is read.
    for _ in 0..2 {
        assert!(matches!(world.declare(&a), Step::Ask { .. }));
    }
    world.client.refresh().expect("memory answers");
    assert_eq!(world.declare(&a), Step::Await);
    world.settle(&a);
    world.ticks(4);
    let catalog = world.client.state().catalog();
    assert!(catalog.version(&version(2)).is_none());
    assert_eq!(catalog.outstanding(), []);
}
