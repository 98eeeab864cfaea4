//! What must be so after every event, whatever anybody does: read from the control topics and the store by
//! themselves, with a catalog folded event by event.

use std::collections::{BTreeMap, BTreeSet};

use materializer_migrations::event::Read;
use materializer_migrations::history::{describe, subject};
use materializer_migrations::reports::GatewayReport;
use materializer_migrations::{Body, Catalog, Envelope, Role, Verdict};
use materializer_model::memory::MemoryControlLog;
use materializer_model::ports::{AliasPointer, ControlLog, ControlTopic, SinkAdmin};
use materializer_model::progress::{Health, Progress};
use materializer_model::{Checkpoint, Offset, Timestamp, Unit, VersionId, VersionNumber};
use std::time::Duration;

use super::gateway::GATEWAY_KEY;
use super::trouble::Trouble;
use super::views::{edition, version, view};
use crate::chaos::Shared;
use crate::servers::{Servers, Stored};
use crate::upstream::Upstream;

/// How long a version is kept after the last reader was routed to it.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How old the evidence of a promotion may be.
const EVIDENCE: Duration = Duration::from_secs(15);

/// How long after its last report a gateway may still route readers.
const GATEWAY_FORGOTTEN: Duration = Duration::from_secs(60);

/// A report that says that a unit could be served.
struct Well {
    unit: Unit,
    appended: Timestamp,
}

pub(super) struct Witness {
    trouble: Trouble,
    /// Whether the trouble was there that comes once.
    has_trouble: bool,
    /// Whether the catalog was lost and restored.
    is_restored: bool,
    shared: Shared,
    servers: Servers,
    log: MemoryControlLog,
    catalog: Catalog,
    progress_next: Offset,
    well: Vec<Well>,
    /// When the soak of the standby began.
    soaks: Option<Timestamp>,
    /// The version of each alias epoch there ever was.
    promoted: BTreeMap<Offset, VersionNumber>,
    /// The last event that retired the whole view.
    gone: Option<Offset>,
    /// The highest alias epoch that a reader saw.
    epoch: Option<Offset>,
    /// The last checkpoint of each unit that was compared with the log.
    compared: BTreeMap<Unit, Checkpoint>,
    /// The units that stood, after the log was cut back, where nobody could tell what they had read.
    untold: BTreeSet<Unit>,
    /// What each unit last said of itself.
    healths: BTreeMap<Unit, Health>,
    /// The units that were there when the sink last lost data, and when that was.
    shaken: BTreeSet<Unit>,
    lost_at: Option<Timestamp>,
    /// What the gateway has last said, and when.
    gateway: Option<(GatewayReport, Timestamp)>,
}

impl Witness {
    pub(super) fn new(shared: &Shared, servers: &Servers, trouble: Trouble) -> Self {
        Self {
            trouble,
            has_trouble: false,
            is_restored: false,
            shared: shared.clone(),
            servers: servers.clone(),
            log: servers.control.log(),
            catalog: Catalog::default(),
            progress_next: Offset(0),
            well: Vec::new(),
            soaks: None,
            promoted: BTreeMap::new(),
            gone: None,
            epoch: None,
            compared: BTreeMap::new(),
            untold: BTreeSet::new(),
            healths: BTreeMap::new(),
            shaken: BTreeSet::new(),
            lost_at: None,
            gateway: None,
        }
    }

    /// Notes that the sink went back to what it held some time ago. What was there may be missing, and
    /// readers may see an earlier alias, or none, until it is written again.
    pub(super) fn sink_lost(&mut self) {
        self.lost_at = Some(self.servers.clock.now());
        self.epoch = self.alias().map(|pointer| pointer.epoch);
        self.compared.clear();
        let versions = self.catalog.view(&view()).into_iter();
        let versions = versions.flat_map(|view| view.versions.values());
        self.shaken = versions.flat_map(|version| version.units()).collect();
    }

    /// Says whether what was read of the sink for an event may since have been lost.
    fn may_be_lost(&self, appended: Timestamp) -> bool {
        self.lost_at
            .is_some_and(|lost| appended.since(lost) <= EVIDENCE * 2)
    }

    /// Notes that the trouble was there that comes once.
    pub(super) fn trouble_came(&mut self) {
        self.has_trouble = true;
        self.compared.clear();
    }

    /// Takes the catalog as it was restored: all that its events say was so before. What the sink has deleted
    /// since is lost, and readers may see what was live later until the alias is led by it.
    pub(super) fn catalog_restored(&mut self) {
        self.is_restored = true;
        self.catalog = Catalog::default();
        self.progress_next = Offset(0);
        let mut events = Vec::new();
        self.log
            .read(ControlTopic::Catalog, Offset(0), &mut events)
            .expect("memory");
        for event in &events {
            self.catalog.fold(event);
        }
        self.well.clear();
        self.healths.clear();
        self.gateway = None;
        self.soaks = None;
        let now = self.catalog.view(&view());
        let pointer = now.and_then(|view| view.pointer());
        self.promoted
            .extend(pointer.map(|pointer| (pointer.epoch, pointer.version)));
        let retired = now.and_then(|view| view.retired);
        self.gone = retired.map(|at| at.offset).or(self.gone);
        self.sink_lost();
    }

    /// By how much two append times may be further apart, or closer, than what they are of.
    fn slack(&self) -> Duration {
        match self.trouble {
            Trouble::ClocksJump(most) => Duration::from_millis(2 * most),
            Trouble::None
            | Trouble::SinkLoses
            | Trouble::Grown
            | Trouble::Cut
            | Trouble::Recreated
            | Trouble::CatalogCut
            | Trouble::CatalogReplaced => Duration::ZERO,
        }
    }

    /// Says whether a unit has said that its data is lost, or that it cannot go on, which can be.
    pub(super) fn is_damaged(&self, unit: &Unit) -> bool {
        let health = self.healths.get(unit);
        let is_damaged = matches!(health, Some(Health::Damaged { .. }));
        let has_failed = matches!(health, Some(Health::Failed { .. }));
        match self.trouble {
            Trouble::SinkLoses => self.lost_at.is_some() && is_damaged,
            Trouble::Recreated => self.has_trouble && is_damaged,
            Trouble::CatalogCut | Trouble::CatalogReplaced => self.is_restored && is_damaged,
            Trouble::Grown => self.has_trouble && has_failed,
            Trouble::Cut => self.has_trouble && (is_damaged || has_failed),
            Trouble::None | Trouble::ClocksJump(_) => false,
        }
    }

    /// Says whether a version has such a unit.
    pub(super) fn has_damaged(&self, id: &VersionId) -> bool {
        let version = self.catalog.version(id);
        version.is_some_and(|version| version.units().any(|unit| self.is_damaged(&unit)))
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Looks at all that happened since it looked last.
    pub(super) fn look(&mut self, upstream: &mut Upstream) -> Result<(), String> {
        // Of a catalog that is not the one that it was nothing counts: what it led to stays.
        if !(self.has_trouble && self.trouble.ends_deciding()) || self.is_restored {
            self.hear();
            self.read_on(upstream)?;
        }
        self.check_readers()?;
        self.check_stored(upstream)
    }

    fn read_on(&mut self, upstream: &mut Upstream) -> Result<(), String> {
        let mut records = Vec::new();
        self.log
            .read(ControlTopic::Catalog, self.catalog.next(), &mut records)
            .expect("memory");
        for record in records {
            let before = self.catalog.clone();
            let Read::Known(event) = Envelope::read(record.value.as_deref().unwrap_or_default())
            else {
                return Err(format!("nobody can read the event at {}", record.offset));
            };
            let verdict = self.catalog.fold(&record);
            let subject = subject(&event.body).unwrap_or_default();
            let words = format!("{subject} {}", describe(&event.body));
            self.shared
                .note(format!("catalog {}: {words}: {verdict:?}", record.offset));
            if let Body::Skipped { at, topic_id, .. } = &event.body {
                upstream.skipped(at, topic_id.as_ref());
            }
            if verdict == Verdict::Accepted {
                self.judge(&before, &event, record.offset, record.appended)
                    .map_err(|why| format!("{why}, by the event at {}: {words}", record.offset))?;
            }
        }
        Ok(())
    }

    /// Takes in what units report.
    fn hear(&mut self) {
        let mut records = Vec::new();
        let from = self.progress_next;
        self.progress_next = self
            .log
            .read(ControlTopic::Progress, from, &mut records)
            .expect("memory");
        for record in records {
            let value = record.value.as_deref().unwrap_or_default();
            if record.key.as_deref() == Some(GATEWAY_KEY) {
                self.hear_gateway(value, record.appended);
            }
            let Ok(report) = serde_json::from_slice::<Progress>(value) else {
                continue; // a gateway's, a coordinator's, or one taken back
            };
            let lost = matches!(
                report.health,
                Health::Damaged { .. } | Health::Failed { .. } | Health::Rewound { .. }
            );
            self.healths
                .insert(report.unit.clone(), report.health.clone());
            if report.servable && !lost {
                self.well.push(Well {
                    unit: report.unit,
                    appended: record.appended,
                });
            }
        }
        let newest = self.servers.clock.now();
        let kept = EVIDENCE * 2 + self.slack();
        self.well.retain(|well| newest.since(well.appended) <= kept);
    }

    fn hear_gateway(&mut self, report: &[u8], appended: Timestamp) {
        let report: GatewayReport = serde_json::from_slice(report).expect("it is JSON");
        let is_late = self.gateway.as_ref().is_some_and(|(known, _)| {
            known.process == report.process && known.sequence >= report.sequence
        });
        if !is_late {
            self.gateway = Some((report, appended));
        }
    }

    /// Holds an event that counts against the rules.
    fn judge(
        &mut self,
        before: &Catalog,
        event: &Envelope,
        at: Offset,
        appended: Timestamp,
    ) -> Result<(), String> {
        let asked = event.answers.as_ref().and_then(|id| before.request(id));
        let refused = matches!(event.body, Body::Refused { .. } | Body::Taken {});
        if let Some(asked) = asked
            && appended > asked.expires()
            && !refused
        {
            return Err("a request was carried out after it had expired".into());
        }
        match &event.body {
            Body::Promoted { version, .. } | Body::RolledBack { version, .. } => {
                let since = appended.minus(EVIDENCE);
                let since = asked.map_or(since, |asked| since.max(asked.at.appended));
                let slack = self.slack();
                self.was_well(version, since.minus(slack), appended.plus(slack))?;
                self.promoted.insert(at, version.number);
                self.soaks = None;
            }
            Body::AliasConfirmed { epoch, .. } => {
                let stored = self.alias().map(|pointer| pointer.epoch);
                if stored < Some(*epoch) && !self.may_be_lost(appended) {
                    return Err(format!("{stored:?} is what readers see"));
                }
                self.soaks = Some(appended);
            }
            Body::SoakRestarted { .. } => self.soaks = Some(appended),
            Body::SoakInterrupted { .. } => self.soaks = None,
            Body::SoakEnded { .. } if asked.is_none() => {
                let live = before.view(&view()).and_then(|view| view.live());
                let soak = live.map_or(Duration::ZERO, |live| live.definition.soak);
                let over = self.soaks.map(|began| began.plus(soak));
                if over.is_none_or(|over| appended < over) {
                    return Err(format!("the soak lasts until {over:?}"));
                }
            }
            Body::Retiring { version } => {
                let changed = before.version(version).map(|version| &version.changed);
                let changed = changed.ok_or("there is no such version")?;
                let (late, gone) = (
                    EVIDENCE + self.slack(),
                    GATEWAY_FORGOTTEN.saturating_sub(self.slack()),
                );
                let is_behind = self.gateway.as_ref().is_some_and(|(report, heard)| {
                    // One that came just now may have come after the decision.
                    let since = appended.since(*heard);
                    report.folded <= changed.offset && (late..gone).contains(&since)
                });
                if appended < changed.appended.plus(DRAIN) || is_behind {
                    return Err("readers may still use it".into());
                }
            }
            Body::Retired { version } => {
                let is_left = |unit: &Stored| unit.checkpoint.is_some() || !unit.rows.is_empty();
                if self.stored(version).iter().any(is_left) && !self.may_be_lost(appended) {
                    return Err("something of it is left".into());
                }
            }
            Body::ViewRetired { .. } => self.gone = Some(at),
            Body::Request { .. }
            | Body::CatalogCreated { .. }
            | Body::Adopted { .. }
            | Body::Taken {}
            | Body::Refused { .. }
            | Body::Nothing { .. }
            | Body::NoOp {}
            | Body::Started(_)
            | Body::SettingsChanged { .. }
            | Body::SoakEnded { .. }
            | Body::Aborted { .. }
            | Body::Paused { .. }
            | Body::Resumed { .. }
            | Body::Skipped { .. }
            | Body::Grown(_)
            | Body::Declared { .. } => {}
        }
        self.check_roles(before)
    }

    /// A promotion rests on what every unit said of itself after it was asked for, and not long ago.
    fn was_well(&self, id: &VersionId, since: Timestamp, until: Timestamp) -> Result<(), String> {
        let version = self.catalog.version(id);
        let version = version.ok_or("there is no such version")?;
        for unit in version.units() {
            let heard = self
                .well
                .iter()
                .any(|well| well.unit == unit && (since..=until).contains(&well.appended));
            if !heard {
                return Err(format!(
                    "`{unit}` did not say between {since} and {until} that it is well"
                ));
            }
        }
        Ok(())
    }

    fn check_roles(&self, before: &Catalog) -> Result<(), String> {
        let Some(now) = self.catalog.view(&view()) else {
            return Ok(());
        };
        for role in [Role::Building, Role::Live, Role::Standby] {
            let in_role = now.versions.values().filter(|v| v.role == role).count();
            if in_role > 1 {
                return Err(format!("{in_role} versions are {role}"));
            }
        }
        let was_live = before
            .view(&view())
            .is_some_and(|view| view.live().is_some());
        if was_live && now.live().is_none() && now.retired.is_none() {
            return Err("no version is live, and nobody retired the view".into());
        }
        if now.live().map(|live| live.id.number) != now.alias.as_ref().map(|alias| alias.version) {
            return Err("the alias is not the live version".into());
        }
        Ok(())
    }

    fn alias(&self) -> Option<AliasPointer> {
        self.servers.store.admin().alias(&view()).expect("memory")
    }

    /// Returns what the units of a version store.
    fn stored(&self, version: &VersionId) -> Vec<Stored> {
        let version = self.catalog.version(version).into_iter();
        version
            .flat_map(|version| version.units())
            .map(|unit| self.servers.stored(&unit))
            .collect()
    }

    /// A reader follows the alias in the store: it names a version that was promoted, never an older
    /// promotion than was seen before, and what it names is there.
    fn check_readers(&mut self) -> Result<(), String> {
        let retired = |epoch: Offset| self.gone.is_some_and(|gone| epoch < gone);
        let Some(pointer) = self.alias() else {
            return match self.epoch {
                Some(epoch) if !retired(epoch) => {
                    Err(format!("the alias of epoch {epoch} is gone from the store"))
                }
                Some(_) | None => Ok(()),
            };
        };
        if self.promoted.get(&pointer.epoch) != Some(&pointer.version) {
            return Err(format!("no promotion made the alias {pointer:?}"));
        }
        // After the whole view was retired, a late write may bring its alias back for a while.
        if retired(pointer.epoch) {
            return Ok(());
        }
        if self.epoch > Some(pointer.epoch) {
            return Err(format!(
                "the alias fell from {:?} to {pointer:?}",
                self.epoch
            ));
        }
        self.epoch = Some(pointer.epoch);
        let units = self
            .catalog
            .version(&version(pointer.version.0))
            .into_iter();
        let mut units = units.flat_map(|version| version.units());
        let store = &self.servers.store;
        if units.any(|unit| store.checkpoint(&unit).is_none()) && self.lost_at.is_none() {
            return Err(format!(
                "readers are led to an empty version by {pointer:?}"
            ));
        }
        Ok(())
    }

    /// Compares what is stored with the log wherever it changed; nothing is gone that is needed.
    fn check_stored(&mut self, upstream: &Upstream) -> Result<(), String> {
        let Some(now) = self.catalog.view(&view()) else {
            return Ok(());
        };
        for version in now.versions.values() {
            let needed = match version.role {
                Role::Building => false,
                Role::Live | Role::Standby | Role::Draining => true,
                Role::Retiring | Role::Retired => continue,
            };
            for unit in version.units() {
                let Some(checkpoint) = self.servers.store.checkpoint(&unit) else {
                    let is_lost = self.shaken.contains(&unit);
                    if (needed && !is_lost) || !self.servers.stored(&unit).rows.is_empty() {
                        return Err(format!(
                            "`{unit}` has no checkpoint and is {}",
                            version.role
                        ));
                    }
                    continue;
                };
                if self.compared.get(&unit) == Some(&checkpoint) {
                    continue;
                }
                let stored = self.servers.stored(&unit);
                if upstream.nobody_can_tell(&stored) {
                    self.untold.insert(unit.clone());
                }
                if self.untold.contains(&unit) || upstream.is_of_another(&checkpoint) {
                    continue;
                }
                upstream
                    .compare(&stored, edition(&version.definition))
                    .map_err(|why| format!("`{unit}` {why}"))?;
                self.compared.insert(unit, checkpoint);
            }
        }
        Ok(())
    }
}
