//! A catalog that was lost and restored: from its last backup, and from one that is older than what the
//! sinks hold.

use materializer_migrations::Role;
use materializer_migrations::client::Outcome;
use materializer_model::Unit;

use crate::coordinator::two_versions;
use crate::sample::{apply, definition, promote, rollback, version};
use crate::world::World;

fn token(world: &World, number: u32) -> u64 {
    let unit = Unit {
        version: version(number),
        copy: 0,
        shard: 0,
    };
    let owner = world.store.owner(&unit);
    owner.expect("somebody owns it").claim_offset
}

#[test]
fn a_catalog_restored_at_the_same_state_goes_on_where_it_was() {
    let mut world = two_versions();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.ticks(20);
    let (backup, before) = (world.events(), token(&world, 2));
    let (mut world, adoption) = world.restored(&backup);
    assert_eq!(adoption.ahead, Vec::<String>::new());
    assert_eq!(adoption.behind(world.client.state().catalog()), 0);
    assert_eq!(world.alias(), (Some(2), Some(2)));
    world.ticks(20);
    assert!(token(&world, 2) > before, "the units are taken anew");
    assert_eq!(world.ask(rollback()), Outcome::Done);
    world.until("the alias follows", |w| w.alias() == (Some(1), Some(1)));
    assert_eq!(world.ask(apply(definition("c"))), Outcome::Done);
    assert_eq!(world.role(3), Some(Role::Building));
}

#[test]
fn what_sinks_know_and_an_older_catalog_does_not_is_told_overruled_and_never_given_again() {
    let mut world = two_versions();
    let backup = world.events();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(apply(definition("c"))), Outcome::Done);
    world.until("v2 leads, v3 is built", |w| {
        w.alias() == (Some(2), Some(2)) && w.role(3) == Some(Role::Building)
    });
    world.ticks(10);
    let lost = token(&world, 3);

    let (mut world, adoption) = world.restored(&backup);
    let told = adoption.ahead.join("\n");
    assert!(
        told.contains("`products` leads to v2 since event"),
        "{told}"
    );
    assert!(
        told.contains("its readers go back to `products@v1`"),
        "{told}"
    );
    assert!(
        told.contains("`products@v3` is not in the catalog"),
        "{told}"
    );
    world.until("readers are led to v1 again", |w| {
        w.alias() == (Some(1), Some(1))
    });
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("the alias follows", |w| w.alias() == (Some(2), Some(2)));
    assert_eq!(world.ask(apply(definition("d"))), Outcome::Done);
    assert_eq!(world.role(3), None, "the number is not given again");
    assert_eq!(world.role(4), Some(Role::Building));
    world.ticks(10);
    let catalog = world.client.state().catalog();
    let v4 = catalog.version(&version(4)).expect("started");
    assert!(v4.claims_from > lost, "nothing older is built on");
    assert!(token(&world, 4) >= v4.claims_from);
}

#[test]
fn an_adoption_that_was_cut_short_goes_on_and_one_that_is_done_changes_nothing() {
    let mut world = two_versions();
    let backup = world.events();
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    world.until("v2 leads", |w| w.alias() == (Some(2), Some(2)));
    // The restored log was lost once more after half of the events that say nothing.
    let (world, first) = world.restored(&backup);
    let cut: Vec<_> = world.events().into_iter().take(backup.len() + 1).collect();
    let (mut world, again) = world.restored(&cut);
    assert!(again.at >= first.at, "above all that was seen");
    world.until("readers are led to v1 again", |w| {
        w.alias() == (Some(1), Some(1))
    });
}
