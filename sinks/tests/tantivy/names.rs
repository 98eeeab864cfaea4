//! Whatever a record's key is, its row stays in its version's folder, and a retirement deletes that folder and
//! none that looks like it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use materializer_model::memory::ManualClock;
use materializer_model::ports::{Expect, Sink as _};
use materializer_model::{Change, Key, Mutation, Offset, Row, Timestamp, Unit};
use materializer_sinks::tantivy::{TantivyAdmin, TantivySettings, TantivySink};
use serde_json::json;
use tempfile::TempDir;

use crate::place::{commit, fingerprint, mutation, settings, suite_view, token};

/// Keys that a folder, a term or a hash could take for something else.
fn keys() -> Vec<Vec<u8>> {
    let texts = [
        "",
        ".",
        "..",
        "/",
        "../../v10",
        "/etc/passwd",
        "\\",
        "*",
        "{}",
        "{tag}",
        "\0",
        "a\0b",
        "\n",
        "\r\n",
        "v10",
        "\u{1}",
        "\u{1}0",
        "𝕂",
        "key\u{ffff}",
    ];
    let mut keys: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).into();
    keys.extend([vec![0xff], vec![0; 512], vec![0xff; 513]]);
    keys.extend([b"k".repeat(512), b"k".repeat(513), b"k".repeat(1_000_000)]);
    keys
}

/// Returns every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.insert(path, bytes);
        }
    }
    found
}

/// Writes a row of every key into a unit, its number in each, and reads all of them again.
fn write(settings: &TantivySettings, unit: &str, number: u64) {
    let unit: Unit = unit.parse().expect("a unit");
    let made = TantivySink::new(settings.clone(), &unit, &suite_view(), &fingerprint());
    let mut sink = made.expect("a sink");
    assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
    let row = json!({"title": "shoe", "n": number});
    let put = |key: Vec<u8>| Mutation {
        key: Key::new(&key),
        change: Change::Upsert {
            row: Row::new(row.to_string().as_bytes()),
            expires_at: None,
        },
        ..mutation("", 1, None)
    };
    commit(&mut sink, 1, keys().into_iter().map(put).collect()).expect("a commit");
    let copy = sink.copy();
    for key in keys() {
        let found = copy.get(&Key::new(&key)).expect("served");
        let found = found.unwrap_or_else(|| panic!("{}", key.escape_ascii()));
        assert_eq!(found.source, row.to_string().into_bytes());
    }
    let documents = copy.state().map(|state| state.documents);
    assert_eq!(
        documents,
        u64::try_from(keys().len()).ok(),
        "each is one row"
    );
}

#[test]
fn any_key_is_a_row_in_its_version_s_folder_which_is_deleted_alone() {
    let dir = TempDir::new().expect("a folder");
    let data = dir.path().join("data");
    let (ours, theirs) = (
        settings(&data),
        TantivySettings {
            installation: "main-x".parse().expect("a name"),
            ..settings(&data)
        },
    );
    write(&ours, "products/v1/c0/s0", 1);
    let folder = data.join("main/products");
    assert!(
        files(dir.path())
            .keys()
            .all(|file| file.starts_with(&folder)),
        "nothing is elsewhere"
    );
    write(&ours, "products/v10/c0/s0", 10);
    write(&ours, "products-x/v1/c0/s0", 2);
    write(&theirs, "products/v1/c0/s0", 3);
    let before = files(dir.path());

    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let version = "products@v1".parse().expect("a version");
    let retired = TantivyAdmin::new(ours, clock).retire(&version, Offset(9), Duration::MAX);
    assert!(retired.expect("retired").finished);
    let mark = folder.join("v1.retired");
    let mut after = files(dir.path());
    assert!(after.remove(&mark).is_some());
    let index = |file: &Path| {
        file.strip_prefix(&folder)
            .is_ok_and(|name| name.to_string_lossy().starts_with("v1-c0-"))
    };
    let kept: BTreeMap<_, _> = before
        .into_iter()
        .filter(|(file, _)| !index(file))
        .collect();
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        kept.keys().collect::<Vec<_>>()
    );
    assert!(after == kept, "another file was altered");
}
