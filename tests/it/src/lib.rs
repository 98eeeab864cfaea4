//! What the live tests share: how they find the services, and names that no other test uses.

pub mod control_suite;
pub mod services;
