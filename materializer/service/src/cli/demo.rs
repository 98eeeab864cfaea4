//! `demo`: the whole loop on an embedded broker, with proof.

use super::context::Context;
use crate::demo::{self, Settings};
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many events the shop has written before the first version is built.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=2_000_000))]
    events: u64,
    /// What the shop is made of: the same seed, the same shop.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Go on serving after the proof, and say what there is to try.
    #[arg(long)]
    hold: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let settings = Settings {
        events: args.events,
        seed: args.seed,
        hold: args.hold,
    };
    demo::run(settings, context.output, &context.clock)
}
