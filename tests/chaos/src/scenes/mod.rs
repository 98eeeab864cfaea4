//! The scenes, by what they hurt.

mod catalog;
mod kafka;
mod kafka_log;
mod kafka_reads;
mod operators;
mod processes;
mod processes_many;
mod redis;
mod redis_foreign;
mod redis_refusing;
mod tantivy;
mod tantivy_disk;

use chaos::stage::Stage;

/// One fault and what must be true after it.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// What is done, in words.
    pub(crate) fault: &'static str,
    /// Whether it is played in `./dev test`.
    pub(crate) short: bool,
    /// Plays the scene under a name that is an installation's; panics with what is wrong.
    pub(crate) play: fn(&str) -> Stage,
}

/// Every scene.
pub(crate) const SCENES: &[&[Scene]] = &[
    processes::SCENES,
    catalog::SCENES,
    processes_many::SCENES,
    kafka::SCENES,
    kafka_log::SCENES,
    kafka_reads::SCENES,
    redis::SCENES,
    redis_refusing::SCENES,
    redis_foreign::SCENES,
    tantivy::SCENES,
    tantivy_disk::SCENES,
    operators::SCENES,
];
