//! The migrations of one view: a history of random events, then calm, in which a catalog that was lost is
//! restored, every request is answered,
//! every version becomes what the log says, and the view can be brought to a new version and retired.

mod control;
mod gateway;
mod operator;
mod pool;
mod restore;
mod sinks;
mod trouble;
mod views;
mod witness;
mod world;

use std::time::Duration;

use materializer_migrations::client::Outcome as Answer;
use materializer_migrations::{Role, Verb};
use materializer_model::definition::Promotion;
use materializer_model::ports::{AliasPointer, SinkAdmin};

use self::trouble::Trouble;
use self::views::{apply, view};
use self::world::{Stage, World};
use crate::{History, Outcome};

/// How many things happen before it is calm.
pub(crate) const EVENTS: u64 = 3_000;
/// How long anything may take once it is calm, in fifths of a second: ten minutes.
const PATIENCE: u32 = 3_000;
/// How long they take to know the broker's time again, in the same.
const LEARNING: u32 = 20;
/// The edition that nobody asked for before it was calm.
const LAST_EDITION: u64 = 99;
const SOAK: Duration = Duration::from_secs(20);

/// Takes a view through one history.
#[must_use]
pub fn migrate(history: &History) -> Outcome {
    let stage = Stage::new(history, EVENTS);
    let broken = live(&stage).err();
    let trace = std::mem::take(&mut stage.lock().shared.lock().trace);
    Outcome { trace, broken }
}

fn live(stage: &Stage) -> Result<(), String> {
    loop {
        let world = stage.lock();
        if let Some(why) = &world.broken {
            return Err(why.clone());
        }
        if world.events_left == 0 {
            break;
        }
        drop(world);
        stage.happen();
    }
    stage.calm();
    if stage.lock().is_deciding_over() {
        until(
            stage,
            "nobody decides anything",
            World::has_stopped_deciding,
        )?;
        stage.restore()?;
    }
    // Coordinators learn from two reports of their own what the broker's time is by now.
    for _ in 0..LEARNING {
        stage.tick();
    }
    settle(stage)?;
    find_a_way_out(stage)
}

/// Lets time pass until something is so.
fn until(stage: &Stage, what: &str, so: impl Fn(&World) -> bool) -> Result<(), String> {
    for _ in 0..PATIENCE {
        let world = stage.lock();
        if let Some(why) = &world.broken {
            return Err(why.clone());
        }
        if so(&world) {
            return Ok(());
        }
        drop(world);
        stage.tick();
    }
    let world = stage.lock();
    let roles: Vec<String> = world
        .witness
        .catalog()
        .view(&view())
        .into_iter()
        .flat_map(|view| view.versions.values())
        .map(|version| format!("{} is {}", version.id, version.role))
        .collect();
    Err(format!("never so: {what}; {}", roles.join(", ")))
}

/// Every request is answered, and every version that is fed is at the end of the log.
fn settle(stage: &Stage) -> Result<(), String> {
    until(stage, "there is a catalog", |world| {
        world.witness.catalog().id().is_some()
    })?;
    until(stage, "every request is answered", |world| {
        world.witness.catalog().outstanding().is_empty()
    })?;
    let paused: Vec<Verb> = versions(stage, |version| version.paused.is_some())
        .into_iter()
        .map(|version| Verb::Resume { version })
        .collect();
    for verb in paused {
        ask(stage, verb)?;
    }
    until(
        stage,
        "every fed version is at the end of the log",
        at_the_end,
    )
}

fn versions(
    stage: &Stage,
    which: impl Fn(&materializer_migrations::Version) -> bool,
) -> Vec<materializer_model::VersionId> {
    let world = stage.lock();
    let view = world.witness.catalog().view(&view());
    view.into_iter()
        .flat_map(|view| view.versions.values())
        .filter(|version| which(version))
        .map(|version| version.id.clone())
        .collect()
}

/// The witness compares what is stored at every checkpoint; here it is the position that counts.
fn at_the_end(world: &World) -> bool {
    let fed = world.witness.catalog().view(&view()).into_iter();
    let mut fed = fed
        .flat_map(|view| view.versions.values())
        .filter(|version| version.role.is_fed());
    fed.all(|version| {
        version.units().all(|unit| {
            let stored = world.servers.stored(&unit);
            if world.witness.is_damaged(&unit) || world.upstream.nobody_can_tell(&stored) {
                return true;
            }
            let checkpoint = world.servers.store.checkpoint(&unit);
            checkpoint.is_some_and(|checkpoint| world.upstream.is_at_end(&unit, &checkpoint))
        })
    })
}

/// Asks as a person would, and waits for the answer: it is done, or was so already.
fn ask(stage: &Stage, verb: Verb) -> Result<(), String> {
    let word = verb.word();
    let mut client = stage.client(&format!("eve-{}", stage.lock().shared.below(u64::MAX)));
    let plan = client.plan(&verb).map_err(|why| format!("{word}: {why}"))?;
    let request = client
        .ask(verb, plan, "calm")
        .map_err(|why| format!("{word}: {why}"))?;
    for _ in 0..PATIENCE {
        stage.tick();
        client.refresh().map_err(|why| format!("{word}: {why}"))?;
        if let Some(outcome) = client.outcome(&request, Duration::ZERO) {
            return match outcome {
                Answer::Done | Answer::Nothing(_) => Ok(()),
                refused @ (Answer::Refused { .. }
                | Answer::GateFailed { .. }
                | Answer::NoCoordinator
                | Answer::Unknown) => Err(format!("{word}: {refused:?}")),
            };
        }
    }
    Err(format!("{word} was never answered"))
}

/// From whatever state there is: a new version becomes live, the old ones go, and then all of it.
fn find_a_way_out(stage: &Stage) -> Result<(), String> {
    // Of a topic that grew no version can be built in order: what is there serves until it is given up.
    if stage.lock().trouble != Trouble::Grown {
        bring_the_last_edition(stage)?;
    }
    ask(
        stage,
        Verb::Retire {
            view: view(),
            version: None,
        },
    )?;
    until(stage, "nothing is left", |world| {
        let view = world.witness.catalog().view(&view());
        let mut versions = view.into_iter().flat_map(|view| view.versions.values());
        versions.all(|version| version.role == Role::Retired) && stored_alias(world).is_none()
    })
}

fn bring_the_last_edition(stage: &Stage) -> Result<(), String> {
    let shards = stage.lock().upstream.shards;
    let last = apply(LAST_EDITION, shards, SOAK, Promotion::Auto, true, false);
    ask(stage, last)?;
    let is_last = |world: &World| {
        let view = world.witness.catalog().view(&view());
        let live = view.and_then(|view| view.live());
        live.is_some_and(|live| views::edition(&live.definition) == format!("e{LAST_EDITION}:"))
    };
    until(stage, "the last edition is live", is_last)?;
    let damaged = versions(stage, |version| version.role == Role::Standby)
        .into_iter()
        .filter(|id| stage.lock().has_lost_data(id));
    for standby in damaged {
        ask(
            stage,
            Verb::Retire {
                view: view(),
                version: Some(standby.number),
            },
        )?;
    }
    until(stage, "only the last edition is left", |world| {
        let view = world.witness.catalog().view(&view());
        let mut versions = view.into_iter().flat_map(|view| view.versions.values());
        versions.all(|version| matches!(version.role, Role::Live | Role::Retired))
    })?;
    until(stage, "readers see the last edition", |world| {
        let pointer = world
            .witness
            .catalog()
            .view(&view())
            .and_then(|v| v.pointer());
        pointer == stored_alias(world)
    })
}

fn stored_alias(world: &World) -> Option<AliasPointer> {
    world.servers.store.admin().alias(&view()).expect("memory")
}
