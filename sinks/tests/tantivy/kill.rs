//! A writer that is killed at any instant.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use materializer_model::ports::{Expect, Sink, SinkError, SinkReader};
use materializer_model::{Change, Key, Mutation, Row};
use materializer_sinks::tantivy::TantivyReader;
use serde_json::json;
use tempfile::TempDir;

use crate::place::{checkpoint, commit, mutation, settings, sink, suite_view, token, unit};

const ROUNDS: u64 = 20;
const COMMITS_MAX: u64 = 5_000;

/// Says in which folder the child may write: it stands in the child's working folder.
const ORDER: &str = "write-until-killed";

/// Returns the writes of one commit: of 200 keys some are set and some deleted.
fn batch(seq: u64) -> Vec<Mutation> {
    let key = |n: u64| format!("key-{}", n % 200);
    let sets = (0..20).map(|n| {
        let row = json!({"title": format!("shoe {seq}"), "n": seq});
        mutation(&key(seq * 13 + n), seq * 100 + n, Some(&row))
    });
    let deletes = (20..26).map(|n| mutation(&key(seq * 13 + n), seq * 100 + n, None));
    sets.chain(deletes).collect()
}

/// Returns what the index holds after so many commits.
fn fold(seq: u64) -> BTreeMap<Key, Row> {
    let mut rows = BTreeMap::new();
    for mutation in (1..=seq).flat_map(batch) {
        match mutation.change {
            Change::Upsert { row, .. } => rows.insert(mutation.key, row),
            Change::Delete => rows.remove(&mutation.key),
        };
    }
    rows
}

#[test]
#[ignore = "needs a parent: a_kill_at_any_instant_leaves_the_rows_of_the_checkpoint runs it"]
fn writes_until_it_is_killed() {
    let here = std::env::current_dir().expect("a folder");
    let Ok(claim) = fs::read_to_string(here.join(ORDER)) else {
        return;
    };
    let claim = claim.parse().expect("a number");
    let mut sink = sink(&settings(&here), &suite_view());
    let at = sink.open(&token(claim), Expect::Maybe).expect("opened");
    let begun = at.map_or(0, |at| at.seq);
    fs::write(here.join("begun"), "").expect("written");
    for seq in begun + 1..=COMMITS_MAX {
        commit(&mut sink, seq, batch(seq)).expect("a commit");
    }
}

/// Starts the child and waits until it writes.
fn start(dir: &Path, claim: u64) -> Child {
    fs::write(dir.join(ORDER), claim.to_string()).expect("written");
    let begun = dir.join("begun");
    if begun.exists() {
        fs::remove_file(&begun).expect("removed");
    }
    let mut child = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", "kill::writes_until_it_is_killed", "--ignored"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    while !begun.exists() {
        let ended = child.try_wait().expect("a child");
        assert_eq!(ended, None, "the child ended before it wrote");
        thread::yield_now();
    }
    child
}

#[test]
fn a_kill_at_any_instant_leaves_the_rows_of_the_checkpoint() {
    let dir = TempDir::new().expect("a folder");
    let mut instants = 0x2545_f491_4f6c_dd1d_u64;
    let mut last = 0;
    for round in 1..=ROUNDS {
        let mut child = start(dir.path(), round);
        instants = instants
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // The instant is what is tested: nothing is waited for.
        thread::sleep(Duration::from_millis(5 + (instants >> 33) % 200));
        child.kill().expect("killed");
        child.wait().expect("ended");

        let mut reader =
            TantivyReader::open(&settings(dir.path()), &unit(), &suite_view()).expect("a reader");
        let mut rows = BTreeMap::new();
        let scanned = reader.scan(&mut |key, stored| {
            assert!(
                rows.insert(key, stored.row).is_none(),
                "a key is there twice"
            );
            true
        });
        let at = scanned.expect("a scan").after;
        let seq = at.as_ref().map_or(0, |at| at.seq);
        assert_eq!(at, (seq > 0).then(|| checkpoint(seq)));
        assert!(seq >= last, "round {round}: {seq} after {last}");
        assert!(
            rows == fold(seq),
            "round {round}: other rows than those of commit {seq}"
        );
        last = seq;
    }
    assert!(last > 0, "nothing was ever committed");
    let mut sink = sink(&settings(dir.path()), &suite_view());
    let at = sink.open(&token(ROUNDS), Expect::Data).expect("opened");
    assert_eq!(at, Some(checkpoint(last)));
    let earlier = sink.open(&token(1), Expect::Data);
    assert_eq!(earlier, Err(SinkError::Fenced(token(ROUNDS))));
    let names = fs::read_dir(dir.path().join("main/products")).expect("a folder");
    let index = names
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.is_dir())
        .expect("an index");
    let drafts = fs::read_dir(index).expect("a folder");
    let drafts = drafts.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with(".tmp")
    });
    assert_eq!(drafts.count(), 0, "drafts are swept");
}
