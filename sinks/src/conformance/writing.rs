//! What a commit does.

use std::sync::Arc;

use materializer_model::Key;
use materializer_model::ports::Expect;

use super::Place;
use super::support::{
    Writer, apply, check_fails, check_holds, checkpoint, commit_after, delete, first, row, set,
};

/// Nothing is found where nothing was written.
pub fn a_place_begins_empty(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    assert_eq!(writer.sink.settle(std::time::Duration::ZERO), Ok(None));
    drop(writer);
    check_holds::<&str>(place, &first(), None, &[]);
    let read = place.reader(&first()).read(&[Key::new(b"a")]);
    assert_eq!(read.expect("a read").rows, [None]);
}

/// The whole row is replaced, whatever was there.
pub fn an_upsert_is_read_back_and_replaces_the_row_before(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1)), set("b", row("boot", 2))]);
    let both = [("a", row("shoe", 1)), ("b", row("boot", 2))];
    check_holds(place, &first(), writer.at.as_ref(), &both);
    writer.commit(vec![set("a", row("sandal", 3))]);
    let both = [("a", row("sandal", 3)), ("b", row("boot", 2))];
    check_holds(place, &first(), writer.at.as_ref(), &both);
}

/// Deletes are part of a fold, also of keys that the sink never held.
pub fn a_delete_removes_the_row_and_deleting_nothing_is_no_fault(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![delete("never")]);
    writer.commit(vec![set("a", row("shoe", 1)), set("b", row("boot", 2))]);
    writer.commit(vec![delete("a"), delete("never")]);
    check_holds(
        place,
        &first(),
        writer.at.as_ref(),
        &[("b", row("boot", 2))],
    );
    writer.commit(vec![set("a", row("shoe", 3)), delete("b")]);
    check_holds(
        place,
        &first(),
        writer.at.as_ref(),
        &[("a", row("shoe", 3))],
    );
}

/// A key that is set and deleted in one batch is gone; one that is deleted and set is there.
pub fn the_last_change_of_a_key_in_a_batch_counts(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("old", row("old", 0)), set("kept", row("kept", 0))]);
    writer.commit(vec![
        set("a", row("shoe", 1)),
        delete("a"),
        delete("old"),
        set("old", row("new", 2)),
        set("b", row("boot", 1)),
        set("b", row("boot", 2)),
    ]);
    let rows = [
        ("old", row("new", 2)),
        ("kept", row("kept", 0)),
        ("b", row("boot", 2)),
    ];
    check_holds(place, &first(), writer.at.as_ref(), &rows);
}

/// More rows than any sink writes in one request.
pub fn a_batch_of_many_rows_is_written_whole(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    let rows: Vec<_> = (0..1_777)
        .map(|n| (format!("key-{n}"), row("shoe", n)))
        .collect();
    let sets = rows.iter().map(|(key, row)| set(key, row.clone()));
    writer.commit(sets.collect());
    check_holds(place, &first(), writer.at.as_ref(), &rows);
    writer.commit(rows.iter().map(|(key, _)| delete(key)).collect());
    check_holds::<&str>(place, &first(), writer.at.as_ref(), &[]);
}

/// Filtered records and transaction markers move the checkpoint alone.
pub fn a_commit_without_rows_moves_the_checkpoint(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    writer.commit(Vec::new());
    assert_eq!(writer.at, Some(checkpoint(2, 2)));
    check_holds(
        place,
        &first(),
        writer.at.as_ref(),
        &[("a", row("shoe", 1))],
    );
}

/// A commit says which checkpoint it follows: the second time that is not the stored one.
pub fn the_same_commit_sent_twice_is_applied_once(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1)), delete("b")]);
    let first_commit = commit_after(None, vec![set("a", row("shoe", 1)), delete("b")]);
    writer.commit(vec![set("a", row("shoe", 2)), set("b", row("boot", 2))]);
    check_fails(apply(&mut *writer.sink, &first_commit), "Unavailable");
    drop(writer);

    let mut writer = Writer::open(place, &first(), 1, Expect::Data);
    assert_eq!(writer.at, Some(checkpoint(2, 2)));
    let rows = [("a", row("shoe", 2)), ("b", row("boot", 2))];
    check_holds(place, &first(), writer.at.as_ref(), &rows);
    writer.commit(vec![delete("a")]);
    check_holds(place, &first(), writer.at.as_ref(), &rows[1..]);
}

/// Three documents of 1 MiB in one batch.
pub fn large_documents_are_kept(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    let rows: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|key| (key, row(&key.repeat(1 << 20), 1)))
        .collect();
    writer.commit(
        rows.iter()
            .map(|(key, row)| set(key, row.clone()))
            .collect(),
    );
    check_holds(place, &first(), writer.at.as_ref(), &rows);
}

/// A key is any bytes: each is another row, and comes back as it was.
pub fn odd_keys_are_kept_apart(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    let keys: [&[u8]; 12] = [
        b"",
        b" ",
        b"\0",
        b"\x01",
        b"\xff\xfe\x00\r\n",
        b"a:b:*?[x]\\",
        b"{key}",
        "käse 🧀".as_bytes(),
        "ka\u{308}se 🧀".as_bytes(),
        b"\x01e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        &[b'k'; 70_000],
        &[b'k'; 70_001],
    ];
    let rows: Vec<_> = (0..)
        .zip(keys)
        .map(|(n, key)| (key, row("shoe", n)))
        .collect();
    writer.commit(
        rows.iter()
            .map(|(key, row)| set(key, row.clone()))
            .collect(),
    );
    check_holds(place, &first(), writer.at.as_ref(), &rows);
    writer.commit(keys.iter().skip(1).map(delete).collect());
    check_holds(place, &first(), writer.at.as_ref(), &rows[..1]);
}

/// The checkpoint comes back to the last digit.
pub fn a_checkpoint_holds_hundreds_of_partitions(place: &dyn Place) {
    let mut sink = place.sink(&first());
    assert_eq!(
        sink.open(&super::support::token(1), Expect::Maybe),
        Ok(None)
    );
    let mut commit = commit_after(None, vec![set("a", row("shoe", 1))]);
    let large = checkpoint(1, 600);
    Arc::make_mut(&mut commit).checkpoint = large.clone();
    assert_eq!(apply(&mut *sink, &commit), Ok(large.clone()));
    drop(sink);
    let writer = Writer::open(place, &first(), 1, Expect::Data);
    assert_eq!(writer.at, Some(large.clone()));
    drop(writer);
    check_holds(place, &first(), Some(&large), &[("a", row("shoe", 1))]);
}
