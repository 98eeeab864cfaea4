//! Stored texts under another hand: for `tests/hostile` and `fuzz/`.

use crate::{redis, tantivy};

/// Reads a text as each of the things that are stored in a sink.
///
/// # Panics
/// Where what is read is not written as it was read.
pub fn stored(text: &str) {
    redis::hostile(text);
    tantivy::hostile(text);
}
