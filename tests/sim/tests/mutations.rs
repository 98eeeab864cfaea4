//! The simulator itself is tested: a worker with a rule broken on purpose must be found out.
//!
//! `cargo test -p sim --features mutations`.

#![cfg(feature = "mutations")]

use materializer_replay::{Defect, plant};

/// Within how many seeds each must be found.
const SEEDS: u64 = 500;

#[test]
fn every_broken_rule_is_found() {
    let mut missed = Vec::new();
    for defect in Defect::ALL {
        plant(Some(defect));
        let found = (0..SEEDS).find_map(|seed| Some((seed, sim::feed(seed, None).broken?)));
        plant(None);
        match found {
            Some((seed, why)) => println!("{defect:?}: found after {} seeds: {why:.150}", seed + 1),
            None => missed.push(defect),
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {SEEDS} seeds: {missed:?}"
    );
}
