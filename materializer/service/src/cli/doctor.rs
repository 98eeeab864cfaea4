//! `doctor`: the check-up, finding by finding.

use std::path::PathBuf;
use std::sync::Arc;

use materializer_model::Clock;

use super::context::Context;
use super::definitions::read;
use crate::connect;
use crate::doctor::{Level, Patient, examine};
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Definitions that are not applied yet: their topics and sinks are looked at as well.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let definitions = read(context, &args.files)?;
    let clock: Arc<dyn Clock> = Arc::new(context.clock.clone());
    let mut control = connect::control_log(&config)?;
    let observer = connect::observer(&config, Arc::clone(&clock))?;
    let findings = examine(Patient {
        config: &config,
        control: &mut *control,
        observer: &*observer,
        clock,
        definitions: definitions
            .into_iter()
            .map(|defined| defined.definition)
            .collect(),
    });
    for finding in &findings {
        context.output.show(finding)?;
    }
    let faults = findings
        .iter()
        .filter(|finding| finding.level == Level::Fault)
        .count();
    if faults > 0 {
        let plural = if faults == 1 { "fault" } else { "faults" };
        return Err(Failure::refused(
            format!("{faults} {plural} found"),
            "each finding says what to do; then `materializer doctor` again",
        ));
    }
    Ok(Exit::Done)
}
