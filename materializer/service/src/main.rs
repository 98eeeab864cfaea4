//! The binary: everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let exit = materializer::cli::main(std::env::args_os(), environment);
    ExitCode::from(exit.code())
}
