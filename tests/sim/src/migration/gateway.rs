//! A gateway, as far as others depend on it: it folds the catalog and says how far.

use materializer_migrations::Follower;
use materializer_migrations::reports::GatewayReport;
use materializer_model::ProcessId;
use materializer_model::ports::{ControlError, ControlLog, ControlTopic};

use super::control::SimControl;

/// The key of its reports.
pub(super) const GATEWAY_KEY: &str = "gateway/g";

pub(super) struct Gateway {
    process: ProcessId,
    control: SimControl,
    follower: Follower,
    sequence: u64,
}

impl Gateway {
    pub(super) fn new(control: SimControl) -> Self {
        Self {
            process: ProcessId::new(control.life.name.clone()),
            control,
            follower: Follower::default(),
            sequence: 0,
        }
    }

    /// Reads on and reports.
    pub(super) fn step(&mut self) -> Result<(), ControlError> {
        self.follower.follow(&mut self.control)?;
        self.sequence += 1;
        let report = GatewayReport {
            process: self.process.clone(),
            sequence: self.sequence,
            folded: self.follower.catalog().known_to(),
            address: None,
        };
        let value = serde_json::to_vec(&report).expect("serialises");
        self.control
            .append(ControlTopic::Progress, Some(GATEWAY_KEY), Some(&value))?;
        Ok(())
    }
}
