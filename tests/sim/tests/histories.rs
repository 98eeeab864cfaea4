//! Hundreds of histories in every run of the tests; more by `./dev sim --seeds N`.

use sim::{Flaw, Outcome, feed, migrate};

fn check(name: &str, run: fn(u64, Option<Flaw>) -> Outcome, seeds: u64) {
    for seed in 0..seeds {
        if let Some(why) = run(seed, None).broken {
            panic!("{name} {seed}: {why}\nrepeat it with `./dev sim --only {name} --seed {seed}`");
        }
    }
}

#[test]
fn a_unit_is_fed_exactly_in_every_history() {
    check("feed", feed, 800);
}

#[test]
fn a_view_is_migrated_by_the_rules_in_every_history() {
    check("migrate", migrate, 150);
}

#[test]
fn one_seed_twice_gives_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(feed(seed, None), feed(seed, None), "feed {seed}");
        assert_eq!(migrate(seed, None), migrate(seed, None), "migrate {seed}");
    }
}
