//! A clock that moves only when it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::clock::{Clock, Monotonic, Timestamp};

/// One time for all that hold a clone: the broker's is the monotonic one plus the beginning.
#[derive(Clone, Debug)]
pub struct ManualClock {
    began: Timestamp,
    elapsed: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// Starts at the given broker time, with nothing elapsed.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self {
            began,
            elapsed: Arc::default(),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, span: Duration) {
        *lock(&self.elapsed) += span;
    }

    /// Returns the broker's time, which this clock always knows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.began.plus(*lock(&self.elapsed))
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(*lock(&self.elapsed))
    }

    fn broker(&self) -> Option<Timestamp> {
        Some(self.now())
    }
}
