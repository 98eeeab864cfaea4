//! `sim --seed N` tells the histories of one seed; `sim --seeds N [--from N]` runs many and tells what
//! breaks. `--only feed` and `--only migrate` leave the other kind out.

use std::process::ExitCode;

use sim::{Flaw, Outcome, feed, migrate};

/// A kind of history, and its name in `--only`.
type Kind = (&'static str, fn(u64, Option<Flaw>) -> Outcome);

const KINDS: [Kind; 2] = [("feed", feed), ("migrate", migrate)];

fn value<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}

fn number(arguments: &[String], name: &str) -> Option<u64> {
    value(arguments, name)?.parse().ok()
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = value(&arguments, "--only");
    let kinds: Vec<Kind> = KINDS
        .into_iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .collect();
    let mut broken = 0_u64;
    if let Some(seed) = number(&arguments, "--seed") {
        for (name, run) in kinds {
            let outcome = run(seed, None);
            for line in &outcome.trace {
                println!("{line}");
            }
            broken += u64::from(outcome.broken.is_some());
            let why = outcome.broken.as_deref();
            println!("{name}: {}", why.unwrap_or("every promise was kept"));
        }
        return ExitCode::from(u8::from(broken > 0));
    }
    let Some(seeds) = number(&arguments, "--seeds").filter(|_| !kinds.is_empty()) else {
        println!("usage: sim --seed N | --seeds N [--from N]   [--only feed|migrate]");
        return ExitCode::from(2);
    };
    let from = number(&arguments, "--from").unwrap_or(0);
    for seed in from..from + seeds {
        for (name, run) in &kinds {
            if let Some(why) = run(seed, None).broken {
                broken += 1;
                println!("{name} {seed}: {why}\n  ./dev sim --only {name} --seed {seed}");
            }
        }
    }
    println!("{seeds} seeds, {broken} broken");
    ExitCode::from(u8::from(broken > 0))
}
