//! `completions`: a shell's completions, on standard output.

use std::io;

use clap_complete::Shell;

use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    clap_complete::generate(
        args.shell,
        &mut super::command(),
        "materializer",
        &mut io::stdout(),
    );
    Ok(Exit::Done)
}
