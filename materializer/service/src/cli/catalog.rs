//! `catalog export` and `catalog adopt`: the catalog as it stands, and the topics that it is bound to.

use std::fmt;

use materializer_migrations::CatalogClient;
use materializer_migrations::reports::FollowError;
use materializer_model::ports::{ControlIdentity, ControlTopic};
use materializer_model::{Offset, Timestamp};
use serde::Serialize;

use super::context::{Context, explain};
use crate::connect;
use crate::output::{Exit, Failure};
use crate::run::new_event_id;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print every event with its offset and append time, one JSON object a line.
    Export,
    /// Bind the catalog to the topics that it stands in now, after they were restored or moved.
    Adopt {
        /// Why; kept in the history.
        #[arg(long, short)]
        reason: String,
        /// Show what would be bound and stop.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run(verb: &Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Export => export(context),
        Verb::Adopt { reason, dry_run } => adopt(context, reason, *dry_run),
    }
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

fn export(context: &Context) -> Result<Exit, Failure> {
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

/// What is bound to what.
#[derive(Serialize)]
struct Adoption<'a> {
    from: Option<&'a ControlIdentity>,
    to: &'a ControlIdentity,
}

impl fmt::Display for Adoption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |topics: &ControlIdentity| {
            let ControlIdentity {
                cluster,
                catalog,
                claims,
                progress,
            } = topics;
            format!("cluster {cluster}, catalog {catalog}, claims {claims}, progress {progress}")
        };
        let from = self.from.map_or_else(|| "none".to_owned(), named);
        write!(
            f,
            "plan  bind to  {}\n      was      {from}",
            named(self.to)
        )
    }
}

fn adopt(context: &Context, reason: &str, dry_run: bool) -> Result<Exit, Failure> {
    let config = context.config()?;
    let log = connect::control_log(&config)?;
    let client = CatalogClient::open_unbound(log, &config.who, Box::new(new_event_id));
    let mut client = client.map_err(explain)?;
    let to = connect::control_log(&config)?.identity()?;
    let to = to.ok_or_else(|| explain(FollowError::Missing.into()))?;
    let from = client.state().catalog().topics();
    if from == Some(&to) {
        context
            .output
            .note("nothing to do: the catalog is bound to these topics")?;
        return Ok(Exit::Done);
    }
    context.output.show(&Adoption { from, to: &to })?;
    if !dry_run {
        client.adopt(to, reason).map_err(explain)?;
        context.output.note("adopted: start the processes again")?;
    }
    Ok(Exit::Done)
}
