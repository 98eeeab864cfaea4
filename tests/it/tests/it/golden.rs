//! Golden logs: fixed logs, and the exact contents that each version built from them must have, however
//! the log is read, whatever is written at once, and wherever a unit is stopped dead.
//!
//! `UPDATE_GOLDEN=1` rewrites `tests/golden/*/vN.txt`; the diff is reviewed. Contents that changed under
//! an unchanged fingerprint are a fault: raise the revision of the component that changed them.

mod case;
mod contents;
mod feeding;

use std::fs;

use materializer_model::definition::Target;
use materializer_model::memory::MemoryStore;

use case::{Case, Version, cases};
use contents::Contents;
use feeding::{Pace, Way, feed};

const PLAIN: Way = Way {
    sip: usize::MAX,
    pace: Pace::Default,
    grows: false,
    crash_after: None,
};

fn ways() -> impl Iterator<Item = Way> {
    let paces = [Pace::Default, Pace::EachRecord, Pace::Cramped];
    let sips = [1, 3, usize::MAX];
    let grows = [false, true];
    paces.into_iter().flat_map(move |pace| {
        sips.into_iter().flat_map(move |sip| {
            grows.into_iter().map(move |grows| Way { sip, pace, grows, ..PLAIN })
        })
    })
}

/// Every version whose rows can be held in memory, with its case.
fn each_version(mut check: impl FnMut(&Case, &Version)) {
    for case in &cases() {
        for version in &case.versions {
            check(case, version);
        }
    }
}

fn expected(version: &Version) -> String {
    let path = &version.contents;
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[allow(clippy::disallowed_methods, reason = "a switch for the one who runs the tests")]
fn is_updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn assert_contents(case: &Case, version: &Version, found: &Contents, way: Way) {
    let expected = expected(version);
    let found = found.to_string();
    assert!(found == expected, "{}, {way:?}:\n{found}\n--- expected:\n{expected}", case.name);
}

#[test]
fn every_golden_log_gives_its_exact_contents_however_it_is_read() {
    each_version(|case, version| {
        if is_updating() {
            let fed = feed(case, version, &MemoryStore::default(), PLAIN);
            fs::write(&version.contents, fed.contents.to_string()).expect("a writable golden file");
        }
        for way in ways() {
            let fed = feed(case, version, &MemoryStore::default(), way);
            assert_contents(case, version, &fed.contents, way);
        }
    });
}

#[test]
fn units_that_are_stopped_dead_after_any_step_change_nothing_in_a_golden_log_s_contents() {
    each_version(|case, version| {
        for grows in [false, true] {
            let way = Way { sip: 3, pace: Pace::EachRecord, grows, ..PLAIN };
            let steps = feed(case, version, &MemoryStore::default(), way).steps;
            for step in 1..steps {
                let way = Way { crash_after: Some(step), ..way };
                let fed = feed(case, version, &MemoryStore::default(), way);
                assert_contents(case, version, &fed.contents, way);
            }
        }
    });
}
