//! The sink port on Redis. One thread per unit talks to the server; the worker waits for it only as
//! long as it says.
//!
//! A write that times out here is still under way there: its connection is dropped, and the next
//! `open` voids it (see `owner`) before it reads the checkpoint.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use materializer_model::definition::{RedisShape, RedisTarget};
use materializer_model::ports::{Expect, Sink, SinkError, Usage};
use materializer_model::{
    Change, Checkpoint, Commit, Mutation, Poison, PoisonKind, SinkId, Token, Unit,
};
use tracing::error;

use super::keys::UnitKeys;
use super::owner::{Owner, Session, Taker};
use super::row;
use super::settings::RedisPlace;

/// The longest key of a row, in bytes.
const KEY_BYTES_MAX: usize = 1 << 20;

/// The largest row, in bytes; Redis itself ends at 512 MiB.
const ROW_BYTES_MAX: usize = 64 << 20;

/// How many requests an `open` may take, the connect among them.
const OPEN_REQUESTS_MAX: u32 = 16;

enum Task {
    Open(Taker),
    Write(Arc<Commit>),
}

/// What became of the task with the same number.
struct Report {
    task: u64,
    outcome: Result<Option<Checkpoint>, SinkError>,
    unfinished: Option<Checkpoint>,
    usage: Usage,
}

/// Writes one unit to Redis.
///
/// After any error the unit must be opened again; what was outstanding is then known by its
/// checkpoint. Dropping the sink waits for the request that is under way, at most for its timeout.
pub struct RedisSink {
    shape: RedisShape,
    /// `None` only while it is being dropped.
    tasks: Option<SyncSender<(u64, Task)>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    unit: Unit,
    claims_from: u64,
    last_task: u64,
    outstanding: Option<u64>,
    open_timeout: Duration,
    unfinished: Option<Checkpoint>,
    usage: Usage,
}

impl RedisSink {
    /// Makes the writer of one unit; nothing is sent before it is opened. `sink` is a random id that
    /// the server's mark gets where the server has none yet.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the key template is not `<literal>{key}`.
    pub fn new(
        place: RedisPlace,
        target: RedisTarget,
        unit: Unit,
        sink: SinkId,
    ) -> Result<Self, SinkError> {
        let open_timeout =
            place.server.connect_timeout + place.server.request_timeout * OPEN_REQUESTS_MAX;
        let shape = target.shape;
        let owner = Owner {
            keys: UnitKeys::new(&place.installation, &unit, &target)?,
            place,
            target,
            unit: unit.clone(),
            sink,
        };
        let (tasks, to_do) = sync_channel(1);
        let (done, reports) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("redis {unit}"))
            .spawn(move || work(owner, &to_do, &done))
            .map_err(|fault| SinkError::Unavailable(format!("start a thread: {fault}")))?;
        Ok(Self {
            shape,
            tasks: Some(tasks),
            reports,
            thread: Some(thread),
            unit,
            claims_from: 0,
            last_task: 0,
            outstanding: None,
            open_timeout,
            unfinished: None,
            usage: Usage::default(),
        })
    }

    /// Takes in the lowest claim that can have been made of this version. What an owner with an earlier
    /// one left is another version's, and is [`SinkError::Damaged`].
    #[must_use]
    pub fn claimed_from(mut self, claims_from: u64) -> Self {
        self.claims_from = claims_from;
        self
    }

    /// Hands a task to the thread and returns its number.
    fn start(&mut self, task: Task) -> Result<u64, SinkError> {
        self.last_task += 1;
        let tasks = self.tasks.as_ref().expect("only `drop` takes it");
        match tasks.try_send((self.last_task, task)) {
            Ok(()) => Ok(self.last_task),
            Err(TrySendError::Full(_)) => Err(self.unavailable("an earlier request has not ended")),
            Err(TrySendError::Disconnected(_)) => Err(self.unavailable("its thread has ended")),
        }
    }

    /// Waits for the report on a task; `None` where it did not come. Those on earlier ones, which
    /// nobody waits for any more, are passed over.
    fn wait(&mut self, task: u64, wait: Duration) -> Option<Result<Option<Checkpoint>, SinkError>> {
        loop {
            match self.reports.recv_timeout(wait) {
                Ok(report) if report.task == task => {
                    self.usage = report.usage;
                    self.unfinished = report.unfinished;
                    return Some(report.outcome);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(Err(self.unavailable("its thread has ended")));
                }
            }
        }
    }

    fn unavailable(&self, why: &str) -> SinkError {
        SinkError::Unavailable(format!("`{}` in redis: {why}", self.unit))
    }
}

impl Sink for RedisSink {
    fn open(&mut self, me: &Token, expect: Expect) -> Result<Option<Checkpoint>, SinkError> {
        // One request at a time is under way. What became of this one, the checkpoint will tell.
        if let Some(task) = self.outstanding.take()
            && self.wait(task, self.open_timeout).is_none()
        {
            return Err(self.unavailable("a write has not ended"));
        }
        let task = self.start(Task::Open(Taker {
            me: me.clone(),
            expect,
            claims_from: self.claims_from,
        }))?;
        self.wait(task, self.open_timeout)
            .unwrap_or_else(|| Err(self.unavailable("opening it took too long")))
    }

    fn unfinished(&self) -> Option<&Checkpoint> {
        self.unfinished.as_ref()
    }

    fn check(&self, mutation: &Mutation) -> Result<(), Poison> {
        let too_large = |place: &str, bytes: usize, most: usize| {
            let why = format!("{bytes} bytes are more than the {most} that redis is given");
            Err(Poison::new(PoisonKind::TooLarge, place, why))
        };
        let key = &mutation.key.0;
        if key.len() > KEY_BYTES_MAX {
            return too_large("key", key.len(), KEY_BYTES_MAX);
        }
        let Change::Upsert { row, .. } = &mutation.change else {
            return Ok(());
        };
        if row.0.len() > ROW_BYTES_MAX {
            return too_large("document", row.0.len(), ROW_BYTES_MAX);
        }
        if self.shape == RedisShape::Hash && row::fields(row).is_none() {
            let why = "a row that is no object cannot be a hash";
            return Err(Poison::new(PoisonKind::Type, "document", why));
        }
        Ok(())
    }

    fn submit(&mut self, commit: Arc<Commit>) -> Result<(), SinkError> {
        assert!(self.outstanding.is_none(), "one commit is outstanding");
        self.outstanding = Some(self.start(Task::Write(commit))?);
        Ok(())
    }

    fn settle(&mut self, wait: Duration) -> Result<Option<Checkpoint>, SinkError> {
        let Some(task) = self.outstanding else {
            return Ok(None);
        };
        let Some(outcome) = self.wait(task, wait) else {
            return Ok(None);
        };
        self.outstanding = None;
        outcome
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

impl Drop for RedisSink {
    fn drop(&mut self) {
        self.tasks = None;
        // The thread may stand before a full channel: let it pass.
        while self.reports.recv().is_ok() {}
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) {
            error!(unit = %self.unit, "the thread of a redis sink panicked");
        }
    }
}

/// The thread: one task after another, until the sink is dropped.
fn work(mut owner: Owner, to_do: &Receiver<(u64, Task)>, done: &SyncSender<Report>) {
    let mut session: Option<Session> = None;
    while let Ok((task, request)) = to_do.recv() {
        let outcome = match request {
            Task::Open(taker) => {
                session = None;
                owner.open(&taker).map(|(opened, checkpoint)| {
                    session = Some(opened);
                    checkpoint
                })
            }
            Task::Write(commit) => match session.as_mut() {
                Some(open) => open
                    .write(&owner.unit, owner.target.shape, &commit)
                    .map(|()| Some(commit.checkpoint.clone())),
                None => Err(SinkError::Unavailable(format!(
                    "`{}` in redis: it is not open",
                    owner.unit
                ))),
            },
        };
        let usage = session.as_ref().map_or(Usage::default(), |open| open.usage);
        let unfinished = session.as_ref().and_then(|open| open.unfinished.clone());
        if outcome.is_err() {
            session = None;
        }
        if done
            .send(Report {
                task,
                outcome,
                unfinished,
                usage,
            })
            .is_err()
        {
            return;
        }
    }
}
