//! Rows of Redis views: what a client asks of them, and the threads that read them.
//!
//! Commands are answered in parts. Once a part is large enough the commands behind it are left unread,
//! and whoever asked comes again when it has written what it has: a client that sends a pipeline and
//! does not read the replies has few of its commands answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use materializer_sinks::redis::{Read, ReadRequest, Reply};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::crew::Crew;
use super::rounds::{self, Given, Held, Job, Memory, RowReader, Wanted};
use super::routes::RedisRoute;
use super::{Answered, Limits, ReadError};

/// Reads of one view, which one version answers. Keys are as readers write them, the view's literal
/// included.
#[derive(Clone, Debug)]
pub(super) struct RowRead {
    /// The view's route, as the request's snapshot has it.
    pub(super) route: Arc<RedisRoute>,
    /// What is read.
    pub(super) reads: Vec<Read>,
}

/// For each read of a command what one version found, a reply for each key.
pub(super) type Answers = Vec<Result<Answered<Vec<Reply>>, ReadError>>;

/// The answers to the first of some commands.
#[derive(Debug)]
pub(super) struct Part {
    /// Of each command, at least one.
    pub(super) answers: Vec<Answers>,
    /// To be kept until the answers are written.
    pub(super) held: Held,
}

/// What is asked of one connection.
#[derive(Default)]
struct Asked {
    wanted: VecDeque<Wanted>,
    /// Of each the number of its command, and its place therein.
    places: Vec<(usize, usize)>,
}

/// The most jobs that one thread takes at once.
const BATCH_JOBS_MAX: usize = 64;

/// The readers' threads, by the name of the Redis connection: a server that does not answer holds up
/// its own readers alone.
#[derive(Debug)]
pub(super) struct Rows {
    crews: BTreeMap<String, Crew<Job>>,
    limits: Limits,
}

impl Rows {
    /// Starts a thread for each reader.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(
        readers: BTreeMap<String, Vec<Box<dyn RowReader>>>,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let memory = Memory::new(limits);
        let mut crews = BTreeMap::new();
        for (connection, readers) in readers {
            let workers = readers
                .into_iter()
                .map(|mut reader| {
                    let memory = memory.clone();
                    move |jobs| rounds::answer(&mut *reader, jobs, &memory)
                })
                .collect();
            let name = format!("redis-{connection}");
            let crew = Crew::start(&name, workers, limits.queue_requests, BATCH_JOBS_MAX)?;
            crews.insert(connection, crew);
        }
        Ok(Self { crews, limits })
    }

    /// Answers the first of some commands: at least one, and so many that their rows stay bounded.
    /// The reads of one connection are one job.
    pub(super) async fn read(&self, commands: &[&[RowRead]]) -> Part {
        let mut answers: Vec<Vec<Option<_>>> = Vec::with_capacity(commands.len());
        let mut jobs: BTreeMap<&str, Asked> = BTreeMap::new();
        for (command, reads) in commands.iter().enumerate() {
            answers.push(vec![None; reads.len()]);
            for (place, RowRead { route, reads }) in reads.iter().enumerate() {
                let job = jobs.entry(&route.connection).or_default();
                job.places.push((command, place));
                let request = ReadRequest {
                    view: route.version.view.clone(),
                    shaped_as: route.version.number,
                    reads: reads.clone(),
                };
                job.wanted.push_back(Wanted { command, request });
            }
        }
        // All are handed over before the first is waited for.
        let handed: Vec<_> = jobs
            .into_iter()
            .map(|(connection, asked)| {
                let reply = self.hand(connection, asked.wanted);
                (connection, asked.places, reply)
            })
            .collect();
        let mut held = Held::default();
        for (connection, places, reply) in handed {
            let given = match self.wait(connection, reply).await {
                Ok((given, more)) => {
                    held.add(more);
                    given
                }
                Err(fault) => vec![Err(fault); places.len()],
            };
            for ((command, place), answer) in places.into_iter().zip(given) {
                answers[command][place] = Some(answer);
            }
        }
        let whole = answers
            .into_iter()
            .map_while(|answers| answers.into_iter().collect());
        Part {
            answers: whole.collect(),
            held,
        }
    }

    fn hand(
        &self,
        connection: &str,
        wanted: VecDeque<Wanted>,
    ) -> Result<oneshot::Receiver<Given>, ReadError> {
        let Some(crew) = self.crews.get(connection) else {
            let why = format!("connection `{connection}` is not configured for this gateway");
            return Err(ReadError::Broken(why));
        };
        let (reply, given) = oneshot::channel();
        crew.hand(Job::new(wanted, reply))?;
        Ok(given)
    }

    async fn wait(
        &self,
        connection: &str,
        reply: Result<oneshot::Receiver<Given>, ReadError>,
    ) -> Result<Given, ReadError> {
        match timeout(self.limits.answer_time, reply?).await {
            Ok(Ok(given)) => Ok(given),
            Ok(Err(_dropped)) => Err(ReadError::Broken("the reader ended".into())),
            Err(_elapsed) => Err(ReadError::Unavailable(format!(
                "connection `{connection}` gave no answer within {:?}",
                self.limits.answer_time
            ))),
        }
    }

    /// Says whether all threads are there.
    pub(super) fn is_whole(&self) -> bool {
        self.crews.values().all(Crew::is_whole)
    }
}
