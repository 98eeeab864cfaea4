//! The simulator itself is tested: a rule that is broken on purpose, in the worker, in the coordinator or
//! in a server, must be found out.
//!
//! `cargo test -p sim --features mutations -- --nocapture` prints within how many seeds.

#![cfg(feature = "mutations")]

use std::fmt::Debug;

use materializer_migrations as migrations;
use materializer_model::defect::plant;
use materializer_replay as replay;
use sim::{Flaw, Outcome, feed, migrate};

/// Within how many seeds each must be found.
const SEEDS: u64 = 500;

/// Runs histories of a broken rule until one of them shows it.
#[expect(clippy::print_stdout, reason = "the figure is what one runs it for")]
fn hunt(rule: &dyn Debug, run: impl Fn(u64) -> Outcome) {
    let found = (0..SEEDS).find_map(|seed| Some((seed, run(seed).broken?)));
    let Some((seed, why)) = found else {
        panic!("{rule:?}: not found within {SEEDS} seeds");
    };
    println!("{rule:?}: found after {} seeds: {why:.150}", seed + 1);
}

#[test]
fn every_rule_of_the_worker_that_is_broken_is_found() {
    for defect in replay::Defect::ALL {
        plant(Some(defect));
        hunt(&defect, |seed| feed(seed, None));
    }
}

#[test]
fn every_rule_of_the_coordinator_that_is_broken_is_found() {
    for defect in migrations::Defect::ALL {
        plant(Some(defect));
        hunt(&defect, |seed| migrate(seed, None));
    }
}

#[test]
fn every_flaw_of_a_server_is_found() {
    let unfenced = Some(Flaw::WrittenUnfenced);
    hunt(&(unfenced, "feed"), |seed| feed(seed, unfenced));
    hunt(&(unfenced, "migrate"), |seed| migrate(seed, unfenced));
    let overwritten = Some(Flaw::AliasOverwritten);
    hunt(&overwritten, |seed| migrate(seed, overwritten));
}
