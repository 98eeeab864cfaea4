//! The Redis sink: caches whose rows are keys of a standalone Redis 7 (or Valkey 7.2) server.
//!
//! What is stored (`i` is the installation; a view's name is never empty, so no row's key begins
//! with `i::`):
//!
//! ```text
//! i::mark                        {"catalog","sink"}
//! i::products:alias              "v7 <catalog offset of the promotion>"
//! i::products:v7:s0:token        "<catalog> <claim offset> <claim id>" | "retired <offset>"
//! i::products:v7:s0:checkpoint   where the shard stands, in one string
//! i::products:v7:s0:unfinished   where a commit in parts ends, from its first part to its last
//! i:products:v7:<rendered key>   the rows, and nothing else under this prefix
//! ```
//!
//! Invariants:
//! - Every write is a compare-and-set: `MULTI … EXEC` under `WATCH token, checkpoint`, sent only
//!   after the values that were read under that `WATCH` were ours. Rows and checkpoint are applied
//!   together.
//! - Every reply is read, in order, and judged; a connection with an unread or unexpected reply is
//!   dropped and never used again.
//! - The mark is compared at every connect: another catalog's place is never written.
//!
//! When to open again, and what a checkpoint that went back means, is left to the worker.

mod admin;
mod alias;
mod commit;
mod connection;
mod keys;
mod mark;
mod owner;
mod pack;
mod pass;
mod probe;
mod read;
mod retire;
mod row;
mod serve;
mod settings;
mod sink;
mod token;
mod traces;

pub use admin::RedisAdmin;
pub use mark::{Mark, find_mark, read_mark};
pub use probe::{Eviction, Probe, ServerFacts, probe};
pub use read::RedisReader;
pub use serve::{Answer, NewestAliases, Read, ReadRequest, Reply, ViewReads};
pub use settings::{Password, RedisPlace, RedisSettings, Tls};
pub use sink::RedisSink;
pub use traces::{Traces, find_traces};

/// Reads a text as each of the things that are stored beside rows.
pub(crate) fn hostile(text: &str) {
    mark::hostile(text);
    token::StoredToken::read(text.as_bytes());
    if let Ok(pointer) = text.parse::<alias::Stored>() {
        let again = pointer.to_string().parse::<alias::Stored>();
        assert_eq!(again.map(|again| again.0), Ok(pointer.0));
    }
    drop(ServerFacts::parse(text));
}
