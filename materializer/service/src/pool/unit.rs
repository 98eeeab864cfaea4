//! One unit on its own named thread: steps a feeder under the newest directive until it is told to stop
//! or is fenced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use materializer_model::progress::{Directive, Progress};
use materializer_model::{Token, Unit};

use crate::stop::Stop;

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
    /// Another step.
    Again,
    /// Nothing: a later claim owns the unit.
    Fenced,
}

/// A unit that this process feeds.
pub(super) struct Running {
    pub(super) token: Token,
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
        directive: Directive,
        mut feeder: Box<dyn Feeder>,
    ) -> std::io::Result<Self> {
        let directive = Arc::new(Mutex::new(Arc::new(directive)));
        let report = Arc::default();
        let stop = Stop::default();
        let work = {
            let (directive, report, stop) =
                (Arc::clone(&directive), Arc::clone(&report), stop.clone());
            move || feed(&mut *feeder, &directive, &report, &stop)
        };
        let thread = thread::Builder::new().name(unit.to_string()).spawn(work)?;
        Ok(Self {
            token,
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
    stop: &Stop,
) -> Next {
    loop {
        let current = Arc::clone(&lock(directive));
        if stop.is_set() {
            feeder.close(&current);
            *lock(report) = Some(feeder.report());
            return Next::Again;
        }
        let next = feeder.step(&current);
        *lock(report) = Some(feeder.report());
        match next {
            Next::Again => {}
            Next::Fenced => return next,
        }
    }
}
