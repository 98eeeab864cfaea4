//! A topic that gets more partitions under a unit: noticed, waited for, reported, taken up.
//!
//! Between the growth and the catalog's record of it a unit goes on with what is old or has not moved.
//! `crate::order` has the rule, `docs/decisions/0603-partition-growth.md` the reasons.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::defect::is_planted;
use materializer_model::progress::Directive;
use materializer_model::{
    Checkpoint, Ends, Growth, Monotonic, Offset, Partition, PoisonKind, Record, Timestamp,
};
use tracing::info;

use super::open::{answers, within_horizon};
use super::{State, Worker};
use crate::defect::Defect;
use crate::eras::{self, Pending};
use crate::halt::{Failure, Halt};
use crate::lanes::{Lanes, Source};
use crate::order::Place;
use crate::partitioner::{Fitting, Misfit};

/// How often the broker is asked whether a record that fits nowhere is of a topic that grew.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Says what becomes of a record in the order of its key's records. Producers may know of partitions
    /// before we do: what fits nowhere, or rules a partitioner out, is judged again by a fresh count.
    pub(super) fn place(
        &mut self,
        at: usize,
        record: &Record<'_>,
    ) -> Result<Result<Place, Failure>, Halt> {
        let lanes = self.lanes.as_mut().expect("read because it is open");
        let of = lanes.lanes[at].source;
        let fitting = lanes.sources[of].fitting;
        let before = fitting.filter(|fitting| fitting.is_open());
        let mut placed = lanes.place(at, record);
        let ruled_out = before.is_some() && before != lanes.sources[of].fitting;
        if (placed == Err(Misfit::Misplaced) || ruled_out) && self.has_grown(at, record.offset)? {
            let lanes = self.lanes.as_mut().expect("read because it is open");
            let fitting = &mut lanes.sources[of].fitting;
            *fitting = before.or(fitting.take());
            placed = lanes.place(at, record);
        }
        let lanes = self.lanes.as_ref().expect("read because it is open");
        Ok(placed.map_err(|misfit| misplaced(&lanes.sources[of], misfit, record)))
    }

    /// Passes over a record that is not taken in now.
    pub(super) fn put_by(&mut self, at: usize, place: Place, record: &Record<'_>) {
        let now = self.now();
        let lanes = self.lanes.as_mut().expect("read because it is open");
        let growth = lanes.sources[lanes.lanes[at].source].eras.passed();
        match place {
            Place::Here => {}
            Place::Beyond => {
                lanes.reach(at, record.offset, now);
                self.at_barrier = true;
            }
            Place::Later => {
                lanes.lanes[at].put_off(growth);
                lanes.lanes[at].take(record.offset, record.epoch, None);
            }
            Place::Done => lanes.lanes[at].take(record.offset, record.epoch, None),
        }
    }

    /// Asks the broker for the count of partitions, and says whether it tells of more.
    fn has_grown(&mut self, at: usize, offset: Offset) -> Result<bool, Halt> {
        let now = self.now();
        let again =
            |(known, when): (_, Monotonic)| known == (at, offset) && now.since(when) < LOOK_EVERY;
        if self.looked.is_some_and(again) {
            return Ok(false);
        }
        self.looked = Some(((at, offset), now));
        let pending = |lanes: &Lanes| -> Vec<_> {
            let eras = lanes
                .sources
                .iter()
                .map(|source| source.eras.counts().last());
            eras.collect()
        };
        let before = self.lanes.as_ref().map(pending);
        let facts = self
            .ports
            .observer
            .fresh_facts(&self.settings.definition.from.topics)?;
        self.prove_topics(&answers(facts, now))?;
        Ok(self.lanes.as_ref().map(pending) != before)
    }

    /// Says whether what is read has to be made anew from the checkpoint: a growth was recorded, or there
    /// are partitions of a topic whose order nobody asks for.
    pub(super) fn is_outgrown(&self, directive: &Directive) -> bool {
        let sources = self.lanes.iter().flat_map(|lanes| &lanes.sources);
        let outgrown = |source: &Source| match source.fitting {
            None => source.eras.pending.is_some(),
            Some(_) => {
                let recorded = eras::of(&directive.growths, &source.topic, &source.id);
                let recorded = eras::Eras::recorded(recorded);
                recorded.is_some_and(|eras| eras.growths() > source.eras.growths())
            }
        };
        sources.into_iter().any(outgrown)
    }

    /// Forgets what was taken in since the last commit, and opens again.
    pub(super) fn begin_anew(&mut self) {
        info!(unit = %self.settings.unit, "the topic's new partitions are taken up");
        self.forget();
        self.state = State::Closed {
            retry_at: self.now(),
            why: "taking up the topic's new partitions".into(),
        };
    }

    /// Begins the next era where all lanes stand at their barriers; says whether it did.
    pub(super) fn pass_barriers(&mut self) -> bool {
        let passed = self.lanes.as_mut().is_some_and(Lanes::pass_barriers);
        if passed {
            info!(unit = %self.settings.unit, "past the barrier of the topic's growth");
        }
        passed
    }

    /// Returns the growth that is to be recorded: producers had time to learn of it, and the barrier is
    /// their ends after that.
    pub(super) fn settled_growth(&self) -> Option<Growth> {
        let mut sources = self.lanes.iter().flat_map(|lanes| &lanes.sources);
        sources.find_map(|source| {
            let fitting = source.fitting?;
            let pending = source.eras.pending.as_ref()?;
            let settled = pending.noticed.plus(self.settings.pacing.growth_settles);
            let known = self.ports.observer.ends();
            let end = |partition| {
                let end = known.get(&source.topic, partition)?;
                (end.asked >= settled).then_some((partition, end.high))
            };
            let ends = (0..source.eras.last()).map(|n| end(Partition(n)));
            Some(Growth {
                topic: source.topic.clone(),
                id: source.id.clone(),
                from: source.eras.last(),
                to: pending.to,
                before: pending.before.clone(),
                ends: ends.collect::<Option<_>>()?,
                since: pending.since,
                partitioner: fitting.only(),
            })
        })
    }

    /// Says why records wait, where they do because a growth is not recorded.
    pub(super) fn waits_for_growth(&self) -> Option<String> {
        let lanes = self.lanes.as_ref()?;
        let ends = self.ports.observer.ends();
        lanes.sources.iter().enumerate().find_map(|(of, source)| {
            let pending = source.eras.pending.as_ref()?;
            let mut lanes = lanes.lanes.iter().filter(|lane| lane.source == of);
            let put_off = lanes.any(|lane| lane.is_put_off(source.eras.passed()));
            if !put_off && !self.has_more(source, &ends) {
                return None;
            }
            let settles = self.settings.pacing.growth_settles;
            Some(format!(
                "the growth of `{}` from {} to {} partitions to be recorded, {} s after it was noticed: \
                 keys that moved wait",
                source.topic,
                source.eras.last(),
                pending.to,
                settles.as_secs()
            ))
        })
    }

    /// Says whether partitions that are not read yet may hold records of ours.
    pub(super) fn has_more(&self, source: &Source, ends: &Ends) -> bool {
        let added = source
            .eras
            .pending
            .as_ref()
            .map_or(0..0, |pending| source.eras.last()..pending.to);
        added.map(Partition).any(|partition| {
            let end = ends.get(&source.topic, partition);
            self.is_ours(partition) && end.is_none_or(|end| end.stable > Offset(0))
        })
    }
}

/// Compares the count of partitions with what is known of it; a higher one is noticed, and how things stood
/// when it was not known.
pub(super) fn prove_count(
    source: &mut Source,
    count: i32,
    asked: Monotonic,
    stood: impl Fn() -> (Timestamp, BTreeMap<Partition, Offset>),
) -> Result<(), Halt> {
    let (topic, from) = (&source.topic, source.eras.last());
    if count < from {
        let why = format!("the broker knows of {count} partitions of `{topic}`, which has {from}");
        return Err(Halt::Retry(why));
    }
    let known = source.eras.counts().last();
    if known < Some(count) && !is_planted(Defect::GrowthIgnored) {
        info!(%topic, from, to = count, "the topic got more partitions");
        let (since, before) = stood();
        source.eras.pending = Some(Pending {
            to: count,
            noticed: asked,
            since,
            before,
        });
    }
    Ok(())
}

/// Proves that a version that goes on has read its topic by the growths that are recorded now: it knew of
/// each from the beginning, or had passed its barrier before it was told.
pub(super) fn prove_begun(source: &Source, had: i32, held: &Checkpoint) -> Result<(), Halt> {
    let topic = &source.topic;
    let knew = held.topics.get(topic).map_or(0, |then| then.growths);
    if knew > source.eras.growths() && source.fitting.is_some() {
        return Err(Halt::Failed(Failure::new(
            format!(
                "the catalog has not recorded that `{topic}` got more partitions, and the version is built by \
                 that: an older catalog was restored"
            ),
            "restore a newer one, or build a new version from a topic that has not grown",
        )));
    }
    let is_past = |growth: usize| {
        let ends = source.eras.barrier_of(growth).into_iter().flatten();
        ends.filter_map(|(partition, end)| Some((held.reach(topic, *partition)?, end)))
            .all(|(reach, end)| reach >= *end)
    };
    match source.eras.growths_until(had) {
        Some(growths) if (0..growths).all(|growth| growth < knew || is_past(growth)) => Ok(()),
        None if source.fitting.is_none() => Ok(()),
        Some(_) | None => Err(Halt::Failed(Failure::new(
            format!(
                "the version was begun when `{topic}` had {had} partitions, before it was recorded that it had \
                 fewer: records of keys that moved may be applied in another order"
            ),
            "build a new version: `materializer apply --rebuild`",
        ))),
    }
}

/// Refuses shards between which a key could move.
pub(super) fn prove_shards(source: &Source, shards: u16) -> Result<(), Halt> {
    let mut counts = source.eras.counts();
    let stays = |count: i32| count % i32::from(shards) == 0;
    if source.eras.counts().count() == 1 || source.fitting.is_none() || counts.all(stays) {
        return Ok(());
    }
    let counts: Vec<String> = source.eras.counts().map(|n| n.to_string()).collect();
    Err(Halt::Failed(Failure::new(
        format!(
            "`{}` had {} partitions, one after the other, of which {shards} shards do not divide each: keys may \
             have moved between shards",
            source.topic,
            counts.join(" and ")
        ),
        "build a new version with `shards: 1`, or a number that divides all of them",
    )))
}

/// Refuses to begin on a compacted topic whose moved keys may have lost their tombstones: an old record of
/// such a key stays, in another partition, for ever.
pub(super) fn prove_moved(source: &Source, grown: Timestamp, now: Timestamp) -> Result<(), Halt> {
    let Some(span) = source.tombstones.filter(|_| source.compacts) else {
        return Ok(());
    };
    if now <= grown.plus(within_horizon(span)) {
        return Ok(());
    }
    Err(Halt::Failed(Failure::new(
        format!(
            "`{}` is compacted and got more partitions longer than `delete.retention.ms` ago: rows of keys that \
             moved and were deleted since would come back",
            source.topic
        ),
        "write its records to a new topic, and read that one",
    )))
}

/// Says what is wrong with a record that has no place in the order of its key's records. No view can pass it
/// over by itself.
fn misplaced(source: &Source, misfit: Misfit, record: &Record<'_>) -> Failure {
    let (count, next) = source.eras.now();
    let (why, hint) = match misfit {
        Misfit::Undecided => (
            format!(
                "the order of its key is not proved: more than one partitioner fits, and they differ in whether \
                 the key moved when {count} partitions became {}",
                next.unwrap_or(count)
            ),
            "say which one it is by `from: {partitioner: …}`",
        ),
        Misfit::Misplaced if is_old(source, record) => (
            format!(
                "the order of its key is not proved: a producer that did not know of {count} partitions wrote it \
                 to {}, after the barrier",
                record.partition
            ),
            "let that producer read its metadata anew and write the key once more, then skip this record by \
             `materializer skip`",
        ),
        Misfit::Misplaced => (
            format!(
                "the order of its key is not proved: no known partitioner gives {} of {} ({})",
                record.partition,
                next.unwrap_or(count),
                PoisonKind::Partition
            ),
            "read a topic that one kind of client writes, or write `from: {order: none}`",
        ),
    };
    Failure {
        why,
        at: Some(record.origin()),
        hint: Some(hint.into()),
    }
}

/// Says whether a record fits an era that is over.
fn is_old(source: &Source, record: &Record<'_>) -> bool {
    let only = source.fitting.and_then(Fitting::only);
    only.zip(record.key).is_some_and(|(partitioner, key)| {
        let rank = source
            .eras
            .rank(partitioner, key, record.partition, record.offset);
        rank.is_some_and(|era| era < source.eras.passed())
    })
}
