//! Claims and progress as a process sees them, and the follower that reads all three control topics.
//!
//! A report counts as *fresh* for a decision only if it stands at or past the end of the progress
//! topic that the decider fetched when it began, its sequence rose, and it was made under the
//! newest claim of its unit. Times here are the broker's, as consumed; no machine's clock is read.

use std::collections::BTreeMap;

use materializer_model::defect::is_planted;
use materializer_model::definition::Target;
use materializer_model::ports::{
    ControlError, ControlIdentity, ControlLog, ControlRecord, ControlTopic,
};
use materializer_model::progress::{Claim, GateReading, Progress, StoredCheckpoint};
use materializer_model::{
    CatalogId, EventId, Offset, Origin, ProcessId, Timestamp, Token, TopicCheckpoint, TopicId,
    Unit, VersionId, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Verdict};
use crate::defect::Defect;
use crate::event::{Body, Envelope, NEVER, SCHEMA};
use crate::versions::Version;

/// The progress key of a gateway is this and its name.
pub const GATEWAY: &str = "gateway/";
/// The progress key of a coordinator is this and its name.
pub const COORDINATOR: &str = "coordinator/";
/// The progress key under which a client asks the broker for its time.
pub const CLIENT: &str = "client";

/// What a gateway reports every second, and at once when it has folded an event that moves an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// The run of the gateway's process.
    pub process: ProcessId,
    /// Rises with every report of this process.
    pub sequence: u64,
    /// [`Catalog::known_to`] of what it routes by: every request that it begins after this report
    /// is answered by what the catalog said before this offset.
    pub folded: Offset,
    /// Where it answers over HTTP.
    pub address: Option<String>,
}

/// What a coordinator reports every second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoordinatorReport {
    /// The run of the coordinator's process.
    pub process: ProcessId,
    /// Rises with every report of this process.
    pub sequence: u64,
    /// [`Catalog::known_to`] of what it decides on.
    pub folded: Offset,
    /// The sampled gates of candidates, as they were read last.
    pub sampled: BTreeMap<VersionId, Vec<GateReading>>,
    /// What keeps it from going on, in words: an unreachable sink, a foreign alias.
    pub faults: Vec<String>,
}

/// The last report under a key, and where and when it was appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard<T> {
    /// What was reported.
    pub report: T,
    /// Its offset in the progress topic.
    pub offset: Offset,
    /// When the broker appended it.
    pub appended: Timestamp,
}

/// Everything that is claimed and reported.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    units: BTreeMap<Unit, Heard<Progress>>,
    /// The furthest that was ever reported of each unit.
    checkpoints: BTreeMap<Unit, StoredCheckpoint>,
    /// The same since the worker that reported last took the unit.
    tenures: BTreeMap<Unit, (WorkerId, StoredCheckpoint)>,
    claims: BTreeMap<Unit, (Offset, Claim)>,
    /// [`Catalog::claims_from`].
    claims_from: u64,
    gateways: BTreeMap<String, Heard<GatewayReport>>,
    coordinators: BTreeMap<String, Heard<CoordinatorReport>>,
    newest: Option<Timestamp>,
}

impl Reports {
    /// Returns a unit's last report, by whomever.
    #[must_use]
    pub fn unit(&self, unit: &Unit) -> Option<&Heard<Progress>> {
        self.units.get(unit)
    }

    /// Iterates over every unit's last report.
    pub fn units(&self) -> impl Iterator<Item = &Heard<Progress>> {
        self.units.values()
    }

    /// Returns what the sink of a version's unit must not be behind where `worker` feeds it. A server is
    /// the same for all; a copy that another worker held is on another disk, and is built anew.
    #[must_use]
    pub fn expected(
        &self,
        version: &Version,
        unit: &Unit,
        worker: &WorkerId,
    ) -> Option<&StoredCheckpoint> {
        match version.definition.to {
            Target::Redis(_) | Target::Memory {} => self.checkpoints.get(unit),
            Target::Tantivy(_) => {
                let (by, furthest) = self.tenures.get(unit)?;
                (by == worker).then_some(furthest)
            }
        }
    }

    /// Returns the id of the topic of which a version reads a record, as its units reported it.
    #[must_use]
    pub fn topic_read(&self, version: &Version, record: &Origin) -> Option<&TopicId> {
        let units = version.units();
        let known =
            units.filter_map(|unit| self.checkpoints.get(&unit)?.0.topics.get(&record.topic));
        // The unit that reads its partition knows best: another may have begun before the topic was made anew.
        let reads = |topic: &TopicCheckpoint| topic.partitions.contains_key(&record.partition);
        let best = known.max_by_key(|topic| reads(topic));
        best.map(|topic| &topic.id)
    }

    /// Returns a unit's newest claim and its offset.
    #[must_use]
    pub fn claim(&self, unit: &Unit) -> Option<&(Offset, Claim)> {
        self.claims.get(unit)
    }

    /// Iterates over every claimed unit.
    pub fn claimed(&self) -> impl Iterator<Item = &Unit> {
        self.claims.keys()
    }

    /// Returns the gateways' last reports, by name.
    #[must_use]
    pub fn gateways(&self) -> &BTreeMap<String, Heard<GatewayReport>> {
        &self.gateways
    }

    /// Returns the coordinators' last reports, by name.
    #[must_use]
    pub fn coordinators(&self) -> &BTreeMap<String, Heard<CoordinatorReport>> {
        &self.coordinators
    }

    /// Returns the furthest that anybody says to have read the catalog, and who does.
    pub(crate) fn furthest(&self) -> Option<(Offset, String)> {
        let gateways = self.gateways.iter();
        let gateways = gateways.map(|(name, heard)| (heard.report.folded, GATEWAY, name));
        let coordinators = self.coordinators.iter();
        let coordinators =
            coordinators.map(|(name, heard)| (heard.report.folded, COORDINATOR, name));
        let (folded, kind, name) = gateways.chain(coordinators).max()?;
        Some((folded, format!("{kind}{name}")))
    }

    /// Returns the newest append time among the progress records: a lower bound of the broker's time.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Says whether a token is the one that the unit's newest claim makes.
    #[must_use]
    pub fn holds(&self, unit: &Unit, token: &Token) -> bool {
        self.claims.get(unit).is_some_and(|(offset, claim)| {
            token.claim_offset == self.claims_from + offset.0 && token.claim == claim.claim
        })
    }

    fn fold_claim(&mut self, record: &ControlRecord) {
        let Some(unit) = record.key.as_deref().and_then(|key| key.parse().ok()) else {
            return;
        };
        let claim = record.value.as_deref().map(serde_json::from_slice);
        match claim {
            None => {
                self.claims.remove(&unit);
            }
            Some(Ok(claim)) => {
                self.claims.insert(unit, (record.offset, claim));
            }
            // Whoever claimed, it was not the claim that is known: nobody is known to hold the unit.
            Some(Err(_)) => {
                self.claims.remove(&unit);
            }
        }
    }

    fn fold_progress(&mut self, record: &ControlRecord) {
        self.newest = self.newest.max(Some(record.appended));
        let Some(key) = record.key.as_deref() else {
            return;
        };
        if let Some(name) = key.strip_prefix(GATEWAY) {
            let sequence = |r: &GatewayReport| (r.process.clone(), r.sequence);
            take(&mut self.gateways, name.to_owned(), record, sequence);
        } else if let Some(name) = key.strip_prefix(COORDINATOR) {
            let sequence = |r: &CoordinatorReport| (r.process.clone(), r.sequence);
            take(&mut self.coordinators, name.to_owned(), record, sequence);
        } else if let Ok(unit) = key.parse::<Unit>() {
            let sequence = |r: &Progress| (r.process.clone(), r.sequence);
            take(&mut self.units, unit.clone(), record, sequence);
            self.keep_checkpoint(unit);
        }
    }

    fn keep_checkpoint(&mut self, unit: Unit) {
        let Some(heard) = self.units.get(&unit) else {
            self.checkpoints.remove(&unit);
            self.tenures.remove(&unit);
            return;
        };
        let report = &heard.report;
        for reported in [&report.until, &report.checkpoint].into_iter().flatten() {
            let known = self.checkpoints.remove(&unit);
            let furthest = raised(known, reported);
            self.checkpoints.insert(unit.clone(), furthest);
            let known = self.tenures.remove(&unit);
            let known = known.filter(|(by, _)| *by == report.worker);
            let furthest = raised(known.map(|(_, known)| known), reported);
            let tenure = (report.worker.clone(), furthest);
            self.tenures.insert(unit.clone(), tenure);
        }
    }
}

/// Returns the furthest of what is known and what is reported now. Commits are counted anew after the
/// sink went back, so that positions alone tell which is further.
fn raised(known: Option<StoredCheckpoint>, reported: &StoredCheckpoint) -> StoredCheckpoint {
    match known {
        Some(mut known) if reported.0.is_behind(&known.0) => {
            known.0.raise_to(&reported.0);
            known
        }
        Some(_) | None => reported.clone(),
    }
}

/// Takes a record in, unless it is an earlier report of the same process arriving late.
fn take<K: Ord, T: for<'de> Deserialize<'de>>(
    into: &mut BTreeMap<K, Heard<T>>,
    key: K,
    record: &ControlRecord,
    sequence: impl Fn(&T) -> (ProcessId, u64),
) {
    let Some(value) = record.value.as_deref() else {
        into.remove(&key);
        return;
    };
    // What cannot be read reports nothing: the report before it grows old and stops counting.
    let Ok(report) = serde_json::from_slice::<T>(value) else {
        return;
    };
    if let Some(known) = into.get(&key) {
        let ((old, before), (new, now)) = (sequence(&known.report), sequence(&report));
        if old == new && now <= before {
            return;
        }
    }
    let heard = Heard {
        report,
        offset: record.offset,
        appended: record.appended,
    };
    into.insert(key, heard);
}

/// A fault of following the control topics, by what the reader does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The log.
    #[error(transparent)]
    Log(#[from] ControlError),
    /// The topics are not those that the catalog is bound to: stop deciding and acting.
    #[error("the catalog is bound to other topics ({expected}) than these ({found})")]
    Foreign {
        /// What the catalog says.
        expected: Box<ControlIdentity>,
        /// What the broker says.
        found: Box<ControlIdentity>,
    },
    /// The topics exist and hold no catalog, or there are none.
    #[error("there is no catalog")]
    Missing,
}

impl FollowError {
    /// Says whether it passes by itself, as soon as there is a catalog and its brokers answer.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Missing => true,
            Self::Log(fault) => fault.may_pass(),
            Self::Foreign { .. } => false,
        }
    }
}

/// A process's view of the control topics, kept by reading on.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    catalog: Catalog,
    reports: Reports,
    progress_next: Offset,
    claims_next: Offset,
    /// Whether the catalog was ever read as far as others had read it.
    is_whole: bool,
    /// Whether that may be less: it is being restored.
    is_restored: bool,
}

impl Follower {
    /// Follows a catalog that is being restored, and may be older than what others have read of it.
    #[must_use]
    pub(crate) fn of_restored() -> Self {
        Self {
            is_restored: true,
            ..Self::default()
        }
    }

    /// Returns what the catalog's events add up to.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns what is claimed and reported.
    #[must_use]
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Returns a unit's newest claim with the token that it makes.
    #[must_use]
    pub fn owner(&self, unit: &Unit) -> Option<(Token, &Claim)> {
        let (offset, claim) = self.reports.claim(unit)?;
        let token = Token {
            catalog: self.catalog.id()?.clone(),
            claim_offset: self.reports.claims_from + offset.0,
            claim: claim.claim.clone(),
        };
        Some((token, claim))
    }

    /// Returns the end of the progress topic that the last [`Follower::follow`] fetched.
    #[must_use]
    pub fn progress_end(&self) -> Offset {
        self.progress_next
    }

    /// Reads the three topics to their ends, the catalog first and the claims last, so that a report
    /// is held against claims that are no older than itself.
    ///
    /// Returns the catalog's records that were read, each with whether it counts.
    ///
    /// # Errors
    /// [`ControlError`]; what was read before it is taken in, and reading goes on from there. `Lost`
    /// also where others have read the catalog further than it goes, and where it holds events and no
    /// beginning: nothing of it is taken in then.
    pub fn follow(
        &mut self,
        log: &mut dyn ControlLog,
    ) -> Result<Vec<(ControlRecord, Verdict)>, ControlError> {
        let mut folded = self.follow_catalog(log)?;
        let mut records = Vec::new();
        let end = log.read(ControlTopic::Progress, self.progress_next, &mut records)?;
        for record in records.drain(..) {
            self.reports.fold_progress(&record);
        }
        self.progress_next = end;
        let end = log.read(ControlTopic::Claims, self.claims_next, &mut records)?;
        for record in records.drain(..) {
            self.reports.fold_claim(&record);
        }
        self.claims_next = end;
        if self.lacks().is_some() {
            // What others had read when they said so was there before they did.
            folded.extend(self.follow_catalog(log)?);
        }
        match self.lacks().filter(|_| !self.is_restored) {
            None => self.is_whole = true,
            Some(_) if is_planted(Defect::CutCatalogTaken) => {}
            Some((read, who)) => {
                let end = self.catalog.next();
                if !self.is_whole {
                    *self = Self::default();
                }
                return Err(ControlError::Lost(format!(
                    "the catalog ends at {end}, and `{who}` had read it up to {read}: it was cut back; \
                     restore it with `materializer catalog import`"
                )));
            }
        }
        Ok(folded)
    }

    /// Returns how far somebody has read the catalog, and who, where that is further than it goes.
    fn lacks(&self) -> Option<(Offset, String)> {
        let furthest = self.reports.furthest();
        furthest.filter(|(read, _)| *read > self.catalog.next())
    }

    fn follow_catalog(
        &mut self,
        log: &mut dyn ControlLog,
    ) -> Result<Vec<(ControlRecord, Verdict)>, ControlError> {
        let mut records = Vec::new();
        log.read(ControlTopic::Catalog, self.catalog.next(), &mut records)?;
        let catalog = &mut self.catalog;
        let folded = records.into_iter().map(|record| {
            let verdict = catalog.fold(&record);
            (record, verdict)
        });
        let folded = folded.collect();
        self.reports.claims_from = self.catalog.claims_from();
        if self.lacks_beginning() {
            *self = Self {
                is_restored: self.is_restored,
                ..Self::default()
            };
            return Err(ControlError::Lost(
                "the catalog's topic holds events and no beginning: it was made anew, and an append from \
                 before has reached it; delete it and restore it with `materializer catalog import`"
                    .into(),
            ));
        }
        Ok(folded)
    }

    /// Says whether there are events before a catalog was begun. Nobody begins one behind them.
    fn lacks_beginning(&self) -> bool {
        let catalog = &self.catalog;
        catalog.id().is_none() && catalog.newer().is_none() && catalog.next() > Offset(0)
    }

    /// Checks that the topics are those that the catalog is bound to. Asked at a process's start.
    ///
    /// # Errors
    /// [`FollowError::Foreign`] where they are not, [`FollowError::Missing`] where there is none.
    pub fn check_identity(&self, log: &mut dyn ControlLog) -> Result<(), FollowError> {
        let found = log.identity()?.ok_or(FollowError::Missing)?;
        let expected = self.catalog.topics().ok_or(FollowError::Missing)?;
        if *expected == found {
            return Ok(());
        }
        Err(FollowError::Foreign {
            expected: Box::new(expected.clone()),
            found: Box::new(found),
        })
    }

    /// Creates the topics and the catalog where there is none, and reads it. Of several who do so at
    /// once, one begins the catalog.
    ///
    /// # Errors
    /// [`FollowError`]; [`ControlError::Unknown`] is settled by calling again.
    pub fn create(
        &mut self,
        log: &mut dyn ControlLog,
        who: &str,
        new_id: &mut dyn FnMut() -> EventId,
    ) -> Result<(), FollowError> {
        let topics = log.create()?;
        self.follow(log)?;
        if self.catalog.next() == Offset(0) {
            let catalog = CatalogId::new(new_id().as_str());
            let event = Envelope {
                schema: SCHEMA,
                id: new_id(),
                views: BTreeMap::new(),
                not_before: None,
                not_after: NEVER,
                who: who.to_owned(),
                why: "there was no catalog".to_owned(),
                answers: None,
                body: Body::CatalogCreated { catalog, topics },
            };
            log.append(ControlTopic::Catalog, None, Some(&event.encode()))?;
            self.follow(log)?;
        }
        self.check_identity(log)
    }
}
