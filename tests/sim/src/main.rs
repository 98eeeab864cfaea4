//! `sim --seed N [--events LIST]` tells the histories of one seed; `sim --seeds N [--from N]` runs many,
//! and of each that breaks a promise it tells the shortest one that still does, and at the end what it ran
//! and how fast. `--only feed` and `--only migrate` leave the other kind out.

use std::process::ExitCode;
use std::time::Instant;

use sim::{History, Kind, shrink};

/// How many histories are run to shorten one.
const SHRINK_RUNS: u32 = 400;
/// After how many seeds it says how far it is.
const PROGRESS_EVERY: u64 = 1_000;

fn value<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}

fn number(arguments: &[String], name: &str) -> Option<u64> {
    value(arguments, name)?.parse().ok()
}

/// Tells everything that happens in one history; says whether it broke a promise.
#[expect(clippy::print_stdout, reason = "a program for people")]
fn tell(kind: Kind, history: &History) -> bool {
    let outcome = kind.run(history);
    for line in &outcome.trace {
        println!("{line}");
    }
    let why = outcome.broken.as_deref();
    println!(
        "{}: {}",
        kind.name(),
        why.unwrap_or("every promise was kept")
    );
    why.is_some()
}

/// Runs the history of a seed; says whether it broke a promise, and by which events.
#[expect(clippy::print_stdout, reason = "a program for people")]
fn try_out(kind: Kind, seed: u64) -> bool {
    let history = History::of(seed);
    let Some(why) = kind.run(&history).broken else {
        return false;
    };
    let name = kind.name();
    println!("{name} {seed}: {why}\n  ./dev sim --only {name} {history}");
    let short = shrink(kind, &history, SHRINK_RUNS);
    println!("  ./dev sim --only {name} {short}");
    true
}

/// Runs the histories of many seeds; returns how many broke a promise.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for people, who want to know how fast it is"
)]
fn try_many(kinds: &[Kind], from: u64, seeds: u64) -> u64 {
    let began = Instant::now();
    let mut broken = 0;
    for seed in from..from + seeds {
        for kind in kinds {
            broken += u64::from(try_out(*kind, seed));
        }
        let done = seed - from + 1;
        if done.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{done} of {seeds} seeds, {broken} broken");
        }
    }
    let seconds = began.elapsed().as_secs().max(1);
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    println!(
        "seeds {from} to {} of {}: {broken} broken, {seconds} s, {} seeds a second",
        from + seeds - 1,
        names.join(" and "),
        seeds / seconds
    );
    broken
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = value(&arguments, "--only");
    let mut kinds = Kind::ALL.to_vec();
    kinds.retain(|kind| only.is_none_or(|only| only == kind.name()));
    if let Some(seed) = number(&arguments, "--seed") {
        let history = History {
            events: value(&arguments, "--events").and_then(History::parse_events),
            ..History::of(seed)
        };
        let mut broken = 0_u64;
        for kind in kinds {
            broken += u64::from(tell(kind, &history));
        }
        return ExitCode::from(u8::from(broken > 0));
    }
    let seeds = number(&arguments, "--seeds").filter(|seeds| *seeds > 0);
    let Some(seeds) = seeds.filter(|_| !kinds.is_empty()) else {
        println!(
            "usage: sim --seed N [--events LIST] | --seeds N [--from N]   [--only feed|migrate]"
        );
        return ExitCode::from(2);
    };
    let from = number(&arguments, "--from").unwrap_or(0);
    let broken = try_many(&kinds, from, seeds);
    ExitCode::from(u8::from(broken > 0))
}
