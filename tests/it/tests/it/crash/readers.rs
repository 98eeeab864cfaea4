//! Readers that go on all the time, by both of the gateway's protocols.
//!
//! A request that was sent and answered within one time of readiness must be answered, by one version,
//! and not as if it were empty. While the process is down nothing can be asked of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Client, Commands, Connection, RedisResult};
use serde_json::Value;

use crate::installation::{Installation, Presence};

const TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys one request asks for.
const KEYS_AT_ONCE: u32 = 40;

/// What readers saw while the process was ready.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Faults, mixtures, and versions that were empty, in words.
    pub(crate) wrong: Vec<String>,
    /// The versions that answered.
    pub(crate) versions: BTreeSet<String>,
}

impl Seen {
    /// Fails where anything was wrong, or too little was read to say so.
    pub(crate) fn assert_good(&self) {
        assert!(self.wrong.is_empty(), "readers saw: {:#?}", self.wrong);
        assert!(self.requests > 100, "readers read: {self:?}");
        assert_eq!(self.versions.len(), 2, "both versions answered: {self:?}");
    }
}

/// A thread that reads.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Readers {
    /// Begins to read a view of which a version is live.
    pub(crate) fn start(installation: &Installation, keys: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            presence: Arc::clone(&installation.presence),
            redis: Client::open(format!("redis://127.0.0.1:{}", installation.redis))
                .expect("a URL"),
            connection: None,
            http: format!(
                "http://127.0.0.1:{}/v1/views/products/documents",
                installation.http
            ),
            keys,
            next: 0,
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
            thread: thread.expect("a thread"),
        }
    }

    /// Ends and tells what was seen.
    pub(crate) fn finish(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("readers do not panic")
    }
}

struct Reader {
    presence: Arc<Presence>,
    redis: Client,
    connection: Option<Connection>,
    http: String,
    keys: u32,
    next: u32,
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
            if self.presence.time() != Some(time) {
                return; // it was killed in between: nobody knows what should have come
            }
            self.seen.requests += 1;
            if let Err(wrong) = outcome
                && self.seen.wrong.len() < 20
            {
                self.seen.wrong.push(wrong);
            }
        }
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

    fn by_redis(&mut self) -> Result<(), String> {
        let keys: Vec<String> = (0..KEYS_AT_ONCE)
            .map(|_| format!("product:{}", self.next_key()))
            .collect();
        let rows = self.mget(&keys).map_err(|error| {
            self.connection = None;
            format!("MGET: {error}")
        })?;
        let shapes: BTreeSet<bool> = rows.iter().flatten().map(|row| has_brand(row)).collect();
        match shapes.len() {
            1 => Ok(()),
            0 => Err(format!("MGET: none of {KEYS_AT_ONCE} products is there")),
            _ => Err("MGET: rows of two versions in one answer".to_owned()),
        }
    }

    fn by_http(&mut self) -> Result<(), String> {
        let key = self.next_key();
        let url = format!("{}/{key}", self.http);
        let answer = ureq::get(&url).call();
        if matches!(answer, Err(ureq::Error::StatusCode(404))) {
            return Ok(()); // not every product is there
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
        if has_brand(&row) != (version == "products@v2") {
            return Err(format!("HTTP: `{version}` answered {row}"));
        }
        self.seen.versions.insert(version);
        Ok(())
    }
}

/// Says whether a row is of the second mapping.
fn has_brand(row: &str) -> bool {
    let row: Value = serde_json::from_str(row).unwrap_or_default();
    row.get("brand").is_some()
}
