//! Rows of Redis views, read by a few threads in pipelines.
//!
//! The reads of one job are answered in order by one thread on one connection, so a client that sends
//! its commands in a pipeline never sees the alias go back.

use std::collections::BTreeMap;
use std::sync::Arc;

use materializer_model::VersionId;
use materializer_model::ports::SinkError;
use materializer_sinks::redis::{Answer, Read, ReadRequest, Reply, ViewReads};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::crew::Crew;
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

/// For each read of a job what one version found, a reply for each key.
pub(super) type Answers = Vec<Result<Answered<Vec<Reply>>, ReadError>>;

/// Reads rows. One for each thread: it owns its connection, and blocks within bounded times.
pub trait RowReader: Send {
    /// Answers requests in their order, each by the one version that the alias in Redis names.
    fn answer(&mut self, requests: &[ReadRequest]) -> Vec<Result<Answer, SinkError>>;
}

impl RowReader for ViewReads {
    fn answer(&mut self, requests: &[ReadRequest]) -> Vec<Result<Answer, SinkError>> {
        ViewReads::answer(self, requests)
    }
}

struct Job {
    requests: Vec<ReadRequest>,
    reply: oneshot::Sender<Answers>,
}

/// The most jobs that one pipeline carries.
const PIPELINE_JOBS_MAX: usize = 64;

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
        let mut crews = BTreeMap::new();
        for (connection, readers) in readers {
            let workers = readers
                .into_iter()
                .map(|mut reader| move |jobs| answer(&mut *reader, jobs))
                .collect();
            let name = format!("redis-{connection}");
            let crew = Crew::start(&name, workers, limits.queue_requests, PIPELINE_JOBS_MAX)?;
            crews.insert(connection, crew);
        }
        Ok(Self { crews, limits })
    }

    /// Answers reads, in their order. Those of one connection are one job.
    pub(super) async fn read(&self, reads: Vec<RowRead>) -> Answers {
        let mut jobs: BTreeMap<String, (Vec<usize>, Vec<ReadRequest>)> = BTreeMap::new();
        let mut answers = Vec::with_capacity(reads.len());
        for (place, RowRead { route, reads }) in reads.into_iter().enumerate() {
            let (places, requests) = jobs.entry(route.connection.clone()).or_default();
            places.push(place);
            requests.push(ReadRequest {
                view: route.version.view.clone(),
                reads,
            });
            answers.push(Err(ReadError::Broken("the reader gave no answer".into())));
        }
        // All are handed over before the first is waited for.
        let handed: Vec<_> = jobs
            .into_iter()
            .map(|(connection, (places, requests))| {
                let reply = self.hand(&connection, requests);
                (connection, places, reply)
            })
            .collect();
        for (connection, places, reply) in handed {
            match self.wait(&connection, reply).await {
                Ok(given) => {
                    for (place, answer) in places.into_iter().zip(given) {
                        answers[place] = answer;
                    }
                }
                Err(fault) => {
                    for place in places {
                        answers[place] = Err(fault.clone());
                    }
                }
            }
        }
        answers
    }

    fn hand(
        &self,
        connection: &str,
        requests: Vec<ReadRequest>,
    ) -> Result<oneshot::Receiver<Answers>, ReadError> {
        let Some(crew) = self.crews.get(connection) else {
            let why = format!("connection `{connection}` is not configured for this gateway");
            return Err(ReadError::Broken(why));
        };
        let (reply, answers) = oneshot::channel();
        crew.hand(Job { requests, reply })?;
        Ok(answers)
    }

    async fn wait(
        &self,
        connection: &str,
        reply: Result<oneshot::Receiver<Answers>, ReadError>,
    ) -> Result<Answers, ReadError> {
        match timeout(self.limits.answer_time, reply?).await {
            Ok(Ok(answers)) => Ok(answers),
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

/// Answers some jobs in one pipeline. Who gave up waiting is not read for.
fn answer(reader: &mut dyn RowReader, jobs: Vec<Job>) {
    let mut requests = Vec::new();
    let mut waiting = Vec::new();
    for mut job in jobs.into_iter().filter(|job| !job.reply.is_closed()) {
        waiting.push((job.requests.len(), job.reply));
        requests.append(&mut job.requests);
    }
    let answers = reader.answer(&requests);
    let mut answers = answers.into_iter().zip(&requests);
    for (count, reply) in waiting {
        let mine = answers.by_ref().take(count);
        let mine = mine.map(|(answer, request)| answered(answer, request));
        // A receiver that is gone has given up waiting.
        reply.send(mine.collect()).ok();
    }
}

fn answered(
    answer: Result<Answer, SinkError>,
    request: &ReadRequest,
) -> Result<Answered<Vec<Reply>>, ReadError> {
    match answer {
        Ok(Answer { pointer, replies }) => Ok(Answered {
            version: VersionId {
                view: request.view.clone(),
                number: pointer.version,
            },
            epoch: pointer.epoch,
            answer: replies,
        }),
        Err(SinkError::Unavailable(why) | SinkError::Full(why)) => Err(ReadError::Unavailable(why)),
        Err(fault @ (SinkError::Damaged(_) | SinkError::Refused(_) | SinkError::Fenced(_))) => {
            Err(ReadError::Broken(fault.to_string()))
        }
    }
}
