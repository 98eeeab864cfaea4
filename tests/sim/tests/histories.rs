//! Hundreds of histories in every run of the tests; more by `./dev sim --seeds N`.

const SEEDS: u64 = 1_500;

#[test]
fn every_promise_is_kept_in_every_history() {
    for seed in 0..SEEDS {
        if let Some(why) = sim::run(seed).broken {
            panic!("seed {seed}: {why}\nrepeat it with `./dev sim --seed {seed}`");
        }
    }
}

#[test]
fn one_seed_twice_gives_the_same_trace() {
    for seed in 0..50 {
        assert_eq!(sim::run(seed), sim::run(seed), "seed {seed}");
    }
}
