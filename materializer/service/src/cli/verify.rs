//! `verify`: what a version stored against its log, folded anew, or against another version.
//!
//! It reads sinks as `connect` reaches them: Redis from anywhere, a tantivy copy from the disk that holds
//! it, beside the worker that writes it.

mod found;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::Context as _;
use materializer_kafka::{Lane, Profile};
use materializer_migrations::desired::growths;
use materializer_migrations::{CatalogClient, Role, Version};
use materializer_model::definition::{CleanupPolicy, Target};
use materializer_model::ports::{LogObserver, Sink, SinkReader};
use materializer_model::{Clock, Mutation, SinkId, Skips, Topic, Unit, VersionId, VersionNumber};
use materializer_replay::verify::{Extent, Request, Subject, VerifyError, against, verify};
use materializer_sinks::redis::{RedisReader, RedisSink};
use materializer_sinks::tantivy::{TantivyReader, TantivySink};
use materializer_view::compile;

use self::found::Found;
use super::context::{Context, explain};
use crate::config::Config;
use crate::connect;
use crate::feeders::index_settings;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The version.
    version: VersionId,
    /// Compare about that many keys, chosen by their hash.
    #[arg(long, value_name = "KEYS", default_value = "1000")]
    sample: NonZeroUsize,
    /// Compare every key, and look for rows that no record asks for.
    #[arg(long, conflicts_with = "sample")]
    full: bool,
    /// Compare every row with those of this version instead of with the log.
    #[arg(
        long,
        value_name = "vN",
        value_parser = number,
        conflicts_with = "sample",
        conflicts_with = "full"
    )]
    against: Option<VersionNumber>,
}

/// Reads a version's number.
fn number(text: &str) -> Result<VersionNumber, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a version's number: write `v1`"))
}

/// The most examples of what differs.
const EXAMPLES_MAX: usize = 10;
pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    let mut client = context.catalog(&config)?;
    // What has expired is told by the broker's time.
    context.clock.consumed(client.now().map_err(explain)?);
    let version = find(&client, &args.version)?;
    if let Some(number) = args.against {
        let other = VersionId {
            view: args.version.view.clone(),
            number,
        };
        let other = find(&client, &other)?;
        let found = compare(&config, &client, &other, &version)?;
        context.output.show(&found)?;
        if found.right {
            return Ok(Exit::Done);
        }
        return Err(Failure::refused(
            format!("`{}` differs from {number}", args.version),
            format!(
                "where a definition was changed its rows differ too: `materializer verify {}` holds them against the log",
                args.version
            ),
        ));
    }
    let extent = if args.full {
        Extent::Full
    } else {
        Extent::Sample(args.sample.get())
    };
    if fold_anew(context, &config, &client, &version, extent)? {
        return Ok(Exit::Done);
    }
    Err(Failure::refused(
        format!("`{}` is not what it should be", args.version),
        "rows are never repaired in place: build the version anew (`apply FILE --rebuild`), or go back (`rollback`)",
    ))
}

/// Returns a version that has something stored.
fn find(client: &CatalogClient, id: &VersionId) -> Result<Version, Failure> {
    let Some(version) = client.state().catalog().version(id) else {
        return Err(Failure::refused(
            format!("there is no `{id}`"),
            format!("`materializer status {}` lists its versions", id.view),
        ));
    };
    match version.role {
        Role::Building | Role::Live | Role::Standby | Role::Draining => Ok(version.clone()),
        Role::Retiring | Role::Retired => Err(Failure::refused(
            format!("`{id}` is retired: nothing of it is kept"),
            format!("`materializer status {}` lists the others", id.view),
        )),
    }
}

/// Compares each unit of a version with the log and shows what is found; says whether all are right.
/// A tantivy copy on another machine's disk is named, and left to that machine.
fn fold_anew(
    context: &Context,
    config: &Config,
    client: &CatalogClient,
    version: &Version,
    extent: Extent,
) -> Result<bool, Failure> {
    if extent == Extent::Full && version.shards > 1 {
        return Err(Failure::refused(
            format!(
                "`{}` has {} shards, whose rows cannot be told apart",
                version.id, version.shards
            ),
            "`--sample KEYS` with more keys than there are compares all that the log has",
        ));
    }
    let kafka = connect::kafka(config)?;
    let view = compile(&version.definition).context("compile the definition")?;
    let view_now = client.state().catalog().view(&version.id.view);
    let request = Request {
        extent,
        bytes_max: config.worker.fold_memory,
        examples_max: EXAMPLES_MAX,
        skips: view_now.map_or_else(Skips::default, |view| view.skips(version)),
        compacted: compacted(context, config, version)?,
        growths: growths(client.state().catalog(), version),
    };
    let group = format!(
        "{}.{}.{}",
        config.installation, version.id.view, version.id.number
    );
    let mut right = true;
    let mut elsewhere = Vec::new();
    for unit in version.units() {
        let (sink, mut stored) = reach(config, client, &unit, version)?;
        if !is_stored(client, &unit, &mut *stored)? {
            elsewhere.push(unit);
            continue;
        }
        let check = |mutation: &Mutation| sink.check(mutation);
        let mut subject = Subject {
            reader: &mut Lane::open(&kafka, &group, Profile::Building)?,
            derive: &view,
            check: &check,
            sink: &mut *stored,
            clock: &context.clock,
        };
        let report = verify(&mut subject, &request);
        let report = report.map_err(|fault| explain_unit(client, &unit, fault))?;
        let found = Found::of_unit(&unit, report);
        context.output.show(&found)?;
        right &= found.right;
    }
    let is_partly_here = elsewhere.len() < version.units().count();
    for unit in &elsewhere {
        let failure = explain_unit(client, unit, VerifyError::Empty);
        if !(is_partly_here && is_on_disk(client, unit)) {
            return Err(failure);
        }
        context.output.note(format!(
            "`{unit}` is not on this disk: {}",
            failure.hint.unwrap_or_default()
        ))?;
    }
    Ok(right)
}

/// Returns which of a version's topics are compacted.
fn compacted(
    context: &Context,
    config: &Config,
    version: &Version,
) -> anyhow::Result<BTreeSet<Topic>> {
    let from = &version.definition.from;
    let clock: Arc<dyn Clock> = Arc::new(context.clock.clone());
    let facts = connect::observer(config, clock)?.fresh_facts(&from.topics)?;
    let is_compacted = facts.into_iter().filter(|fact| {
        fact.policy
            .or(from.policy)
            .is_some_and(CleanupPolicy::compacts)
    });
    Ok(is_compacted.map(|fact| fact.topic).collect())
}

/// Compares all rows of two versions; what the first has is what should be.
fn compare(
    config: &Config,
    client: &CatalogClient,
    should: &Version,
    is: &Version,
) -> Result<Found, Failure> {
    let reach_one = |version: &Version| {
        // The rows of a Redis version carry no shard, and all copies hold the same.
        for unit in version.units() {
            let (_, mut stored) = reach(config, client, &unit, version)?;
            if is_stored(client, &unit, &mut *stored)? {
                return Ok((unit, stored));
            }
        }
        let unit = version.units().next().context("a version without units")?;
        Err(explain_unit(client, &unit, VerifyError::Empty))
    };
    let (_, mut one) = reach_one(should)?;
    let (unit, mut other) = reach_one(is)?;
    let report = against(&mut *one, &mut *other, EXAMPLES_MAX);
    let report = report.map_err(|fault| explain_unit(client, &unit, fault))?;
    Ok(Found::of_two(&is.id, &should.id, report))
}

/// Says whether anything of a unit is stored in what can be read from here.
///
/// # Errors
/// Where it cannot be compared: below its bar, rows may be ahead of the checkpoint.
fn is_stored(
    client: &CatalogClient,
    unit: &Unit,
    stored: &mut dyn SinkReader,
) -> Result<bool, Failure> {
    let snapshot = stored.read(&[]);
    let snapshot = snapshot.map_err(|fault| explain_unit(client, unit, fault.into()))?;
    match snapshot.checkpoint {
        None => Ok(false),
        Some(checkpoint) if checkpoint.has_reached_bar() => Ok(true),
        Some(_) => Err(Failure::refused(
            format!("`{unit}` is still replaying: its rows may be ahead of its checkpoint"),
            format!("`materializer wait {} --for caught-up`", unit.version),
        )),
    }
}

/// Says what to do where a unit could not be compared.
fn explain_unit(client: &CatalogClient, unit: &Unit, fault: VerifyError) -> Failure {
    let holder = client.state().reports().claim(unit);
    let address = holder.and_then(|(_, claim)| claim.address.clone());
    let hint = match (&fault, address) {
        (VerifyError::Empty, Some(address)) if is_on_disk(client, unit) => format!(
            "a tantivy copy is verified on the machine that holds it, with the `data_dir` of the worker at {address}"
        ),
        (VerifyError::Empty, Some(_) | None) => {
            format!("`materializer status {}` says how it is", unit.version.view)
        }
        (
            VerifyError::Log(_)
            | VerifyError::Sink(_)
            | VerifyError::Stalled
            | VerifyError::TooMany,
            _,
        ) => "`materializer doctor` checks brokers, topics and sinks".to_owned(),
    };
    let error = anyhow::Error::new(fault).context(format!("verify `{unit}`"));
    Failure::new(Exit::Failed, error, hint)
}

/// Says whether a unit is a tantivy copy.
fn is_on_disk(client: &CatalogClient, unit: &Unit) -> bool {
    let version = client.state().catalog().version(&unit.version);
    version.is_some_and(|version| matches!(version.definition.to, Target::Tantivy(_)))
}

/// Makes what says which rows a unit's sink takes, and what reads back those that it has. Neither
/// writes.
fn reach(
    config: &Config,
    client: &CatalogClient,
    unit: &Unit,
    version: &Version,
) -> anyhow::Result<(Box<dyn Sink>, Box<dyn SinkReader>)> {
    match &version.definition.to {
        Target::Redis(target) => {
            let catalog = client.state().catalog().id();
            let catalog = catalog.context("the catalog is empty")?;
            let place = connect::redis_place(config, &target.connection, catalog)?;
            let mark = SinkId::new(uuid::Uuid::new_v4().to_string());
            let sink = RedisSink::new(place.clone(), target.clone(), unit.clone(), mark)?;
            let reader = RedisReader::new(place, target, unit.clone())?;
            Ok((Box::new(sink), Box::new(reader)))
        }
        Target::Tantivy(_) => {
            let settings = index_settings(config);
            let reader = TantivyReader::open(&settings, unit, &version.definition)?;
            let (definition, fingerprint) = (&version.definition, &version.fingerprint);
            let sink = TantivySink::new(settings, unit, definition, fingerprint)?;
            Ok((Box::new(sink), Box::new(reader)))
        }
        Target::Memory {} => anyhow::bail!("`memory` is a sink of tests alone"),
    }
}
