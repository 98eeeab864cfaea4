//! The suite that all sinks share.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use materializer_model::memory::ManualClock;
use materializer_model::ports::{
    AliasPointer, Counting, Retired, Sink, SinkAdmin, SinkError, SinkReader,
};
use materializer_model::{Key, Offset, Timestamp, Unit, VersionId, ViewName};
use materializer_sinks::conformance::{Abilities, Harm, Place, Restore};
use materializer_sinks::tantivy::{TantivyAdmin, TantivyReader, TantivySettings, TantivySink};
use tempfile::TempDir;

use crate::place::{fingerprint, settings, suite_view};

/// A folder of its own.
struct DiskPlace {
    dir: TempDir,
}

impl DiskPlace {
    fn new() -> Self {
        Self {
            dir: TempDir::new().expect("a folder"),
        }
    }

    fn settings(&self) -> TantivySettings {
        settings(self.dir.path())
    }

    fn view_dir(&self, unit: &Unit) -> PathBuf {
        self.dir
            .path()
            .join("main")
            .join(unit.version.view.as_str())
    }
}

/// Takes a folder away in one instant: a merge that outlives its writer may still write files there,
/// so that a folder which is emptied file by file may not be empty at the end.
fn take_away(folder: &Path) {
    let elsewhere = TempDir::new_in(folder.parent().expect("a parent")).expect("a folder");
    fs::rename(folder, elsewhere.path().join("gone")).expect("renamed");
}

/// Copies a folder, in place of what is at `to`.
fn replace(from: &Path, to: &Path) {
    take_away(to);
    copy(from, to);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if let Err(fault) = fs::copy(entry.path(), target) {
            // What a merge that outlives its writer tidied up.
            assert_eq!(
                fault.kind(),
                ErrorKind::NotFound,
                "{}",
                entry.path().display()
            );
        }
    }
}

impl Place for DiskPlace {
    fn abilities(&self) -> Abilities {
        Abilities {
            takes_from_the_living: false,
            shards: false,
            expiry: false,
            aliases: false,
        }
    }

    fn sink(&self, unit: &Unit) -> Box<dyn Sink> {
        let sink = TantivySink::new(self.settings(), unit, &suite_view(), &fingerprint());
        Box::new(sink.expect("a sink"))
    }

    fn reader(&self, unit: &Unit) -> Box<dyn SinkReader> {
        let reader = TantivyReader::open(&self.settings(), unit, &suite_view());
        Box::new(reader.expect("a reader"))
    }

    fn admin(&self) -> Box<dyn SinkAdmin> {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        Box::new(DiskAdmin {
            settings: self.settings(),
            disk: TantivyAdmin::new(self.settings(), clock),
        })
    }

    fn save(&self) -> Restore<'_> {
        let saved = TempDir::new().expect("a folder");
        copy(self.dir.path(), saved.path());
        Box::new(move || replace(saved.path(), self.dir.path()))
    }

    fn harm(&self, unit: &Unit, harm: Harm) -> bool {
        match harm {
            Harm::Empty => {
                take_away(&self.view_dir(unit));
                true
            }
            // It stands in the same file as the list of what holds the rows.
            Harm::LoseCheckpoint => false,
            Harm::SpoilCheckpoint => {
                let prefix = format!("{}-c{}-", unit.version.number, unit.copy);
                let entries = fs::read_dir(self.view_dir(unit)).expect("a folder");
                let meta = entries
                    .map(|entry| entry.expect("an entry"))
                    .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
                    .expect("an index")
                    .path()
                    .join("meta.json");
                let text = fs::read_to_string(&meta).expect("read");
                let spoiled = text
                    .replace(r#"\"seq\""#, r#"\"sec\""#)
                    .replace(r#"seq\\\"#, r#"sec\\\"#);
                assert_ne!(text, spoiled);
                fs::write(&meta, spoiled).expect("written");
                true
            }
        }
    }
}

/// As much of an administration as a copy's holder has; what is counted and found comes from a reader.
struct DiskAdmin {
    settings: TantivySettings,
    disk: TantivyAdmin,
}

impl DiskAdmin {
    fn reader(&self, version: &VersionId) -> TantivyReader {
        let unit = Unit {
            version: version.clone(),
            copy: 0,
            shard: 0,
        };
        TantivyReader::open(&self.settings, &unit, &suite_view()).expect("a reader")
    }
}

impl SinkAdmin for DiskAdmin {
    fn alias(&mut self, _: &ViewName) -> Result<Option<AliasPointer>, SinkError> {
        Ok(None)
    }

    fn move_alias(&mut self, _: &ViewName, _: &AliasPointer) -> Result<(), SinkError> {
        unreachable!("it stores no aliases")
    }

    fn remove_alias(&mut self, _: &ViewName, _: Offset) -> Result<(), SinkError> {
        unreachable!("it stores no aliases")
    }

    fn retire(
        &mut self,
        version: &VersionId,
        at: Offset,
        budget: Duration,
    ) -> Result<Retired, SinkError> {
        self.disk.retire(version, at, budget)
    }

    fn count(&mut self, version: &VersionId, _budget: Duration) -> Result<Counting, SinkError> {
        let mut rows = 0;
        self.reader(version).scan(&mut |_, _| {
            rows += 1;
            true
        })?;
        Ok(Counting {
            rows,
            finished: true,
        })
    }

    fn exist(&mut self, version: &VersionId, keys: &[String]) -> Result<Vec<bool>, SinkError> {
        let keys: Vec<Key> = keys.iter().map(|key| Key::new(key.as_bytes())).collect();
        let found = self.reader(version).read(&keys)?;
        Ok(found.rows.iter().map(Option::is_some).collect())
    }
}

materializer_sinks::conformance_suite!(DiskPlace::new());
