//! The live tests, one binary.

mod crash;
mod golden;
mod installation;
mod kafka;
mod kafka_security;
