//! What scenes have in common: a log that grows, two views of it that are live, readers of them, and the
//! comparison at the end.

pub mod index;
pub mod repair;
mod views;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::installation::{Installation, unique, wait_until};
use crate::kafka::{Kafka, Way};
use crate::oracle::{Oracle, Producer};
use crate::readers::{Readers, Seen};
use crate::redis::{Persistence, Redis};

pub use views::{V1, V2};
pub use watch::version_of;

/// How many products the log is about.
const KEYS: u32 = 2_000;
/// Events that are in the log before anything is started.
const EVENTS: u64 = 20_000;
/// Events a second while everything goes on.
const RATE: u32 = 300;

/// How the servers of a scene are.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How many brokers.
    pub brokers: usize,
    /// Further properties of each broker, one a line.
    pub broker_properties: String,
    /// By which way the program reaches the brokers.
    pub way: Way,
    /// Arguments of `oracle.py create`, as `--config` and `NAME=VALUE`.
    pub topic: Vec<&'static str>,
    pub persistence: Persistence,
    /// Further lines of `materializer.yaml`, after `kafka.brokers`.
    pub settings: String,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            brokers: 1,
            broker_properties: String::new(),
            way: Way::Directly,
            topic: Vec::new(),
            persistence: Persistence::Aof,
            settings: String::new(),
        }
    }
}

/// Servers, an installation on them, and what goes on.
pub struct Stage {
    // Dropped in this order: who reads and writes before the program, the program before its servers.
    readers: Option<Readers>,
    producer: Option<Producer>,
    pub installation: Installation,
    pub oracle: Oracle,
    pub redis: Redis,
    pub kafka: Kafka,
    pub folder: PathBuf,
    /// Events that the oracle's producer has written, as far as it has ended.
    pub events: u64,
    /// Answers that readers got, once they have ended.
    pub reads: u64,
    seed: u64,
    /// What the scene measured, by what it is.
    pub measured: Vec<(String, Duration)>,
}

impl Stage {
    /// Starts servers, with a log and without the program.
    ///
    /// # Panics
    /// Where something does not start.
    #[must_use]
    pub fn set(name: &str, setting: &Setting) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/chaos");
        let folder = folder.join(unique(name));
        fs::create_dir_all(&folder).expect("a folder");
        let folder = folder.canonicalize().expect("the folder just made");
        let redis = Redis::start(&folder, setting.persistence);
        let kafka = Kafka::cluster(&folder, setting.brokers, &setting.broker_properties);
        let brokers = kafka.addresses(setting.way);
        let installation = Installation::new(&brokers, &redis.url(), name, &setting.settings);
        let mut oracle = Oracle::new(&kafka.brokers(), &redis.url(), &installation);
        oracle.compacted = setting.topic.contains(&"cleanup.policy=compact");
        oracle.create(&setting.topic);
        let events = oracle.produce(EVENTS, KEYS, 1, 0, None).finish();
        Self {
            readers: None,
            producer: None,
            installation,
            oracle,
            redis,
            kafka,
            folder,
            events,
            reads: 0,
            seed: 1,
            measured: Vec::new(),
        }
    }

    /// Starts servers and the program; both views are live, readers read, and writes go on.
    #[must_use]
    pub fn begin(name: &str, setting: &Setting) -> Self {
        let mut stage = Self::set(name, setting);
        stage.go_on();
        stage
    }

    /// Starts the program; when it returns both views are live, readers read, and writes go on.
    pub fn go_on(&mut self) {
        self.installation.run.start_ready();
        self.apply_first();
        self.write();
        self.read();
    }

    /// Applies the first version of both views and waits until they are live.
    pub fn apply_first(&self) {
        self.apply_version("v1.yaml", V1);
        let search = self.define_search();
        self.installation.done(&["apply", &search]);
        for view in ["products", "product-search"] {
            self.await_version(&format!("{view}@v1"), "live");
        }
    }

    /// Lets writes go on until [`Stage::settle`].
    ///
    /// # Panics
    /// Where they go on already.
    pub fn write(&mut self) {
        assert!(self.producer.is_none(), "one producer at a time");
        self.seed += 1;
        let (events, seed) = (self.events, self.seed);
        let producer = self
            .oracle
            .produce(u64::MAX, KEYS, seed, events, Some(RATE));
        self.producer = Some(producer);
        let before = self.end_of_log();
        wait_until("writes go on", || self.end_of_log() > before);
    }

    /// Writes so many events as fast as it goes, and then lets writes go on.
    ///
    /// # Panics
    /// Where nobody writes.
    pub fn write_at_once(&mut self, events: u64) {
        self.stop_writing();
        self.seed += 1;
        let (first, seed) = (self.events, self.seed);
        let written = self.oracle.produce(events, KEYS, seed, first, None);
        self.events += written.finish();
        self.write();
    }

    /// Returns the sum of the ends of all partitions of what is committed.
    fn end_of_log(&self) -> i64 {
        let ends = self.kafka.ends(&self.installation.topic);
        ends.iter().map(|(_, end)| end).sum()
    }

    /// Ends the writes.
    pub fn stop_writing(&mut self) {
        if let Some(producer) = self.producer.take() {
            self.events += producer.finish();
        }
    }

    /// Lets readers read the view `products` until [`Stage::seen`].
    pub fn read(&mut self) {
        self.readers = Some(Readers::start(&self.installation.run, KEYS));
    }

    /// Ends the readers and returns what they saw.
    ///
    /// # Panics
    /// Where nobody reads.
    #[must_use]
    pub fn seen(&mut self) -> Seen {
        self.readers.take().expect("readers").finish()
    }

    /// Ends the writes, and waits until every version that is fed has committed the whole log.
    pub fn settle(&mut self) {
        self.stop_writing();
        let end = self.end_of_log();
        for view in ["products", "product-search"] {
            wait_until("every version has committed the whole log", || {
                let view = self.installation.view(view);
                let versions = view["versions"].as_array().into_iter().flatten();
                let mut fed = versions.filter(|it| is_fed(it)).peekable();
                let has_all = |it: &Value| it["records"]["done"] == end * copies(it);
                fed.peek().is_some() && fed.all(has_all)
            });
        }
    }

    /// Settles, and compares a version of `products` and the search view with the log; returns what was
    /// compared.
    ///
    /// # Panics
    /// Where anything differs.
    pub fn compare(&mut self, number: u32, fields: &str) -> Value {
        self.settle();
        let names: Vec<&str> = fields
            .split(", ")
            .filter_map(|field| field.split(':').next())
            .collect();
        let http = self.installation.run.http;
        self.oracle.check(number, &names.join(","), Some(http))
    }

    /// Ends the scene: both views equal the log, `products` by a version and its fields, and readers saw
    /// nothing that they must not see.
    ///
    /// # Panics
    /// Where anything is not as it must be.
    pub fn end(&mut self, number: u32, fields: &str) {
        self.compare(number, fields);
        let seen = self.seen();
        seen.assert_good();
        self.reads = seen.requests;
    }

    /// Ends a scene like [`Stage::end`], of which rows may have gone back for a while, as documented.
    ///
    /// # Panics
    /// Where anything is not as it must be.
    pub fn end_rewound(&mut self, number: u32, fields: &str) {
        self.compare(number, fields);
        let mut seen = self.seen();
        seen.older.clear();
        seen.assert_good();
        self.reads = seen.requests;
    }
}

/// Returns how many times the units of a version read the log.
fn copies(version: &Value) -> i64 {
    let units = version["units"].as_array().into_iter().flatten();
    let is_first_shard = |unit: &&Value| {
        let unit = unit["unit"].as_str().unwrap_or_default();
        unit.ends_with("/s0")
    };
    units.filter(is_first_shard).fold(0, |copies, _| copies + 1)
}

/// Says whether a version takes commits: by its role, and unless it cannot go on.
fn is_fed(version: &Value) -> bool {
    let fed = ["building", "live", "standby"].map(Value::from);
    let given_up = ["damaged", "failed"].map(Value::from);
    fed.contains(&version["role"]) && !given_up.contains(&version["health"]["is"])
}
