//! The service: settings, verbs, the pool of units, and the roles that one process plays.
//!
//! Everything that decides is elsewhere: the language in `view`, the loop of a unit in `replay`, roles and
//! gates in `migrations`. Here the parts are put together on real brokers, real sinks and a real clock.

pub mod access;
mod admins;
mod beginning;
pub mod cli;
pub mod clock;
pub mod config;
mod connect;
pub mod control;
mod declared;
pub mod demo;
mod difference;
pub mod doctor;
mod estimate;
mod feeders;
pub mod gateway;
mod identity;
pub mod metrics;
pub mod output;
pub mod pool;
mod run;
mod served;
pub mod stop;
