//! The clock of a real process: the machine's monotonic one, and the broker's time as it was last read.
//!
//! Broker time is the append time of the newest control record that this process *consumed*, plus the
//! monotonic time since. The machine's wall clock is never asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use materializer_model::{Clock, Monotonic, Timestamp};

/// The clock of this process. Clones share what was read of the broker's time.
#[derive(Clone, Debug)]
pub struct SystemClock {
    began: Instant,
    read: Arc<Mutex<Option<(Timestamp, Monotonic)>>>,
}

impl SystemClock {
    /// Starts the clock of this process.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine for the time"
    )]
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            read: Arc::default(),
        }
    }

    /// Takes in the append time of a control record that was just consumed. An older one than is known
    /// changes nothing.
    pub fn consumed(&self, appended: Timestamp) {
        let now = self.monotonic();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.is_none_or(|(known, at)| appended > known.plus(now.since(at))) {
            *read = Some((appended, now));
        }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.began.elapsed())
    }

    fn broker(&self) -> Option<Timestamp> {
        let read = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.map(|(known, at)| known.plus(self.monotonic().since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_time_never_goes_back() {
        let clock = SystemClock::start();
        assert_eq!(clock.broker(), None);
        clock.consumed(Timestamp(5_000));
        clock.consumed(Timestamp(1_000));
        assert!(clock.broker() >= Some(Timestamp(5_000)));
    }
}
