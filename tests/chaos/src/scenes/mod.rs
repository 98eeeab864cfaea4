//! The scenes, by what they hurt.

mod kafka;
mod kafka_log;
mod kafka_reads;
mod processes;
mod processes_many;
mod redis;

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
    processes_many::SCENES,
    kafka::SCENES,
    kafka_log::SCENES,
    kafka_reads::SCENES,
    redis::SCENES,
];
