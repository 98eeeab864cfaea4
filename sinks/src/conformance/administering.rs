//! What the coordinator does: aliases, counts, canaries, retirement.

use std::time::Duration;

use materializer_model::ports::{AliasPointer, Expect, SinkAdmin};
use materializer_model::{Offset, Unit, VersionNumber, ViewName};

use super::support::{
    Writer, check_fails, check_holds, checkpoint, commit_after, first, row, set, token, unit,
};
use super::{Harm, Place};

/// How many calls with no budget a pass over a small place may take.
const CALLS_MAX: usize = 10_000;

fn view(name: &str) -> ViewName {
    name.parse().expect("a name")
}

fn pointer(version: u32, epoch: u64) -> AliasPointer {
    AliasPointer {
        version: VersionNumber(version),
        epoch: Offset(epoch),
    }
}

/// Writes so many rows to a version that begins empty, as its first shard; the other is only opened.
fn fill(place: &dyn Place, unit_text: &str, rows: u64) {
    let first = unit(unit_text);
    let mut writer = Writer::begin(place, &first);
    let sets = (0..rows).map(|n| set(format!("key-{n}"), row("shoe", n)));
    writer.commit(sets.collect());
    if place.abilities().shards {
        Writer::begin(place, &Unit { shard: 1, ..first });
    }
}

/// The epoch decides: an older move that comes late changes nothing and is told.
pub fn an_alias_moves_only_forward(place: &dyn Place) {
    if !place.abilities().aliases {
        return;
    }
    for version in [
        "products/v1/c0/s0",
        "products/v2/c0/s0",
        "products/v3/c0/s0",
    ] {
        fill(place, version, 1);
    }
    let mut admin = place.admin();
    let (products, other) = (view("products"), view("product"));
    assert_eq!(admin.alias(&products), Ok(None));
    assert_eq!(admin.move_alias(&products, &pointer(1, 10)), Ok(()));
    assert_eq!(
        admin.move_alias(&products, &pointer(1, 10)),
        Ok(()),
        "again"
    );
    assert_eq!(admin.move_alias(&products, &pointer(2, 20)), Ok(()));
    check_fails(admin.move_alias(&products, &pointer(1, 10)), "Damaged");
    check_fails(admin.move_alias(&products, &pointer(3, 20)), "Damaged");
    assert_eq!(admin.alias(&products), Ok(Some(pointer(2, 20))));
    assert_eq!(admin.move_alias(&products, &pointer(1, 30)), Ok(()), "back");
    assert_eq!(place.admin().alias(&products), Ok(Some(pointer(1, 30))));
    assert_eq!(admin.alias(&other), Ok(None));
}

/// A late removal spares the alias of a view that was begun anew.
pub fn an_alias_is_removed_only_by_a_later_event(place: &dyn Place) {
    if !place.abilities().aliases {
        return;
    }
    fill(place, "products/v1/c0/s0", 1);
    fill(place, "product/v1/c0/s0", 1);
    let mut admin = place.admin();
    let (products, other) = (view("products"), view("product"));
    assert_eq!(
        admin.remove_alias(&products, Offset(5)),
        Ok(()),
        "none there"
    );
    assert_eq!(admin.move_alias(&products, &pointer(1, 10)), Ok(()));
    assert_eq!(admin.move_alias(&other, &pointer(1, 11)), Ok(()));
    assert_eq!(admin.remove_alias(&products, Offset(10)), Ok(()));
    assert_eq!(admin.alias(&products), Ok(Some(pointer(1, 10))));
    assert_eq!(admin.remove_alias(&products, Offset(12)), Ok(()));
    assert_eq!(admin.alias(&products), Ok(None));
    assert_eq!(admin.alias(&other), Ok(Some(pointer(1, 11))));
}

/// What was emptied answers as if it had no rows: the alias stays away from it, also once another
/// version was built in the same place.
pub fn an_alias_leads_only_to_a_version_that_is_there(place: &dyn Place) {
    if !place.abilities().aliases {
        return;
    }
    fill(place, "products/v1/c0/s0", 1);
    let mut admin = place.admin();
    let products = view("products");
    let never_opened = admin.move_alias(&products, &pointer(2, 10));
    check_fails(never_opened, "Damaged");
    assert_eq!(admin.move_alias(&products, &pointer(1, 10)), Ok(()));
    if !place.harm(&first(), Harm::Empty) {
        return;
    }
    check_fails(admin.move_alias(&products, &pointer(1, 10)), "Damaged");
    fill(place, "products/v2/c0/s0", 1);
    check_fails(admin.move_alias(&products, &pointer(1, 10)), "Damaged");
    assert_eq!(admin.alias(&products), Ok(None));
    assert_eq!(admin.move_alias(&products, &pointer(2, 20)), Ok(()));
    fill(place, "products/v3/c0/s0", 1);
    retire(&mut *admin, "products/v3/c0/s0");
    check_fails(admin.move_alias(&products, &pointer(3, 40)), "Damaged");
    assert_eq!(admin.alias(&products), Ok(Some(pointer(2, 20))));
}

/// Rows are counted across calls that have no time, and of one version alone.
pub fn rows_are_counted_and_keys_are_found(place: &dyn Place) {
    fill(place, "products/v1/c0/s0", 700);
    fill(place, "products/v10/c0/s0", 30);
    let mut admin = place.admin();
    let mut count = |unit_text: &str| {
        let version = unit(unit_text).version;
        for _ in 0..CALLS_MAX {
            let counting = admin.count(&version, Duration::ZERO).expect("a count");
            if counting.finished {
                return counting.rows;
            }
        }
        panic!("a count never ended");
    };
    for _ in 0..2 {
        assert_eq!(count("products/v1/c0/s0"), 700);
        assert_eq!(count("products/v10/c0/s0"), 30);
        assert_eq!(count("products/v2/c0/s0"), 0);
    }
    let keys = ["key-0", "key-700", "", "key-699"].map(str::to_owned);
    let exist = admin.exist(&first().version, &keys);
    assert_eq!(exist, Ok(vec![true, false, false, true]));
}

fn retire(admin: &mut dyn SinkAdmin, unit_text: &str) -> u64 {
    let version = unit(unit_text).version;
    let mut deleted = 0;
    for _ in 0..CALLS_MAX {
        let retired = admin
            .retire(&version, Offset(99), Duration::ZERO)
            .expect("retired");
        deleted += retired.deleted;
        if retired.finished {
            return deleted;
        }
    }
    panic!("a retirement never ended");
}

/// Whatever is not the version's stays; a second coordinator in the middle of it does no harm.
pub fn a_retirement_deletes_its_own_and_nothing_else(place: &dyn Place) {
    let neighbours = [
        "products/v10/c0/s0",
        "product/v1/c0/s0",
        "products-v1/v1/c0/s0",
    ];
    for neighbour in neighbours {
        fill(place, neighbour, 3);
    }
    fill(place, "products/v1/c0/s0", 700);
    let mut admin = place.admin();
    let products = view("products");
    let alias = place.abilities().aliases.then(|| pointer(10, 10));
    if let Some(alias) = &alias {
        assert_eq!(admin.move_alias(&products, alias), Ok(()));
    }
    let begun = admin.retire(&first().version, Offset(99), Duration::ZERO);
    let begun = begun.expect("begun").deleted;
    assert_eq!(
        begun + retire(&mut *place.admin(), "products/v1/c0/s0"),
        700
    );
    assert_eq!(retire(&mut *admin, "products/v1/c0/s0"), 0, "again");

    check_holds::<&str>(place, &first(), None, &[]);
    let rows: Vec<_> = (0..3)
        .map(|n| (format!("key-{n}"), row("shoe", n)))
        .collect();
    for neighbour in neighbours {
        check_holds(place, &unit(neighbour), Some(&checkpoint(1, 2)), &rows);
    }
    assert_eq!(admin.alias(&products), Ok(alias));
    assert_eq!(
        retire(&mut *admin, "products/v77/c0/s0"),
        0,
        "never written"
    );
}

/// The retired mark outlives the data: no later claim, and no owner that slept through it, writes.
pub fn a_retired_unit_is_never_opened_again(place: &dyn Place) {
    fill(place, "products/v2/c0/s0", 1);
    let mut asleep = Writer::begin(place, &first());
    asleep.commit(vec![set("a", row("shoe", 1))]);
    let late = commit_after(asleep.at.as_ref(), vec![set("b", row("late", 2))]);
    let mut asleep = Some(asleep.sink);
    if !place.abilities().takes_from_the_living {
        asleep = None;
    }
    assert_eq!(retire(&mut *place.admin(), "products/v1/c0/s0"), 1);
    if let Some(sink) = &mut asleep {
        check_fails(super::support::apply(&mut **sink, &late), "Damaged");
    }
    for expect in [Expect::Maybe, Expect::Data] {
        check_fails(place.sink(&first()).open(&token(9), expect), "Damaged");
    }
    check_holds::<&str>(place, &first(), None, &[]);
}
