//! The simulator: the real worker over a simulated log, sink, claims and clock, one loop, one seed.
//!
//! Every choice comes from the seed, so a seed is a whole history: run twice it gives the same trace,
//! byte for byte. After every step the sink is compared with a fold of the log that shares no code
//! with the worker ([`oracle`]). A worker can crash before and after every call of a port.

pub mod oracle;
mod ports;
mod random;
mod run;
mod world;

pub use run::{Outcome, run};
