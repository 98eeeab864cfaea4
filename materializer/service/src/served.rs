//! What a process tells readers and orchestrators, computed from the control topics as it read them last.

use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::reports::GATEWAY;
use materializer_migrations::{GatewayReport, Status};
use materializer_model::ports::{ControlError, LogObserver};
use materializer_model::{Clock, Monotonic, Offset, ProcessId, WorkerId};
use tokio::sync::watch;

use crate::control::{Control, State};
use crate::gateway::{Process, Routes};
use crate::metrics::{Gauges, ScrapeSource};
use crate::stop::Stop;

/// How often a gateway reports where nothing changes.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How old the control thread's last round may be before only a restart helps.
const CONTROL_STUCK: Duration = Duration::from_secs(120);

/// A gateway's hold on its routes: replaces them, and only then reports how far they go.
pub(crate) struct Signpost {
    control: Arc<Control>,
    clock: Arc<dyn Clock>,
    routes: watch::Sender<Option<Arc<Routes>>>,
    /// The key of its reports.
    key: String,
    report: GatewayReport,
    reported: Option<(Monotonic, Offset)>,
}

impl Signpost {
    /// Makes the hold of the gateway in the process with this data folder and HTTP address.
    #[must_use]
    pub(crate) fn new(
        control: Arc<Control>,
        clock: Arc<dyn Clock>,
        worker: &WorkerId,
        process: ProcessId,
        address: String,
    ) -> Self {
        Self {
            control,
            clock,
            routes: watch::Sender::new(None),
            key: format!("{GATEWAY}{worker}"),
            report: GatewayReport {
                process,
                sequence: 0,
                folded: Offset(0),
                address: Some(address),
            },
            reported: None,
        }
    }

    /// Returns a receiver of the routes.
    #[must_use]
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<Routes>>> {
        self.routes.subscribe()
    }

    /// Routes by a snapshot, and reports it when it is due.
    pub(crate) fn step(&mut self, state: &State) {
        let follower = &state.follower;
        let routes = Arc::new(Routes::of(follower.catalog(), follower.reports()));
        self.routes.send_if_modified(|held| {
            let changed = held.as_ref() != Some(&routes);
            if changed {
                *held = Some(routes);
            }
            changed
        });
        // After the routes: what begins from here on is answered by them.
        let folded = state.follower.catalog().known_to();
        let now = self.clock.monotonic();
        let due = self
            .reported
            .is_none_or(|(at, last)| last != folded || now.since(at) >= REPORT_EVERY);
        if due && self.report(folded).is_ok() {
            self.reported = Some((now, folded));
        }
    }

    fn report(&mut self, folded: Offset) -> Result<(), ControlError> {
        self.report.sequence += 1;
        self.report.folded = folded;
        self.control.report(&self.key, &self.report)
    }

    /// Takes the report back: this gateway answers nobody any more.
    pub(crate) fn close(self) {
        if let Err(error) = self.control.take_back(&self.key) {
            tracing::debug!(%error, "the gateway's report was not taken back");
        }
    }
}

/// What the process says of itself.
pub(crate) struct Own {
    /// The control topics.
    pub(crate) control: Arc<Control>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The worker's id, whose units are this process's.
    pub(crate) worker: WorkerId,
    /// The ends that this process watches.
    pub(crate) observer: Arc<dyn LogObserver>,
    /// Set when the process is coming to its end.
    pub(crate) stop: Stop,
}

impl ScrapeSource for Own {
    fn fill(&self, gauges: &Gauges) {
        let state = self.control.state();
        gauges.versions.set(state.follower.catalog());
        let ends = self.observer.ends();
        for heard in state.follower.reports().units() {
            if heard.report.worker == self.worker {
                gauges.units.set(&heard.report, &ends);
            }
        }
    }
}

impl Process for Own {
    fn status(&self) -> Option<Status> {
        let now = self.clock.broker()?;
        Some(Status::at(&self.control.state().follower, now))
    }

    fn alive(&self) -> Result<(), String> {
        let silence = self.control.since_round();
        if silence > CONTROL_STUCK {
            return Err(format!(
                "the control thread has not come round for {silence:.0?}"
            ));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.stop.is_set() {
            return Err("coming to an end".to_owned());
        }
        Ok(())
    }
}
