//! Thousands of histories in every run of the tests; more by `./dev sim --seeds N`.

use sim::{Flaw, History, Kind, shrink};

/// How many histories are run to shorten one that breaks a promise.
const SHRINK_RUNS: u32 = 200;

fn check(kind: Kind, seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let history = History::of(seed);
        if let Some(why) = kind.run(&history).broken {
            let short = shrink(kind, &history, SHRINK_RUNS);
            let name = kind.name();
            panic!("{name} {seed}: {why}\nrepeat it with `./dev sim --only {name} {short}`");
        }
    }
}

#[test]
fn a_unit_is_fed_exactly_in_every_history() {
    check(Kind::Feed, 0..2_000);
}

#[test]
fn a_view_is_migrated_by_the_rules_in_every_history() {
    check(Kind::Migrate, 0..400);
}

#[test]
fn histories_beyond_these_that_once_broke_a_promise_keep_it() {
    check(
        Kind::Migrate,
        [2_405, 2_603, 2_664, 2_752, 2_806, 3_252, 10_762],
    );
}

#[test]
fn one_seed_twice_gives_the_same_trace() {
    for seed in 0..20 {
        for kind in Kind::ALL {
            let history = History::of(seed);
            let name = kind.name();
            assert_eq!(kind.run(&history), kind.run(&history), "{name} {seed}");
        }
    }
}

#[test]
fn a_broken_history_is_shrunk_to_a_few_events_that_break_it_again() {
    let broken = (0..)
        .map(|seed| History::of(seed).with(Some(Flaw::WrittenUnfenced)))
        .find(|history| Kind::Feed.run(history).broken.is_some())
        .expect("soon");
    let short = shrink(Kind::Feed, &broken, SHRINK_RUNS);
    assert!(Kind::Feed.run(&short).broken.is_some());
    let events = short.events.as_ref().expect("some are left out");
    assert!(events.len() < 100, "{short}");
    let (_, list) = short.to_string().rsplit_once(' ').map_or_else(
        || panic!("no list of events in `{short}`"),
        |(before, list)| (before.to_owned(), list.to_owned()),
    );
    assert_eq!(History::parse_events(&list).as_ref(), Some(events));
}
