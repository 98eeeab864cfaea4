//! What scenes have in common: a log that grows, two views of it that are live, readers of them, and the
//! comparison at the end.

pub mod index;
pub mod repair;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::installation::{Installation, unique, wait_until};
use crate::kafka::{Kafka, Way};
use crate::oracle::{Oracle, Producer};
use crate::process::now;
use crate::readers::{Readers, Seen};
use crate::redis::{Persistence, Redis};

/// How many products the log is about.
const KEYS: u32 = 2_000;
/// Events that are in the log before anything is started.
const EVENTS: u64 = 20_000;
/// Events a second while everything goes on.
const RATE: u32 = 300;

/// The fields of the first version of `products`.
pub const V1: &str = "title: event.title, price: event.price, rev: event.rev";
/// The fields of the second version, which readers tell from the first.
pub const V2: &str = "title: event.title, price: event.price, brand: event.brand.name, \
    rev: event.rev";
const SEARCHED: &str = "title: {value: event.title, type: text, language: english}, \
    brand: {value: event.brand.name, type: string, facet: true, missing: ''}, \
    price: {value: event.price, type: f64, sort: true}";
const TO_REDIS: &str = "redis: {connection: cache, key: 'product:{key}'}";

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

    /// Returns the definition of the search view, with its copies as they are said.
    #[must_use]
    pub fn search_definition(&self, to: &str) -> String {
        self.definition("product-search", SEARCHED, to)
    }

    /// Applies a definition of `products` with certain fields: [`V1`] or [`V2`].
    pub fn apply_version(&self, file: &str, fields: &str) {
        self.define_version(file, fields);
        self.installation.done(&["apply", file]);
    }

    /// Writes a file with a definition of `products` with certain fields: [`V1`] or [`V2`].
    pub fn define_version(&self, file: &str, fields: &str) {
        let text = self.redis_definition(fields);
        self.installation.define(file, &text);
    }

    /// Writes the definition of `product-search` and returns its file.
    #[must_use]
    pub fn define_search(&self) -> String {
        let search = self.search_definition("tantivy: {}");
        self.installation.define("search.yaml", &search)
    }

    /// Returns a definition of `products` with certain fields.
    #[must_use]
    pub fn redis_definition(&self, fields: &str) -> String {
        self.definition("products", fields, TO_REDIS)
    }

    /// Returns a definition of a view of the log.
    #[must_use]
    pub fn definition(&self, view: &str, fields: &str, to: &str) -> String {
        format!(
            "view: {view}\nfrom: {{topics: ['{}']}}\nonly: event.kind == 'product'\n\
             where: event.hidden != true\ndocument: {{{fields}}}\nto: {{{to}}}\n\
             gates: {{lag_seconds: 30, lag_records: 10000, stable_for: 1s}}\n",
            self.installation.topic
        )
    }

    /// Waits until a version stands where `wait --for` says.
    pub fn await_version(&self, version: &str, goal: &str) {
        self.installation
            .done(&["wait", version, "--for", goal, "--timeout", "2m"]);
    }

    /// Asks again until the alias of `products` is at a version: whether a request that was hurt counted is
    /// the program's to say.
    pub fn insist(&self, verb: &[&str], number: u64) {
        wait_until(&format!("{verb:?} moves the alias"), || {
            let there = self.installation.view("products")["alias"]["version"] == number;
            there || {
                self.installation.verb(verb);
                false
            }
        });
    }

    /// Waits until readers of `products` are answered by a version everywhere.
    pub fn await_alias(&self, number: u64) {
        wait_until(&format!("readers see v{number}"), || {
            let alias = &self.installation.view("products")["alias"];
            alias["version"] == number && alias["confirmed"] == true
        });
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

    /// Returns a version of `products` as `status` shows it; null where there is none.
    #[must_use]
    pub fn version(&self, number: u64) -> Value {
        version_of(&self.installation.view("products"), number)
    }

    /// Returns the health of a version of `products`, in the word of `status`.
    #[must_use]
    pub fn health(&self, number: u64) -> String {
        let version = self.version(number);
        version["health"]["is"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until a version of `products` is of a health, and returns the version as `status` shows it.
    #[must_use]
    pub fn await_health(&self, number: u64, health: &str) -> Value {
        let mut version = Value::Null;
        wait_until(&format!("v{number} is {health}"), || {
            version = self.version(number);
            version["health"]["is"] == health
        });
        version
    }

    /// Returns the checkpoint of a version of `products` as Redis holds it; `None` while there is none.
    #[must_use]
    pub fn checkpoint(&self, number: u64) -> Option<String> {
        let key = format!(
            "{}::products:v{number}:s0:checkpoint",
            self.installation.name
        );
        self.redis.try_ask(&["GET", &key]).ok()?
    }

    /// Returns how many records a version of `products` had read at the checkpoint that Redis holds; 0 while
    /// there is none.
    #[must_use]
    pub fn position(&self, number: u64) -> u64 {
        let stored = self.checkpoint(number).unwrap_or_default();
        let stored: Value = serde_json::from_str(&stored).unwrap_or_default();
        let partitions = stored["topics"][&self.installation.topic]["p"].as_object();
        let offsets = partitions.into_iter().flatten();
        offsets.filter_map(|(_, at)| at[0].as_u64()).sum()
    }

    /// Waits until a version of `products` has committed more than so many records.
    pub fn await_passed(&self, number: u64, records: u64) {
        wait_until(&format!("v{number} is past {records} records"), || {
            self.position(number) > records
        });
    }

    /// Waits until the process `run` has logged some words.
    pub fn await_logged(&self, words: &str) {
        wait_until(&format!("it is logged: {words}"), || {
            self.installation.run.logged().contains(words)
        });
    }

    /// Waits until a version of `products` has committed something else than `before`, and measures it
    /// from an instant.
    ///
    /// # Panics
    /// Where it does not.
    pub fn await_commit(&mut self, what: &str, number: u64, before: Option<&str>, since: Instant) {
        // At the pace of a measurement, not of a verb.
        loop {
            let now = self.checkpoint(number);
            if now.is_some() && now.as_deref() != before {
                break;
            }
            assert!(
                since.elapsed() < crate::installation::LIMIT,
                "{what}: no commit"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.measure(what, since);
    }

    /// Notes how long something took.
    pub fn measure(&mut self, what: &str, since: Instant) -> Duration {
        let took = now() - since;
        self.measured.push((what.to_owned(), took));
        took
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
                fed.peek().is_some() && fed.all(|it| it["records"]["done"].as_i64() == Some(end))
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

/// Returns a version of a view as `status` shows it; null where there is none.
#[must_use]
pub fn version_of(view: &Value, number: u64) -> Value {
    let versions = view["versions"].as_array().into_iter().flatten();
    let suffix = format!("@v{number}");
    let is_it = |it: &&Value| {
        it["version"]
            .as_str()
            .is_some_and(|it| it.ends_with(&suffix))
    };
    let found = versions.into_iter().find(is_it);
    found.cloned().unwrap_or_default()
}

/// Says whether a version takes commits: by its role, and unless it cannot go on.
fn is_fed(version: &Value) -> bool {
    let fed = ["building", "live", "standby"].map(Value::from);
    let given_up = ["damaged", "failed"].map(Value::from);
    fed.contains(&version["role"]) && !given_up.contains(&version["health"]["is"])
}
