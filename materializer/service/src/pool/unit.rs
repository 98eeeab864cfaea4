//! One unit on its own named thread: steps a feeder under the newest directive until it is told to stop
//! or is fenced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use materializer_model::definition::Source;
use materializer_model::progress::{Directive, Progress};
use materializer_model::{Clock, Monotonic, Token, Unit};

use crate::stop::Stop;

/// How often a unit says how it is.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How often a unit that waits looks for a new directive.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Feeds one unit: reads, writes, and says how it is.
pub trait Feeder: Send {
    /// Does the next bit of work; blocks for about 100 ms at most, and for a bounded request time
    /// where a server does not answer.
    fn step(&mut self, directive: &Directive) -> Next;

    /// Says how the unit is. Who reports it, and when, is the pool's business.
    fn report(&self) -> Progress;

    /// Commits what can be committed now, and lets everything go.
    fn close(&mut self, directive: &Directive);
}

/// What a step leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step, at once.
    Again,
    /// Another step, after this time at the latest.
    Wait(Duration),
    /// Nothing: a later claim owns the unit.
    Fenced,
}

/// A unit that this process feeds.
pub(super) struct Running {
    pub(super) token: Token,
    /// What it reads, as it was when the unit was opened.
    pub(super) from: Source,
    directive: Arc<Mutex<Arc<Directive>>>,
    report: Arc<Mutex<Option<Progress>>>,
    stop: Stop,
    thread: JoinHandle<Next>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// Starts to feed a unit.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(
        unit: &Unit,
        token: Token,
        from: Source,
        directive: Directive,
        mut feeder: Box<dyn Feeder>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let directive = Arc::new(Mutex::new(Arc::new(directive)));
        let report = Arc::default();
        let stop = Stop::default();
        let work = {
            let (directive, report, stop) =
                (Arc::clone(&directive), Arc::clone(&report), stop.clone());
            move || feed(&mut *feeder, &directive, &report, &*clock, &stop)
        };
        let thread = thread::Builder::new().name(unit.to_string()).spawn(work)?;
        Ok(Self {
            token,
            from,
            directive,
            report,
            stop,
            thread,
        })
    }

    /// Hands a directive over; the next step follows it.
    pub(super) fn direct(&self, directive: &Directive) {
        let mut held = lock(&self.directive);
        if **held != *directive {
            *held = Arc::new(directive.clone());
        }
    }

    /// Returns the newest report.
    pub(super) fn report(&self) -> Option<Progress> {
        lock(&self.report).clone()
    }

    /// Tells the unit to come to its end, and does not wait for it.
    pub(super) fn stop(&self) {
        self.stop.set();
    }

    /// Says whether the thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread; `None` where it panicked.
    pub(super) fn join(self) -> (Option<Next>, Option<Progress>) {
        let left = self.thread.join().ok();
        (left, lock(&self.report).clone())
    }
}

fn feed(
    feeder: &mut dyn Feeder,
    directive: &Mutex<Arc<Directive>>,
    report: &Mutex<Option<Progress>>,
    clock: &dyn Clock,
    stop: &Stop,
) -> Next {
    let mut reported: Option<Monotonic> = None;
    loop {
        let current = Arc::clone(&lock(directive));
        if stop.is_set() {
            feeder.close(&current);
            *lock(report) = Some(feeder.report());
            return Next::Again;
        }
        let next = feeder.step(&current);
        let now = clock.monotonic();
        // A report copies the whole checkpoint: not with every step of a busy unit.
        if reported.is_none_or(|at| now.since(at) >= REPORT_EVERY) {
            *lock(report) = Some(feeder.report());
            reported = Some(now);
        }
        match next {
            Next::Again => {}
            Next::Wait(limit) => stop.wait(limit.min(LOOK_EVERY)),
            Next::Fenced => return next,
        }
    }
}
