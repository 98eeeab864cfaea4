//! The readers' side: documents, searches and status over HTTP, rows over the Redis protocol.
//!
//! One promise holds it together: *one version answers a request*. Each request takes one snapshot of
//! the [`Routes`] and is answered by the version that it names, or, for Redis rows, by the newer one
//! that the alias in Redis names at that instant. The snapshot is computed elsewhere, from the catalog
//! and the workers' progress; nothing here decides what is live.
//!
//! tokio runs sockets and timers alone. Whatever blocks (Redis, an index, another worker) is done by
//! named threads behind bounded queues ([`crew`]), and a full queue answers "try again" at once.
//!
//! The same server carries what every role needs (`/livez`, `/readyz`, `/metrics`) and what a worker
//! serves to gateways (`/internal/v1`): a process hands in the [`Parts`] that it has.

mod connection;
mod copies;
mod crew;
mod documents;
#[cfg(test)]
pub(crate) mod fixtures;
#[doc(hidden)]
pub mod hostile;
mod http;
mod internal;
mod listener;
mod login;
mod probes;
mod redis_protocol;
mod rounds;
mod routes;
mod rows;
mod search;
mod servable;
mod server;
mod shares;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use copies::{LocalCopies, ServedCopy, ServedIndex};
pub(crate) use internal::Workers;
pub use rounds::RowReader;
pub use routes::{CopyAt, RedisRoute, Route, Routes, RoutesReceiver, TantivyRoute};
pub use server::{Gateway, Parts, Process, Settings};

use materializer_model::{Offset, VersionId};

/// What a reader may ask for, and how much of it at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest key, and the longest argument of a Redis command, in bytes.
    pub key_bytes: usize,
    /// The longest request: a Redis command with its arguments, or the body of an HTTP request.
    pub request_bytes: usize,
    /// The most keys of one request.
    pub keys: usize,
    /// The most bytes of rows in one answer.
    pub reply_bytes: usize,
    /// Once the rows for a connection have so many bytes, they are written before more are read.
    pub part_bytes: usize,
    /// The most bytes of rows, of all connections together, that wait to be written.
    pub memory_bytes: usize,
    /// The most words of one Redis command.
    pub request_arguments: usize,
    /// The most commands of one connection that are answered at once.
    pub pipeline_commands: usize,
    /// The most connections to each port.
    pub connections: usize,
    /// The most requests that wait for a thread.
    pub queue_requests: usize,
    /// How many threads ask copies; as many again answer what other processes ask of ours.
    pub copy_threads: usize,
    /// How long a request may take, waiting included; also how long a Redis command may take to arrive,
    /// and a handshake or a login to be done.
    pub answer_time: Duration,
    /// How long an HTTP connection may go without an answer before it is closed.
    pub idle_time: Duration,
    /// How long a request waits for the alias epoch that it asks for.
    pub epoch_wait: Duration,
    /// How long requests that are under way may go on after the stop.
    pub drain_time: Duration,
}

/// The most words of a command from a client that has not logged in, as with Redis.
const LOGIN_WORDS_MAX: usize = 10;
/// The most bytes of such a command.
const LOGIN_BYTES_MAX: usize = 4096;

impl Limits {
    /// Returns what a client may send before it has logged in.
    fn before_login(self) -> Self {
        Self {
            key_bytes: self.key_bytes.min(LOGIN_BYTES_MAX),
            request_bytes: self.request_bytes.min(LOGIN_BYTES_MAX),
            request_arguments: self.request_arguments.min(LOGIN_WORDS_MAX),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 512 * 1024,
            request_bytes: 1024 * 1024,
            keys: 1000,
            reply_bytes: 32 * 1024 * 1024,
            part_bytes: 256 * 1024,
            memory_bytes: 256 * 1024 * 1024,
            request_arguments: 1024,
            pipeline_commands: 128,
            connections: 1000,
            queue_requests: 1024,
            copy_threads: 8,
            answer_time: Duration::from_secs(10),
            // More than the minute for which load balancers keep connections.
            idle_time: Duration::from_secs(75),
            epoch_wait: Duration::from_millis(500),
            drain_time: Duration::from_secs(10),
        }
    }
}

/// An answer, with the one version that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    /// The version.
    pub version: VersionId,
    /// The alias epoch under which it was live.
    pub epoch: Offset,
    /// The answer.
    pub answer: T,
}

/// Why a read has no answer, by what the reader does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The request is at fault: it is refused however often it is sent.
    #[error("{0}")]
    Invalid(String),
    /// The view's rows are of another shape than the command reads.
    #[error("the view's rows are of another shape")]
    WrongType,
    /// There is no such view, or it has no live version.
    #[error("{0}")]
    NotFound(String),
    /// The version is no longer served here: another place, or a newer version, answers.
    #[error("{0}")]
    Gone(String),
    /// Passes by itself: try again after a while.
    #[error("{0}")]
    Unavailable(String),
    /// Does not pass by itself: somebody must look at what is behind the gateway.
    #[error("{0}")]
    Broken(String),
}
