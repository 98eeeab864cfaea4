//! What the live tests share: how they find the services, and one suite that every control log keeps.

pub mod control_suite;
pub mod services;
