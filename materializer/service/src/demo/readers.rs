//! The readers: threads that ask by alias through the gateway, without a pause, and judge each answer.
//!
//! What counts:
//! - *failed*: an error, or nothing found where there is always something;
//! - *mixed*: documents of two mappings in one answer, of another mapping than the version that it names,
//!   or one that no product ever looked like;
//! - *stale*: an answer that misses an event that had been in the log for [`FRESH_WITHIN`]; one under an
//!   older alias than this reader has seen; and, where a version is in one place, a document older than
//!   the one this reader saw of the same version. (Copies of an index each follow at their own pace.)

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use materializer_model::{Clock, Monotonic, VersionNumber};

use super::ask::{Answer, Ask, CacheRows, Documents, Search};
use super::oracle::{Document, Judgement, Oracle};
use super::shop::Dice;
use crate::clock::SystemClock;
use crate::stop::Stop;

/// How long an event may be in the log before every reader must see it.
pub(super) const FRESH_WITHIN: Duration = Duration::from_secs(10);

/// The alias as it moved before a reader's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// The version that answers from now on.
    pub(super) to: VersionNumber,
    /// When its first answer came.
    pub(super) at: Monotonic,
    /// The time since the last answer of the version before.
    pub(super) gap: Duration,
}

/// What a reader has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) reads: u64,
    pub(super) stale: u64,
    pub(super) mixed: u64,
    pub(super) failed: u64,
    /// Every change of the version that answers.
    pub(super) moves: Vec<Moved>,
    /// The longest that an answer was behind, since this was last taken.
    pub(super) behind_max: Duration,
    /// What the first read that counts against us was.
    pub(super) first_fault: Option<String>,
}

impl Seen {
    fn fault(&mut self, who: &str, what: impl FnOnce() -> String) {
        if self.first_fault.is_none() {
            self.first_fault = Some(format!("{who}: {}", what()));
        }
    }
}

/// Judges the answers of one reader.
struct Judge {
    name: &'static str,
    oracle: Arc<Oracle>,
    /// Whether a version's documents are all in one place.
    one_place: bool,
    epoch: u64,
    last: Option<(VersionNumber, Monotonic)>,
    newest: HashMap<(VersionNumber, usize), u64>,
}

impl Judge {
    fn new(name: &'static str, oracle: Arc<Oracle>, one_place: bool) -> Self {
        Self {
            name,
            oracle,
            one_place,
            epoch: 0,
            last: None,
            newest: HashMap::new(),
        }
    }

    fn take(&mut self, answer: &Answer, asked: Monotonic, answered: Monotonic, seen: &mut Seen) {
        let Some(version) = self.version(answer, seen) else {
            return;
        };
        if answer.epoch.is_some_and(|epoch| epoch < self.epoch) {
            seen.stale += 1;
            seen.fault(self.name, || {
                format!("the alias went back below epoch {}", self.epoch)
            });
        }
        self.epoch = self.epoch.max(answer.epoch.unwrap_or(0));
        let mut behind_max = Duration::ZERO;
        for (product, found) in &answer.documents {
            match self.oracle.judge(*product, found.as_ref(), asked) {
                Judgement::NeverWas => {
                    seen.mixed += 1;
                    seen.fault(self.name, || {
                        format!("never was: product {product}, {found:?}")
                    });
                }
                Judgement::Was { behind } => behind_max = behind_max.max(behind),
            }
            if let Some(found) = found
                && self.one_place
            {
                self.one_place_goes_on(version, *product, found, seen);
            }
        }
        if behind_max > FRESH_WITHIN {
            seen.stale += 1;
            seen.fault(self.name, || {
                format!("an answer of {version} is {behind_max:.1?} behind")
            });
        }
        seen.behind_max = seen.behind_max.max(behind_max);
        match self.last {
            Some((last, at)) if last != version => seen.moves.push(Moved {
                to: version,
                at: answered,
                gap: answered.since(at),
            }),
            Some(_) | None => {}
        }
        self.last = Some((version, answered));
    }

    /// Returns the one version whose documents the answer holds; `None` where it holds none.
    fn version(&self, answer: &Answer, seen: &mut Seen) -> Option<VersionNumber> {
        let documents = answer
            .documents
            .iter()
            .filter_map(|(_, found)| found.as_ref());
        let mut version = answer.version;
        for document in documents {
            let mapping = document.mapping();
            let known = *version.get_or_insert(mapping.unwrap_or(VersionNumber(0)));
            if mapping != Some(known) {
                seen.mixed += 1;
                seen.fault(self.name, || {
                    format!("a document of another mapping than {known}: {document:?}")
                });
                return None;
            }
        }
        version
    }

    fn one_place_goes_on(
        &mut self,
        version: VersionNumber,
        product: usize,
        found: &Document,
        seen: &mut Seen,
    ) {
        let newest = self.newest.entry((version, product)).or_default();
        if found.revision < *newest {
            seen.stale += 1;
            let before = *newest;
            seen.fault(self.name, || {
                format!(
                    "product {product} of {version} went from {before} to {}",
                    found.revision
                )
            });
        }
        *newest = (*newest).max(found.revision);
    }
}

/// Where the gateway answers, and what is there to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gateway {
    pub(super) http: SocketAddr,
    pub(super) redis: SocketAddr,
    /// Whether there is a cache beside the index.
    pub(super) has_cache: bool,
}

/// One reader's thread.
struct Reader {
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

/// All readers. They end when this is dropped.
pub(super) struct Readers {
    readers: Vec<Reader>,
    stop: Stop,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Starts them.
    pub(super) fn start(
        gateway: Gateway,
        oracle: &Arc<Oracle>,
        products: usize,
        clock: &SystemClock,
    ) -> anyhow::Result<Self> {
        let mut readers = Self {
            readers: Vec::new(),
            stop: Stop::default(),
        };
        let mut start = |name, one_place, ask: Box<dyn Ask>| {
            let judge = Judge::new(name, Arc::clone(oracle), one_place);
            readers.add(judge, ask, products, clock)
        };
        start("search", false, Box::new(Search::new(gateway.http)))?;
        start(
            "documents",
            false,
            Box::new(Documents::new(gateway.http, "product-search")),
        )?;
        if gateway.has_cache {
            start(
                "cache over http",
                true,
                Box::new(Documents::new(gateway.http, "products")),
            )?;
            start(
                "cache over redis",
                true,
                Box::new(CacheRows::connect(gateway.redis)?),
            )?;
        }
        Ok(readers)
    }

    fn add(
        &mut self,
        mut judge: Judge,
        mut ask: Box<dyn Ask>,
        products: usize,
        clock: &SystemClock,
    ) -> anyhow::Result<()> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (into, clock, stop) = (Arc::clone(&seen), clock.clone(), self.stop.clone());
        let seed = u64::try_from(self.readers.len()).unwrap_or(0);
        let work = move || {
            let mut dice = Dice::new(seed);
            while !stop.is_set() {
                let asked = clock.monotonic();
                let answer = ask.ask(&mut dice, products, judge.epoch);
                let answered = clock.monotonic();
                let mut seen = lock(&into);
                seen.reads += 1;
                match answer {
                    Ok(answer) => judge.take(&answer, asked, answered, &mut seen),
                    Err(error) => {
                        seen.failed += 1;
                        seen.fault(judge.name, || format!("{error:#}"));
                        drop(seen);
                        // One fault shall not be counted a thousand times a second.
                        stop.wait(Duration::from_millis(10));
                    }
                }
            }
        };
        let thread = thread::Builder::new()
            .name("reader".to_owned())
            .spawn(work)
            .context("start a reader")?;
        self.readers.push(Reader { seen, thread });
        Ok(())
    }

    /// Takes the longest that any answer was behind since the last call.
    pub(super) fn take_behind_max(&self) -> Duration {
        let taken = self
            .readers
            .iter()
            .map(|reader| std::mem::take(&mut lock(&reader.seen).behind_max));
        taken.max().unwrap_or_default()
    }

    /// Returns the time at which the last reader was answered by a version for the `count`th change of the
    /// alias; `None` while one has not been.
    pub(super) fn all_moved(&self, count: usize) -> Option<Monotonic> {
        let moved = |reader: &Reader| {
            lock(&reader.seen)
                .moves
                .get(count - 1)
                .map(|moved| moved.at)
        };
        let all: Option<Vec<Monotonic>> = self.readers.iter().map(moved).collect();
        all?.into_iter().max()
    }

    /// Ends them and returns what each has seen.
    pub(super) fn end(mut self) -> anyhow::Result<Vec<Seen>> {
        self.stop.set();
        let mut all = Vec::new();
        for Reader { seen, thread } in std::mem::take(&mut self.readers) {
            if thread.join().is_err() {
                anyhow::bail!("a reader panicked");
            }
            all.push(lock(&seen).clone());
        }
        Ok(all)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.set();
        for reader in std::mem::take(&mut self.readers) {
            // Only after an error, which is told already.
            drop(reader.thread.join());
        }
    }
}
