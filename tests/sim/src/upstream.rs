//! The topic of one seed and who writes it: producers, transactions, the broker's cleaner; and the oracle,
//! which is told of every record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use materializer_model::memory::{
    ManualClock, MemoryLog, MemoryRecord, TopicSettings, Transaction,
};
use materializer_model::ports::LogObserver;
use materializer_model::{
    Checkpoint, End, LeaderEpoch, Offset, Origin, Partition, Timestamp, Topic, TopicId, Unit,
};

use crate::chaos::Shared;
use crate::oracle::{Expected, Oracle, Value};
use crate::servers::{GROWTH_SETTLES, Servers, Stored};

const KEYS: u64 = 10;
/// The most that a leader lacks which is elected uncleanly.
const CUT_MAX: u64 = 20;

/// A partition whose end was lost.
struct Cut {
    partition: Partition,
    to: Offset,
    /// Under which what stands there now was written.
    epoch: LeaderEpoch,
    /// Where it ended.
    high: Offset,
}

/// How the topic got more partitions.
struct Growth {
    from: i32,
    at: Timestamp,
    /// The keys whose producers know of them.
    known: BTreeSet<u64>,
}

/// A topic and all that was ever written to it.
pub(crate) struct Upstream {
    pub(crate) log: MemoryLog,
    pub(crate) topic: Topic,
    pub(crate) partitions: i32,
    pub(crate) compacted: bool,
    /// How many units share the partitions.
    pub(crate) shards: u16,
    pub(crate) oracle: Oracle,
    clock: ManualClock,
    shared: Shared,
    open: Option<(u64, Transaction)>,
    transactions: u64,
    /// Where the last transactions ended in each partition.
    markers: BTreeMap<Partition, Offset>,
    /// Up to where each partition was compacted, which a leader that is elected has, too.
    clean: BTreeMap<Partition, Offset>,
    cut: Option<Cut>,
    growth: Option<Growth>,
}

/// The CRC-32 of a key, bit by bit: the producers here are librdkafka's.
fn crc32(key: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    !key.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

impl Upstream {
    pub(crate) fn new(shared: &Shared, servers: &Servers) -> Self {
        let partitions = 1 + i32::try_from(shared.below(3)).expect("small");
        let compacted = shared.chance(500);
        let shards = if shared.chance(300) { 2 } else { 1 };
        let topic = Topic::new("t");
        let log = servers.log.clone();
        let settings = if compacted {
            TopicSettings::compacted(partitions)
        } else {
            TopicSettings::kept(partitions)
        };
        log.create(&topic, settings);
        Self {
            log,
            topic,
            partitions,
            compacted,
            shards,
            oracle: Oracle::new(compacted),
            clock: servers.clock.clone(),
            shared: shared.clone(),
            open: None,
            transactions: 0,
            markers: BTreeMap::new(),
            clean: BTreeMap::new(),
            cut: None,
            growth: None,
        }
    }

    /// Writes a record, in a transaction or not.
    pub(crate) fn produce(&mut self) {
        let number = self.shared.below(KEYS);
        let key = format!("k{number}");
        let (partition, moved) = self.place(number, &key);
        let n = self.shared.below(1_000);
        let (value, bytes) = match self.shared.below(10) {
            0 | 1 => (Value::Tombstone, None),
            2 => (Value::Excluded, Some(format!("-{n}"))),
            3 => (Value::Poison, Some(format!("!{n}"))),
            _ => (Value::Row(format!("row {n}")), Some(format!("row {n}"))),
        };
        let record = MemoryRecord::text(&key, bytes.as_deref()).at(self.clock.now());
        let pick = self.shared.below(4);
        let transaction = self.open.filter(|_| pick == 0);
        let offset = match transaction {
            Some((_, transaction)) => {
                self.log
                    .produce_in(transaction, &self.topic, partition, record)
            }
            None => self.log.produce(&self.topic, partition, record),
        };
        let number = transaction.map(|(number, _)| number);
        self.shared.note(format!(
            "produce {partition}/{offset} {key} {value:?} {number:?}"
        ));
        let at = (partition.0, offset.0);
        self.oracle.wrote(at, &key, value, number, moved);
    }

    /// Returns where the producer of a key writes it, and whether it moved there.
    fn place(&mut self, number: u64, key: &str) -> (Partition, bool) {
        let place = |count: i32| {
            let count = u32::try_from(count).expect("positive");
            Partition(i32::try_from(crc32(key.as_bytes()) % count).expect("small"))
        };
        let new = place(self.partitions);
        let learns = self.growth.is_some() && self.shared.chance(200);
        let Some(growth) = &mut self.growth else {
            return (new, false);
        };
        // All of them know when half of the time is over that they are given.
        if learns || self.clock.now() >= growth.at.plus(GROWTH_SETTLES / 2) {
            growth.known.insert(number);
        }
        let old = place(growth.from);
        if growth.known.contains(&number) {
            (new, new != old)
        } else {
            (old, false)
        }
    }

    pub(crate) fn begin(&mut self) {
        if self.open.is_none() {
            self.transactions += 1;
            self.open = Some((self.transactions, self.log.begin()));
        }
    }

    pub(crate) fn end_transaction(&mut self) {
        let commit = self.shared.below(2) == 0;
        if let Some((number, transaction)) = self.open.take() {
            self.shared
                .note(format!("end transaction {number}, commit {commit}"));
            let before = self.ends();
            if commit {
                self.log.commit(transaction);
            } else {
                self.log.abort(transaction);
            }
            for (before, (partition, after)) in before.values().zip(self.ends()) {
                if before.high < after.high {
                    self.markers.insert(partition, before.high);
                }
            }
            self.oracle.ended(number, commit);
        }
    }

    fn some_partition(&self) -> Partition {
        let count = u64::try_from(self.partitions).expect("positive");
        Partition(i32::try_from(self.shared.below(count)).expect("small"))
    }

    pub(crate) fn compact(&mut self) {
        let partition = self.some_partition();
        let below = Offset(self.shared.below(200));
        if self.compacted {
            self.shared
                .note(format!("compact {partition} below {below}"));
            self.log.compact(&self.topic, partition, below, false);
            let end = self.ends()[&partition].stable;
            let clean = self.clean.entry(partition).or_default();
            *clean = below.min(end).max(*clean);
        }
    }

    pub(crate) fn elect(&mut self) {
        let partition = self.some_partition();
        self.log.elect(&self.topic, partition);
    }

    /// Raises the start of every partition that has records.
    pub(crate) fn lose_genesis(&mut self) {
        self.shared.note("the log's start is raised".into());
        for partition in (0..self.partitions).map(Partition) {
            self.log.raise_start(&self.topic, partition, Offset(1));
        }
    }

    /// Raises the start of one partition: what stood below may not have been read.
    pub(crate) fn expire(&mut self) {
        let partition = self.some_partition();
        let to = Offset(self.shared.below(150));
        self.shared.note(format!("{partition} expires below {to}"));
        self.log.raise_start(&self.topic, partition, to);
    }

    /// Adds partitions, of which the producers learn one after the other.
    pub(crate) fn grow(&mut self) {
        let from = self.partitions;
        self.partitions += 1 + i32::try_from(self.shared.below(3)).expect("small");
        self.shared
            .note(format!("{from} partitions become {}", self.partitions));
        self.log.grow(&self.topic, self.partitions);
        self.growth = Some(Growth {
            from,
            at: self.clock.now(),
            known: BTreeSet::new(),
        });
    }

    /// Says whether a key may have moved from one unit to another.
    pub(crate) fn mixes_shards(&self) -> bool {
        let shards = i32::from(self.shards);
        self.growth
            .as_ref()
            .is_some_and(|growth| growth.from % shards != 0 || self.partitions % shards != 0)
    }

    /// Says whether these were the ends at some time, of which `before` are some; what was added began empty.
    pub(crate) fn was_the_end(&self, bar: &[u64], before: &BTreeSet<Vec<u64>>) -> bool {
        let from = self.growth.as_ref().map(|growth| growth.from);
        let from = from.and_then(|from| usize::try_from(from).ok());
        let split = from.and_then(|from| bar.split_at_checked(from));
        let began = split
            .is_some_and(|(old, added)| added.iter().all(|end| *end == 0) && before.contains(old));
        began || before.contains(bar)
    }

    /// Compacts everything, tombstones included.
    pub(crate) fn drop_tombstones(&mut self) {
        for partition in (0..self.partitions).map(Partition) {
            self.log
                .compact(&self.topic, partition, Offset(u64::MAX), true);
        }
    }

    /// Elects a leader of one partition that lacks its end: anything, or from a transaction's marker on, or
    /// from a record on by which the rows of a unit are ahead. Its producers go on.
    pub(crate) fn cut(&mut self, stored: &Stored) {
        let partition = self.some_partition();
        let high = self.ends()[&partition].high;
        let back = self.shared.below(CUT_MAX.min(high.0) + 1);
        let next = |at: &Checkpoint| at.position(&self.topic, partition).map(|at| at.next);
        let ahead = stored.unfinished.as_ref().and_then(next);
        let ahead = ahead.zip(stored.checkpoint.as_ref().and_then(next));
        let to = match (self.markers.get(&partition), ahead) {
            (_, Some((until, from))) if until > from && self.shared.chance(500) => {
                Offset(from.0 + self.shared.below(until.0 - from.0))
            }
            (Some(marker), _) if self.shared.chance(500) => *marker,
            (Some(_) | None, _) => Offset(high.0 - back),
        };
        let to = self
            .clean
            .get(&partition)
            .map_or(to, |clean| to.max(*clean));
        self.shared
            .note(format!("{partition} is cut back from {high} to {to}"));
        self.log.truncate(&self.topic, partition, to);
        self.oracle.cut(partition.0, to.0);
        let epoch = self.ends()[&partition].epoch.expect("it has a leader");
        self.cut = Some(Cut {
            partition,
            to,
            epoch,
            high,
        });
        for _ in 0..self.shared.below(150) {
            self.produce();
        }
    }

    /// Writes until a partition that was cut back is as long as it was.
    pub(crate) fn grow_back(&mut self) {
        while let Some(cut) = &self.cut
            && self.ends()[&cut.partition].stable < cut.high
        {
            self.produce();
        }
    }

    /// Says whether a checkpoint is past a record that was lost. `None` where nobody can tell: what stood
    /// just before it was a marker, and under which leader it was written is not known.
    pub(crate) fn reads_lost(&self, checkpoint: &Checkpoint) -> Option<bool> {
        let cut = self.cut.as_ref();
        let at = cut.and_then(|cut| {
            let at = checkpoint.position(&self.topic, cut.partition)?;
            (at.next > cut.to).then_some((at.epoch, cut.epoch))
        });
        let Some((read, written)) = at else {
            return Some(false);
        };
        Some(read? < written)
    }

    /// Says whether rows may be ahead of a checkpoint by a record that was lost; `None` as above.
    pub(crate) fn parts_are_lost(&self, stored: &Stored) -> Option<bool> {
        let (Some(cut), Some(until)) = (&self.cut, &stored.unfinished) else {
            return Some(false);
        };
        let next = |at: &Checkpoint| at.position(&self.topic, cut.partition).map(|at| at.next);
        if next(until) <= stored.checkpoint.as_ref().and_then(next) {
            return Some(false);
        }
        self.reads_lost(until)
    }

    /// Says whether a marker was cut away just past which something is stored, and the leader of which is not
    /// known: a known gap, after which nothing is promised.
    pub(crate) fn nobody_can_tell(&self, stored: &Stored) -> bool {
        let checkpoint = stored.checkpoint.as_ref();
        checkpoint.is_some_and(|at| self.reads_lost(at).is_none())
            || self.parts_are_lost(stored).is_none()
    }

    /// Says whether a checkpoint is of a topic that was there under the same name before: of such a unit it
    /// counts that it says so.
    pub(crate) fn is_of_another(&self, checkpoint: &Checkpoint) -> bool {
        let facts = self.log.facts_of(&self.topic).expect("it is there");
        checkpoint
            .topics
            .get(&self.topic)
            .is_some_and(|at| at.id != facts.id)
    }

    /// Notes that a record is to be passed over, if it is one of the topic that is there.
    pub(crate) fn skipped(&mut self, at: &Origin, topic_id: Option<&TopicId>) {
        let facts = self.log.facts_of(&self.topic).expect("it is there");
        if topic_id == Some(&facts.id) {
            self.oracle.skipped(at.partition.0, at.offset.0);
        }
    }

    /// Makes the topic anew, with as many partitions and other records, more or fewer.
    pub(crate) fn recreate(&mut self) {
        self.shared.note("the topic is made anew".into());
        let settings = TopicSettings::kept(self.partitions);
        self.log.create(&self.topic, settings);
        self.oracle = Oracle::new(false);
        self.compacted = false;
        self.open = None;
        self.markers.clear();
        for _ in 0..self.shared.below(300) {
            self.produce();
        }
    }

    fn ends(&self) -> BTreeMap<Partition, End> {
        let observer = self.log.observer(Arc::new(self.clock.clone()));
        let ends = observer.ends();
        let end = |p| Some((Partition(p), *ends.get(&self.topic, Partition(p))?));
        (0..self.partitions).filter_map(end).collect()
    }

    /// Returns the stable end of each partition.
    pub(crate) fn stable_ends(&self) -> Vec<u64> {
        self.ends().values().map(|end| end.stable.0).collect()
    }

    /// Says whether a checkpoint of a unit is at the stable end of each partition that it has to read.
    pub(crate) fn is_at_end(&self, unit: &Unit, checkpoint: &Checkpoint) -> bool {
        let mut ends: BTreeMap<i32, u64> = (0..).zip(self.stable_ends()).collect();
        ends.retain(|partition, _| partition % i32::from(self.shards) == i32::from(unit.shard));
        self.positions(checkpoint) == ends
    }

    /// Returns the position of a checkpoint in each partition.
    pub(crate) fn positions(&self, checkpoint: &Checkpoint) -> BTreeMap<i32, u64> {
        let at = |p| Some((p, checkpoint.position(&self.topic, Partition(p))?.next.0));
        (0..self.partitions).filter_map(at).collect()
    }

    /// Returns up to where a checkpoint has what did not move to each partition.
    fn unmoved(&self, checkpoint: &Checkpoint) -> BTreeMap<i32, u64> {
        let at = |p| Some((p, checkpoint.reach(&self.topic, Partition(p))?.0));
        (0..self.partitions).filter_map(at).collect()
    }

    /// Compares what a unit stores with the fold of all that was written below its checkpoint, and returns
    /// that. Every row begins with `edition`. Where parts of a commit were written and the last was not,
    /// rows may be ahead, each as a record makes it that is below the end of that commit.
    ///
    /// # Errors
    /// Says which key differs.
    pub(crate) fn compare(&self, stored: &Stored, edition: &str) -> Result<Expected, String> {
        let until = stored.unfinished.as_ref().map(|at| self.unmoved(at));
        let next = match (&stored.checkpoint, &until) {
            (Some(checkpoint), _) => self.positions(checkpoint),
            (None, Some(until)) => until.keys().map(|partition| (*partition, 0)).collect(),
            (None, None) => BTreeMap::new(),
        };
        let is_ahead = |key: &str, is: Option<&str>| {
            let row = is.map(|row| row.strip_prefix(edition).unwrap_or_default());
            until
                .as_ref()
                .is_some_and(|until| self.oracle.makes(key, row, &next, until))
        };
        let compare = |expected: &Expected| -> Result<(), String> {
            for key in expected.rows.keys().chain(stored.rows.keys()) {
                let should = expected.rows.get(key);
                let should = should.map(|row| format!("{edition}{row}"));
                let is = stored.rows.get(key);
                let differs = should.as_ref() != is && !expected.unsure.contains(key);
                if differs && !is_ahead(key, is.map(String::as_str)) {
                    return Err(format!(
                        "at {next:?} `{key}` is {is:?} and should be {should:?}"
                    ));
                }
            }
            Ok(())
        };
        let checkpoint = stored.checkpoint.as_ref();
        let of_lost = checkpoint
            .filter(|at| self.reads_lost(at) == Some(true))
            .and_then(|_| self.oracle.before_cut(&next));
        let unmoved = checkpoint.map_or_else(BTreeMap::new, |at| self.unmoved(at));
        let expected = of_lost.unwrap_or_else(|| self.oracle.at(&next, &unmoved));
        compare(&expected).map(|()| expected)
    }
}
