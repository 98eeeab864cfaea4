//! The simulator: the real worker and the real coordinator over a simulated log, sinks, control topics and
//! clocks, one loop, one seed.
//!
//! Every choice comes from the seed and the number of the event, so a seed is a whole history: run twice it
//! gives the same trace, byte for byte, and without some of its events the others stay what they are.
//! [`feed`] follows one unit through workers that come and go and servers that lose data; [`migrate`] one
//! view through versions, with two coordinators, two workers, a gateway and operators who ask for anything.
//! After every step what is stored is compared with a fold of the log that shares no code with the worker
//! ([`oracle`]), and the catalog with the rules of a migration. A process can crash, or sleep while others
//! go on, before and after every call of a port. [`shrink()`] leaves out of a history that breaks a promise
//! what it does not need for it.

mod chaos;
mod feeding;
mod history;
mod migration;
pub mod oracle;
mod ports;
mod random;
mod servers;
mod shrink;
mod upstream;

pub use chaos::Flaw;
pub use feeding::feed;
pub use history::{History, Kind, Outcome};
pub use migration::migrate;
pub use shrink::shrink;
