//! An alias that was moved: where to, who follows it already, and how fast.

use std::fmt;
use std::time::Duration;

use materializer_migrations::CatalogClient;
use materializer_model::progress::GateReading;
use materializer_model::{Clock, VersionNumber, ViewName};
use serde::Serialize;

use super::context::{Context, GLANCE, explain};
use crate::output::Failure;

/// How long `promote` and `rollback` look whether the gateways follow.
const GATEWAYS_WITHIN: Duration = Duration::from_secs(3);
/// A gateway that was not heard for this long is not counted.
const GATEWAY_SILENT: Duration = Duration::from_secs(10);

/// An alias that was moved.
#[derive(Serialize)]
pub(super) struct Moved {
    done: &'static str,
    view: ViewName,
    live: VersionNumber,
    alias_epoch: u64,
    pub(super) standby: Option<VersionNumber>,
    gateways: usize,
    gateways_following: usize,
    /// How long after the event, in the broker's time, the last gateway said that it follows; nothing
    /// while one does not.
    took_ms: Option<u64>,
    /// How far behind the version was that was gone back to, against the limits.
    fresh: Option<String>,
}

impl Moved {
    /// Reads where the alias is now, and waits a little for the gateways to say that they follow.
    pub(super) fn follow(
        context: &Context,
        client: &mut CatalogClient,
        done: &'static str,
        view: &ViewName,
    ) -> Result<Self, Failure> {
        let began = context.clock.monotonic();
        loop {
            let moved = Self::read(client, done, view)
                .ok_or_else(|| anyhow::anyhow!("view `{view}` has no alias any more"))?;
            let waited = context.clock.monotonic().since(began);
            if moved.gateways_following == moved.gateways || waited > GATEWAYS_WITHIN {
                return Ok(moved);
            }
            std::thread::sleep(GLANCE);
            match client.refresh() {
                // It has moved: a broker that does not answer now takes nothing of that back.
                Err(error) if !error.may_pass() => return Err(explain(error)),
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn read(client: &CatalogClient, done: &'static str, name: &ViewName) -> Option<Self> {
        let state = client.state();
        let view = state.catalog().view(name)?;
        let moved = view.alias.as_ref()?.moved;
        let now = state.reports().newest()?;
        let alive = state.reports().gateways().values();
        let alive = alive.filter(|gateway| now.since(gateway.appended) < GATEWAY_SILENT);
        // A gateway reports as soon as it has read the event.
        let follows: Vec<Option<Duration>> = alive
            .map(|gateway| {
                let follows = gateway.report.folded > moved.offset;
                follows.then(|| gateway.appended.since(moved.appended))
            })
            .collect();
        let slowest = follows.iter().copied().max().flatten();
        let all = follows.iter().all(Option::is_some);
        Some(Self {
            done,
            view: name.clone(),
            live: view.alias.as_ref()?.version,
            alias_epoch: moved.offset.0,
            standby: view.standby().map(|standby| standby.id.number),
            gateways: follows.len(),
            gateways_following: follows.iter().flatten().count(),
            took_ms: slowest
                .filter(|_| all)
                .and_then(|took| u64::try_from(took.as_millis()).ok()),
            fresh: None,
        })
    }

    /// Adds how fresh the live version was by the gates that it was taken back on.
    pub(super) fn fresh_by(mut self, gates: &[GateReading]) -> Self {
        let lag = gates.iter().filter(|gate| gate.gate.starts_with("lag_"));
        let lag: Vec<String> = lag
            .map(|gate| format!("{} {}", gate.gate, gate.reading))
            .collect();
        self.fresh = Some(lag.join(", "));
        self
    }
}

/// Shows `promoted: product-search → v8 in 6 ms; 2 of 2 gateways serve it`.
impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.done, self.view, self.live)?;
        if let Some(took) = self.took_ms {
            write!(f, " in {took} ms")?;
        }
        match (self.gateways_following, self.gateways) {
            (_, 0) => f.write_str("; no gateway is alive")?,
            (following, all) => write!(f, "; {following} of {all} gateways serve it")?,
        }
        match &self.fresh {
            None => Ok(()),
            Some(lag) => write!(f, "; {} was fresh ({lag})", self.live),
        }
    }
}
