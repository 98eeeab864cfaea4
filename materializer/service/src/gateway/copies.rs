//! Documents and searches of tantivy views: from a copy that this process holds, or by asking the
//! worker that holds one.
//!
//! A request is answered by one copy. Of two copies chosen at random among those that are up to date, the one
//! with fewer of our requests in flight is asked; if it cannot answer, the other, or where there is no other
//! the furthest of those that are behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use materializer_model::{Key, Unit};
use materializer_sinks::tantivy::IndexCopy;
use materializer_sinks::tantivy::search::{
    SearchError, SearchLimits, SearchRequest, SearchResponse,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::crew::Crew;
use super::internal::Workers;
use super::routes::{CopyAt, TantivyRoute};
use super::shares::{Client, Shares};
use super::{Answered, Limits, ReadError};

/// A tantivy copy that is being served. Calls block; they may come from several threads at once.
pub trait ServedCopy: Send + Sync {
    /// Returns the row of a key, `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] while the copy is not servable.
    fn document(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Answers a search, all of it from one state of the index.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] where the request is at fault, [`ReadError::Unavailable`] while the copy
    /// is not servable, or where the search took too long.
    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ReadError>;
}

/// A copy that this process writes, with what one search of it may use.
pub struct ServedIndex {
    copy: Arc<IndexCopy>,
    limits: SearchLimits,
}

impl ServedIndex {
    /// Serves a copy within limits.
    #[must_use]
    pub fn new(copy: Arc<IndexCopy>, limits: SearchLimits) -> Self {
        Self { copy, limits }
    }
}

impl ServedCopy for ServedIndex {
    fn document(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let found = self.copy.get(&Key::new(key)).map_err(read_error)?;
        Ok(found.map(|found| found.source))
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ReadError> {
        self.copy.search(request, &self.limits).map_err(read_error)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn read_error(fault: SearchError) -> ReadError {
    let why = fault.to_string();
    match fault {
        SearchError::BadRequest { .. } | SearchError::TooLarge(_) => ReadError::Invalid(why),
        SearchError::Unservable(_) | SearchError::Timeout(_) => ReadError::Unavailable(why),
        SearchError::Failed(_) => ReadError::Broken(why),
    }
}

/// The copies that this process holds and serves. A worker puts them in when they are servable, and
/// takes them out before it lets them go.
#[derive(Default)]
pub struct LocalCopies {
    copies: RwLock<BTreeMap<Unit, Arc<dyn ServedCopy>>>,
}

impl LocalCopies {
    /// Begins to serve a copy, in place of an earlier one of the same unit.
    pub fn serve(&self, unit: Unit, copy: Arc<dyn ServedCopy>) {
        let mut copies = self.copies.write().unwrap_or_else(PoisonError::into_inner);
        copies.insert(unit, copy);
    }

    /// Serves a copy no longer. Requests that it is answering go on.
    pub fn withdraw(&self, unit: &Unit) {
        let mut copies = self.copies.write().unwrap_or_else(PoisonError::into_inner);
        copies.remove(unit);
    }

    /// Returns a copy, if this process serves it.
    pub(super) fn find(&self, unit: &Unit) -> Option<Arc<dyn ServedCopy>> {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        copies.get(unit).cloned()
    }
}

/// What is asked of a copy.
pub(super) trait Question: Send + 'static {
    type Answer: Send + 'static;

    /// Asks a copy that this process holds.
    fn ask_held(&self, copy: &dyn ServedCopy) -> Result<Self::Answer, ReadError>;

    /// Asks the worker that holds a copy, for a client.
    fn ask_worker(
        &self,
        workers: &Workers,
        copy: &CopyAt,
        client: Client,
    ) -> Result<Self::Answer, ReadError>;
}

/// The row of a key.
#[derive(Debug)]
pub(super) struct DocumentOf(pub(super) Vec<u8>);

impl Question for DocumentOf {
    type Answer = Option<Vec<u8>>;

    fn ask_held(&self, copy: &dyn ServedCopy) -> Result<Self::Answer, ReadError> {
        copy.document(&self.0)
    }

    fn ask_worker(
        &self,
        workers: &Workers,
        copy: &CopyAt,
        client: Client,
    ) -> Result<Self::Answer, ReadError> {
        workers.document(copy, client, &self.0)
    }
}

impl Question for SearchRequest {
    type Answer = SearchResponse;

    fn ask_held(&self, copy: &dyn ServedCopy) -> Result<Self::Answer, ReadError> {
        copy.search(self)
    }

    fn ask_worker(
        &self,
        workers: &Workers,
        copy: &CopyAt,
        client: Client,
    ) -> Result<Self::Answer, ReadError> {
        workers.search(copy, Some(client), self)
    }
}

/// Asks something and sends the answer to whoever waits for it.
type Job = Box<dyn FnOnce(&Router) + Send>;

/// Threads that ask copies, of which no client keeps more than its share busy.
#[derive(Debug)]
struct Desk {
    crew: Crew<Job>,
    shares: Shares,
}

/// Where copies are asked. What other processes ask of our copies has threads of its own: with
/// shared ones, two processes could each wait for the other with all they have.
#[derive(Debug)]
pub(super) struct Copies {
    routed: Desk,
    held: Desk,
    limits: Limits,
}

impl Copies {
    /// Starts the threads.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(
        local: &Arc<LocalCopies>,
        workers: Workers,
        limits: Limits,
        seed: u64,
    ) -> std::io::Result<Self> {
        let router = Arc::new(Router {
            local: Arc::clone(local),
            workers,
            in_flight: Mutex::default(),
            rolls: Mutex::new(seed),
        });
        let worker = || {
            let router = Arc::clone(&router);
            move |jobs: Vec<Job>| jobs.into_iter().for_each(|job| job(&router))
        };
        let desk = |name| -> std::io::Result<Desk> {
            let workers = (0..limits.copy_threads).map(|_| worker()).collect();
            Ok(Desk {
                crew: Crew::start(name, workers, limits.queue_requests, 1)?,
                shares: Shares::new(limits.copy_threads),
            })
        };
        Ok(Self {
            routed: desk("copies")?,
            held: desk("held-copies")?,
            limits,
        })
    }

    /// Asks some copy of a live version, for a client.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) async fn ask<Q: Question>(
        &self,
        route: &Arc<TantivyRoute>,
        client: Client,
        question: Q,
    ) -> Result<Answered<Q::Answer>, ReadError> {
        let of = Arc::clone(route);
        let ask = move |router: &Router| router.ask_any(&of, client, &question);
        let answer = self.hand(&self.routed, client, ask).await?;
        Ok(Answered {
            version: route.version.clone(),
            epoch: route.epoch,
            answer,
        })
    }

    /// Asks a copy that this process holds, for a client.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) async fn ask_held<Q: Question>(
        &self,
        copy: Arc<dyn ServedCopy>,
        client: Client,
        question: Q,
    ) -> Result<Q::Answer, ReadError> {
        let ask = move |_: &Router| question.ask_held(&*copy);
        self.hand(&self.held, client, ask).await
    }

    async fn hand<T: Send + 'static>(
        &self,
        desk: &Desk,
        client: Client,
        ask: impl FnOnce(&Router) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let answered = async {
            let place = desk.shares.take(client).await;
            let (reply, answer) = oneshot::channel();
            desk.crew.hand(Box::new(move |router| {
                // Who gave up waiting is not searched for.
                if !reply.is_closed() {
                    reply.send(ask(router)).ok();
                }
                drop(place);
            }))?;
            let dropped = |_| ReadError::Broken("the reader ended".into());
            answer.await.map_err(dropped)?
        };
        timeout(self.limits.answer_time, answered)
            .await
            .unwrap_or_else(|_elapsed| {
                let why = format!("no copy answered within {:?}", self.limits.answer_time);
                Err(ReadError::Unavailable(why))
            })
    }

    /// Says whether all threads are there.
    pub(super) fn is_whole(&self) -> bool {
        self.routed.crew.is_whole() && self.held.crew.is_whole()
    }
}

/// What the threads share.
struct Router {
    local: Arc<LocalCopies>,
    workers: Workers,
    /// How many requests each copy has from us at the moment.
    in_flight: Mutex<BTreeMap<Unit, usize>>,
    rolls: Mutex<u64>,
}

impl Router {
    /// Asks one copy, and another one if that cannot answer: two at most, for each may take its time.
    fn ask_any<Q: Question>(
        &self,
        route: &TantivyRoute,
        client: Client,
        question: &Q,
    ) -> Result<Q::Answer, ReadError> {
        let mut last =
            ReadError::Unavailable(format!("no copy of `{}` is servable", route.version));
        let copies = self.choose(&route.copies).chain(&route.behind);
        for copy in copies.take(2) {
            let counted = InFlight::count(&self.in_flight, &copy.unit);
            let answer = match self.local.find(&copy.unit) {
                Some(held) => question.ask_held(&*held),
                None => question.ask_worker(&self.workers, copy, client),
            };
            drop(counted);
            match answer {
                // A copy that is gone is gone from here alone: our routes are about to change.
                Err(ReadError::Gone(why) | ReadError::Unavailable(why)) => {
                    last = ReadError::Unavailable(why);
                }
                answered => return answered,
            }
        }
        Err(last)
    }

    fn choose<'a>(&self, copies: &'a [CopyAt]) -> impl Iterator<Item = &'a CopyAt> + use<'a> {
        let roll = next_roll(&mut self.rolls.lock().unwrap_or_else(PoisonError::into_inner));
        let in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let load = |at: usize| in_flight.get(&copies[at].unit).copied().unwrap_or(0);
        two_of(copies.len(), roll, load)
            .into_iter()
            .flatten()
            .map(|at| &copies[at])
    }
}

/// Chooses two of `count` at random, the less loaded first; one or none where there are no more.
fn two_of(count: usize, roll: u64, load: impl Fn(usize) -> usize) -> [Option<usize>; 2] {
    let below = |roll: u64, limit: usize| {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        usize::try_from(roll % limit).unwrap_or(0)
    };
    match count {
        0 => [None, None],
        1 => [Some(0), None],
        _ => {
            let one = below(roll & u64::from(u32::MAX), count);
            let other = (one + 1 + below(roll >> 32, count - 1)) % count;
            if load(other) < load(one) {
                [Some(other), Some(one)]
            } else {
                [Some(one), Some(other)]
            }
        }
    }
}

/// Returns the next number of the SplitMix64 sequence (Steele, Lea, Flood 2014): spreads load, and
/// need not be hard to guess.
fn next_roll(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A request in flight; its drop ends it.
struct InFlight<'a> {
    counts: &'a Mutex<BTreeMap<Unit, usize>>,
    unit: &'a Unit,
}

impl<'a> InFlight<'a> {
    fn count(counts: &'a Mutex<BTreeMap<Unit, usize>>, unit: &'a Unit) -> Self {
        let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(unit.clone()).or_default() += 1;
        Self { counts, unit }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(self.unit) {
            *count -= 1;
            if *count == 0 {
                all.remove(self.unit);
            }
        }
    }
}

impl std::fmt::Debug for LocalCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(copies.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_different_copies_are_chosen_the_less_loaded_first() {
        assert_eq!(two_of(0, 7, |_| 0), [None, None]);
        assert_eq!(two_of(1, 7, |_| 0), [Some(0), None]);
        let mut state = 1;
        let mut chosen = [0; 3];
        for _ in 0..300 {
            let [Some(first), Some(second)] = two_of(3, next_roll(&mut state), |at| at) else {
                panic!("there are three");
            };
            assert!(first < second, "the load rises with the number");
            chosen[first] += 1;
            chosen[second] += 1;
        }
        assert!(chosen.iter().all(|count| *count > 150), "{chosen:?}");
    }
}
