//! The live tests, one binary.

mod access;
mod bad_days;
mod crash;
mod declared;
mod golden;
mod kafka;
mod kafka_growth;
mod kafka_observer;
mod kafka_scene;
mod kafka_security;
mod kafka_writing;
mod secrets;
