//! The feeding of one unit: a history of random actions, then calm, then the whole comparison.

mod world;

use std::time::Duration;

use materializer_model::Checkpoint;
use materializer_model::progress::{Health, Phase};

use self::world::World;
use crate::servers::Stored;
use crate::{History, Outcome};

/// How many events a history has before it is calm.
pub(crate) const EVENTS: u64 = 700;
/// How many steps a worker has to catch up once it is calm.
const CALM_STEPS: u64 = 3_000;

/// What happens once in a history that loses data for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    /// The log begins above 0 before anybody reads it.
    Genesis,
    /// The sink is emptied after its first commit was reported.
    Flush,
    /// The topic is made anew under the same name.
    Recreated,
    /// The workers are away until tombstones that they have not read are gone.
    Horizon,
    /// The topic gets more partitions, between which keys move.
    Grown,
    /// Retention raises the log's start, perhaps above where a worker reads.
    Overtaken,
    /// A leader is elected that lacks the end of a partition, which a worker may have read.
    Cut,
}

impl Loss {
    /// Says whether nothing may be written after it.
    fn stops_writing(self) -> bool {
        match self {
            Self::Genesis | Self::Flush | Self::Recreated | Self::Horizon => true,
            Self::None | Self::Grown | Self::Overtaken | Self::Cut => false,
        }
    }

    /// Says whether a unit's health says what happened: damaged where what is stored is no longer
    /// right, failed where it is and cannot go on.
    fn is_told(self, health: Option<Health>) -> bool {
        match self {
            Self::None => false,
            Self::Flush | Self::Recreated => matches!(health, Some(Health::Damaged { .. })),
            Self::Genesis | Self::Horizon | Self::Grown => {
                matches!(health, Some(Health::Failed { .. }))
            }
            // Damaged where rows may be ahead by what is gone.
            Self::Overtaken | Self::Cut => {
                matches!(health, Some(Health::Failed { .. } | Health::Damaged { .. }))
            }
        }
    }
}

/// Feeds a unit through one history.
#[must_use]
pub fn feed(history: &History) -> Outcome {
    let mut world = World::new(history);
    let broken = live(&mut world).err();
    let trace = std::mem::take(&mut world.shared.lock().trace);
    Outcome { trace, broken }
}

fn live(world: &mut World) -> Result<(), String> {
    let loss = match world.below(16) {
        0 => Loss::Genesis,
        1 => Loss::Flush,
        2 => Loss::Recreated,
        3 if world.upstream.compacted && world.reads_something() => Loss::Horizon,
        4 => Loss::Grown,
        5 => Loss::Overtaken,
        6 | 7 => Loss::Cut,
        _ => Loss::None,
    };
    let between_parts = world.shared.chance(500);
    if between_parts {
        world.servers.part_keys = 2;
    }
    let due = EVENTS / 2 + world.below(EVENTS / 4);
    let mut lost = false;
    for _ in 0..world.below(60) {
        world.upstream.produce();
    }
    if loss == Loss::Genesis {
        while world.upstream.stable_ends().contains(&0) {
            world.upstream.produce();
        }
        world.upstream.lose_genesis();
        lost = true;
    }
    for at in 0..EVENTS {
        let shared = world.shared.clone();
        shared.event(at, || act(world, loss));
        // A leader that lacks what parts of a commit were read from comes between these parts.
        let waits = loss == Loss::Cut && between_parts && world.stored().unfinished.is_none();
        let is_late = at + 1 == EVENTS;
        if at >= due && !lost && world.reported().is_some() && (!waits || is_late) {
            match loss {
                Loss::Flush => world.flush(),
                Loss::Recreated => world.upstream.recreate(),
                Loss::Horizon => world.stay_away(),
                Loss::Grown => world.upstream.grow(),
                Loss::Overtaken => world.upstream.expire(),
                Loss::Cut => world.cut(),
                Loss::None | Loss::Genesis => {}
            }
            lost = true;
        }
        if world.upstream.nobody_can_tell(&world.stored()) {
            return Ok(());
        }
        world.check_owner()?;
        check(world, loss, lost && loss.stops_writing())?;
    }
    calm(world, loss, lost)
}

/// Lets one thing happen.
fn act(world: &mut World, loss: Loss) {
    match world.below(100) {
        0..20 => world.upstream.produce(),
        20..22 => world.upstream.begin(),
        22..25 => world.upstream.end_transaction(),
        25..27 => world.upstream.compact(),
        27 => world.upstream.elect(),
        28..40 => pass(world),
        40..43 => world.doom(),
        43 => world.start(),
        44..48 => world.shared.arrive(),
        48..55 => world.report(),
        55 => world.record_growth(),
        56 => world.save(),
        57 => world.pause_or_resume(),
        // A server that loses data twice over is another history.
        58 if loss == Loss::None => world.rewind(),
        _ => {
            if world.actors.is_empty() {
                world.start();
            }
            world.step();
        }
    }
}

fn pass(world: &mut World) {
    let span = match world.below(50) {
        0 => 15_000,
        1..5 => 2_000,
        5..20 => 100,
        _ => 7,
    };
    world.servers.clock.advance(Duration::from_millis(span));
}

/// Checks every promise that holds at all times.
fn check(world: &World, loss: Loss, lost: bool) -> Result<(), String> {
    if loss == Loss::Recreated && lost {
        return Ok(()); // rows of both logs: what counts is that it is said
    }
    let stored = world.stored();
    if lost && (stored.checkpoint.is_some() || !stored.rows.is_empty()) {
        let left = loss == Loss::Horizon && stored.checkpoint == world.left_behind;
        return left
            .then_some(())
            .ok_or(format!("{loss:?}, and yet this is stored: {stored:?}"));
    }
    let expected = world.upstream.compare(&stored, "")?;
    let Some(checkpoint) = stored.checkpoint else {
        return Ok(());
    };
    let counted = checkpoint.counts.skipped + checkpoint.counts.dead;
    let poison = u64::try_from(expected.poison.len()).expect("few");
    if counted > poison || (!world.upstream.compacted && counted != poison) {
        return Err(format!("{counted} records set aside, {poison} are poison"));
    }
    let letters = world.servers.letters.letters();
    let has_letter = |at: &(i32, u64)| {
        let here = |o: &materializer_model::Origin| (o.partition.0, o.offset.0) == *at;
        letters.iter().any(|letter| here(&letter.origin))
    };
    if checkpoint.counts.dead > 0
        && !world.upstream.compacted
        && !expected.poison.iter().all(has_letter)
    {
        return Err("a dead letter is missing".into());
    }
    let bar = checkpoint.bar.0.get(&world.upstream.topic);
    let bar: Vec<u64> = bar
        .into_iter()
        .flat_map(|bar| bar.values().map(|end| end.0))
        .collect();
    if !world.upstream.was_the_end(&bar, &world.bars) {
        return Err(format!("the bar {bar:?} was never the end"));
    }
    check_report(world, &checkpoint)
}

/// Checks what the owner says of itself.
fn check_report(world: &World, checkpoint: &Checkpoint) -> Result<(), String> {
    let Some(progress) = world.progress() else {
        return Ok(());
    };
    let knows = progress
        .checkpoint
        .as_ref()
        .is_some_and(|said| said.0 == *checkpoint);
    if !knows {
        return Ok(()); // not opened yet, or not heard yet
    }
    let next = world.upstream.positions(checkpoint);
    if let Some(reported) = world.reported() {
        let went_back = world
            .upstream
            .positions(reported)
            .iter()
            .any(|(p, had)| next.get(p) < Some(had));
        let said = matches!(
            progress.health,
            Health::Rewound { .. } | Health::Failed { .. }
        );
        let opened = progress.phase != Phase::Starting;
        if went_back && opened && progress.waits_for.is_none() && !said {
            return Err(format!(
                "the sink went back and health is {:?}",
                progress.health
            ));
        }
    }
    let known = progress.ends_age_ms.is_some_and(|age| age <= 10_000);
    if progress.lag.is_some() && !known {
        return Err("the lag is said to be known, and the ends are not".into());
    }
    if progress.held_ms.is_some() && progress.phase != Phase::Tailing {
        return Err("the gates hold below the bar".into());
    }
    Ok(())
}

/// Ends all faults, lets one worker finish, and compares everything.
fn calm(world: &mut World, loss: Loss, lost: bool) -> Result<(), String> {
    world.shared.calm();
    world.upstream.end_transaction();
    world.upstream.grow_back();
    world.resume();
    world.actors.clear();
    world.start();
    let mut rebuilt = false;
    for _ in 0..CALM_STEPS {
        world.servers.clock.advance(Duration::from_millis(20));
        world.shared.arrive();
        world.step();
        world.record_growth();
        check(world, loss, lost && loss.stops_writing())?;
        if world.upstream.nobody_can_tell(&world.stored()) {
            return Ok(());
        }
        let stored = world.stored();
        let must_tell = lost && must_tell(world, loss, &stored);
        let may_tell =
            lost && (loss == Loss::Overtaken || (loss == Loss::Grown && is_undecided(world)));
        if (must_tell || may_tell) && loss.is_told(world.health()) {
            return Ok(());
        }
        let Some(checkpoint) = stored.checkpoint.filter(|_| !must_tell) else {
            continue;
        };
        let ready = world
            .progress()
            .is_some_and(|progress| progress.held_ms.is_some());
        if ready && world.upstream.is_at_end(&world.unit, &checkpoint) {
            // `check` has compared every key at this position.
            if loss != Loss::Grown || !lost || rebuilt {
                return Ok(());
            }
            rebuilt = true;
            world.rebuild();
        }
    }
    Err(format!(
        "never at its end {:?}: {:?}, {:?}, {loss:?}",
        world.upstream.stable_ends(),
        world.stored().checkpoint,
        world.progress().map(|p| (p.health, p.gates)),
    ))
}

/// Says whether a unit has read so little that more than one partitioner fits, and says so: it cannot tell which
/// keys moved.
fn is_undecided(world: &World) -> bool {
    matches!(world.health(), Some(Health::Failed { why, .. }) if why.contains("more than one partitioner fits"))
}

/// Says whether a unit cannot go on after a loss.
fn must_tell(world: &World, loss: Loss, stored: &Stored) -> bool {
    match loss {
        Loss::Genesis | Loss::Flush | Loss::Recreated | Loss::Horizon => true,
        Loss::Grown => world.upstream.mixes_shards(),
        Loss::None | Loss::Overtaken => false,
        Loss::Cut => {
            let reads_lost = |at| world.upstream.reads_lost(at) == Some(true);
            stored.checkpoint.as_ref().is_some_and(reads_lost)
                || world.upstream.parts_are_lost(stored) == Some(true)
        }
    }
}
