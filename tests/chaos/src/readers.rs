//! Readers that go on all the time, by both of the gateway's protocols.
//!
//! A request that was sent and answered within one time of readiness must be answered, by one version,
//! and not as if it were empty. While the process is down nothing can be asked of it. A row that is of
//! an earlier revision than one read before is counted apart: whether it may be depends on what happens.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Client, Commands, Connection, RedisResult};
use serde_json::Value;

use crate::process::{Presence, Process};

const TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys one request asks for.
const KEYS_AT_ONCE: u32 = 40;
/// How many faults are told.
const EXAMPLES: usize = 20;

/// What readers saw while the process was ready.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: u64,
    /// Faults, mixtures, and versions that were empty, in words.
    pub wrong: Vec<String>,
    /// Rows of one version that went back to an earlier revision, in words.
    pub older: Vec<String>,
    /// The versions that answered.
    pub versions: BTreeSet<String>,
}

impl Seen {
    /// Fails where anything was wrong, or too little was read to say so.
    ///
    /// # Panics
    /// Where it fails.
    pub fn assert_good(&self) {
        assert!(self.wrong.is_empty(), "readers saw: {:#?}", self.wrong);
        assert!(self.older.is_empty(), "rows went back: {:#?}", self.older);
        assert!(self.requests > 100, "readers read: {self:?}");
    }

    fn fault(&mut self, wrong: String) {
        if self.wrong.len() < EXAMPLES {
            self.wrong.push(wrong);
        }
    }
}

/// A thread that reads.
pub struct Readers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Readers {
    /// Begins to read the view `products`, of which a version is live, at a gateway.
    ///
    /// # Panics
    /// Where no thread can be had.
    #[must_use]
    pub fn start(gateway: &Process, keys: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            presence: Arc::clone(&gateway.presence),
            redis: Client::open(format!("redis://127.0.0.1:{}", gateway.redis)).expect("a URL"),
            connection: None,
            http: format!(
                "http://127.0.0.1:{}/v1/views/products/documents",
                gateway.http
            ),
            keys,
            next: 0,
            newest: HashMap::new(),
            seen: Seen::default(),
        };
        let stopped = Arc::clone(&stop);
        let read = move || {
            while !stopped.load(Ordering::SeqCst) {
                reader.read();
            }
            reader.seen
        };
        let thread = thread::Builder::new().name("readers".into()).spawn(read);
        Self {
            stop,
            thread: Some(thread.expect("a thread")),
        }
    }

    /// Ends and tells what was seen.
    ///
    /// # Panics
    /// Where the thread panicked.
    #[must_use]
    pub fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("finished once");
        thread.join().expect("readers do not panic")
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Reader {
    presence: Arc<Presence>,
    redis: Client,
    connection: Option<Connection>,
    http: String,
    keys: u32,
    next: u32,
    /// The newest revision of each key that each version answered with.
    newest: HashMap<(u32, bool), u64>,
    seen: Seen,
}

impl Reader {
    /// Reads once by each protocol.
    fn read(&mut self) {
        let Some(time) = self.presence.time() else {
            self.connection = None;
            thread::sleep(Duration::from_millis(5));
            return;
        };
        let by_redis = self.by_redis();
        let by_http = self.by_http();
        for outcome in [by_redis, by_http] {
            let rows = match outcome {
                Ok(rows) => rows,
                // Where it was killed in between, nobody knows what should have come.
                Err(_) if self.presence.time() != Some(time) => return,
                Err(wrong) => {
                    self.seen.fault(wrong);
                    Vec::new()
                }
            };
            self.seen.requests += 1;
            for (key, row) in rows {
                self.follow(key, &row);
            }
        }
    }

    /// Holds a row against the newest one that its version answered with.
    fn follow(&mut self, key: u32, row: &Value) {
        let Some(revision) = row["rev"].as_u64() else {
            return;
        };
        let newest = self.newest.entry((key, has_brand(row))).or_default();
        if revision < *newest && self.seen.older.len() < EXAMPLES {
            let fault = format!("product {key}: revision {revision} after {newest}");
            self.seen.older.push(fault);
        }
        *newest = revision.max(*newest);
    }

    fn next_key(&mut self) -> u32 {
        self.next = (self.next + 1) % self.keys;
        self.next
    }

    fn mget(&mut self, keys: &[String]) -> RedisResult<Vec<Option<String>>> {
        if self.connection.is_none() {
            let connection = self.redis.get_connection_with_timeout(TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            self.connection = Some(connection);
        }
        self.connection
            .as_mut()
            .expect("connected above")
            .mget(keys)
    }

    /// Returns the rows of one answer, each with its key; what is wrong with it otherwise.
    fn by_redis(&mut self) -> Result<Vec<(u32, Value)>, String> {
        let keys: Vec<u32> = (0..KEYS_AT_ONCE).map(|_| self.next_key()).collect();
        let names: Vec<String> = keys.iter().map(|key| format!("product:{key}")).collect();
        let answer = self.mget(&names).map_err(|error| {
            self.connection = None;
            format!("MGET: {error}")
        })?;
        let there = keys.into_iter().zip(answer);
        let rows: Vec<(u32, Value)> = there
            .filter_map(|(key, row)| Some((key, parsed(&row?))))
            .collect();
        let shapes: BTreeSet<bool> = rows.iter().map(|(_, row)| has_brand(row)).collect();
        match shapes.len() {
            1 => Ok(rows),
            0 => Err(format!("MGET: none of {KEYS_AT_ONCE} products is there")),
            _ => Err("MGET: rows of two versions in one answer".to_owned()),
        }
    }

    fn by_http(&mut self) -> Result<Vec<(u32, Value)>, String> {
        let key = self.next_key();
        let url = format!("{}/{key}", self.http);
        let answer = ureq::get(&url).call();
        if matches!(answer, Err(ureq::Error::StatusCode(404))) {
            return Ok(Vec::new()); // not every product is there
        }
        let mut answer = answer.map_err(|error| format!("HTTP: {error}"))?;
        let version = answer.headers().get("materializer-version");
        let version = version
            .and_then(|name| name.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let row = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| format!("HTTP: {error}"))?;
        let row = parsed(&row);
        if has_brand(&row) != (version == "products@v2") {
            return Err(format!("HTTP: `{version}` answered {row}"));
        }
        self.seen.versions.insert(version);
        Ok(vec![(key, row)])
    }
}

fn parsed(row: &str) -> Value {
    serde_json::from_str(row).unwrap_or_default()
}

/// Says whether a row is of the second mapping.
fn has_brand(row: &Value) -> bool {
    row.get("brand").is_some()
}
