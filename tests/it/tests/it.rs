//! The live tests, one binary.

#[path = "it/crash.rs"]
mod crash;
#[path = "it/golden.rs"]
mod golden;
#[path = "it/kafka.rs"]
mod kafka;
#[path = "it/kafka_security.rs"]
mod kafka_security;
