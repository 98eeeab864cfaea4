//! `sim --seed N` tells one history; `sim --seeds N [--from N]` runs many and tells what breaks.

use std::process::ExitCode;

fn number(arguments: &[String], name: &str) -> Option<u64> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1)?.parse().ok()
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(seed) = number(&arguments, "--seed") {
        let outcome = sim::run(seed);
        for line in &outcome.trace {
            println!("{line}");
        }
        println!(
            "{}",
            outcome
                .broken
                .as_deref()
                .unwrap_or("every promise was kept")
        );
        return ExitCode::from(u8::from(outcome.broken.is_some()));
    }
    let Some(seeds) = number(&arguments, "--seeds") else {
        println!("usage: sim --seed N | --seeds N [--from N]");
        return ExitCode::from(2);
    };
    let from = number(&arguments, "--from").unwrap_or(0);
    let mut broken = 0_u64;
    for seed in from..from + seeds {
        if let Some(why) = sim::run(seed).broken {
            broken += 1;
            println!("seed {seed}: {why}\n  cargo run -p sim -- --seed {seed}");
        }
    }
    println!("{seeds} seeds, {broken} broken");
    ExitCode::from(u8::from(broken > 0))
}
