//! The sink: the port on one side, a thread that owns the index's writer on the other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use materializer_model::ports::{Expect, Sink, SinkError, Usage};
use materializer_model::{
    Change, Checkpoint, Commit, Fingerprint, Mutation, Poison, Token, Unit, ViewDefinition,
};

use super::place::{Place, TantivySettings};
use super::read::{IndexCopy, Proof};
use super::schema::IndexSchema;
use super::write::{Target, Writer};

/// What the thread is asked to do.
enum Job {
    Open(
        Token,
        Expect,
        SyncSender<Result<Option<Checkpoint>, SinkError>>,
    ),
    Apply(Arc<Commit>),
}

/// The thread that writes, and the two ways to it.
struct Io {
    jobs: SyncSender<Job>,
    settled: Receiver<Result<Checkpoint, SinkError>>,
    thread: JoinHandle<()>,
}

/// Writes one copy of a version.
///
/// Readers are served from [`TantivySink::copy`], which sees each commit as soon as it is durable.
/// Dropping the sink waits for the commit that is under way, and a second at most for merges. The unit
/// is let go when they have ended.
pub struct TantivySink {
    target: Arc<Target>,
    copy: Arc<IndexCopy>,
    io: Option<Io>,
    outstanding: bool,
}

impl TantivySink {
    /// Makes the sink of a unit; nothing is touched before it is opened.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the definition cannot be indexed.
    pub fn new(
        settings: TantivySettings,
        unit: &Unit,
        definition: &ViewDefinition,
        fingerprint: &Fingerprint,
    ) -> Result<Self, SinkError> {
        let schema = IndexSchema::new(definition)
            .map_err(|fault| SinkError::Refused(format!("`{}`: {fault}", unit.version)))?;
        let schema = Arc::new(schema);
        let target = Target {
            place: Place::new(&settings, unit),
            settings,
            schema: Arc::clone(&schema),
            fingerprint: fingerprint.clone(),
        };
        Ok(Self {
            target: Arc::new(target),
            copy: Arc::new(IndexCopy::new(unit.clone(), schema)),
            io: None,
            outstanding: false,
        })
    }

    /// Returns what readers of this copy are served from. It outlives the sink with what it had last.
    #[must_use]
    pub fn copy(&self) -> Arc<IndexCopy> {
        Arc::clone(&self.copy)
    }

    /// Returns the thread, begun anew where it is not there or ended by a broken invariant.
    fn io(&mut self) -> Result<&Io, SinkError> {
        if self.io.as_ref().is_none_or(|io| io.thread.is_finished()) {
            let (jobs, asked) = sync_channel(1);
            let (answers, settled) = sync_channel(1);
            let (target, copy) = (Arc::clone(&self.target), Arc::clone(&self.copy));
            let name = format!("tantivy {}", self.target.place.unit);
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || write(&target, &copy, &asked, &answers))
                .map_err(|fault| SinkError::Unavailable(format!("start a thread: {fault}")))?;
            self.io = Some(Io {
                jobs,
                settled,
                thread,
            });
        }
        Ok(self.io.as_ref().expect("begun above"))
    }
}

fn ended() -> SinkError {
    SinkError::Unavailable("the writing thread ended".to_owned())
}

/// Does one job after another, until nobody can ask any more.
fn write(
    target: &Arc<Target>,
    copy: &Arc<IndexCopy>,
    asked: &Receiver<Job>,
    answers: &SyncSender<Result<Checkpoint, SinkError>>,
) {
    let mut writer: Option<Writer> = None;
    let mut verified = false;
    for job in asked {
        match job {
            Job::Open(me, expect, answer) => {
                // The one before holds the unit, and what it buffered must be gone.
                drop(writer.take());
                let opened = Writer::open(target, copy, &me, expect, !verified);
                let found = opened.map(|opened| {
                    verified = true;
                    writer.insert(opened).payload().checkpoint().cloned()
                });
                if answer.send(found).is_err() {
                    return;
                }
            }
            Job::Apply(commit) => {
                let applied = match &mut writer {
                    Some(writer) => writer.apply(&commit).map(|()| {
                        copy.serve(writer.served());
                        commit.checkpoint.clone()
                    }),
                    None => Err(SinkError::Unavailable("the unit is not open".to_owned())),
                };
                if applied.is_err() {
                    writer = None;
                }
                if answers.send(applied).is_err() {
                    return;
                }
            }
        }
    }
}

impl Sink for TantivySink {
    fn open(&mut self, me: &Token, expect: Expect) -> Result<Option<Checkpoint>, SinkError> {
        self.outstanding = false;
        self.copy.check_whole()?;
        let (answer, answered) = sync_channel(1);
        let io = self.io()?;
        let job = Job::Open(me.clone(), expect, answer);
        io.jobs.send(job).map_err(|_| ended())?;
        let found = answered.recv().map_err(|_| ended())?;
        // The outcome of a commit that nobody waited for, and that `found` tells.
        while io.settled.try_recv().is_ok() {}
        found
    }

    /// A commit of an index is never in parts.
    fn unfinished(&self) -> Option<&Checkpoint> {
        None
    }

    fn check(&self, mutation: &Mutation) -> Result<(), Poison> {
        match &mutation.change {
            Change::Upsert { row, .. } => {
                let schema = &self.target.schema;
                schema.document(&mutation.key, row, &mutation.origin)?;
                Ok(())
            }
            Change::Delete => Ok(()),
        }
    }

    fn submit(&mut self, commit: Arc<Commit>) -> Result<(), SinkError> {
        assert!(!self.outstanding, "one commit at a time");
        self.copy.check_whole()?;
        let io = self.io()?;
        io.jobs.send(Job::Apply(commit)).map_err(|_| ended())?;
        self.outstanding = true;
        Ok(())
    }

    fn settle(&mut self, wait: Duration) -> Result<Option<Checkpoint>, SinkError> {
        if !self.outstanding {
            return Ok(None);
        }
        let io = self.io.as_ref().ok_or_else(ended)?;
        let settled = if wait.is_zero() {
            io.settled.try_recv().map_err(|fault| match fault {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        } else {
            io.settled.recv_timeout(wait)
        };
        let outcome = match settled {
            Ok(outcome) => outcome.map(Some),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        };
        self.outstanding = false;
        outcome
    }

    fn is_proven(&self) -> bool {
        self.copy.raise_proof(Proof::Asked);
        self.copy.proof() == Proof::Made
    }

    fn usage(&self) -> Usage {
        let state = self.copy.state();
        Usage {
            documents: state.as_ref().map(|state| state.documents),
            bytes: state.as_ref().map(|state| state.bytes),
            bytes_free: state.and_then(|state| state.bytes_free),
        }
    }
}

impl Drop for TantivySink {
    fn drop(&mut self) {
        let Some(Io {
            jobs,
            settled,
            thread,
        }) = self.io.take()
        else {
            return;
        };
        drop((jobs, settled));
        if thread.join().is_err() {
            tracing::error!(unit = %self.target.place.unit, "the writing thread panicked");
        }
    }
}
