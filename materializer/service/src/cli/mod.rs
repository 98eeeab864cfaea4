//! The command line: one file a verb, its help page beside it.
//!
//! A verb that changes something makes a plan, shows it, asks the coordinator to carry that very plan
//! out, and waits for the answer. The verbs talk to Kafka alone; nothing here writes to a sink.

mod apply;
mod catalog;
mod completions;
mod context;
mod definitions;
mod demo;
mod doctor;
mod history;
mod init;
mod moved;
mod plan;
mod request;
mod roles;
mod status;
mod r#try;
mod verbs;
mod verify;
mod wait;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config;
use crate::output::{Exit, Failure, Format, Output};
use context::Context;

/// Rebuild a Redis cache or a tantivy index from a Kafka log beside the live one, prove it, swap it,
/// and swap it back if it was wrong.
#[derive(Debug, Parser)]
#[command(name = "materializer", version, after_long_help = include_str!("help/materializer.txt"))]
struct Cli {
    /// The settings; `MATERIALIZER__*` lies over them.
    #[arg(long, short, global = true, value_name = "FILE", default_value = config::FILE)]
    config: PathBuf,
    /// How answers are rendered; `json` is one object a line.
    #[arg(long, short, global = true, value_enum, default_value = "text")]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Sample a topic and write a draft of a view, and of the settings where there are none.
    #[command(after_long_help = include_str!("help/init.txt"))]
    Init(init::Args),
    /// Show what a view makes of real records, without any sink.
    #[command(after_long_help = include_str!("help/try.txt"))]
    Try(r#try::Args),
    /// Show what `apply` would do and why, with an estimate from a sample.
    #[command(after_long_help = include_str!("help/plan.txt"))]
    Plan(plan::Args),
    /// Make the views be what their definitions say.
    #[command(after_long_help = include_str!("help/apply.txt"))]
    Apply(apply::Args),
    /// Wait until a version is caught up, ready, live or retired.
    #[command(after_long_help = include_str!("help/wait.txt"))]
    Wait(wait::Args),
    /// Move a view's alias to a version that is ready.
    #[command(after_long_help = include_str!("help/promote.txt"))]
    Promote(verbs::Promote),
    /// Move a view's alias back to the version before.
    #[command(after_long_help = include_str!("help/rollback.txt"))]
    Rollback(verbs::Rollback),
    /// Stop feeding a version for now.
    #[command(after_long_help = include_str!("help/pause.txt"))]
    Pause(verbs::One),
    /// Feed a paused version again.
    #[command(after_long_help = include_str!("help/resume.txt"))]
    Resume(verbs::One),
    /// Pass over a record that a version cannot take in, in every later build as well.
    #[command(after_long_help = include_str!("help/skip.txt"))]
    Skip(verbs::Skip),
    /// End the soak of a standby, or retire a whole view.
    #[command(after_long_help = include_str!("help/retire.txt"))]
    Retire(verbs::Retire),
    /// Give up a version that is being built.
    #[command(after_long_help = include_str!("help/abort.txt"))]
    Abort(verbs::One),
    /// Show versions, lag, health, gates, and what each version waits for.
    #[command(after_long_help = include_str!("help/status.txt"))]
    Status(status::Args),
    /// Show what was asked and done, by whom and why.
    #[command(after_long_help = include_str!("help/history.txt"))]
    History(history::Args),
    /// Compare what a version stored with its log, or with another version.
    #[command(after_long_help = include_str!("help/verify.txt"))]
    Verify(verify::Args),
    /// Check settings, brokers, topics, sinks and disk.
    #[command(after_long_help = include_str!("help/doctor.txt"))]
    Doctor(doctor::Args),
    /// See the whole loop on an embedded broker, with proof; nothing else is needed.
    #[command(after_long_help = include_str!("help/demo.txt"))]
    Demo(demo::Args),
    /// Be everything in one process: coordinator, worker and gateway.
    #[command(after_long_help = include_str!("help/run.txt"))]
    Run(roles::Worker),
    /// Be one of a pool that feeds versions.
    #[command(after_long_help = include_str!("help/worker.txt"))]
    Worker(roles::Worker),
    /// Be the one who decides; two may run.
    #[command(after_long_help = include_str!("help/coordinator.txt"))]
    Coordinator(roles::Nothing),
    /// Answer readers over HTTP and the Redis protocol.
    #[command(after_long_help = include_str!("help/gateway.txt"))]
    Gateway(roles::Nothing),
    /// Back up the catalog, or bind it to topics that were made anew.
    #[command(subcommand, after_long_help = include_str!("help/catalog.txt"))]
    Catalog(catalog::Verb),
    /// Print the completions of a shell.
    #[command(after_long_help = include_str!("help/completions.txt"))]
    Completions(completions::Args),
}

/// Does what the arguments say and returns how it ended. Never panics over what a user typed.
#[must_use]
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    environment: BTreeMap<String, String>,
) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(fault) => {
            // Help and version are no faults, and clap knows where each belongs. There is nobody left
            // to tell if the stream is closed.
            drop(fault.print());
            return if fault.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    let output = Output::new(cli.output);
    let context = Context::new(cli.config, output, environment);
    match dispatch(cli.verb, &context) {
        Ok(exit) => exit,
        Err(failure) => output.fail(&failure),
    }
}

fn dispatch(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(args) => init::run(&args, context),
        Verb::Try(args) => r#try::run(&args, context),
        Verb::Plan(args) => plan::run(&args, context),
        Verb::Apply(args) => apply::run(&args, context),
        Verb::Wait(args) => wait::run(&args, context),
        Verb::Promote(args) => args.run(context),
        Verb::Rollback(args) => args.run(context),
        Verb::Pause(args) => args.pause(context),
        Verb::Resume(args) => args.resume(context),
        Verb::Skip(args) => args.run(context),
        Verb::Retire(args) => args.run(context),
        Verb::Abort(args) => args.abort(context),
        Verb::Status(args) => status::run(&args, context),
        Verb::History(args) => history::run(&args, context),
        Verb::Verify(args) => verify::run(&args, context),
        Verb::Doctor(args) => doctor::run(&args, context),
        Verb::Demo(args) => demo::run(&args, context),
        Verb::Run(args) => roles::all(&args, context),
        Verb::Worker(args) => roles::worker(&args, context),
        Verb::Coordinator(_) => roles::coordinator(context),
        Verb::Gateway(_) => roles::gateway(context),
        Verb::Catalog(verb) => catalog::run(&verb, context),
        Verb::Completions(args) => completions::run(&args),
    }
}

/// Returns the command line's definition: for completions and for the test of the help pages.
fn command() -> clap::Command {
    use clap::CommandFactory;
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_help_page_with_examples_and_exit_codes() {
        for verb in command().get_subcommands() {
            let name = verb.get_name();
            let help = verb
                .get_after_long_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            for part in ["Examples:", "Exit codes:", &format!("materializer {name}")] {
                assert!(help.contains(part), "the help of `{name}` lacks `{part}`");
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
