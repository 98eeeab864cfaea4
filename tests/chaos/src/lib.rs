//! The real program, a real Kafka and a real Redis as processes of their own, which scenes hurt: readers by
//! alias and a producer go on meanwhile, and a second opinion that shares no code compares what is stored.
//!
//! `./dev chaos` runs the scenes; `tests/it` uses the installation, the readers and the second opinion on
//! the services of the tests.

pub mod installation;
pub mod kafka;
pub mod memory;
mod moments;
pub mod oracle;
mod process;
pub mod proxy;
pub mod readers;
pub mod redis;
pub mod stage;

pub use moments::Moments;
pub use process::{Presence, Process, free_port, now};
