//! Whether a catalog may be begun: never where a sink holds what was written under one before.
//!
//! A Kafka that was emptied, or the wrong one, looks like a first start. A catalog begun there would
//! leave what is live without an owner.

use std::sync::Arc;

use anyhow::bail;
use materializer_migrations::reports::FollowError;
use materializer_migrations::{CatalogClient, ClientError};
use materializer_model::ports::{ControlError, ControlLog, ControlTopic, SinkError};
use materializer_model::{CatalogId, Clock, Offset};
use materializer_sinks::redis::find_mark;
use materializer_sinks::tantivy::TantivyAdmin;

use crate::config::Config;
use crate::run::new_event_id;
use crate::{connect, feeders};

/// Checks the control topics, and begins the catalog where there is none and no sink knows of one.
///
/// # Errors
/// The inner one may pass: Kafka, or a Redis that cannot be asked. The outer one is for a person.
pub(crate) fn begin_catalog(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Result<(), FollowError>> {
    let mut log = connect::control_log(config)?;
    let is_begun = match is_begun(&mut *log) {
        Ok(is_begun) => is_begun,
        Err(fault) => return Ok(Err(fault.into())),
    };
    if !is_begun && let Err(fault) = look_for_another(config, clock)? {
        return Ok(Err(fault.into()));
    }
    match CatalogClient::create(log, &config.who, Box::new(new_event_id)) {
        Ok(_) => Ok(Ok(())),
        Err(ClientError::Follow(fault)) => Ok(Err(fault)),
        Err(other) => Err(other.into()),
    }
}

/// Says whether the catalog has an event. One whose beginning is lost had.
fn is_begun(log: &mut dyn ControlLog) -> Result<bool, ControlError> {
    let mut events = Vec::new();
    match log.read(ControlTopic::Catalog, Offset(0), &mut events) {
        Ok(_) => Ok(!events.is_empty()),
        Err(ControlError::Lost(_)) => Ok(true),
        // There is no such topic.
        Err(ControlError::Refused(_)) => Ok(false),
        Err(fault @ (ControlError::Unavailable(_) | ControlError::Unknown(_))) => Err(fault),
    }
}

/// Fails if a sink that is configured holds what was written under a catalog.
fn look_for_another(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Result<(), ControlError>> {
    for name in config.connections.keys() {
        let server = connect::redis_place(config, name, &CatalogId::new(""))?.server;
        match find_mark(&server, &config.installation) {
            Ok(None) => {}
            Ok(Some(mark)) => bail!(another(
                config,
                &mark.catalog,
                &format!("redis `{name}` at `{}`", server.address()),
                &format!("delete its keys `{}:*`", config.installation),
            )),
            Err(fault @ (SinkError::Unavailable(_) | SinkError::Full(_))) => {
                let why = format!("whether redis `{name}` knows of a catalog: {fault}");
                return Ok(Err(ControlError::Unavailable(why)));
            }
            Err(fault @ (SinkError::Damaged(_) | SinkError::Refused(_) | SinkError::Fenced(_))) => {
                return Err(anyhow::Error::new(fault).context(format!("connection `{name}`")));
            }
        }
    }
    let disk = TantivyAdmin::new(feeders::index_settings(config), Arc::clone(clock));
    if let Some(found) = disk.leftovers()?.first() {
        bail!(another(
            config,
            &found.token.catalog,
            &format!("`{}`", found.directory.display()),
            "delete the folder",
        ));
    }
    Ok(Ok(()))
}

fn another(config: &Config, catalog: &CatalogId, place: &str, forget: &str) -> String {
    let topics = format!("{}.materializer.*", config.installation);
    format!(
        "there is no catalog in Kafka, but {place} was written under catalog `{catalog}`: are the \
         brokers the right ones, and was `{topics}` deleted? Bring the topics back (`materializer catalog import FILE`), or \
         choose another `installation`; to begin anew and give up what is there, {forget}"
    )
}
