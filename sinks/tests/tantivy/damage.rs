//! Files that are altered while an index is open.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use materializer_model::Key;
use materializer_model::ports::{Expect, Sink, SinkError};
use materializer_sinks::tantivy::search::SearchError;
use materializer_sinks::tantivy::{TantivySettings, TantivySink};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{commit, filled, mutation, settings, sink, suite_view, token};

/// Returns the files of a kind in the only index of a folder.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let views = fs::read_dir(dir.join("main/products")).expect("a folder");
    let indices = views.map(|entry| entry.expect("an entry").path());
    let index = indices.into_iter().find(|path| path.is_dir());
    let files = fs::read_dir(index.expect("an index")).expect("a folder");
    let files = files.map(|entry| entry.expect("an entry").path());
    files
        .filter(|path| path.extension().is_some_and(|found| found == kind))
        .collect()
}

/// Alters a byte in the middle of a file, in place: whoever has it open sees it.
fn alter(file: &Path) {
    let open = fs::File::options().read(true).write(true).open(file);
    let open = open.expect("a file");
    let middle = open.metadata().expect("a size").len() / 2;
    let mut byte = [0];
    open.read_exact_at(&mut byte, middle).expect("read");
    open.write_all_at(&[!byte[0]], middle).expect("written");
}

fn row(n: u64) -> Value {
    json!({"title": format!("shoe number {n}"), "n": n})
}

/// Commits one row after another until the sink says that it is damaged.
fn commit_until_damaged(sink: &mut TantivySink, from: u64, to: u64) -> String {
    for seq in from..=to {
        match commit(
            sink,
            seq,
            vec![mutation(&format!("key-{seq}"), seq, Some(&row(seq)))],
        ) {
            Ok(()) => {}
            Err(SinkError::Damaged(why)) => return why,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("nothing was found with {to} commits");
}

#[test]
fn a_file_that_is_altered_while_it_is_served_is_found_and_served_no_more() {
    let dir = TempDir::new().expect("a folder");
    let settings = TantivySettings {
        check_every: Duration::from_millis(1),
        ..settings(dir.path())
    };
    let rows: Vec<_> = (0..50).map(|n| (format!("key-{n}"), row(n))).collect();
    let mut sink = filled(&settings, &suite_view(), &rows);
    let copy = sink.copy();
    let get = || copy.get(&Key::new(b"key-7"));
    assert!(get().expect("served").is_some());
    let store = files(dir.path(), "pos");
    alter(&store[0]);

    let name = store[0].file_name().expect("a name").to_string_lossy();
    let why = loop {
        match get() {
            Ok(found) => assert!(found.is_some(), "it is served until it is found"),
            Err(SearchError::Unservable(why)) => break why,
            Err(other) => panic!("{other:?}"),
        }
        std::thread::yield_now();
    };
    assert!(why.contains(&*name), "{why}");
    let why = commit_until_damaged(&mut sink, 2, 2);
    assert!(why.contains(&*name), "{why}");
    assert_eq!(
        sink.open(&token(1), Expect::Data),
        Err(SinkError::Damaged(why)),
        "nothing of it is repaired"
    );
}

#[test]
fn an_index_serves_nobody_before_all_that_was_built_is_held_against_its_checksums() {
    let rows: Vec<_> = (0..50).map(|n| (format!("key-{n}"), row(n))).collect();
    for is_whole in [true, false] {
        let dir = TempDir::new().expect("a folder");
        let sink = filled(&settings(dir.path()), &suite_view(), &rows);
        if !is_whole {
            alter(&files(dir.path(), "pos")[0]);
        }
        assert!(!sink.is_proven(), "nothing was checked yet");
        let copy = sink.copy();
        loop {
            let found = copy.get(&Key::new(b"key-7"));
            if sink.is_proven() || found.is_err() {
                assert_eq!(sink.is_proven(), is_whole, "{found:?}");
                break;
            }
            std::thread::yield_now();
        }
        drop(sink);
        let mut again = self::sink(&settings(dir.path()), &suite_view());
        let opened = again.open(&token(2), Expect::Data);
        assert_eq!(opened.is_ok(), is_whole, "a start checks everything");
        assert_eq!(again.is_proven(), is_whole);
    }
}

#[test]
fn a_file_that_a_commit_cannot_read_damages_the_unit_and_ends_no_process() {
    for kind in ["fast", "term", "idx", "pos", "store", "fieldnorm"] {
        let dir = TempDir::new().expect("a folder");
        let rows: Vec<_> = (0..50).map(|n| (format!("key-{n}"), row(n))).collect();
        let mut sink = filled(&settings(dir.path()), &suite_view(), &rows);
        let copy = sink.copy();
        let file = &files(dir.path(), kind)[0];
        let open = fs::File::options().write(true).open(file).expect("a file");
        let size = open.metadata().expect("a size").len();
        let noise = vec![0xff; usize::try_from(size).expect("small")];
        open.write_all_at(&noise, 0).expect("written");
        // Deletes of rows have tantivy read the segment.
        let changed = vec![mutation("key-7", 60, Some(&row(60)))];
        match commit(&mut sink, 2, changed) {
            Err(SinkError::Damaged(why)) => {
                let name = file.file_name().expect("a name").to_string_lossy();
                assert!(why.contains(&*name), "{kind}: {why}");
                let found = copy.get(&Key::new(b"key-9"));
                assert!(
                    matches!(found, Err(SearchError::Unservable(_))),
                    "{kind}: {found:?}"
                );
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_segment_is_never_merged_into_one_that_looks_whole() {
    let dir = TempDir::new().expect("a folder");
    let settings = settings(dir.path());
    let mut sink = sink(&settings, &suite_view());
    assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
    commit(&mut sink, 1, vec![mutation("other", 1, Some(&row(1)))]).expect("a commit");
    let store = files(dir.path(), "store");
    alter(&store[0]);
    // With the eighth segment all of them would be merged.
    let why = commit_until_damaged(&mut sink, 2, 12);
    let name = store[0].file_name().expect("a name").to_string_lossy();
    assert!(why.contains(&*name), "{why}");
    assert!(store[0].exists(), "it was merged");
}
