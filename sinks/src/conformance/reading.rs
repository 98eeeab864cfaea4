//! What a reader of a unit sees.

use std::thread;

use materializer_model::{Key, Timestamp, Unit};

use super::Place;
use super::support::{Writer, check_holds, checkpoint, first, row, scan, set, set_until, unit};

/// Until the year 2100, in milliseconds.
const FAR_MS: i64 = 4_102_444_800_000;

/// However a read falls between two commits, the rows are those that the checkpoint describes.
pub fn rows_and_checkpoint_are_of_one_instant(place: &dyn Place) {
    const COMMITS: u64 = 200;
    let keys = ["a", "b", "c"];
    let mut writer = Writer::begin(place, &first());
    thread::scope(|scope| {
        let write = scope.spawn(move || {
            for n in 1..=COMMITS {
                writer.commit(keys.iter().map(|key| set(key, row("shoe", n))).collect());
            }
        });
        let mut reader = place.reader(&first());
        let asked: Vec<_> = keys.iter().map(|key| Key::new(key.as_bytes())).collect();
        loop {
            let is_last = write.is_finished();
            let snapshot = reader.read(&asked).expect("a read");
            let expected = snapshot
                .checkpoint
                .and_then(|at| reader.stored(&row("shoe", at.seq)));
            for stored in snapshot.rows {
                assert_eq!(stored.map(|stored| stored.row), expected);
            }
            if is_last {
                assert_eq!(expected, reader.stored(&row("shoe", COMMITS)));
                break;
            }
        }
    });
}

/// Version 1 is not version 10, a view's name is not the beginning of another's, and no key is a
/// pattern.
pub fn a_scan_sees_all_rows_of_its_version_and_no_others(place: &dyn Place) {
    let units: Vec<Unit> = [
        "products/v1/c0/s0",
        "products/v10/c0/s0",
        "products/v2/c0/s0",
        "product/v1/c0/s0",
        "products-v1/v1/c0/s0",
    ]
    .map(unit)
    .to_vec();
    let keys = ["*", "[a]", "?", "\\", "v1:", "a"];
    for (n, unit) in (0..).zip(&units) {
        let mut writer = Writer::begin(place, unit);
        writer.commit(keys.iter().map(|key| set(key, row("shoe", n))).collect());
    }
    for (n, unit) in (0..).zip(&units) {
        let rows = keys.map(|key| (key, row("shoe", n)));
        check_holds(place, unit, Some(&checkpoint(1, 2)), &rows);
    }
    let mut visited = 0;
    let scanned = place.reader(&units[0]).scan(&mut |_, _| {
        visited += 1;
        visited < 3
    });
    let scanned = scanned.expect("a scan");
    assert_eq!(visited, 3, "a visitor ends the scan");
    assert_eq!(scanned.before, Some(checkpoint(1, 2)));
    assert_eq!(scanned.after, scanned.before);
}

/// An expiry is stored with the row, moved by the next write, and a row whose time has come is gone.
pub fn a_row_ends_when_its_time_has_come(place: &dyn Place) {
    if !place.abilities().expiry {
        return;
    }
    let mut writer = Writer::begin(place, &first());
    let until = |ms: i64| Some(Timestamp(ms));
    writer.commit(vec![
        set_until("far", row("shoe", 1), until(FAR_MS)),
        set_until("moved", row("shoe", 1), until(FAR_MS)),
        set_until("unbound", row("shoe", 1), until(FAR_MS)),
        set_until("past", row("shoe", 1), until(1_000)),
        set_until("negative", row("shoe", 1), until(-1)),
        set("ends", row("shoe", 1)),
    ]);
    writer.commit(vec![
        set_until("moved", row("shoe", 2), until(FAR_MS + 1)),
        set("unbound", row("shoe", 2)),
        set_until("ends", row("shoe", 2), until(0)),
    ]);
    let rows = scan(&mut *place.reader(&first()));
    let ends: Vec<_> = rows
        .iter()
        .map(|(key, stored)| (key.to_string(), stored.expires_at))
        .collect();
    let expected = [
        ("far".to_owned(), until(FAR_MS)),
        ("moved".to_owned(), until(FAR_MS + 1)),
        ("unbound".to_owned(), None),
    ];
    assert_eq!(ends, expected);
}

/// The same changes in other batches give the same rows, with the same ends.
pub fn a_rebuild_gives_the_same_rows(place: &dyn Place) {
    let expiry = place.abilities().expiry;
    let changes: Vec<_> = (0..300_u64)
        .map(|n| {
            let key = format!("key-{}", n % 70);
            let ends = i64::try_from(n).ok().filter(|_| expiry && n % 3 > 0);
            match n % 7 {
                0 => super::support::delete(key),
                _ => set_until(key, row("shoe", n), ends.map(|n| Timestamp(FAR_MS + n))),
            }
        })
        .collect();
    let build = |unit: &Unit, batch: usize| {
        let mut writer = Writer::begin(place, unit);
        for changes in changes.chunks(batch) {
            writer.commit(changes.to_vec());
        }
        drop(writer);
        scan(&mut *place.reader(unit))
    };
    let once = build(&first(), 300);
    let again = build(&unit("products/v2/c0/s0"), 17);
    assert_eq!(once.len(), 60);
    assert_eq!(once, again);
}
