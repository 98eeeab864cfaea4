//! The migration crate from outside: stored formats, the coordinator over memory doubles, and every
//! reachable state of the lifecycle.

mod coordinator;
mod declare;
mod desired;
mod explore;
mod faults;
mod golden;
mod growth;
mod restore;
mod sample;
mod verbs;
mod world;
