//! The migration of a view from one version to the next: the catalog, the lifecycle, the gates, and
//! the coordinator that carries decisions out.
//!
//! Decisions are pure functions of folded logs; what touches the world goes through the ports of
//! `model`. No Kafka, no Redis, no clock is known here.

pub mod adoption;
mod append;
pub mod catalog;
pub mod client;
pub mod coordinator;
pub mod decide;
pub mod declare;
mod defect;
pub mod desired;
pub mod event;
mod faults;
pub mod gates;
mod growth;
pub mod history;
pub mod judge;
pub mod lifecycle;
pub mod plan;
pub mod reports;
mod requests;
mod sampling;
pub mod status;
mod steps;
pub mod versions;
pub mod words;

pub use adoption::Adoption;
pub use catalog::{Catalog, Verdict};
pub use client::{CatalogClient, ClientError, Outcome};
pub use coordinator::{Coordinator, CoordinatorError, Settings, Stepped, ViewSinks};
pub use declare::Declaration;
#[cfg(feature = "mutations")]
pub use defect::Defect;
pub use desired::desired;
pub use event::{Body, Envelope, Verb};
pub use judge::Refusal;
pub use lifecycle::Role;
pub use plan::Plan;
pub use reports::{Follower, GatewayReport, Reports};
pub use status::Status;
pub use versions::{Declared, Version, View};
