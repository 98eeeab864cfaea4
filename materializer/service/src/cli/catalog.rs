//! `catalog export`: the catalog as it stands, one event a line.

use std::fmt;

use materializer_model::ports::ControlTopic;
use materializer_model::{Offset, Timestamp};
use serde::Serialize;

use super::context::Context;
use crate::connect;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print every event with its offset and append time, one JSON object a line.
    Export,
}

#[derive(Serialize)]
struct Exported {
    offset: Offset,
    appended: Timestamp,
    event: serde_json::Value,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

pub(super) fn run(verb: &Verb, context: &Context) -> Result<Exit, Failure> {
    let Verb::Export = verb;
    let config = context.config()?;
    drop(context.catalog(&config)?);
    let mut log = connect::control_log(&config)?;
    let mut records = Vec::new();
    log.read(ControlTopic::Catalog, Offset(0), &mut records)?;
    for record in records {
        context.output.show(&Exported {
            offset: record.offset,
            appended: record.appended,
            event: serde_json::from_slice(record.value.as_deref().unwrap_or_default())?,
        })?;
    }
    Ok(Exit::Done)
}
