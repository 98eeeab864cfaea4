//! Every target with its corpus, and with a fixed number of inputs made of it.

use std::fs;
use std::path::Path;

use hostile::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// How many inputs of each target are made up.
const CASES: u32 = 1_000;

/// Returns the files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = files.map(|file| {
        let path = file.expect("a file").path();
        let bytes = fs::read(&path).expect("a file");
        (path.display().to_string(), bytes)
    });
    files.collect()
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// A part of it, or of another file, comes once more.
    Repeat(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..4),
        "[\\[\\](){}'\":,.*+&|!?0-9a-e\\\\\r\n -]{1,6}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Remove(from, to)),
        any::<(Index, Index, Index)>().prop_map(|(from, to, at)| Edit::Repeat(from, to, at)),
    ]
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>) {
    let place = |at: &Index, bytes: &Vec<u8>| at.index(bytes.len() + 1);
    let range = |from: &Index, to: &Index, bytes: &Vec<u8>| {
        let (from, to) = (place(from, bytes), place(to, bytes));
        from.min(to)..from.max(to)
    };
    match edit {
        Edit::Put(at, byte) => {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        Edit::Insert(at, more) => {
            let at = place(at, bytes);
            bytes.splice(at..at, more.iter().copied());
        }
        Edit::Remove(from, to) => {
            let range = range(from, to, bytes);
            bytes.drain(range);
        }
        Edit::Repeat(from, to, at) => {
            let part = bytes[range(from, to, bytes)].to_vec();
            let at = place(at, bytes);
            bytes.splice(at..at, part);
        }
    }
}

#[expect(clippy::print_stdout, reason = "shown where the test fails")]
fn run(name: &str, target: Target) {
    let files = corpus(name);
    assert!(!files.is_empty(), "`{name}` has a corpus");
    for (path, bytes) in &files {
        println!("{path}");
        target(bytes);
    }
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let made = (any::<Index>(), prop::collection::vec(edit(), 1..6)).prop_map(|(file, edits)| {
        let mut bytes = file.get(&files).1.clone();
        edits.iter().for_each(|edit| apply(edit, &mut bytes));
        bytes
    });
    let held = TestRunner::new(config).run(&made, |bytes| {
        // A panic is the finding; the runner makes the input smaller and shows it.
        target(&bytes);
        Ok(())
    });
    if let Err(fault) = held {
        panic!("`{name}`: {fault}: put the input in fuzz/corpus/{name}");
    }
}

macro_rules! targets {
    ($(fn $test:ident() = $name:literal;)*) => {
        $(#[test]
        fn $test() {
            let (name, target) = TARGETS.iter().find(|(name, _)| *name == $name).expect("a target");
            run(name, *target);
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$($name),*];
            assert_eq!(TARGETS.map(|(name, _)| name), run);
        }
    };
}

targets! {
    fn control_topics_that_anybody_writes_are_read_alike_and_acted_on() = "control";
    fn any_expression_gives_a_row_or_poison_or_has_a_fault() = "expressions";
    fn any_record_gives_a_row_or_poison() = "records";
    fn any_client_of_the_redis_protocol_is_answered_and_let_in_with_the_token_only() = "redis_protocol";
    fn any_search_is_answered_or_refused_or_ends_at_a_limit() = "search";
    fn stored_texts_come_back_as_they_were_read() = "stored";
    fn any_definition_is_taken_or_told_what_is_wrong() = "views";
}
