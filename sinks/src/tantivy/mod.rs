//! The tantivy sink: a search index of each copy of a version, on a local disk.
//!
//! One directory belongs to one unit and one owner, by a lock that ends with the last thread that may
//! write there. The checkpoint lives in the payload of the index's commit and nowhere else, so that
//! rows and checkpoint are one file's rename. What a reader sees is one searcher, with the payload that
//! it was committed with.
//!
//! A live owner is never taken over from: a fail-over is another copy. The token in the payload only
//! detects a volume that was swapped or restored. There is no stored alias: gateways follow the
//! catalog, and are the alias. The holder of a copy deletes it, through [`TantivyAdmin`].

mod document;
mod merges;
mod owner;
mod payload;
mod place;
mod read;
mod retire;
mod schema;
pub mod search;
mod sink;
mod tokenizers;
mod verify;
mod watch;
mod write;

pub use place::TantivySettings;
pub use read::{CopyState, Found, IndexCopy, TantivyReader};
pub use retire::{Leftover, TantivyAdmin};
pub use schema::{IndexSchema, SchemaFault};
pub use sink::TantivySink;
pub use verify::IndexReport;

/// Reads a text as a commit's payload, and what it is once more as it is written.
pub(crate) fn hostile(text: &str) {
    if let Ok(payload) = payload::Payload::decode(text) {
        assert_eq!(payload::Payload::decode(&payload.encode()), Ok(payload));
    }
}
