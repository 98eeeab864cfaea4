//! Locks, damage, and a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use materializer_model::memory::ManualClock;
use materializer_model::ports::{Expect, Sink, SinkError, SinkReader};
use materializer_model::{Key, Poison, PoisonKind, Timestamp};
use materializer_sinks::tantivy::{TantivyAdmin, TantivyReader, TantivySettings, TantivySink};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{
    checkpoint, commit, filled, mutation, settings, sink, suite_view, token, unit, view,
};

fn rows(count: usize) -> Vec<(String, Value)> {
    (0..count)
        .map(|n| {
            (
                format!("key-{n}"),
                json!({"title": format!("shoe number {n}"), "n": n}),
            )
        })
        .collect()
}

fn index_dir(dir: &Path) -> PathBuf {
    fs::read_dir(dir.join("main/products"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.is_dir())
        .expect("an index")
}

#[test]
fn a_unit_has_one_owner_and_the_next_one_waits() {
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    let owner = filled(&settings, &suite_view(), &rows(1));
    let mut second = sink(&settings, &suite_view());
    let Err(SinkError::Unavailable(why)) = second.open(&token(2), Expect::Data) else {
        panic!("it is taken from a living owner");
    };
    assert!(why.contains("v1-c0.lock"), "{why}");
    drop(owner);
    assert_eq!(
        second.open(&token(2), Expect::Data),
        Ok(Some(checkpoint(1)))
    );
}

#[test]
fn a_merge_that_outlives_its_writer_keeps_the_next_owner_out() {
    const COMMITS: u64 = 8;
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    let mut first = sink(&settings, &suite_view());
    assert_eq!(first.open(&token(1), Expect::Maybe), Ok(None));
    for seq in 1..=COMMITS {
        let row = |n: u64| json!({"title": format!("shoe {n} of {seq}"), "n": n});
        let mutations = (0..4_000).map(|n| mutation(&format!("{seq}-{n}"), n, Some(&row(n))));
        commit(&mut first, seq, mutations.collect()).expect("a commit");
    }
    drop(first); // with the eighth segment a merge of all began

    let mut next = sink(&settings, &suite_view());
    // The same claim commits nothing when it opens: no merge is begun by it.
    let is_held = |sink: &mut TantivySink| match sink.open(&token(1), Expect::Data) {
        Ok(found) => {
            assert_eq!(found, Some(checkpoint(COMMITS)));
            false
        }
        Err(SinkError::Unavailable(_)) => true,
        Err(other) => panic!("{other:?}"),
    };
    while is_held(&mut next) {
        thread::yield_now();
    }
    let index = index_dir(dir.path());
    let meta = fs::read_to_string(index.join("meta.json")).expect("read");
    let meta = meta.replace('-', "");
    let names = fs::read_dir(&index).expect("a folder");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let of_no_segment: Vec<_> = names
        .filter(|name| !name.starts_with('.') && name != "meta.json")
        .filter(|name| !meta.contains(name.split('.').next().expect("a part")))
        .collect();
    assert!(of_no_segment.is_empty(), "{of_no_segment:?}");
}

#[test]
fn an_altered_file_is_found_when_the_unit_is_opened() {
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    drop(filled(&settings, &suite_view(), &rows(50)));
    let store = fs::read_dir(index_dir(dir.path()))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|kind| kind == "pos"))
        .expect("positions");
    let mut bytes = fs::read(&store).expect("read");
    bytes[3] ^= 0xff;
    fs::write(&store, bytes).expect("written");

    let opened = sink(&settings, &suite_view()).open(&token(2), Expect::Data);
    assert!(
        matches!(&opened, Err(SinkError::Damaged(why)) if why.contains(".pos")),
        "{opened:?}"
    );
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let report = TantivyAdmin::new(settings, clock).verify(&unit(), &suite_view());
    let report = report.expect("a report").expect("an index");
    assert_eq!(report.bad_files.len(), 1);
}

#[test]
fn an_index_in_the_format_of_another_release_of_tantivy_is_damaged_when_it_is_opened() {
    /// What stands at the end of each file of a segment.
    const SAID: &[u8] = br#""index_format_version":"#;
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    drop(filled(&settings, &suite_view(), &rows(50)));
    for entry in fs::read_dir(index_dir(dir.path())).expect("a folder") {
        let file = entry.expect("an entry").path();
        let mut bytes = fs::read(&file).expect("read");
        if let Some(at) = bytes.windows(SAID.len()).rposition(|text| text == SAID) {
            bytes[at + SAID.len()] = b'1';
            fs::write(&file, bytes).expect("written");
        }
    }
    let opened = sink(&settings, &suite_view()).open(&token(2), Expect::Data);
    assert!(
        matches!(&opened, Err(SinkError::Damaged(why)) if why.contains("index format")),
        "{opened:?}"
    );
}

#[test]
fn a_lost_file_of_deletes_is_damage_and_brings_no_row_back() {
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    let mut owner = filled(&settings, &suite_view(), &rows(50));
    commit(&mut owner, 2, vec![mutation("key-7", 60, None)]).expect("a commit");
    drop(owner);
    let deletes = fs::read_dir(index_dir(dir.path()))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|kind| kind == "del"))
        .expect("deletes");
    fs::remove_file(deletes).expect("removed");
    let opened = sink(&settings, &suite_view()).open(&token(2), Expect::Data);
    assert!(
        matches!(&opened, Err(SinkError::Damaged(why)) if why.contains(".del")),
        "{opened:?}"
    );
}

#[test]
fn an_index_of_another_definition_or_directory_is_damage() {
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    drop(filled(&settings, &suite_view(), &rows(1)));
    let other = view(&[("title", json!({"type": "text", "language": "english"}))]);
    let opened = sink(&settings, &other).open(&token(2), Expect::Data);
    assert!(matches!(opened, Err(SinkError::Damaged(_))), "{opened:?}");

    let found = index_dir(dir.path());
    fs::rename(&found, found.with_file_name("v1-c0-00000000")).expect("renamed");
    let opened = sink(&settings, &suite_view()).open(&token(2), Expect::Data);
    assert!(
        matches!(&opened, Err(SinkError::Damaged(why)) if why.contains("made as")),
        "{opened:?}"
    );
}

#[test]
fn what_a_crash_left_at_creation_is_swept() {
    let dir = TempDir::new().expect("a folder");
    let unfinished = dir.path().join("main/products/v1-c0-0123abcd");
    fs::create_dir_all(&unfinished).expect("created");
    drop(filled(&settings(dir.path()), &suite_view(), &rows(1)));
    assert!(!unfinished.exists());
}

#[test]
fn below_the_low_water_mark_nothing_is_written() {
    let dir = TempDir::new().expect("a folder");
    let settings = TantivySettings {
        disk_free_bytes_min: u64::MAX / 4,
        ..settings(dir.path())
    };
    let opened = sink(&settings, &suite_view()).open(&token(1), Expect::Maybe);
    assert!(matches!(opened, Err(SinkError::Full(_))), "{opened:?}");
}

/// A small disk of its own, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "materializer-test"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "unmounted");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let settings = settings(disk.0.path());
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).expect("written");
    let mut sink = sink(&settings, &suite_view());
    assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
    // Digits of a generator: nothing that a disk's worth could be compressed into.
    let batch = |seq: u64| {
        let mut state = seq;
        let words = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(seq);
            format!("{state:x}")
        });
        let title: Vec<String> = words.take(8_000).collect();
        let row = json!({"title": title.join(" "), "n": seq});
        vec![mutation(&format!("key-{seq}"), seq, Some(&row))]
    };
    let mut seq = 0;
    let full = loop {
        match commit(&mut sink, seq + 1, batch(seq + 1)) {
            Ok(()) => seq += 1,
            Err(fault) => break fault,
        }
        assert!(seq < 1_000, "the disk is never full");
    };
    assert!(matches!(full, SinkError::Full(_)), "{full:?}");
    let read = |count: u64| {
        let mut reader = TantivyReader::open(&settings, &unit(), &suite_view()).expect("a reader");
        let keys: Vec<Key> = (1..=count)
            .map(|n| Key::new(format!("key-{n}").as_bytes()))
            .collect();
        let snapshot = reader.read(&keys).expect("a read");
        let there = snapshot.rows.iter().filter(|row| row.is_some()).count();
        (
            snapshot.checkpoint.map_or(0, |at| at.seq),
            u64::try_from(there).expect("few"),
        )
    };
    assert_eq!(read(seq), (seq, seq), "what was settled is there");
    fs::remove_file(&ballast).expect("removed");
    let at = sink.open(&token(1), Expect::Data).expect("opened");
    assert_eq!(at, Some(checkpoint(seq)));
    commit(&mut sink, seq + 1, batch(seq + 1)).expect("a commit");
    assert_eq!(read(seq + 1), (seq + 1, seq + 1));
}

#[test]
fn a_value_of_another_type_is_refused_before_it_reaches_the_index() {
    let dir = TempDir::new().expect("a folder");
    let definition = view(&[
        ("title", json!({"type": "text"})),
        ("sku", json!({"type": "string"})),
        ("stock", json!({"type": "u64"})),
        ("price", json!({"type": "f64"})),
        ("hidden", json!({"type": "bool"})),
        ("added", json!({"type": "date"})),
        ("photo", json!({"type": "bytes"})),
        ("specs", json!({"type": "json"})),
    ]);
    let sink = sink(&settings(dir.path()), &definition);
    let check = |row: Value, place: &str, kind: PoisonKind| {
        let found = sink.check(&mutation("a", 1, Some(&row)));
        assert!(
            matches!(&found, Err(Poison { kind: k, place: p, .. }) if *k == kind && p == place),
            "{row}: {found:?}"
        );
    };
    for (row, place) in [
        (json!({"title": 1}), "document.title"),
        (json!({"sku": [true]}), "document.sku"),
        (json!({"stock": -1}), "document.stock"),
        (json!({"stock": 1.5}), "document.stock"),
        (json!({"price": "1"}), "document.price"),
        (json!({"hidden": 0}), "document.hidden"),
        (json!({"added": "yesterday"}), "document.added"),
        (json!({"added": i64::MAX}), "document.added"),
        (json!({"photo": "?"}), "document.photo"),
        (json!({"specs": "a"}), "document.specs"),
        (json!([]), "document"),
    ] {
        check(row, place, PoisonKind::Type);
    }
    let long = "x".repeat(70_000);
    check(json!({"sku": long}), "document.sku", PoisonKind::TooLarge);
    let good = json!({
        "title": ["a", null, "b"], "sku": null, "stock": 3.0, "price": 2, "hidden": true,
        "added": "2024-02-29T12:00:00+02:00", "photo": "AQI=", "specs": {"a": {"b\u{0}": [1, "x", null]}},
    });
    assert_eq!(sink.check(&mutation("a", 1, Some(&good))), Ok(()));
}

#[test]
fn leftovers_are_told_and_removed_and_a_living_owners_are_not() {
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    let owner = filled(&settings, &suite_view(), &rows(3));
    let unreadable = dir.path().join("main/products/v2-c0-0123abcd");
    fs::create_dir(&unreadable).expect("created");
    fs::write(unreadable.join("meta.json"), "?").expect("written");
    let admin = TantivyAdmin::new(settings, Arc::new(ManualClock::new(Timestamp(0))));
    let found = admin.leftovers().expect("leftovers");
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].unit, &found[0].token), (&unit(), &token(1)));
    let refused = admin.remove(&unit(), Duration::ZERO);
    assert!(
        matches!(refused, Err(SinkError::Unavailable(_))),
        "{refused:?}"
    );
    drop(owner);
    let removed = admin
        .remove(&unit(), Duration::from_secs(1))
        .expect("removed");
    assert_eq!((removed.deleted, removed.finished), (3, true));
    assert_eq!(admin.leftovers(), Ok(Vec::new()));
    assert!(unreadable.exists());
}
