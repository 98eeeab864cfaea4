//! One process's hold on the control topics: one follower that everybody here shares.
//!
//! The control thread refreshes it several times a second; a unit that must know the newest claim *now*
//! refreshes it as well. Both happen under one lock, so that what is read is folded once, in order.
//! Everybody else looks at a snapshot, which is never older than the control thread's last round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use materializer_migrations::Follower;
use materializer_migrations::reports::FollowError;
use materializer_model::ports::{Claims, ControlError, ControlLog, ControlTopic};
use materializer_model::progress::Claim;
use materializer_model::{ClaimId, Clock, Monotonic, ProcessId, Token, Unit};

/// How often it is checked whose the topics are.
const IDENTITY_EVERY: Duration = Duration::from_secs(10);

/// A sign of life of a unit's owner: its claim, or a report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sign {
    claim: Option<ClaimId>,
    report: Option<(ProcessId, u64)>,
    /// When this process saw it first.
    seen: Monotonic,
}

/// The control topics as this process read them last.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The catalog, the claims and what was reported.
    pub follower: Follower,
    signs: BTreeMap<Unit, Sign>,
}

impl State {
    /// Returns how long a unit's owner has given no sign of life, on this process's clock: neither a
    /// claim nor a report with a new sequence. `None` where it never gave one.
    #[must_use]
    pub fn silence(&self, unit: &Unit, now: Monotonic) -> Option<Duration> {
        self.signs.get(unit).map(|sign| now.since(sign.seen))
    }

    fn look_for_signs(&mut self, now: Monotonic) {
        let reports = self.follower.reports();
        let reported = reports.units().map(|heard| &heard.report.unit);
        for unit in reports.claimed().chain(reported) {
            let claim = reports.claim(unit).map(|(_, claim)| claim.claim.clone());
            let report = reports
                .unit(unit)
                .map(|heard| (heard.report.process.clone(), heard.report.sequence));
            let known = self.signs.get(unit);
            if known.is_none_or(|sign| sign.claim != claim || sign.report != report) {
                let sign = Sign {
                    claim,
                    report,
                    seen: now,
                };
                self.signs.insert(unit.clone(), sign);
            }
        }
    }
}

struct Inner {
    log: Box<dyn ControlLog>,
    state: State,
    /// When it was checked last whose the topics are.
    checked: Monotonic,
    /// Why nothing is read any more, once the topics are not those that they were.
    lost: Option<ControlError>,
}

impl Inner {
    fn read_on(&mut self, now: Monotonic) -> Result<(), ControlError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let read = self.check_and_follow(now);
        if let Err(lost @ ControlError::Lost(_)) = &read {
            self.lost = Some(lost.clone());
        }
        read
    }

    fn check_and_follow(&mut self, now: Monotonic) -> Result<(), ControlError> {
        let Self { log, state, .. } = self;
        state.follower.follow(&mut **log)?;
        state.look_for_signs(now);
        if now.since(self.checked) >= IDENTITY_EVERY {
            state.follower.check_identity(&mut **log).map_err(lost)?;
            self.checked = now;
        }
        Ok(())
    }
}

/// Topics that are another catalog's by now are as lost as those that were cut back.
fn lost(fault: FollowError) -> ControlError {
    match fault {
        FollowError::Log(fault) => fault,
        FollowError::Foreign { .. } => ControlError::Lost(fault.to_string()),
        FollowError::Missing => ControlError::Refused(fault.to_string()),
    }
}

/// One process's hold on the control topics.
pub struct Control {
    inner: Mutex<Inner>,
    snapshot: RwLock<Arc<State>>,
    clock: Arc<dyn Clock>,
    /// When the control thread came round last, whether or not it could read.
    round: Mutex<Monotonic>,
}

impl Control {
    /// Reads the control topics to their ends, checks whose they are, and asks the broker for its time.
    ///
    /// # Errors
    /// [`FollowError`]; `Missing` where no coordinator ever ran.
    pub fn open(mut log: Box<dyn ControlLog>, clock: Arc<dyn Clock>) -> Result<Self, FollowError> {
        if log.identity()?.is_none() {
            return Err(FollowError::Missing);
        }
        // Without a record of now the broker's time would be that of the newest old one.
        log.append(
            ControlTopic::Progress,
            Some(materializer_migrations::reports::CLIENT),
            Some(b"{}"),
        )?;
        let control = Self {
            inner: Mutex::new(Inner {
                log,
                state: State::default(),
                checked: clock.monotonic(),
                lost: None,
            }),
            snapshot: RwLock::default(),
            round: Mutex::new(clock.monotonic()),
            clock,
        };
        control.refresh()?;
        let mut inner = control.lock();
        let Inner { log, state, .. } = &mut *inner;
        state.follower.check_identity(&mut **log)?;
        drop(inner);
        Ok(control)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on to the ends and replaces the snapshot. Topics that were once found to be cut back or
    /// made anew are never read again: only a new process can tell what they are.
    ///
    /// # Errors
    /// [`ControlError`]; the snapshot stays as it was.
    pub fn refresh(&self) -> Result<Arc<State>, ControlError> {
        let mut inner = self.lock();
        inner.read_on(self.clock.monotonic())?;
        let state = Arc::new(inner.state.clone());
        // Still under the lock: a snapshot never replaces a newer one.
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&state);
        Ok(state)
    }

    /// Returns the newest snapshot.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&snapshot)
    }

    /// Takes in that the control thread came round.
    pub fn came_round(&self) {
        *self.round.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.monotonic();
    }

    /// Returns how long ago the control thread came round last.
    #[must_use]
    pub fn since_round(&self) -> Duration {
        let round = *self.round.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.monotonic().since(round)
    }

    /// Appends a claim, reads the claims to their end, and returns the token if the claim is the
    /// newest one.
    ///
    /// # Errors
    /// [`ControlError`]; whether the claim stands is then told by the next refresh.
    pub fn claim(&self, unit: &Unit, claim: &Claim) -> Result<Option<Token>, ControlError> {
        let value = serde_json::to_vec(claim).expect("text always serialises");
        self.append(ControlTopic::Claims, &unit.to_string(), Some(&value))?;
        let state = self.refresh()?;
        let owner = state.follower.owner(unit);
        Ok(owner.and_then(|(token, newest)| (newest.claim == claim.claim).then_some(token)))
    }

    /// Appends a report under a key.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn report(&self, key: &str, report: &impl serde::Serialize) -> Result<(), ControlError> {
        let value = serde_json::to_vec(report).expect("reports hold text keys and finite numbers");
        self.append(ControlTopic::Progress, key, Some(&value))
    }

    /// Takes the report under a key back.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn take_back(&self, key: &str) -> Result<(), ControlError> {
        self.append(ControlTopic::Progress, key, None)
    }

    /// Appends, unless the topics are another catalog's by now: nobody there shall hear of this one.
    fn append(
        &self,
        topic: ControlTopic,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), ControlError> {
        let mut inner = self.lock();
        if let Some(lost) = &inner.lost {
            return Err(lost.clone());
        }
        inner.log.append(topic, Some(key), value)?;
        Ok(())
    }
}

/// What a unit's owner asks of the claims; reads through the process's one follower.
pub struct SharedClaims(pub Arc<Control>);

impl Claims for SharedClaims {
    fn newest(&mut self, unit: &Unit) -> Result<Option<(Token, Claim)>, ControlError> {
        let state = self.0.refresh()?;
        let owner = state.follower.owner(unit);
        Ok(owner.map(|(token, claim)| (token, claim.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use materializer_migrations::CatalogClient;
    use materializer_model::memory::{ManualClock, MemoryControl, MemoryControlLog};
    use materializer_model::ports::{ControlIdentity, ControlRecord};
    use materializer_model::{EventId, Offset, Timestamp};

    use super::*;

    /// Topics that may be made anew under their names.
    struct Remade {
        log: MemoryControlLog,
        remade: Arc<AtomicBool>,
    }

    impl ControlLog for Remade {
        fn create(&mut self) -> Result<ControlIdentity, ControlError> {
            self.log.create()
        }

        fn identity(&mut self) -> Result<Option<ControlIdentity>, ControlError> {
            let mut identity = self.log.identity()?;
            if self.remade.load(Ordering::Relaxed) {
                identity.as_mut().expect("created").cluster = "another".into();
            }
            Ok(identity)
        }

        fn append(
            &mut self,
            topic: ControlTopic,
            key: Option<&str>,
            value: Option<&[u8]>,
        ) -> Result<Offset, ControlError> {
            self.log.append(topic, key, value)
        }

        fn read(
            &mut self,
            topic: ControlTopic,
            from: Offset,
            out: &mut Vec<ControlRecord>,
        ) -> Result<Offset, ControlError> {
            self.log.read(topic, from, out)
        }
    }

    #[test]
    fn topics_that_were_made_anew_under_a_process_are_never_read_again() {
        let clock = ManualClock::new(Timestamp(0));
        let log = MemoryControl::new("main", clock.clone()).log();
        let new_id = Box::new(|| EventId::new("id"));
        CatalogClient::create(Box::new(log.clone()), "ada", new_id).expect("a catalog");
        let remade = Arc::new(AtomicBool::new(false));
        let topics = Remade {
            log,
            remade: Arc::clone(&remade),
        };
        let control = Control::open(Box::new(topics), Arc::new(clock.clone())).expect("opened");
        clock.advance(IDENTITY_EVERY);
        assert!(control.refresh().is_ok());
        remade.store(true, Ordering::Relaxed);
        assert!(control.refresh().is_ok(), "not looked at yet");
        clock.advance(IDENTITY_EVERY);
        let lost = control.refresh().map(|_| ());
        assert!(matches!(lost, Err(ControlError::Lost(_))), "{lost:?}");
        remade.store(false, Ordering::Relaxed);
        clock.advance(IDENTITY_EVERY);
        assert_eq!(control.refresh().map(|_| ()), lost);
        assert_eq!(control.take_back("key"), lost, "and nothing is written");
        assert_eq!(control.state().follower.catalog().next(), Offset(1));
    }
}
