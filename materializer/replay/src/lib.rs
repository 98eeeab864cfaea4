//! The loop of one unit: reads the log in order, folds it, commits batch and checkpoint together,
//! and says at every moment how it is. And `verify`, which reads the log again and compares.
//!
//! Over the ports of `model` alone: it never asks the machine for the time, starts no thread and
//! knows neither Kafka nor a sink. Whoever drives a [`Worker`] calls [`Worker::step`] again and again.

mod defect;
mod eras;
mod gates;
mod halt;
mod lag;
mod lanes;
mod order;
mod pacing;
mod partitioner;
pub mod verify;
mod work;
mod worker;

#[cfg(feature = "mutations")]
pub use defect::Defect;
pub use pacing::Pacing;
pub use work::Work;
pub use worker::{Ports, Settings, Step, Worker};
