//! What strangers can send, at every place where this project reads it: one function for each, which takes
//! any bytes and panics where a promise is broken.
//!
//! The same functions are run in two ways: by `tests/corpus.rs` with a fixed budget in `./dev test`, and by
//! libFuzzer for as long as one likes (`./dev fuzz`, the workspace `fuzz/`). Both begin with `fuzz/corpus`.

mod control;
mod search;
mod stored;
mod views;

pub use control::control;
pub use search::search;
pub use stored::stored;
pub use views::{expressions, records, views};

/// The bytes of a client of the gateway's Redis protocol.
pub fn redis_protocol(bytes: &[u8]) {
    materializer::gateway::hostile::redis_protocol(bytes);
}

/// What takes any bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 7] = [
    ("control", control),
    ("expressions", expressions),
    ("records", records),
    ("redis_protocol", redis_protocol),
    ("search", search),
    ("stored", stored),
    ("views", views),
];

/// Returns bytes as lines of text, those that are none left out.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| std::str::from_utf8(line).ok())
}
