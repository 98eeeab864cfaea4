//! What a unit reads: its topics, and where it stands in each of their partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::ports::Assignment;
use materializer_model::{
    Bar, Checkpoint, Counts, End, LeaderEpoch, Monotonic, Offset, Partition, Position, Timestamp,
    Topic, TopicCheckpoint, TopicId, defect::is_planted,
};

use crate::defect::Defect;
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
    /// How many partitions it has, those of other shards included.
    pub(crate) partitions: i32,
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

/// One partition that is read.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// Which source it belongs to.
    pub(crate) source: usize,
    pub(crate) partition: Partition,
    /// The next offset to be taken in.
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
    /// The next offset as the sink's checkpoint has it.
    pub(crate) committed: Offset,
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
            committed: at.next,
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
        self.ends.sample(end, now);
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

    /// Returns where a reader goes on.
    pub(crate) fn assignments(&self) -> Vec<Assignment> {
        self.lanes
            .iter()
            .map(|lane| Assignment {
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

    /// Says whether more was taken in than is committed.
    pub(crate) fn moved(&self) -> bool {
        self.lanes.iter().any(|lane| lane.next != lane.committed)
    }

    /// Says whether everything up to a checkpoint was taken in.
    pub(crate) fn covers(&self, checkpoint: &Checkpoint) -> bool {
        self.lanes.iter().all(|lane| {
            let topic = &self.sources[lane.source].topic;
            checkpoint
                .position(topic, lane.partition)
                .is_none_or(|at| lane.next >= at.next)
        })
    }

    /// Says whether an epoch became known that is not stored: a resume tells a truncation by it.
    pub(crate) fn have_new_epochs(&self) -> bool {
        let is_new = |lane: &Lane| lane.epoch.is_some() && lane.epoch != lane.epoch_stored;
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
            id: source.id.clone(),
            partitioners: source.fitting.iter().flat_map(Fitting::left).collect(),
            tombstones_ms: None,
            partitions: BTreeMap::new(),
        };
        let sources = self.sources.iter();
        let mut topics: BTreeMap<Topic, TopicCheckpoint> = sources
            .map(|source| (source.topic.clone(), none(source)))
            .collect();
        for lane in &self.lanes {
            let at = Position {
                next: lane.next,
                epoch: lane.epoch,
                anchor: lane.anchor_at(lane.next, now, broker),
            };
            let source = &self.sources[lane.source];
            let topic = topics
                .get_mut(&source.topic)
                .expect("a lane reads one of the sources");
            let kept = lane.tombstones(source).map(millis);
            topic.tombstones_ms = topic.tombstones_ms.into_iter().chain(kept).min();
            topic.partitions.insert(lane.partition, at);
        }
        Checkpoint {
            seq,
            topics,
            bar: self.bar.clone(),
            counts,
        }
    }
}
