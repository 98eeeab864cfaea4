//! The sinks that read models are written to, behind the ports of `model`.
//!
//! Each keeps the same promises, which `conformance` holds them to: a commit is applied whole or not
//! at all, by the newest claim's owner alone, and is described by the checkpoint stored with it.

pub mod conformance;
#[doc(hidden)]
pub mod hostile;
pub mod redis;
pub mod tantivy;
