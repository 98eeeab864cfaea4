//! A process that claims units and feeds them, as the pool of the service does, one step at a time: a
//! round over the catalog, or a step of one of its workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::{Follower, desired};
use materializer_model::memory::MemoryControlLog;
use materializer_model::ports::{ControlError, ControlLog, ControlTopic};
use materializer_model::progress::{Claim, Directive, Feed};
use materializer_model::{ClaimId, Clock, Monotonic, Offset, ProcessId, Token, Unit, WorkerId};
use materializer_replay::{Step, Worker};

use super::control::SimControl;
use crate::chaos::Life;
use crate::servers::Servers;

/// How long an owner must give no sign of life before its unit is taken.
const SILENT: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What tells that an owner is alive: its claim, and its newest report.
type Sign = (Option<Offset>, Option<(ProcessId, u64)>);

struct Fed {
    worker: Worker,
    token: Token,
    directive: Directive,
}

pub(super) struct Pool {
    /// The same after a restart.
    me: WorkerId,
    life: Life,
    servers: Servers,
    clock: Arc<dyn Clock>,
    control: SimControl,
    follower: Follower,
    units: BTreeMap<Unit, Fed>,
    signs: BTreeMap<Unit, (Sign, Monotonic)>,
    claims: u64,
    sequence: u64,
    reported: Option<Monotonic>,
}

impl Pool {
    pub(super) fn new(me: &str, life: &Life, servers: &Servers, clock: Arc<dyn Clock>) -> Self {
        let inner: MemoryControlLog = servers.control.log();
        Self {
            me: WorkerId::new(me),
            life: life.clone(),
            servers: servers.clone(),
            clock,
            control: SimControl {
                life: life.clone(),
                inner,
            },
            follower: Follower::default(),
            units: BTreeMap::new(),
            signs: BTreeMap::new(),
            claims: 0,
            sequence: 0,
            reported: None,
        }
    }

    pub(super) fn step(&mut self) {
        let pick = self.life.shared.index(2 + 3 * self.units.len());
        let Some(at) = pick.checked_sub(2) else {
            // What cannot be reached now is reached in a later round.
            return self.round().unwrap_or_default();
        };
        let at = at % self.units.len();
        let (unit, fed) = self.units.iter_mut().nth(at).expect("below their number");
        match fed.worker.step(&fed.directive) {
            Step::Again | Step::Wait(_) => {}
            Step::Fenced(by) => {
                self.life
                    .shared
                    .note(format!("{} is fenced from {unit} by {by}", self.life.name));
                let unit = unit.clone();
                self.units.remove(&unit);
            }
        }
    }

    fn round(&mut self) -> Result<(), ControlError> {
        self.follower.follow(&mut self.control)?;
        let wanted = desired(self.follower.catalog(), self.follower.reports(), &self.me);
        let wanted: BTreeMap<Unit, Directive> = wanted
            .into_iter()
            .filter(|(_, directive)| matches!(directive.feed, Feed::Feed | Feed::Hold { .. }))
            .collect();
        let reports = self.follower.reports();
        self.units.retain(|unit, fed| {
            fed.directive = match wanted.get(unit) {
                Some(directive) if reports.holds(unit, &fed.token) => directive.clone(),
                Some(_) | None => return false,
            };
            true
        });
        for (unit, directive) in wanted {
            if !self.units.contains_key(&unit) && self.may_claim(&unit) {
                self.claim(unit, directive)?;
            }
        }
        self.report()
    }

    /// Says whether nobody feeds a unit. Now and then it is taken although somebody does: two processes
    /// may always disagree on that.
    fn may_claim(&mut self, unit: &Unit) -> bool {
        let now = self.clock.monotonic();
        let reports = self.follower.reports();
        let claim = reports.claim(unit);
        let heard = reports.unit(unit);
        let sign = (
            claim.map(|(at, _)| *at),
            heard.map(|h| (h.report.process.clone(), h.report.sequence)),
        );
        let known = self
            .signs
            .entry(unit.clone())
            .or_insert((sign.clone(), now));
        if known.0 != sign {
            *known = (sign, now);
        }
        let silent = now.since(known.1) >= SILENT;
        let free = claim.is_none_or(|(_, claim)| claim.worker == self.me);
        free || silent || self.life.shared.misjudges()
    }

    /// Claims a unit, and feeds it if the claim is the newest one. The claim's append may be unknown.
    fn claim(&mut self, unit: Unit, directive: Directive) -> Result<(), ControlError> {
        self.claims += 1;
        let claim = Claim {
            claim: ClaimId::new(format!("{}-{}", self.life.name, self.claims)),
            worker: self.me.clone(),
            address: None,
        };
        let value = serde_json::to_vec(&claim).expect("serialises");
        let sent = self
            .control
            .append(ControlTopic::Claims, Some(&unit.to_string()), Some(&value));
        match sent {
            Ok(_) | Err(ControlError::Unknown(_)) => {}
            Err(fault) => return Err(fault),
        }
        self.follower.follow(&mut self.control)?;
        let catalog = self.follower.catalog();
        let owner = self.follower.owner(&unit);
        let (Some(version), Some((token, newest))) = (catalog.version(&unit.version), owner) else {
            return Ok(());
        };
        if *newest != claim {
            return Ok(());
        }
        self.life
            .shared
            .note(format!("{} claims {unit}: {token}", self.life.name));
        let worker = self.servers.worker(
            &self.life,
            &unit,
            token.clone(),
            catalog.claims_from(),
            Arc::clone(&version.definition),
            Arc::clone(&self.clock),
        );
        let fed = Fed {
            worker,
            token,
            directive,
        };
        self.units.insert(unit, fed);
        Ok(())
    }

    /// Reports every second, and at once while a request is open.
    fn report(&mut self) -> Result<(), ControlError> {
        let now = self.clock.monotonic();
        let asked = !self.follower.catalog().outstanding().is_empty();
        let due = self
            .reported
            .is_none_or(|last| now.since(last) >= REPORT_EVERY);
        if !due && !asked {
            return Ok(());
        }
        for (unit, fed) in &self.units {
            self.sequence += 1;
            let mut progress = fed.worker.progress();
            progress.sequence = self.sequence;
            let value = serde_json::to_vec(&progress).expect("serialises");
            self.control.append(
                ControlTopic::Progress,
                Some(&unit.to_string()),
                Some(&value),
            )?;
        }
        self.reported = Some(now);
        Ok(())
    }
}
