//! Dead letters in a list.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::ports::{DeadLetter, DeadLetters, LogError};

/// Keeps every letter, acknowledged at once.
#[derive(Clone, Debug, Default)]
pub struct MemoryDeadLetters(Arc<Mutex<Vec<DeadLetter>>>);

impl MemoryDeadLetters {
    /// Returns every letter so far, in the order of sending.
    #[must_use]
    pub fn letters(&self) -> Vec<DeadLetter> {
        lock(&self.0).clone()
    }
}

impl DeadLetters for MemoryDeadLetters {
    fn send(&mut self, letter: DeadLetter) -> Result<(), LogError> {
        lock(&self.0).push(letter);
        Ok(())
    }

    fn flushed(&mut self, _wait: Duration) -> Result<bool, LogError> {
        Ok(true)
    }
}
