//! The simulator itself is tested: a rule that is broken on purpose, in the worker, in the coordinator or
//! in a server, must be found out.
//!
//! `cargo test -p sim --features mutations -- --nocapture` prints within how many seeds.

#![cfg(feature = "mutations")]

use std::fmt::Debug;

use materializer_migrations as migrations;
use materializer_model::defect::plant;
use materializer_replay as replay;
use sim::{Flaw, History, Kind};

/// Within how many seeds each must be found.
const SEEDS: u64 = 500;

/// Runs histories of a broken rule until one of them shows it.
#[expect(clippy::print_stdout, reason = "the figure is what one runs it for")]
fn hunt(rule: &dyn Debug, kind: Kind, flaw: Option<Flaw>) {
    let broken = |seed| kind.run(&History::of(seed).with(flaw)).broken;
    let Some((seed, why)) = (0..SEEDS).find_map(|seed| Some((seed, broken(seed)?))) else {
        panic!("{rule:?}: not found within {SEEDS} seeds");
    };
    println!("{rule:?}: found after {} seeds: {why:.150}", seed + 1);
}

#[test]
fn every_rule_of_the_worker_that_is_broken_is_found() {
    for defect in replay::Defect::ALL {
        plant(Some(defect));
        hunt(&defect, Kind::Feed, None);
    }
}

#[test]
fn every_rule_of_the_coordinator_that_is_broken_is_found() {
    for defect in migrations::Defect::ALL {
        plant(Some(defect));
        hunt(&defect, Kind::Migrate, None);
    }
}

#[test]
fn every_flaw_of_a_server_is_found() {
    for (flaw, kind) in [
        (Flaw::WrittenUnfenced, Kind::Feed),
        (Flaw::WrittenUnfenced, Kind::Migrate),
        (Flaw::PartUnfenced, Kind::Feed),
        (Flaw::CheckpointTooEarly, Kind::Feed),
        (Flaw::TokenLowered, Kind::Feed),
        (Flaw::AliasOverwritten, Kind::Migrate),
    ] {
        hunt(&(flaw, kind), kind, Some(flaw));
    }
}
