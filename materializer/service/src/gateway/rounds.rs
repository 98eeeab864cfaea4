//! Reading rows for many clients at once, within bounded memory; the work of the readers' threads.
//!
//! A round is one pipeline: a few rows of each client that waits. The reads of one client are answered in
//! order, so one that sends its commands in a pipeline never sees the alias go back. How large a row is
//! shows only when it has been read: so a round has few rows, no further one is begun for a client whose
//! answers have enough bytes, and of a command with many rows the lengths are asked first. What is read
//! counts against the memory of the whole gateway until it is written.

use std::collections::VecDeque;
use std::sync::Arc;

use materializer_model::VersionId;
use materializer_model::ports::SinkError;
use materializer_sinks::redis::{Answer, Read, ReadRequest, Reply, ViewReads};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::rows::Answers;
use super::{Answered, Limits, ReadError};

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

/// The most rows of a round, unless one request has more: then it is a round by itself.
const ROUND_ROWS_MAX: usize = 64;

/// The most rows of one job in a round, unless its next request has more.
const TURN_ROWS_MAX: usize = 16;

/// A request of a command, by the command's number.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) command: usize,
    pub(super) request: ReadRequest,
}

/// The answers to the first requests of a job, whole commands of them, and their memory.
pub(super) type Given = (Answers, Held);

/// What one client waits for.
#[derive(Debug)]
pub(super) struct Job {
    wanted: VecDeque<Wanted>,
    /// The number of the last command that was read for.
    command: Option<usize>,
    answers: Answers,
    bytes: usize,
    held: Held,
    reply: oneshot::Sender<Given>,
}

impl Job {
    /// Makes a job of requests in the order of their commands.
    pub(super) fn new(wanted: VecDeque<Wanted>, reply: oneshot::Sender<Given>) -> Self {
        Self {
            wanted,
            command: None,
            answers: Answers::new(),
            bytes: 0,
            held: Held::default(),
            reply,
        }
    }

    /// Returns how many of its requests one round carries, and how many rows they have.
    fn turn(&self) -> (usize, usize) {
        let (mut requests, mut rows) = (0, 0);
        for Wanted { request, .. } in &self.wanted {
            if requests > 0 && rows + request.reads.len() > TURN_ROWS_MAX {
                break;
            }
            requests += 1;
            rows += request.reads.len();
        }
        (requests, rows)
    }

    /// Says whether nothing more is read for it: it has enough, or nobody waits any more.
    fn is_done(&self, limits: &Limits) -> bool {
        let is_full = self.bytes >= limits.part_bytes;
        let ends = |next: &Wanted| is_full && self.command != Some(next.command);
        self.wanted.front().is_none_or(ends) || self.reply.is_closed()
    }
}

/// The memory of answers that are not written yet; its drop gives it back.
#[derive(Debug, Default)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// Takes more memory along.
    pub(super) fn add(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (Some(all), Some(more)) => all.merge(more),
            (all @ None, more) => *all = more,
            (Some(_), None) => {}
        }
    }
}

/// The memory that answers may take, of all clients together.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// How many pages are free: a semaphore cannot count as far as bytes go.
    free: Arc<Semaphore>,
    limits: Limits,
}

const PAGE_BYTES: usize = 1024;

impl Memory {
    /// Makes the memory of a gateway.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.memory_bytes / PAGE_BYTES)),
            limits,
        }
    }

    /// Takes memory for one answer.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] where the answer is larger than any may be, [`ReadError::Unavailable`]
    /// where too many others wait to be written.
    fn take(&self, bytes: usize) -> Result<Held, ReadError> {
        self.check(bytes)?;
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.free).try_acquire_many_owned(pages);
        taken.map(|permit| Held(Some(permit))).map_err(|_full| {
            ReadError::Unavailable(
                "the replies that clients have not taken yet fill `gateway.memory`".into(),
            )
        })
    }

    fn check(&self, bytes: usize) -> Result<(), ReadError> {
        let most = self.limits.reply_bytes;
        if bytes <= most {
            return Ok(());
        }
        Err(ReadError::Invalid(format!(
            "the reply has {bytes} bytes of rows, {most} are sent (`gateway.reply_size`): ask for fewer keys"
        )))
    }
}

/// Answers jobs, round by round. Who gave up waiting is not read for.
pub(super) fn answer(reader: &mut dyn RowReader, mut jobs: Vec<Job>, memory: &Memory) {
    loop {
        let (done, open): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .partition(|job| job.is_done(&memory.limits));
        for job in done {
            // A receiver that is gone has given up waiting.
            job.reply.send((job.answers, job.held)).ok();
        }
        if open.is_empty() {
            return;
        }
        jobs = open;
        answer_round(reader, &mut jobs, memory);
    }
}

/// Reads some rows for some jobs, at least one request of the first.
fn answer_round(reader: &mut dyn RowReader, jobs: &mut [Job], memory: &Memory) {
    let mut round = Vec::new();
    let mut askers = Vec::new();
    let mut rows = 0;
    for (at, job) in jobs.iter_mut().enumerate() {
        let (requests, of_job) = job.turn();
        if at > 0 && rows + of_job > ROUND_ROWS_MAX {
            break;
        }
        rows += of_job;
        for Wanted { command, request } in job.wanted.drain(..requests) {
            job.command = Some(command);
            askers.push(at);
            round.push(request);
        }
    }
    let mut found = read(reader, &round, rows, memory);
    found.resize(round.len(), Err(unanswered()));
    for (at, answer) in askers.into_iter().zip(found) {
        let job = &mut jobs[at];
        let answer = answer.and_then(|answered| {
            let bytes = answered.answer.iter().map(bytes).sum();
            job.held.add(memory.take(bytes)?);
            job.bytes += bytes;
            Ok(answered)
        });
        job.answers.push(answer);
    }
}

fn unanswered() -> ReadError {
    ReadError::Broken("the reader gave no answer".into())
}

/// Reads a round. Where it is one request with many rows, it is refused if it would be too large.
fn read(
    reader: &mut dyn RowReader,
    round: &[ReadRequest],
    rows: usize,
    memory: &Memory,
) -> Answers {
    if rows > ROUND_ROWS_MAX
        && let [request] = round
        && let Some(lengths) = lengths_of(request)
    {
        let lengths = reader.answer(&[lengths]).pop().ok_or_else(unanswered);
        let fits = lengths
            .and_then(|lengths| lengths.map_err(read_error))
            .and_then(|lengths| memory.check(lengths.replies.iter().map(length).sum()));
        if let Err(fault) = fits {
            return vec![Err(fault)];
        }
    }
    let answers = reader.answer(round).into_iter().zip(round);
    answers
        .map(|(answer, request)| answered(answer, request))
        .collect()
}

/// Returns what asks for the lengths of a request's rows; `None` where its answer is small anyway.
fn lengths_of(request: &ReadRequest) -> Option<ReadRequest> {
    let length = |read: &Read| match read {
        Read::Get(key) => Some(Read::Length(key.clone())),
        Read::Length(_)
        | Read::Exists(_)
        | Read::HashGet(..)
        | Read::HashAll(_)
        | Read::TimeToLive(_) => None,
    };
    Some(ReadRequest {
        view: request.view.clone(),
        shaped_as: request.shaped_as,
        reads: request.reads.iter().map(length).collect::<Option<_>>()?,
    })
}

/// Returns the length that a row is said to have.
fn length(reply: &Reply) -> usize {
    match reply {
        Reply::Number(length) => usize::try_from(*length).unwrap_or(0),
        Reply::Nil | Reply::Bytes(_) | Reply::Fields(_) | Reply::WrongType => 0,
    }
}

/// Returns how many bytes of rows a reply holds.
fn bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Bytes(value) => value.len(),
        Reply::Fields(fields) => fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum(),
        Reply::Nil | Reply::Number(_) | Reply::WrongType => 0,
    }
}

fn answered(
    answer: Result<Answer, SinkError>,
    request: &ReadRequest,
) -> Result<Answered<Vec<Reply>>, ReadError> {
    let Answer { pointer, replies } = answer.map_err(read_error)?;
    Ok(Answered {
        version: VersionId {
            view: request.view.clone(),
            number: pointer.version,
        },
        epoch: pointer.epoch,
        answer: replies,
    })
}

fn read_error(fault: SinkError) -> ReadError {
    match fault {
        SinkError::Unavailable(why) | SinkError::Full(why) => ReadError::Unavailable(why),
        fault @ (SinkError::Damaged(_) | SinkError::Refused(_) | SinkError::Fenced(_)) => {
            ReadError::Broken(fault.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_taken_comes_back_when_the_answer_is_written() {
        let memory = Memory::new(Limits {
            reply_bytes: 6 * PAGE_BYTES,
            memory_bytes: 10 * PAGE_BYTES,
            ..Limits::default()
        });
        let mut held = memory.take(3 * PAGE_BYTES - 1).unwrap();
        held.add(memory.take(0).unwrap());
        held.add(memory.take(3 * PAGE_BYTES).unwrap());
        let full = memory.take(4 * PAGE_BYTES + 1);
        assert!(matches!(full, Err(ReadError::Unavailable(_))), "{full:?}");
        drop(held);
        assert!(memory.take(6 * PAGE_BYTES).is_ok());
        let too_large = memory.take(6 * PAGE_BYTES + 1);
        assert!(
            matches!(too_large, Err(ReadError::Invalid(_))),
            "{too_large:?}"
        );
    }
}
