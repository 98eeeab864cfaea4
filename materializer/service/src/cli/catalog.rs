//! `catalog export | import | adopt`: the backup of the catalog, and what binds a restored one to the
//! topics and sinks that are there.

mod adopt;
mod backup;

use std::path::PathBuf;

use super::context::Context;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print every event with its offset and append time, one JSON object a line: a backup.
    Export,
    /// Write a backup into the catalog's topic, which must be new or hold the beginning of it.
    Import {
        /// What `catalog export` printed; `-` is standard input.
        file: PathBuf,
        /// Show what would be written and stop.
        #[arg(long)]
        dry_run: bool,
    },
    /// Bind the catalog to the topics that it stands in now, after it was restored into them.
    Adopt {
        /// Why; kept in the history.
        #[arg(long, short)]
        reason: String,
        /// Go on from a catalog that is older than what the sinks hold.
        #[arg(long)]
        older: bool,
        /// Show what would be bound and stop.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run(verb: &Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Export => backup::export(context),
        Verb::Import { file, dry_run } => backup::import(context, file, *dry_run),
        Verb::Adopt {
            reason,
            older,
            dry_run,
        } => adopt::adopt(context, reason, *older, *dry_run),
    }
}
