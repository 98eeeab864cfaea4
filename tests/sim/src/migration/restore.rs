//! A catalog that was lost, brought back by a person: the topics are deleted, a backup is imported and adopted,
//! and every process is started anew.

use std::collections::BTreeMap;

use materializer_migrations::adoption::Found;
use materializer_migrations::{Adoption, Catalog, CatalogClient, ClientError, Role};
use materializer_model::Offset;
use materializer_model::ports::{ControlLog, ControlRecord, ControlTopic, SinkAdmin};

use super::views::view;
use super::world::ids;
use crate::servers::Servers;

/// Returns every event of the catalog, as a backup has it.
pub(super) fn export(servers: &Servers) -> Vec<ControlRecord> {
    let mut events = Vec::new();
    let mut log = servers.control.log();
    log.read(ControlTopic::Catalog, Offset(0), &mut events)
        .expect("memory");
    events
}

/// Puts a backup into new topics, each event with its own append time, and binds it to what the sink holds.
/// `known` is the catalog as it was when it was lost.
pub(super) fn restore(
    servers: &Servers,
    backup: &[ControlRecord],
    known: &Catalog,
) -> Result<(), ClientError> {
    servers.control.renew();
    let mut log = servers.control.log();
    let topics = log.create()?;
    for event in backup {
        servers
            .control
            .set_ahead(event.appended.0 - servers.clock.now().0);
        log.append(ControlTopic::Catalog, None, event.value.as_deref())?;
    }
    servers.control.set_ahead(0);
    let mut client = CatalogClient::open_unbound(Box::new(log), "eve", ids("restore"))?;
    let now = client.now()?;
    let found = [found(servers, known)];
    let adoption = Adoption::plan(client.state(), topics, &found, now);
    client.adopt(adoption, "the catalog was lost")
}

/// Looks at the sink.
fn found(servers: &Servers, known: &Catalog) -> Found {
    let alias = servers.store.admin().alias(&view()).expect("memory");
    let versions = || {
        let view = known.view(&view()).into_iter();
        view.flat_map(|view| view.versions.values())
    };
    let mut claimed = BTreeMap::new();
    for unit in versions().flat_map(|version| version.units()) {
        if let Some(token) = servers.store.owner(&unit) {
            let highest = claimed.entry(unit.version).or_insert(0);
            *highest = token.claim_offset.max(*highest);
        }
    }
    // Where a deletion was decided its mark is there, or was about to be put there.
    let deleted = versions().filter(|version| match version.role {
        Role::Retiring | Role::Retired => true,
        Role::Building | Role::Live | Role::Standby | Role::Draining => false,
    });
    Found {
        place: "the sink".to_owned(),
        aliases: alias.map(|pointer| (view(), pointer)).into_iter().collect(),
        claimed,
        retired: deleted
            .map(|version| (version.id.clone(), version.changed.offset))
            .collect(),
    }
}
