//! Topics that get more partitions.

use materializer_migrations::client::Outcome;
use materializer_migrations::desired;
use materializer_model::{Growth, Offset, Partition, WorkerId};

use crate::coordinator::two_versions;
use crate::sample::{apply, definition, growth, promote, version};
use crate::world::{Said, World};

fn recorded(world: &World) -> &[Growth] {
    world.client.state().catalog().growths()
}

#[test]
fn a_growth_that_a_worker_reports_is_recorded_once_and_told_to_every_build() {
    let mut world = two_versions();
    let said = |growth: Growth| Said {
        growth: Some(growth),
        ..Said::default()
    };
    world.said.insert(1, said(growth()));
    // Another worker came to another barrier: the first one that is recorded counts.
    let mut other = growth();
    other.ends.insert(Partition(0), Offset(50));
    world.said.insert(2, said(other.clone()));
    world.ticks(5);
    let first = recorded(&world).to_vec();
    assert!(first == [growth()] || first == [other], "{first:?}");

    world.said.insert(1, Said::default());
    world.said.insert(2, Said::default());
    assert_eq!(world.ask(promote(2)), Outcome::Done);
    assert_eq!(world.ask(apply(definition("c"))), Outcome::Done);
    world.ticks(2);
    let state = world.client.state();
    let directives = desired(state.catalog(), state.reports(), &WorkerId::new("worker"));
    let told = |number| {
        let mut units = directives.iter();
        let of = units.find(|(unit, _)| unit.version == version(number));
        of.map(|(_, directive)| directive.growths.clone())
    };
    for number in 1..=3 {
        assert_eq!(told(number), Some(first.clone()), "v{number}");
    }
}

#[test]
fn the_growths_of_a_topic_follow_each_other() {
    let mut world = two_versions();
    let mut ask = |from: i32, to: i32, id: &str| {
        let mut next = growth();
        (next.from, next.to, next.id.0) = (from, to, id.into());
        let said = Said {
            growth: Some(next),
            ..Said::default()
        };
        world.said.insert(1, said);
        world.ticks(5);
        recorded(&world).len()
    };
    assert_eq!(ask(2, 3, "abc"), 1);
    assert_eq!(ask(2, 4, "abc"), 1, "of another beginning");
    assert_eq!(ask(3, 4, "abc"), 2);
    assert_eq!(ask(2, 3, "def"), 3, "the topic was made anew");
}
