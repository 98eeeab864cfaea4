//! The topic of one seed and who writes it: producers, transactions, the broker's cleaner; and the oracle,
//! which is told of every record.

use std::collections::BTreeMap;
use std::sync::Arc;

use materializer_model::memory::{
    ManualClock, MemoryLog, MemoryRecord, TopicSettings, Transaction,
};
use materializer_model::ports::LogObserver;
use materializer_model::{Checkpoint, Offset, Partition, Topic};

use crate::chaos::Shared;
use crate::oracle::{Oracle, Value};
use crate::servers::Servers;

const KEYS: u64 = 10;

/// A topic and all that was ever written to it.
pub(crate) struct Upstream {
    pub(crate) log: MemoryLog,
    pub(crate) topic: Topic,
    pub(crate) partitions: i32,
    pub(crate) compacted: bool,
    pub(crate) oracle: Oracle,
    clock: ManualClock,
    shared: Shared,
    open: Option<(u64, Transaction)>,
    transactions: u64,
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
            oracle: Oracle::new(compacted),
            clock: servers.clock.clone(),
            shared: shared.clone(),
            open: None,
            transactions: 0,
        }
    }

    /// Writes a record, in a transaction or not.
    pub(crate) fn produce(&mut self) {
        let key = format!("k{}", self.shared.below(KEYS));
        let count = u32::try_from(self.partitions).expect("positive");
        let partition = Partition(i32::try_from(crc32(key.as_bytes()) % count).expect("small"));
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
        self.oracle
            .wrote(partition.0, offset.0, &key, value, number);
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
            if commit {
                self.log.commit(transaction);
            } else {
                self.log.abort(transaction);
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

    /// Adds a partition, which no producer of ours writes to.
    pub(crate) fn grow(&mut self) {
        self.shared.note("the topic grows".into());
        self.log.grow(&self.topic, self.partitions + 1);
    }

    /// Compacts everything, tombstones included.
    pub(crate) fn drop_tombstones(&mut self) {
        for partition in (0..self.partitions).map(Partition) {
            self.log
                .compact(&self.topic, partition, Offset(u64::MAX), true);
        }
    }

    /// Makes the topic anew, with as many partitions and other records.
    pub(crate) fn recreate(&mut self) {
        self.shared.note("the topic is made anew".into());
        let settings = TopicSettings::kept(self.partitions);
        self.log.create(&self.topic, settings);
        self.oracle = Oracle::new(false);
        self.open = None;
        for _ in 0..200 {
            self.produce();
        }
    }

    /// Returns the stable end of each partition.
    pub(crate) fn stable_ends(&self) -> Vec<u64> {
        let observer = self.log.observer(Arc::new(self.clock.clone()));
        let ends = observer.ends();
        let stable = |p| {
            ends.get(&self.topic, Partition(p))
                .expect("it exists")
                .stable
                .0
        };
        (0..self.partitions).map(stable).collect()
    }

    /// Returns the position of a checkpoint in each partition.
    pub(crate) fn positions(&self, checkpoint: &Checkpoint) -> BTreeMap<i32, u64> {
        let at = |p| Some((p, checkpoint.position(&self.topic, Partition(p))?.next.0));
        (0..self.partitions).filter_map(at).collect()
    }

    /// Compares what a unit stores at a checkpoint with the fold of all that was written below it.
    /// A row is stored as `row` makes it of a record's value.
    ///
    /// # Errors
    /// Says which key differs.
    pub(crate) fn compare(
        &self,
        checkpoint: &Checkpoint,
        rows: &BTreeMap<String, String>,
        row: impl Fn(&str) -> String,
    ) -> Result<(), String> {
        let next = self.positions(checkpoint);
        let expected = self.oracle.at(&next);
        for key in expected.rows.keys().chain(rows.keys()) {
            let should = expected.rows.get(key).map(|value| row(value));
            let is = rows.get(key);
            if should.as_ref() != is && !expected.unsure.contains(key) {
                return Err(format!(
                    "at {next:?} `{key}` is {is:?} and should be {should:?}"
                ));
            }
        }
        Ok(())
    }
}
