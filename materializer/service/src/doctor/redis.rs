//! The Redis servers: version, role, eviction, memory, permissions, whose mark.

use std::collections::BTreeSet;
use std::sync::Arc;

use materializer_model::definition::{RedisTarget, Target};
use materializer_model::{CatalogId, Clock, ViewDefinition};
use materializer_sinks::redis::{Probe, RedisPlace, probe, read_mark};

use super::Finding;
use crate::config::Config;
use crate::connect;
use crate::output::Bytes;

/// A server that is fuller than this many percent is warned of: a rebuild needs the room twice.
const FULL_PERCENT: u64 = 50;

pub(super) fn examine(
    config: &Config,
    catalog: Option<&CatalogId>,
    definitions: &[ViewDefinition],
    clock: &Arc<dyn Clock>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let targets: Vec<&RedisTarget> = definitions
        .iter()
        .filter_map(|definition| match &definition.to {
            Target::Redis(target) => Some(target),
            Target::Tantivy(_) | Target::Memory {} => None,
        })
        .collect();
    let named: BTreeSet<&String> = targets.iter().map(|target| &target.connection).collect();
    for name in named
        .into_iter()
        .chain(config.connections.keys())
        .collect::<BTreeSet<_>>()
    {
        // Without a catalog nothing can be stored under it: any mark there is another's.
        let nobody = CatalogId::new("");
        let place = connect::redis_place(config, name, catalog.unwrap_or(&nobody));
        let of_connection = targets.iter().filter(|target| target.connection == *name);
        match place {
            Ok(place) => findings.extend(one(name, &place, catalog, of_connection, &**clock)),
            Err(error) => findings.push(Finding::fault(
                "redis",
                format!("{error:#}"),
                format!("add `connections: {{{name}: redis://HOST:6379}}` to the settings"),
            )),
        }
    }
    findings
}

fn one<'a>(
    name: &str,
    place: &RedisPlace,
    catalog: Option<&CatalogId>,
    targets: impl Iterator<Item = &'a &'a RedisTarget>,
    clock: &dyn Clock,
) -> Vec<Finding> {
    let address = place.server.address();
    let found = match probe(place, clock) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::fault(
                "redis",
                format!("`{name}`: {error}"),
                format!(
                    "is Redis up at `{address}`, and do `connections.{name}.username` and `password` fit?"
                ),
            )];
        }
    };
    let mut findings = Vec::new();
    for target in targets {
        if let Err(error) = found.facts.check(target, &address) {
            let hint = "see docs/operations.md, Redis".to_owned();
            findings.push(Finding::fault("redis", format!("`{name}`: {error}"), hint));
        }
    }
    findings.extend(permissions(name, &found));
    findings.extend(mark(name, place, catalog));
    let (used, max) = (found.facts.memory_used, found.facts.memory_max);
    if let Some(max) = max.filter(|max| used.saturating_mul(100) > max.saturating_mul(FULL_PERCENT))
    {
        findings.push(Finding::warning(
            "redis",
            format!("`{name}`: {} of {} are used", Bytes(used), Bytes(max)),
            "a rebuild stands beside the live version: raise `maxmemory`, or retire versions",
        ));
    }
    if findings.is_empty() {
        let (major, minor, patch) = found.facts.version;
        findings.push(Finding::ok(
            "redis",
            format!(
                "`{name}`: version {major}.{minor}.{patch} at `{address}`, {} used, {:.1?} away",
                Bytes(used),
                found.latency
            ),
        ));
    }
    findings
}

fn permissions(name: &str, found: &Probe) -> Option<Finding> {
    match &found.commands_missing {
        Some(missing) if missing.is_empty() => None,
        Some(missing) => {
            let commands: Vec<String> = missing
                .iter()
                .map(|c| format!("+{}", c.to_lowercase()))
                .collect();
            Some(Finding::fault(
                "redis",
                format!("`{name}`: our user may not use {}", missing.join(", ")),
                format!("ACL SETUSER <user> {}", commands.join(" ")),
            ))
        }
        None => Some(Finding::warning(
            "redis",
            format!("`{name}`: our user may not ask what it may do"),
            "ACL SETUSER <user> +acl|dryrun +acl|whoami, to have its permissions checked here",
        )),
    }
}

fn mark(name: &str, place: &RedisPlace, catalog: Option<&CatalogId>) -> Option<Finding> {
    match read_mark(place) {
        Ok(None) => None,
        Ok(Some(mark)) if Some(&mark.catalog) == catalog => None,
        Ok(Some(mark)) => Some(Finding::fault(
            "leftovers",
            format!(
                "`{name}` belongs to catalog {}, and so does what is stored under `{}`",
                mark.catalog, place.installation
            ),
            "choose another `installation`, or another database; nothing there is touched",
        )),
        Err(error) => Some(Finding::fault(
            "redis",
            format!("`{name}`: {error}"),
            "our user must be able to GET keys that begin with the installation",
        )),
    }
}
