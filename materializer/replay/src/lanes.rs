//! What a unit reads: its topics, and where it stands in each of their partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::ports::Assignment;
use materializer_model::{
    Ahead, Bar, Checkpoint, Counts, End, LeaderEpoch, Monotonic, Offset, Partition, Position,
    Timestamp, Topic, TopicCheckpoint, TopicId, defect::is_planted,
};

use crate::defect::Defect;
use crate::eras::Eras;
use crate::lag::EndTrack;
use crate::partitioner::Fitting;

/// Returns a span in whole milliseconds.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One topic that is read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) topic: Topic,
    pub(crate) id: TopicId,
    /// How many partitions it had when, those of other shards included.
    pub(crate) eras: Eras,
    pub(crate) compacts: bool,
    /// How long after its cleaning a tombstone may be gone.
    pub(crate) tombstones: Option<Duration>,
    /// When the broker was asked for what stands above.
    pub(crate) asked: Monotonic,
    /// `None` where the order is not promised.
    pub(crate) fitting: Option<Fitting>,
}

/// What an end mark has passed over: an aborted record, a transaction's marker, a compacted one.
#[derive(Clone, Copy, Debug)]
struct Unseen {
    /// When the end mark was taken in.
    passed: Monotonic,
    /// The epoch that it is of at the earliest: epochs only rise along a log.
    earliest: LeaderEpoch,
}

/// Where a commit in parts ends whose last part did not come.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    next: Offset,
    epoch: Option<LeaderEpoch>,
    /// Whether the log was the one that was read up to there, under the leader that was last heard of.
    proved: bool,
}

/// Where a lane stands besides, while records of two eras are taken in apart.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Which growth ends the old era.
    growth: usize,
    /// Before its barrier is passed: the first record of the new era, which waits. After that, while these are
    /// read again: up to where the old era was taken in.
    other: Position,
}

/// One partition that is read.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// Which source it belongs to.
    pub(crate) source: usize,
    pub(crate) partition: Partition,
    /// The next offset to be taken in, as far as the unit's era goes.
    pub(crate) next: Offset,
    /// The leader epoch of what stands just before it, where that is known.
    pub(crate) epoch: Option<LeaderEpoch>,
    /// The epoch as the sink's checkpoint has it.
    pub(crate) epoch_stored: Option<LeaderEpoch>,
    /// What stands just before `next`, where that was not seen.
    unseen: Option<Unseen>,
    /// Up to where rows may be ahead of the checkpoint.
    unfinished: Option<Unfinished>,
    /// The epoch of the leader that was last heard of.
    leader: Option<LeaderEpoch>,
    split: Option<Split>,
    /// The next offset as the sink's checkpoint has it.
    pub(crate) committed: Offset,
    /// The same of the old era, where that is taken in further.
    pub(crate) ahead_stored: Option<Ahead>,
    /// Broker time of the newest sampled end that the committed position has reached.
    pub(crate) anchor: Timestamp,
    /// The shortest life of tombstones that held since then, where the topic's settings were others.
    pub(crate) shorter: Option<Duration>,
    pub(crate) ends: EndTrack,
    /// The time of the oldest record that is in the fold.
    pub(crate) oldest_folded: Option<Timestamp>,
    /// The time of the oldest record that is on its way to the sink.
    pub(crate) oldest_sent: Option<Timestamp>,
    /// The time of the last record that was read.
    pub(crate) newest: Option<Timestamp>,
}

impl Lane {
    /// Begins to read a partition at a position.
    pub(crate) fn new(source: usize, partition: Partition, at: Position) -> Self {
        Self {
            source,
            partition,
            next: at.next,
            epoch: at.epoch,
            epoch_stored: at.epoch,
            unseen: None,
            unfinished: None,
            leader: None,
            split: None,
            committed: at.next,
            ahead_stored: None,
            anchor: at.anchor,
            shorter: None,
            ends: EndTrack::default(),
            oldest_folded: None,
            oldest_sent: None,
            newest: None,
        }
    }

    /// Moves past a record.
    pub(crate) fn take(&mut self, at: Offset, epoch: Option<LeaderEpoch>, time: Option<Timestamp>) {
        self.next = at.next();
        self.epoch = epoch.or(self.epoch);
        self.unseen = None;
        self.oldest_folded = self.oldest_folded.or(time);
        self.newest = time.or(self.newest);
    }

    /// Takes up how far the old era is taken in, by a unit that has passed so many growths.
    fn resume(&mut self, passed: usize) {
        let Some(ahead) = self.ahead_stored else {
            return;
        };
        let growth = ahead.growth;
        let mut other = ahead.at;
        if growth >= passed {
            other = self.position();
            (self.next, self.epoch) = (ahead.at.next, ahead.at.epoch);
        }
        self.split = Some(Split { growth, other });
    }

    /// Keeps, before it is passed over, where the first record of the era after a growth stands.
    pub(crate) fn put_off(&mut self, growth: usize) {
        if self.split.is_none_or(|split| split.growth < growth) {
            let other = self.position();
            self.split = Some(Split { growth, other });
        }
    }

    /// Goes back to what waits for a growth whose barrier is passed.
    pub(crate) fn go_back(&mut self, growth: usize) {
        let here = self.position();
        if let Some(split) = self.split.as_mut().filter(|split| split.growth == growth) {
            (self.next, self.epoch) = (split.other.next, split.other.epoch);
            split.other = here;
            self.unseen = None;
        }
    }

    /// Returns up to where the old era was taken in, while a lane that has passed that many growths reads
    /// what was put off.
    pub(crate) fn again_until(&self, passed: usize) -> Option<Offset> {
        let split = self.split.filter(|split| split.growth < passed)?;
        Some(split.other.next).filter(|until| self.next < *until)
    }

    /// Says whether records wait for the barrier of a growth.
    pub(crate) fn is_put_off(&self, passed: usize) -> bool {
        self.split.is_some_and(|split| split.growth >= passed)
    }

    fn position(&self) -> Position {
        Position {
            next: self.next,
            epoch: self.epoch,
            anchor: self.anchor,
        }
    }

    /// Returns below which all is taken in, and where the old era is taken in further: up to where.
    pub(crate) fn stored(&self, passed: usize) -> (Position, Option<Ahead>) {
        let here = self.position();
        let Some(split) = &self.split else {
            return (here, None);
        };
        let (position, at) = if split.growth < passed {
            (here, split.other)
        } else {
            (split.other, here)
        };
        let growth = split.growth;
        let is_ahead = at.next > position.next;
        (position, is_ahead.then_some(Ahead { growth, at }))
    }

    /// Moves to an end over what is not visible. The epoch of what stands just before it is not known:
    /// that of an earlier record would make the broker say that the log was truncated.
    pub(crate) fn reach(&mut self, end: Offset, now: Monotonic) {
        if end > self.next {
            let known = self.epoch.or(self.unseen.map(|unseen| unseen.earliest));
            self.unseen = Some(Unseen {
                passed: now,
                earliest: known.unwrap_or(LeaderEpoch(0)),
            });
            self.next = end;
            self.epoch = None;
        }
    }

    /// Takes in what the observer says. Where a leader that was asked after an end mark holds what
    /// stands before it, and is of the earliest epoch that this can be of, it is of that one.
    pub(crate) fn observe(&mut self, end: &End) {
        self.ends.observe(end);
        if end.epoch != self.leader {
            self.leader = end.epoch;
            if let Some(unfinished) = &mut self.unfinished {
                unfinished.proved = false;
            }
        }
        if let Some(unseen) = self.unseen
            && end.asked >= unseen.passed
            && end.stable >= self.next
            && end.epoch == Some(unseen.earliest)
        {
            self.epoch = end.epoch;
            self.unseen = None;
        }
    }

    /// Notes that rows may be ahead of the checkpoint up to a position.
    pub(crate) fn is_ahead_to(&mut self, at: &Position) {
        self.unfinished = (at.next > self.next).then_some(Unfinished {
            next: at.next,
            epoch: at.epoch,
            proved: false,
        });
    }

    /// Returns up to where rows may be ahead of the checkpoint, if it has to be proved that the log still is
    /// the one that was read up to there: once under each leader, and before what was read of it since is
    /// committed.
    pub(crate) fn unproved(&self) -> Option<(Offset, Option<LeaderEpoch>)> {
        let end = self.unfinished.as_ref()?;
        (!end.proved || self.next >= end.next).then_some((end.next, end.epoch))
    }

    /// Takes in that this is so.
    pub(crate) fn prove(&mut self) {
        self.unfinished.take_if(|end| self.next >= end.next);
        if let Some(end) = &mut self.unfinished {
            end.proved = true;
        }
    }

    /// Brings the anchor up to the newest end that the committed position has reached.
    pub(crate) fn settle(&mut self, now: Monotonic, broker: Option<Timestamp>) {
        self.ends.pass(self.committed);
        let anchor = self.anchor_at(self.committed, now, broker);
        if anchor > self.anchor {
            self.shorter = None;
        }
        self.anchor = anchor;
    }

    fn anchor_at(&self, next: Offset, now: Monotonic, broker: Option<Timestamp>) -> Timestamp {
        let reached = self.ends.reached(next).zip(broker);
        let seen = reached.map(|(at, broker)| broker.minus(now.since(at)));
        seen.map_or(self.anchor, |seen| seen.max(self.anchor))
    }

    /// Returns for how long from the anchor on every tombstone is still in the log; `None` where none is
    /// removed, or nobody knows.
    pub(crate) fn tombstones(&self, source: &Source) -> Option<Duration> {
        let shortest = source.tombstones.into_iter().chain(self.shorter).min();
        shortest.filter(|_| source.compacts)
    }

    /// Returns the time from which the lag of what is read and not committed is estimated.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.oldest_sent.or(self.oldest_folded).or(self.newest)
    }
}

/// All that a unit reads.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    pub(crate) sources: Vec<Source>,
    /// In order of topic and partition.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) bar: Bar,
    /// The lane of the last row: the next one is most often of the same.
    last: usize,
}

impl Lanes {
    pub(crate) fn new(sources: Vec<Source>, lanes: Vec<Lane>, bar: Bar) -> Self {
        Self {
            sources,
            lanes,
            bar,
            last: 0,
        }
    }

    /// Returns the lane of a partition, if it is read.
    pub(crate) fn find(&mut self, topic: &Topic, partition: Partition) -> Option<usize> {
        let is =
            |lane: &Lane| lane.partition == partition && self.sources[lane.source].topic == *topic;
        if !self.lanes.get(self.last).is_some_and(is) {
            self.last = self.lanes.iter().position(is)?;
        }
        Some(self.last)
    }

    /// Returns where a reader goes on: in all lanes but those that wait at a barrier.
    pub(crate) fn assignments(&self) -> Vec<Assignment> {
        let lanes = (0..).zip(&self.lanes);
        lanes
            .filter(|(at, lane)| self.bound(*at).is_none_or(|bound| lane.next < bound))
            .map(|(_, lane)| Assignment {
                topic: self.sources[lane.source].topic.clone(),
                partition: lane.partition,
                next: lane.next,
                epoch: lane.epoch.filter(|_| !is_planted(Defect::CutIgnored)),
            })
            .collect()
    }

    /// Says whether rows may be ahead of the checkpoint: a commit in parts was begun and is not passed yet.
    pub(crate) fn are_ahead(&self) -> bool {
        self.lanes.iter().any(|lane| lane.unfinished.is_some())
    }

    /// Returns up to where a lane is read in the unit's era; `None` where no end of it is recorded. What was
    /// added by the growth that ends it is not read at all.
    pub(crate) fn bound(&self, at: usize) -> Option<Offset> {
        let lane = &self.lanes[at];
        let eras = &self.sources[lane.source].eras;
        let barrier = eras
            .barrier()
            .filter(|_| !is_planted(Defect::ErasIgnored))?;
        let end = barrier.get(&lane.partition).copied().unwrap_or_default();
        Some(end.max(lane.again_until(eras.passed()).unwrap_or_default()))
    }

    /// Takes up the eras of lanes that a checkpoint has told of.
    pub(crate) fn resume_eras(&mut self) {
        let reach = |lane: &Lane| {
            let ahead = lane.ahead_stored.map(|ahead| ahead.at.next);
            ahead.map_or(lane.next, |ahead| ahead.max(lane.next))
        };
        for (of, source) in self.sources.iter_mut().enumerate() {
            let mut lanes: Vec<&mut Lane> = self.lanes.iter_mut().collect();
            lanes.retain(|lane| lane.source == of);
            let is_past = |ends: &BTreeMap<Partition, Offset>| {
                lanes.iter().all(|lane| {
                    let end = ends.get(&lane.partition);
                    end.is_none_or(|end| reach(lane) >= *end)
                })
            };
            while source.eras.barrier().is_some_and(is_past) {
                source.eras.pass();
            }
            for lane in lanes {
                lane.resume(source.eras.passed());
            }
        }
    }

    /// Moves a lane to an end over what is not visible, up to its barrier.
    pub(crate) fn reach(&mut self, at: usize, end: Offset, now: Monotonic) {
        let bound = self.bound(at);
        self.lanes[at].reach(bound.map_or(end, |bound| end.min(bound)), now);
    }

    /// Begins the next era of each topic where every lane stands at its barrier; says whether one began.
    pub(crate) fn pass_barriers(&mut self) -> bool {
        let mut passed = false;
        for of in 0..self.sources.len() {
            while self.sources[of].eras.barrier().is_some() {
                let mut lanes = (0..self.lanes.len()).filter(|at| self.lanes[*at].source == of);
                if !lanes.all(|at| self.bound(at).is_some_and(|end| self.lanes[at].next >= end)) {
                    break;
                }
                let eras = &mut self.sources[of].eras;
                let growth = eras.passed();
                eras.pass();
                for lane in self.lanes.iter_mut().filter(|lane| lane.source == of) {
                    lane.go_back(growth);
                }
                passed = true;
            }
        }
        passed
    }

    /// Returns below which all of a lane is taken in, and up to where its old era is where that is further.
    pub(crate) fn stored(&self, lane: &Lane) -> (Position, Option<Ahead>) {
        lane.stored(self.sources[lane.source].eras.passed())
    }

    /// Takes in where a checkpoint that is in the sink has a lane.
    pub(crate) fn committed(&mut self, at: usize, checkpoint: &Checkpoint) -> bool {
        let lane = &mut self.lanes[at];
        let topic = &self.sources[lane.source].topic;
        let ahead = checkpoint.ahead(topic, lane.partition).copied();
        let Some(position) = checkpoint.position(topic, lane.partition) else {
            return false;
        };
        let moved = position.next != lane.committed || ahead != lane.ahead_stored;
        lane.committed = position.next;
        lane.epoch_stored = position.epoch;
        lane.ahead_stored = ahead;
        lane.oldest_sent = None;
        moved
    }

    /// Says whether more was taken in than is committed.
    pub(crate) fn moved(&self) -> bool {
        let moved = |lane: &Lane| {
            let (position, ahead) = self.stored(lane);
            let end = |ahead: Option<Ahead>| ahead.map(|ahead| ahead.at.next);
            position.next != lane.committed || end(ahead) != end(lane.ahead_stored)
        };
        self.lanes.iter().any(moved)
    }

    /// Says whether everything up to a checkpoint was taken in.
    pub(crate) fn covers(&self, checkpoint: &Checkpoint) -> bool {
        self.lanes.iter().all(|lane| {
            let topic = &self.sources[lane.source].topic;
            let (position, ahead) = self.stored(lane);
            let reach = ahead.map_or(position.next, |ahead| ahead.at.next);
            let has = checkpoint.position(topic, lane.partition);
            let had = checkpoint.ahead(topic, lane.partition);
            has.is_none_or(|had| position.next >= had.next)
                && had.is_none_or(|had| reach >= had.at.next)
        })
    }

    /// Says whether an epoch became known that is not stored: a resume tells a truncation by it.
    pub(crate) fn have_new_epochs(&self) -> bool {
        let is_new = |lane: &Lane| {
            let (position, _) = self.stored(lane);
            position.epoch.is_some() && position.epoch != lane.epoch_stored
        };
        self.lanes.iter().any(is_new)
    }

    /// Returns the checkpoint of all that was taken in.
    pub(crate) fn checkpoint(
        &self,
        seq: u64,
        counts: Counts,
        now: Monotonic,
        broker: Option<Timestamp>,
    ) -> Checkpoint {
        // A unit may have no partition of a topic, where there are more shards than partitions: it still
        // proves at a resume that the topic is the same.
        let none = |source: &Source| TopicCheckpoint {
            partitioners: source.fitting.map(Fitting::left).unwrap_or_default(),
            growths: source.eras.growths(),
            ..TopicCheckpoint::new(source.id.clone(), BTreeMap::new())
        };
        let sources = self.sources.iter();
        let mut topics: BTreeMap<Topic, TopicCheckpoint> = sources
            .map(|source| (source.topic.clone(), none(source)))
            .collect();
        for lane in &self.lanes {
            let (position, ahead) = self.stored(lane);
            let at = Position {
                anchor: lane.anchor_at(position.next, now, broker),
                ..position
            };
            let source = &self.sources[lane.source];
            let topic = topics
                .get_mut(&source.topic)
                .expect("a lane reads one of the sources");
            let kept = lane.tombstones(source).map(millis);
            topic.tombstones_ms = topic.tombstones_ms.into_iter().chain(kept).min();
            topic.partitions.insert(lane.partition, at);
            topic
                .ahead
                .extend(ahead.map(|ahead| (lane.partition, ahead)));
        }
        Checkpoint {
            seq,
            topics,
            bar: self.bar.clone(),
            counts,
        }
    }
}
