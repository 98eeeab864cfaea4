//! What must be so after every event, whatever anybody does: read from the control topics and the store by
//! themselves, with a catalog folded event by event.

use std::collections::BTreeMap;

use materializer_migrations::event::Read;
use materializer_migrations::history::{describe, subject};
use materializer_migrations::{Body, Catalog, Envelope, Role, Verdict};
use materializer_model::memory::MemoryControlLog;
use materializer_model::ports::{AliasPointer, ControlLog, ControlTopic, SinkAdmin};
use materializer_model::progress::{Health, Progress};
use materializer_model::{Checkpoint, Offset, Timestamp, Unit, VersionId, VersionNumber};
use std::time::Duration;

use super::views::{edition, version, view};
use crate::chaos::Shared;
use crate::servers::Servers;
use crate::upstream::Upstream;

/// How long a version is kept after the last reader was routed to it.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How old the evidence of a promotion may be.
const EVIDENCE: Duration = Duration::from_secs(15);

/// A report that says that a unit could be served.
struct Well {
    unit: Unit,
    appended: Timestamp,
}

pub(super) struct Witness {
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
}

impl Witness {
    pub(super) fn new(shared: &Shared, servers: &Servers) -> Self {
        Self {
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
        }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Looks at all that happened since it looked last.
    pub(super) fn look(&mut self, upstream: &Upstream) -> Result<(), String> {
        self.hear();
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
            if verdict == Verdict::Accepted {
                self.judge(&before, &event, record.offset, record.appended)
                    .map_err(|why| format!("{why}, by the event at {}: {words}", record.offset))?;
            }
        }
        self.check_readers()?;
        self.check_stored(upstream)
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
            let Ok(report) = serde_json::from_slice::<Progress>(value) else {
                continue; // a gateway's, a coordinator's, or one taken back
            };
            let lost = matches!(
                report.health,
                Health::Damaged { .. } | Health::Failed { .. } | Health::Rewound { .. }
            );
            if report.servable && !lost {
                self.well.push(Well {
                    unit: report.unit,
                    appended: record.appended,
                });
            }
        }
        let newest = self.servers.clock.now();
        self.well
            .retain(|well| newest.since(well.appended) <= EVIDENCE * 2);
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
                self.was_well(version, since, appended)?;
                self.promoted.insert(at, version.number);
                self.soaks = None;
            }
            Body::AliasConfirmed { epoch, .. } => {
                let stored = self.alias().map(|pointer| pointer.epoch);
                if stored < Some(*epoch) {
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
                let drained = before
                    .version(version)
                    .map(|v| v.changed.appended.plus(DRAIN));
                if drained.is_none_or(|drained| appended < drained) {
                    return Err("readers may still use it".into());
                }
            }
            Body::Retired { version } => {
                let (checkpoint, rows) = self.unit(version);
                if checkpoint.is_some() || !rows.is_empty() {
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
            | Body::Skipped { .. } => {}
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

    fn unit(&self, version: &VersionId) -> (Option<Checkpoint>, BTreeMap<String, String>) {
        stored(&self.servers, &unit_of(version))
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
        let (checkpoint, _) = self.unit(&version(pointer.version.0));
        if checkpoint.is_none() {
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
            let unit = unit_of(&version.id);
            let needed = match version.role {
                Role::Building => false,
                Role::Live | Role::Standby | Role::Draining => true,
                Role::Retiring | Role::Retired => continue,
            };
            let (checkpoint, rows) = stored(&self.servers, &unit);
            let Some(checkpoint) = checkpoint else {
                if needed || !rows.is_empty() {
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
            let edition = edition(&version.definition);
            upstream
                .compare(&checkpoint, &rows, |value| format!("{edition}{value}"))
                .map_err(|why| format!("`{unit}` {why}"))?;
            self.compared.insert(unit, checkpoint);
        }
        Ok(())
    }
}

fn unit_of(version: &VersionId) -> Unit {
    Unit {
        version: version.clone(),
        copy: 0,
        shard: 0,
    }
}

/// Returns what a unit stores: the checkpoint and the rows as text.
pub(super) fn stored(
    servers: &Servers,
    unit: &Unit,
) -> (Option<Checkpoint>, BTreeMap<String, String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (checkpoint, rows) = servers.store.unit(unit);
    let rows = rows
        .iter()
        .map(|(key, row)| (text(&key.0), text(&row.row.0)));
    (checkpoint, rows.collect())
}
