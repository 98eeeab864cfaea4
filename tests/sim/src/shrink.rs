//! Makes a history that breaks a promise short enough to be read.

use std::collections::BTreeSet;

use crate::history::{History, Kind};

/// Returns a history that breaks a promise still, by far fewer events: ever smaller runs of them are left
/// out for as long as one is still broken. Runs at most `runs` histories.
#[must_use]
pub fn shrink(kind: Kind, broken: &History, runs: u32) -> History {
    let mut shortest = broken.clone();
    let mut kept: Vec<u64> = (0..kind.events())
        .filter(|event| broken.has(*event))
        .collect();
    let mut runs_left = runs;
    let mut length = kept.len() / 2;
    while length > 0 {
        let mut from = 0;
        while from < kept.len() {
            if runs_left == 0 {
                return shortest;
            }
            runs_left -= 1;
            let to = kept.len().min(from + length);
            let without: Vec<u64> = [&kept[..from], &kept[to..]].concat();
            let shorter = History {
                events: Some(without.iter().copied().collect::<BTreeSet<u64>>()),
                ..broken.clone()
            };
            if kind.run(&shorter).broken.is_some() {
                (kept, shortest) = (without, shorter);
            } else {
                from = to;
            }
        }
        length /= 2;
    }
    shortest
}
