//! Which copies of a tantivy view readers are sent to, as their workers report them.

use std::cmp::Reverse;
use std::time::Duration;

use materializer_migrations::{Reports, Version};
use materializer_model::Unit;
use materializer_model::definition::Gates;
use materializer_model::progress::Progress;

use super::routes::CopyAt;

/// How old a copy's progress may be, compared with the newest that anybody reported.
const PROGRESS_AGE_MAX: Duration = Duration::from_secs(10);

/// Returns the copies that say themselves that readers may be sent to them, recently and under the newest
/// claim of their unit: first those that are up to date, then the others. Where none is up to date, those
/// that are furthest count as such: readers are never refused for it.
pub(super) fn servable_copies(version: &Version, reports: &Reports) -> (Vec<CopyAt>, Vec<CopyAt>) {
    let gates = &version.definition.gates;
    let copy = |unit: Unit| {
        let heard = reports.unit(&unit)?;
        let is_recent = reports.newest()?.since(heard.appended) <= PROGRESS_AGE_MAX;
        let is_owned = reports.holds(&unit, &heard.report.token);
        let address = heard.report.address.clone()?;
        let is_servable = heard.report.servable && is_recent && is_owned;
        is_servable.then_some((&heard.report, CopyAt { unit, address }))
    };
    let mut copies: Vec<_> = version.units().filter_map(copy).collect();
    copies.sort_by_key(|(report, _)| Reverse(read(report)));
    let any_current = copies.iter().any(|(report, _)| is_current(report, gates));
    let furthest = copies.first().map(|(report, _)| read(report));
    let (current, behind): (Vec<_>, Vec<_>) = copies.into_iter().partition(|(report, _)| {
        if any_current {
            is_current(report, gates)
        } else {
            Some(read(report)) == furthest
        }
    });
    let place = |(_, copy)| copy;
    (
        current.into_iter().map(place).collect(),
        behind.into_iter().map(place).collect(),
    )
}

/// Says whether a copy is as fresh as its view's gates ask of a version that is promoted. An estimated lag
/// is that of a copy below the end that it found when it was opened.
fn is_current(report: &Progress, gates: &Gates) -> bool {
    report.lag.is_some_and(|lag| {
        !lag.estimated && lag.records <= gates.lag_records && lag.seconds <= gates.lag_seconds
    })
}

/// Returns how much of the log a copy has read, to be compared with other copies of its version.
fn read(report: &Progress) -> u64 {
    let positions = report
        .checkpoint
        .iter()
        .flat_map(|stored| stored.0.positions());
    positions.map(|(_, _, position)| position.next.0).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use materializer_model::progress::{Lag, StoredCheckpoint};
    use materializer_model::{
        Bar, Checkpoint, Counts, Offset, Partition, Position, Timestamp, Topic, TopicCheckpoint,
        TopicId,
    };

    use super::super::fixtures::{World, servable, to_tantivy};
    use super::super::routes::{Route, Routes};
    use super::*;

    #[test]
    fn readers_are_sent_to_copies_whose_owner_says_of_late_that_they_are_servable() {
        let mut world = World::new();
        world.start("search@v1", to_tantivy(4));
        world.promote("search@v1");
        let units: Vec<String> = (0..4).map(|copy| format!("search/v1/c{copy}/s0")).collect();
        let copies = |world: &World| {
            let routes = Routes::of(world.catalog(), world.reports());
            let Route::Tantivy(route) = routes.view("search").unwrap().clone() else {
                panic!("it is a tantivy view");
            };
            let shown = |copy: &CopyAt| format!("{} at {}", copy.unit, copy.address);
            route.copies.iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(copies(&world), [""; 0], "nobody has reported");

        let token = world.claim(&units[0], "a:1");
        world.report(&servable(&units[0], token.clone(), "a:1"));
        let mut rebuilding = servable(&units[1], world.claim(&units[1], "b:1"), "b:1");
        rebuilding.servable = false;
        world.report(&rebuilding);
        let fenced = world.claim(&units[2], "c:1");
        world.claim(&units[2], "d:1");
        world.report(&servable(&units[2], fenced, "c:1"));
        assert_eq!(copies(&world), ["search/v1/c0/s0 at a:1"]);

        world.clock.advance(Duration::from_secs(60));
        assert_eq!(copies(&world).len(), 1, "nobody's progress could be read");
        let other = world.claim(&units[3], "e:1");
        world.report(&servable(&units[3], other, "e:1"));
        assert_eq!(
            copies(&world),
            ["search/v1/c3/s0 at e:1"],
            "c0 has fallen silent"
        );
    }

    /// Has a copy report that it has read so far, with this lag.
    fn report(world: &mut World, unit: &str, next: u64, lag: Option<Lag>) {
        let token = world.claim(unit, unit);
        let mut progress = servable(unit, token, unit);
        progress.sequence = progress.token.claim_offset;
        progress.checkpoint = Some(stored(next));
        progress.lag = lag;
        world.report(&progress);
    }

    fn stored(next: u64) -> StoredCheckpoint {
        let position = Position::from((Offset(next), 1, Timestamp(0)));
        let topic = TopicCheckpoint::new(
            TopicId("topic".into()),
            BTreeMap::from([(Partition(0), position)]),
        );
        StoredCheckpoint(Checkpoint {
            seq: next,
            topics: BTreeMap::from([(Topic::new("shop.products"), topic)]),
            bar: Bar::default(),
            counts: Counts::default(),
        })
    }

    #[test]
    fn readers_are_sent_to_copies_that_are_up_to_date_or_else_to_the_furthest() {
        let mut world = World::new();
        world.start("search@v1", to_tantivy(3));
        world.promote("search@v1");
        let lag = |records, seconds, estimated| {
            Some(Lag {
                records,
                seconds,
                estimated,
            })
        };
        let fresh = lag(1000, 10.0, false);
        let mut check = |reports: [(u64, Option<Lag>); 3], copies: &str, behind: &str| {
            for (at, (next, lag)) in reports.into_iter().enumerate() {
                report(&mut world, &format!("search/v1/c{at}/s0"), next, lag);
            }
            let routes = Routes::of(world.catalog(), world.reports());
            let Route::Tantivy(route) = routes.view("search").unwrap().clone() else {
                panic!("it is a tantivy view");
            };
            let shown = |copies: &[CopyAt]| {
                let names = copies.iter().map(|copy| copy.unit.copy.to_string());
                names.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(
                (&*shown(&route.copies), &*shown(&route.behind)),
                (copies, behind)
            );
        };
        check([(7, fresh), (8, fresh), (9, fresh)], "2 1 0", "");
        // Just opened, below the end that it found; too many records; too long ago; unknown.
        check([(9, fresh), (7, lag(9, 0.0, true)), (8, fresh)], "0 2", "1");
        check(
            [(7, lag(1001, 1.0, false)), (8, fresh), (9, fresh)],
            "2 1",
            "0",
        );
        check(
            [(7, lag(9, 10.1, false)), (8, None), (9, fresh)],
            "2",
            "1 0",
        );
        // None is up to date.
        check([(7, None), (9, None), (9, None)], "1 2", "0");
        check(
            [
                (8, lag(5000, 30.0, true)),
                (9, lag(4999, 40.0, true)),
                (7, None),
            ],
            "1",
            "0 2",
        );
    }
}
