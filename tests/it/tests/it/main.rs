//! The live tests, one binary.

mod crash;
mod golden;
mod kafka;
mod kafka_security;
