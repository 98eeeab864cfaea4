//! The live tests, one binary.

#[path = "it/golden.rs"]
mod golden;
#[path = "it/kafka.rs"]
mod kafka;
#[path = "it/kafka_security.rs"]
mod kafka_security;
