//! `catalog adopt`: what the sinks hold is looked at, then the catalog is bound anew.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use materializer_migrations::adoption::{BEHIND_MAX, Found};
use materializer_migrations::reports::FollowError;
use materializer_migrations::{Adoption, CatalogClient};
use materializer_model::{CatalogId, Clock};
use materializer_sinks::redis::find_traces;
use materializer_sinks::tantivy::TantivyAdmin;

use crate::cli::context::{Context, explain};
use crate::config::Config;
use crate::output::{Exit, Failure};
use crate::run::new_event_id;
use crate::{connect, feeders};

pub(super) fn adopt(
    context: &Context,
    reason: &str,
    older: bool,
    dry_run: bool,
) -> Result<Exit, Failure> {
    let config = context.config()?;
    let log = connect::control_log(&config)?;
    let client = CatalogClient::open_unbound(log, &config.who, Box::new(new_event_id));
    let mut client = client.map_err(explain)?;
    let to = connect::control_log(&config)?.identity()?;
    let missing = || explain(FollowError::Missing.into());
    let to = to.ok_or_else(missing)?;
    let catalog = client.state().catalog();
    let id = catalog.id().cloned().ok_or_else(missing)?;
    if catalog.topics() == Some(&to) {
        context
            .output
            .note("nothing to do: the catalog is bound to these topics")?;
        return Ok(Exit::Done);
    }
    let clock: Arc<dyn Clock> = Arc::new(context.clock.clone());
    let found = look(&config, &id, &clock)?;
    let now = client.now().map_err(explain)?;
    let adoption = Adoption::plan(client.state(), to, &found, now);
    context.output.show(&adoption)?;
    let behind = adoption.behind(client.state().catalog());
    if behind > BEHIND_MAX {
        return Err(Failure::refused(
            format!("the sinks are {behind} events ahead of this catalog"),
            "restore a newer backup, or delete what a person wrote in the place of an alias",
        ));
    }
    if !adoption.ahead.is_empty() && !older && !dry_run {
        return Err(Failure::refused(
            "the sinks hold what happened after the end of this catalog",
            "delete the catalog's topic and import a newer backup, or give up what stands under `ahead` with `--older`",
        ));
    }
    if !dry_run {
        client.adopt(adoption, reason).map_err(explain)?;
        context.output.note("adopted: start the processes again")?;
    }
    Ok(Exit::Done)
}

/// Looks at every place that is configured. One that cannot be asked might hold anything.
fn look(config: &Config, id: &CatalogId, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in config.connections.keys() {
        let server = connect::redis_place(config, name, id)?.server;
        let place = format!("redis `{name}` at `{}`", server.address());
        let traces = find_traces(&server, &config.installation);
        let Some(traces) = traces.with_context(|| format!("look at {place}"))? else {
            continue;
        };
        if traces.mark.catalog != *id {
            let other = traces.mark.catalog;
            bail!("{place} belongs to catalog `{other}` and not to `{id}`");
        }
        found.push(Found {
            place,
            aliases: traces.aliases,
            claimed: traces.claimed,
            retired: traces.retired,
        });
    }
    let disk = TantivyAdmin::new(feeders::index_settings(config), Arc::clone(clock));
    for copy in disk.leftovers()? {
        let directory = copy.directory.display();
        if copy.token.catalog != *id {
            bail!("`{directory}` belongs to catalog `{}`", copy.token.catalog);
        }
        let mut here = Found {
            place: format!("`{directory}`"),
            ..Found::default()
        };
        here.claimed
            .insert(copy.unit.version, copy.token.claim_offset);
        found.push(here);
    }
    Ok(found)
}
