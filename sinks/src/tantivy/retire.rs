//! Deleting what a worker holds: retired versions, and copies that another worker has built anew.
//!
//! A directory is renamed before it is removed, so that what is half deleted is never taken for an
//! index; a retired version leaves a mark, so that no late claim builds it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use materializer_model::ports::{Retired, SinkError};
use materializer_model::{Clock, Offset, Token, Unit, VersionId, ViewDefinition};
use tracing::warn;

use super::owner;
use super::place::{self, Place, TRASH, TantivySettings, entries, io_error, name_of};
use super::schema::IndexSchema;
use super::verify::{self, IndexReport};

/// An index of a unit on this disk, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The unit.
    pub unit: Unit,
    /// Its last owner here.
    pub token: Token,
    /// Its directory.
    pub directory: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What a worker does with the copies on its own disk, beside writing them.
///
/// There is no alias here: the catalog's live version is what gateways route to.
pub struct TantivyAdmin {
    settings: TantivySettings,
    clock: Arc<dyn Clock>,
}

impl TantivyAdmin {
    /// Makes the administration of a folder; nothing is touched yet.
    #[must_use]
    pub fn new(settings: TantivySettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock }
    }

    /// Returns every index on this disk, for the caller to judge by the catalog: one is to be removed
    /// if its version is retired or has fewer copies now, or if its unit's newest claim is another
    /// worker's and that copy is servable. Directories that nothing was ever committed to are not told;
    /// the next owner of the unit sweeps them. An index that cannot be read is logged and not told:
    /// whose it is, nobody knows.
    ///
    /// # Errors
    /// [`SinkError`] where the folder cannot be read.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, SinkError> {
        let mut found = Vec::new();
        for unit in self.units()? {
            let place = Place::new(&self.settings, &unit);
            let payload = match owner::stored(&place) {
                Ok(Some((_, payload))) => payload,
                Ok(None) => continue,
                Err(error) => {
                    warn!(%unit, %error, "a copy on this disk cannot be read, it stays");
                    continue;
                }
            };
            let directory = place.dir.join(&payload.directory);
            found.push(Leftover {
                unit,
                token: payload.token,
                bytes: place::bytes_of(&directory),
                directory,
            });
        }
        Ok(found)
    }

    /// Removes what there is of a unit, some of it at a time, at most for `budget`. The version is
    /// not marked: the unit may be built here again.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] while an owner has it open.
    pub fn remove(&self, unit: &Unit, budget: Duration) -> Result<Retired, SinkError> {
        let place = Place::new(&self.settings, unit);
        let deleted = trash(&place)?;
        let finished = self.empty_trash(&place.dir, budget)?;
        Ok(Retired { deleted, finished })
    }

    /// Deletes all copies of a retired version on this disk, some of them at a time, at most for
    /// `budget`; first it leaves the mark by which no later claim opens the version again.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] while an owner has one open.
    pub fn retire(
        &self,
        version: &VersionId,
        at: Offset,
        budget: Duration,
    ) -> Result<Retired, SinkError> {
        let dir = self.settings.view_dir(&version.view);
        place::mark_retired(&self.settings, version, at)
            .map_err(|fault| io_error("mark as retired in", &dir, &fault))?;
        let mut deleted = 0;
        for unit in self.units()? {
            if unit.version == *version {
                deleted += trash(&Place::new(&self.settings, &unit))?;
            }
        }
        let finished = self.empty_trash(&dir, budget)?;
        Ok(Retired { deleted, finished })
    }

    /// Checks a unit's index on this disk; `None` where there is none.
    ///
    /// # Errors
    /// [`SinkError`] where it cannot be reached.
    pub fn verify(
        &self,
        unit: &Unit,
        definition: &ViewDefinition,
    ) -> Result<Option<IndexReport>, SinkError> {
        let schema = IndexSchema::new(definition)
            .map_err(|fault| SinkError::Refused(format!("`{}`: {fault}", unit.version)))?;
        verify::check_stored(&self.settings, unit, &schema)
    }

    /// Returns the units that have a directory on this disk, each once.
    fn units(&self) -> Result<Vec<Unit>, SinkError> {
        let root = self.settings.installation_dir();
        let list = |dir: &Path| entries(dir).map_err(|fault| io_error("list", dir, &fault));
        let mut units = Vec::new();
        for view in list(&root)? {
            if !view.is_dir() {
                continue;
            }
            for directory in list(&view)? {
                units.extend(unit_of(name_of(&view), name_of(&directory)));
            }
        }
        units.sort();
        units.dedup();
        Ok(units)
    }

    /// Removes trashed directories file by file, until none is left or the time is over. Removes at
    /// least one file.
    fn empty_trash(&self, dir: &Path, budget: Duration) -> Result<bool, SinkError> {
        let end = self.clock.monotonic().plus(budget);
        let list = |dir: &Path| entries(dir).map_err(|fault| io_error("list", dir, &fault));
        for trashed in list(dir)? {
            if !name_of(&trashed).starts_with(TRASH) {
                continue;
            }
            for file in list(&trashed)? {
                fs::remove_file(&file).map_err(|fault| io_error("remove", &file, &fault))?;
                if self.clock.monotonic() > end {
                    return Ok(false);
                }
            }
            fs::remove_dir(&trashed).map_err(|fault| io_error("remove", &trashed, &fault))?;
        }
        Ok(true)
    }
}

/// Returns the unit that a directory is of: `v7-c0-5f1d09aa`.
fn unit_of(view: &str, directory: &str) -> Option<Unit> {
    let parts: Vec<&str> = directory.split('-').collect();
    let [number, copy, claim] = parts.as_slice() else {
        return None;
    };
    (claim.len() == 8)
        .then(|| format!("{view}/{number}/{copy}/s0").parse().ok())
        .flatten()
}

fn rows_of(place: &Place) -> Result<u64, SinkError> {
    let Some((index, _)) = owner::stored(place)? else {
        return Ok(0);
    };
    let metas = index.load_metas();
    let metas = metas.map_err(|fault| owner::fault_of(&place.dir, &fault))?;
    let rows = metas
        .segments
        .iter()
        .map(|segment| u64::from(segment.num_docs()));
    Ok(rows.sum())
}

/// Renames the directories of a unit out of the way, under its lock; returns the rows they held.
fn trash(place: &Place) -> Result<u64, SinkError> {
    let list = || {
        place
            .directories()
            .map_err(|fault| io_error("list", &place.dir, &fault))
    };
    if list()?.is_empty() {
        return Ok(0);
    }
    let _lock = place.lock()?;
    // An index that cannot be read is deleted all the same; it counts for nothing.
    let rows = rows_of(place).unwrap_or(0);
    for directory in list()? {
        let away = place.dir.join(format!("{TRASH}{}", name_of(&directory)));
        fs::rename(&directory, &away).map_err(|fault| io_error("rename", &directory, &fault))?;
    }
    place::sync_dir(&place.dir).map_err(|fault| io_error("sync", &place.dir, &fault))?;
    Ok(rows)
}
