//! Opening a unit: the claims first, then the sink under our token, then its checkpoint, and only then
//! the log, whose genesis, identity and order are proved against that checkpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::definition::{Order, ViewDefinition};
use materializer_model::ports::{Expect, Facts, TopicAnswer, TopicFacts};
use materializer_model::progress::Directive;
use materializer_model::{
    Bar, Checkpoint, Commit, Counts, Ends, Monotonic, Offset, Partition, Position, Timestamp,
    Topic, TopicId,
};
use tracing::{info, warn};

use super::growth::{prove_begun, prove_count, prove_moved, prove_shards};
use super::{Rewind, State, Worker};
use crate::defect::Defect;
use crate::eras::{self, Eras};
use crate::halt::{Failure, Halt};
use crate::lanes::{Lane, Lanes, Source};
use crate::partitioner::Fitting;
use materializer_model::defect::is_planted;

/// The expression of a view whose rows are keyed as its records are.
const RECORD_KEY: &str = "record.key";

/// What a sink's checkpoint is to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// What it knew.
    Known,
    /// That of the commit whose outcome was not known: it was applied.
    Landed,
    /// That before it: it was not applied, and is sent again.
    Unapplied,
    /// Another: whatever was folded does not follow it.
    Other,
}

fn compare(
    found: Option<&Checkpoint>,
    known: Option<&Checkpoint>,
    outstanding: Option<&Commit>,
) -> Found {
    match outstanding {
        Some(commit) if found == Some(&commit.checkpoint) => Found::Landed,
        Some(commit) if found == commit.previous.as_ref() => Found::Unapplied,
        None if found == known => Found::Known,
        Some(_) | None => Found::Other,
    }
}

impl Worker {
    /// Takes the sink and begins, or goes on, to read.
    pub(super) fn open(&mut self, directive: &Directive) -> Result<(), Halt> {
        self.confirm_claim()?;
        self.growths.clone_from(&directive.growths);
        let reported = directive.last_reported.as_ref().map(|stored| &stored.0);
        let expect = if directive.has_data || reported.is_some() || self.committed.is_some() {
            Expect::Data
        } else {
            Expect::Maybe
        };
        let found = self.ports.sink.open(&self.settings.token, expect)?;
        match compare(
            found.as_ref(),
            self.committed.as_ref(),
            self.outstanding.as_deref(),
        ) {
            Found::Unapplied if is_planted(Defect::UnknownTakenForApplied) => {
                self.outstanding = None
            }
            Found::Other if is_planted(Defect::ReadOnOverRewind) && self.lanes.is_some() => {
                self.outstanding = None;
                self.committed = found;
            }
            Found::Landed => self.landed(),
            Found::Known | Found::Unapplied if self.lanes.is_some() => {}
            Found::Known | Found::Unapplied | Found::Other => self.restart(found, reported),
        }
        self.prove(reported)?;
        self.assign()?;
        if let Some(commit) = self.outstanding.clone() {
            self.ports.sink.submit(commit)?;
        }
        self.backoff.reset();
        self.state = State::Open;
        Ok(())
    }

    /// Reads the claims to their end: only the newest may touch the sink.
    fn confirm_claim(&mut self) -> Result<(), Halt> {
        let ours = &self.settings.token;
        match self.ports.claims.newest(&self.settings.unit)? {
            Some((newest, _)) if newest == *ours => Ok(()),
            Some((newest, _)) if newest.outranks(ours) => Err(Halt::Fenced(newest)),
            Some(_) | None => Err(Halt::Retry("our claim is not in the claims topic".into())),
        }
    }

    /// Begins anew from what the sink holds.
    fn restart(&mut self, found: Option<Checkpoint>, reported: Option<&Checkpoint>) {
        let mut rewind = self.rewind.take();
        for had in reported.into_iter().chain(self.committed.as_ref()) {
            if let Some(has) = &found
                && has.is_behind(had)
                && rewind
                    .as_ref()
                    .is_none_or(|known| known.until.is_behind(had))
            {
                warn!(unit = %self.settings.unit, from = had.seq, to = has.seq, "the sink's checkpoint went back");
                let mut until = had.clone();
                if let Some(known) = &rewind {
                    until.raise_to(&known.until); // neither need have all that the other has
                }
                rewind = Some(Rewind { until, to: has.seq });
            }
        }
        self.rewind =
            rewind.filter(|known| found.as_ref().is_none_or(|has| has.is_behind(&known.until)));
        self.forget();
        self.counts = found
            .as_ref()
            .map_or_else(Counts::default, |held| held.counts);
        self.committed = found;
        let now = self.now();
        self.committed_at = now;
        self.moved_at = now;
    }

    /// Proves that the log is the one that the checkpoint is of, and complete for it.
    fn prove(&mut self, reported: Option<&Checkpoint>) -> Result<(), Halt> {
        let topics = &self.settings.definition.from.topics;
        let asked = self.now();
        let facts = self.ports.observer.fresh_facts(topics)?;
        let ends = self.ports.observer.fresh_ends(topics)?;
        let Some(broker) = self.broker() else {
            return Err(Halt::Retry("the broker's time is not known yet".into()));
        };
        if self.lanes.is_none() {
            let held = match &self.committed {
                Some(_) if is_planted(Defect::ResumedFromReport) => reported,
                held => held.as_ref(),
            };
            let lanes = match held {
                Some(held) => self.resumed(held, &facts, asked)?,
                None => self.begun(&facts, asked, &ends, broker)?,
            };
            let lanes = self.with_unfinished(lanes);
            info!(unit = %self.settings.unit, partitions = lanes.lanes.len(), resumed = self.committed.is_some(), "reading");
            self.lanes = Some(lanes);
        } else {
            self.prove_topics(&answers(facts, asked))?;
        }
        let now = self.now();
        let lanes = self.lanes.as_mut().expect("made above");
        for lane in &mut lanes.lanes {
            if let Some(end) = ends.get(&lanes.sources[lane.source].topic, lane.partition) {
                lane.observe(end);
            }
            lane.settle(now, Some(broker));
        }
        self.prove_reach(Some(broker))
    }

    /// Makes the lanes of a version that has no checkpoint: every partition from 0, which is proved.
    fn begun(
        &self,
        facts: &[TopicFacts],
        asked: Monotonic,
        ends: &Ends,
        broker: Timestamp,
    ) -> Result<Lanes, Halt> {
        let sources = self.sources(facts, asked, None)?;
        let mut lanes = Vec::new();
        let mut bar = Bar::default();
        for (at, source) in sources.iter().enumerate() {
            let of_topic = bar.0.entry(source.topic.clone()).or_default();
            let grown = self.grown_since(source).filter(|_| source.compacts);
            if let Some(grown) = grown {
                prove_moved(source, grown, broker)?;
            }
            for partition in (0..source.eras.last()).map(Partition) {
                let Some(end) = ends.get(&source.topic, partition) else {
                    let name = format!("{}/{partition}", source.topic);
                    return Err(Halt::Retry(format!("the end of `{name}` is not known yet")));
                };
                if end.start > Offset(0) && !is_planted(Defect::GenesisAssumed) {
                    return Err(no_genesis(&source.topic, partition, end.start));
                }
                let stable = if is_planted(Defect::BarZero) {
                    Offset(0)
                } else {
                    end.stable
                };
                of_topic.insert(partition, stable);
                if self.is_ours(partition) {
                    let assumed = is_planted(Defect::GenesisAssumed);
                    let position = Position {
                        next: if assumed { end.start } else { Offset(0) },
                        epoch: None,
                        anchor: grown.map_or(broker, |grown| grown.min(broker)),
                    };
                    lanes.push(Lane::new(at, partition, position));
                }
            }
        }
        let mut lanes = Lanes::new(sources, lanes, bar);
        lanes.pass_barriers();
        Ok(lanes)
    }

    /// Makes the lanes of a checkpoint.
    fn resumed(
        &self,
        held: &Checkpoint,
        facts: &[TopicFacts],
        asked: Monotonic,
    ) -> Result<Lanes, Halt> {
        let sources = self.sources(facts, asked, Some(held))?;
        let mut lanes = Vec::new();
        let mut bar = held.bar.clone();
        for (at, source) in sources.iter().enumerate() {
            let of_topic = bar.0.entry(source.topic.clone()).or_default();
            let positions = held
                .positions()
                .filter(|(topic, ..)| **topic == source.topic);
            let anchors = positions.map(|(.., position)| position.anchor);
            let anchor = anchors.chain(self.grown_since(source)).min();
            for partition in (0..source.eras.last()).map(Partition) {
                let is_added = !of_topic.contains_key(&partition);
                of_topic.entry(partition).or_default();
                if !self.is_ours(partition) {
                    continue;
                }
                let added = anchor.filter(|_| is_added).map(|anchor| Position {
                    next: Offset(0),
                    epoch: None,
                    anchor,
                });
                let stored = held.position(&source.topic, partition).copied();
                let Some(position) = stored.or(added) else {
                    return Err(Halt::Damaged(format!(
                        "the checkpoint has no position of `{}/{partition}`",
                        source.topic
                    )));
                };
                let mut lane = Lane::new(at, partition, position);
                lane.ahead_stored = held.ahead(&source.topic, partition).copied();
                let then = held.topics.get(&source.topic);
                let kept = then.and_then(|then| then.tombstones_ms);
                lane.shorter = kept.map(Duration::from_millis);
                lanes.push(lane);
            }
        }
        let mut lanes = Lanes::new(sources, lanes, bar);
        lanes.resume_eras();
        Ok(lanes)
    }

    /// Returns the time before which the first of a topic's recorded growths was not.
    fn grown_since(&self, source: &Source) -> Option<Timestamp> {
        let mut growths = eras::of(&self.growths, &source.topic, &source.id);
        growths.next().map(|growth| growth.since)
    }

    /// Returns when a checkpoint was last at the end of all of a topic's partitions, and where it is in them.
    fn stood(
        &self,
        topic: &Topic,
        held: Option<&Checkpoint>,
    ) -> (Timestamp, BTreeMap<Partition, Offset>) {
        let positions = held.into_iter().flat_map(Checkpoint::positions);
        let positions = positions.filter(|(of, ..)| *of == topic);
        let since = positions.clone().map(|(.., at)| at.anchor).min();
        let before = positions.map(|(_, partition, at)| (partition, at.next));
        let since = since.or(self.broker()).unwrap_or(Timestamp(0));
        (since, before.collect())
    }

    pub(super) fn is_ours(&self, partition: Partition) -> bool {
        let shards = i32::from(self.settings.definition.to.shards());
        partition.0 % shards == i32::from(self.settings.unit.shard)
            || is_planted(Defect::OtherShardsRead)
    }

    /// Compares the topics with the definition and, on a resume, with the checkpoint.
    fn sources(
        &self,
        facts: &[TopicFacts],
        asked: Monotonic,
        held: Option<&Checkpoint>,
    ) -> Result<Vec<Source>, Halt> {
        let definition = &self.settings.definition;
        let mut sources = Vec::new();
        for fact in facts {
            let then = held.and_then(|held| held.topics.get(&fact.topic));
            if held.is_some() {
                prove_identity(fact, then.map(|then| &then.id))?;
            }
            let compacts = prove_settings(definition, fact)?;
            let left = then.map_or(&[][..], |then| &then.partitioners);
            let ordered =
                definition.from.order == Order::Partition && definition.key.0 == RECORD_KEY;
            let recorded = eras::of(&self.growths, &fact.topic, &fact.id);
            let named = recorded.clone().find_map(|growth| growth.partitioner);
            let known = definition.from.partitioner.or(named);
            let had = held.map(|held| held.bar.count(&fact.topic));
            let eras = match Eras::recorded(recorded).filter(|_| ordered) {
                Some(eras) => eras,
                None => Eras::one(had.filter(|_| ordered).unwrap_or(fact.partitions)),
            };
            let mut source = Source {
                topic: fact.topic.clone(),
                id: fact.id.clone(),
                eras,
                compacts,
                tombstones: fact.tombstone_retention,
                asked,
                fitting: ordered.then(|| Fitting::new(known, left)),
            };
            let stood = || self.stood(&fact.topic, held);
            prove_count(&mut source, fact.partitions, asked, stood)?;
            prove_shards(&source, definition.to.shards())?;
            if let Some((had, held)) = had.zip(held) {
                prove_begun(&source, had, held)?;
            }
            sources.push(source);
        }
        Ok(sources)
    }

    /// Proves that the topics still are the ones that are read, and judges their settings, which may
    /// change under a unit, as an opening does. An answer from before the last proof proves nothing.
    pub(super) fn prove_topics(&mut self, known: &Facts) -> Result<(), Halt> {
        let Some(lanes) = &mut self.lanes else {
            return Ok(());
        };
        for (of, source) in lanes.sources.iter_mut().enumerate() {
            let Some(answer) = known.get(&source.topic) else {
                continue;
            };
            if answer.asked <= source.asked {
                continue;
            }
            let fact = answer.facts.clone()?;
            prove_identity(&fact, Some(&source.id))?;
            let passed = source.eras.passed();
            let of_source = lanes.lanes.iter().filter(|lane| lane.source == of);
            let stood = || {
                let next = |lane: &Lane| (lane.partition, lane.stored(passed).0.next);
                let since = of_source.clone().map(|lane| lane.anchor).min();
                let before = of_source.clone().map(next).collect();
                (since.unwrap_or(Timestamp(0)), before)
            };
            prove_count(source, fact.partitions, answer.asked, stood)?;
            prove_shards(source, self.settings.definition.to.shards())?;
            source.compacts = prove_settings(&self.settings.definition, &fact)?;
            for lane in lanes.lanes.iter_mut().filter(|lane| lane.source == of) {
                lane.shorter = lane.shorter.into_iter().chain(source.tombstones).min();
            }
            source.tombstones = fact.tombstone_retention;
            source.asked = answer.asked;
        }
        Ok(())
    }

    /// Proves that no record, and no tombstone, can have gone before it was read.
    pub(super) fn prove_reach(&self, broker: Option<Timestamp>) -> Result<(), Halt> {
        let Some(lanes) = &self.lanes else {
            return Ok(());
        };
        for lane in &lanes.lanes {
            let source = &lanes.sources[lane.source];
            if let Some(start) = lane.ends.start()
                && start > lanes.stored(lane).0.next
                && !is_planted(Defect::GenesisAssumed)
            {
                return Err(no_genesis(&source.topic, lane.partition, start));
            }
            let left = broker.zip(tombstones_end(source, lane));
            if let Some((now, end)) = left
                && now > end
                && !is_planted(Defect::HorizonIgnored)
            {
                return Err(Halt::Failed(Failure::new(
                    format!(
                        "tombstones may be gone: `{}/{}` was last read to its end longer ago than \
                         `delete.retention.ms`",
                        source.topic, lane.partition
                    ),
                    "build a new version, or raise `delete.retention.ms` before the next one",
                )));
            }
        }
        Ok(())
    }
}

/// Returns until when every tombstone that a lane has not read is still in the log.
pub(super) fn tombstones_end(source: &Source, lane: &Lane) -> Option<Timestamp> {
    let span = lane.tombstones(source)?;
    Some(lane.anchor.plus(within_horizon(span)))
}

/// Returns for how long tombstones are there for certain, of how long the broker keeps them.
pub(super) fn within_horizon(span: Duration) -> Duration {
    let margin = (span / 20).max(Duration::from_secs(10 * 60));
    span.saturating_sub(margin)
}

fn no_genesis(topic: &Topic, partition: Partition, start: Offset) -> Halt {
    Halt::Failed(Failure::new(
        format!("`{topic}/{partition}` begins at {start}: records that were not read are gone"),
        "a view needs a topic that is complete from 0: raise its retention, or compact it",
    ))
}

/// Returns what the broker said as the observer tells it.
pub(super) fn answers(facts: Vec<TopicFacts>, asked: Monotonic) -> Facts {
    let answer = |fact: TopicFacts| {
        let (topic, facts) = (fact.topic.clone(), Ok(fact));
        (topic, TopicAnswer { asked, facts })
    };
    facts.into_iter().map(answer).collect()
}

/// Proves that a topic is the one that was read.
fn prove_identity(fact: &TopicFacts, id: Option<&TopicId>) -> Result<(), Halt> {
    if id == Some(&fact.id) || is_planted(Defect::TopicIdIgnored) {
        return Ok(());
    }
    Err(Halt::Damaged(format!(
        "`{}` was made anew under the same name: rows of both may be stored",
        fact.topic
    )))
}

/// Proves that a view can be built exactly from a topic of these settings; says whether it is compacted.
fn prove_settings(definition: &ViewDefinition, fact: &TopicFacts) -> Result<bool, Halt> {
    let compacts = compacts(definition, fact)?;
    prove_order_is_provable(definition, fact)?;
    Ok(compacts)
}

fn compacts(definition: &ViewDefinition, fact: &TopicFacts) -> Result<bool, Halt> {
    let topic = &fact.topic;
    let policy = match (fact.policy, definition.from.policy) {
        (Some(is), Some(said)) if is != said => {
            return Err(Halt::Failed(Failure::new(
                format!("`from.policy` is not the `cleanup.policy` of `{topic}`"),
                "leave `from.policy` out, or correct it",
            )));
        }
        (Some(policy), _) | (None, Some(policy)) => policy,
        (None, None) => {
            return Err(Halt::Failed(Failure::new(
                format!("the broker does not tell the `cleanup.policy` of `{topic}`"),
                "state it as `from.policy`",
            )));
        }
    };
    if policy.compacts() && definition.key.0 != RECORD_KEY {
        return Err(Halt::Failed(Failure::new(
            format!("`{topic}` is compacted and `key` is not `record.key`"),
            "write `key: record.key`: compaction keeps the last record of each record key",
        )));
    }
    Ok(policy.compacts())
}

/// Refuses a view whose order cannot be proved and is not given up either.
fn prove_order_is_provable(definition: &ViewDefinition, fact: &TopicFacts) -> Result<(), Halt> {
    let one_place = definition.from.topics.len() == 1
        && (fact.partitions == 1 || definition.key.0 == RECORD_KEY);
    match definition.from.order {
        Order::None => Ok(()),
        Order::Partition if one_place => Ok(()),
        Order::Partition => Err(Halt::Failed(Failure::new(
            "records of one key may stand in several partitions or topics, in no order",
            "write `key: record.key` and one topic, or give the order up by `from: {order: none}`",
        ))),
    }
}
