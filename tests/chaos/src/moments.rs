//! Moments that a seed chooses.

use std::thread;
use std::time::Duration;

/// A series of moments; one seed gives the same series.
pub struct Moments(u64);

impl Moments {
    /// Begins a series.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Lets a random time pass, at most `limit_ms`: the moment itself is what is tested.
    pub fn pass(&mut self, limit_ms: u64) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        thread::sleep(Duration::from_millis(self.0 % limit_ms));
    }
}
