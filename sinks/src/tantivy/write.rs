//! The one way to write an index: [`Writer`] hides tantivy's own, whose bare `commit`, `rollback` and
//! `abort` would lose the checkpoint or the merge policy.
//!
//! After any error a writer is dropped and the unit opened again: tantivy's goes on to say `Ok` with
//! its threads gone, and a later commit would then pass over a batch that is lost.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use materializer_model::ports::{Expect, SinkError};
use materializer_model::{Change, Commit, Fingerprint, Token};
use tantivy::directory::Directory;
use tantivy::indexer::IndexWriterOptions;
use tantivy::{
    Index, IndexReader, IndexWriter, ReloadPolicy, SegmentReader, TantivyDocument, TantivyError,
};

use super::merges::Hold;
use super::owner::{self, fault_of};
use super::payload::Payload;
use super::place::{self, Place, TantivySettings, io_error, name_of};
use super::read::{IndexCopy, Proof, Served};
use super::schema::IndexSchema;
use super::verify;
use super::watch::{Watch, Watched};

/// More segments than this, and a commit waits for merges: each delete looks into every segment.
const SEGMENTS_MAX: usize = 64;

/// What a unit is written with.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) settings: TantivySettings,
    pub(super) place: Place,
    pub(super) schema: Arc<IndexSchema>,
    pub(super) fingerprint: Fingerprint,
}

/// An open unit.
pub(super) struct Writer {
    target: Arc<Target>,
    directory: PathBuf,
    index: Index,
    /// `None` only while it is being replaced.
    inner: Option<IndexWriter<TantivyDocument>>,
    reader: IndexReader,
    payload: Payload,
    watched: Watched,
    _watch: Watch,
    // After the writer: fields are dropped in this order.
    hold: Hold,
}

impl Writer {
    /// Takes a unit: locks it, judges what is there, sweeps what a crash left, and raises the token.
    ///
    /// What is there is served as soon as it is known to be good, so that readers have it also while
    /// the disk is full. With `verify` every file's checksum is compared first.
    pub(super) fn open(
        target: &Arc<Target>,
        copy: &Arc<IndexCopy>,
        me: &Token,
        expect: Expect,
        verify: bool,
    ) -> Result<Self, SinkError> {
        let place = &target.place;
        fs::create_dir_all(&place.dir).map_err(|fault| io_error("create", &place.dir, &fault))?;
        place::check_local(&place.dir)?;
        let hold = Hold::take(place)?;
        let Some((index, payload)) = owner::find(target, me, expect)? else {
            check_room(target, 0)?;
            let (index, directory) = owner::create(place, &target.schema, me)?;
            let name = name_of(&directory);
            let payload =
                Payload::begin(&place.unit, me, name, &target.fingerprint, &target.schema);
            let mut writer = Self::begin(target, copy, directory, index, payload.clone(), hold)?;
            writer.commit(payload)?;
            copy.serve(writer.served());
            return Ok(writer);
        };
        let directory = place.dir.join(&payload.directory);
        if verify {
            verify::check_files(&index, &directory)?;
            copy.raise_proof(Proof::Made);
        }
        let mut writer = Self::begin(target, copy, directory, index, payload, hold)?;
        copy.serve(writer.served());
        check_room(target, 0)?;
        if writer.payload.token != *me {
            writer.commit(writer.payload.owned_by(me))?;
        }
        Ok(writer)
    }

    fn begin(
        target: &Arc<Target>,
        copy: &Arc<IndexCopy>,
        directory: PathBuf,
        index: Index,
        payload: Payload,
        hold: Hold,
    ) -> Result<Self, SinkError> {
        let failed = |fault: TantivyError| fault_of(&directory, &fault);
        let watched = Watched::new(copy, &directory);
        let inner = writer_of(&index, &target.settings, &hold, &watched).map_err(failed)?;
        sweep(&directory)?;
        inner.garbage_collect_files().wait().map_err(failed)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()
            .map_err(failed)?;
        let watch = Watch::begin(&watched, &index, target.settings.check_every)?;
        Ok(Self {
            target: Arc::clone(target),
            directory,
            index,
            inner: Some(inner),
            reader,
            payload,
            watched,
            _watch: watch,
            hold,
        })
    }

    pub(super) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Writes a batch and its checkpoint: both, or neither.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<(), SinkError> {
        if self.payload.checkpoint() != commit.previous.as_ref() {
            let why = "the checkpoint is not the one that the commit follows";
            return Err(SinkError::Unavailable(why.to_owned()));
        }
        check_room(&self.target, commit.batch.weight())?;
        for mutation in commit.batch.mutations() {
            let schema = &self.target.schema;
            let inner = self.inner.as_ref().expect("only gone within a commit");
            inner.delete_term(schema.key_term(&mutation.key));
            match &mutation.change {
                Change::Upsert { row, .. } => {
                    let document = schema
                        .document(&mutation.key, row, &mutation.origin)
                        .map_err(|poison| {
                            SinkError::Refused(format!("{}: {poison}", mutation.origin))
                        })?;
                    let added = inner.add_document(document);
                    added.map_err(|fault| fault_of(&self.directory, &fault))?;
                }
                Change::Delete => {}
            }
        }
        self.commit(self.payload.moved_to(&commit.checkpoint))
    }

    /// Commits what was added with its payload; it is durable when this returns. tantivy renames
    /// `meta.json` into place without syncing the directory afterwards, hence the last step.
    fn commit(&mut self, payload: Payload) -> Result<(), SinkError> {
        self.check_readable()?;
        let inner = self.inner.as_mut().expect("only gone within a commit");
        let committed = (|| {
            let mut prepared = inner.prepare_commit()?;
            prepared.set_payload(&payload.encode());
            prepared.commit()?;
            self.index.directory().sync_directory()?;
            self.reader.reload()
        })();
        committed.map_err(|fault| fault_of(&self.directory, &fault))?;
        self.payload = payload;
        self.wait_for_merges()
    }

    /// Opens every segment as tantivy does within a commit. Of a damaged file it may make a panic, which on its
    /// own thread, where no one can catch it, ends the process.
    fn check_readable(&self) -> Result<(), SinkError> {
        let failed = |fault: TantivyError| fault_of(&self.directory, &fault);
        for segment in self.index.searchable_segments().map_err(failed)? {
            let opened = catch_unwind(AssertUnwindSafe(|| SegmentReader::open(&segment)));
            let why = match opened {
                Ok(Ok(_)) => continue,
                Ok(Err(fault)) => fault_of(&self.directory, &fault),
                Err(_panic) => SinkError::Unavailable(format!(
                    "segment `{}` of `{}` cannot be opened",
                    segment.id().uuid_string(),
                    self.directory.display()
                )),
            };
            self.watched.check_segment(&self.index, segment.meta())?;
            return Err(why);
        }
        Ok(())
    }

    /// Holds the writer up where merges do not keep pace with commits.
    fn wait_for_merges(&mut self) -> Result<(), SinkError> {
        let failed = |fault: TantivyError| fault_of(&self.directory, &fault);
        let segments = self.index.searchable_segment_ids().map_err(failed)?;
        if segments.len() <= SEGMENTS_MAX {
            return Ok(());
        }
        if let Some(inner) = self.inner.take() {
            inner.wait_merging_threads().map_err(failed)?;
        }
        let inner = writer_of(
            &self.index,
            &self.target.settings,
            &self.hold,
            &self.watched,
        );
        self.inner = Some(inner.map_err(failed)?);
        self.reader.reload().map_err(failed)
    }

    /// Returns what readers are given after a commit.
    pub(super) fn served(&self) -> Served {
        let searcher = self.reader.searcher();
        let payload = Some(self.payload.clone());
        Served::new(&self.target.schema, searcher, payload, &self.directory)
    }
}

fn writer_of(
    index: &Index,
    settings: &TantivySettings,
    hold: &Hold,
    watched: &Watched,
) -> Result<IndexWriter<TantivyDocument>, TantivyError> {
    let options = IndexWriterOptions::builder()
        .memory_budget_per_thread(settings.writer_memory_bytes)
        .num_worker_threads(1)
        .num_merge_threads(1)
        .build();
    let writer: IndexWriter<TantivyDocument> = index.writer_with_options(options)?;
    writer.set_merge_policy(hold.merges(index, watched));
    Ok(writer)
}

/// Says whether the disk has room for about so many bytes more, well before tantivy would find out.
fn check_room(target: &Target, bytes: usize) -> Result<(), SinkError> {
    let dir = &target.place.dir;
    let Some(free) = place::free_bytes(dir) else {
        return Ok(());
    };
    let needed = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(2);
    let least = target.settings.disk_free_bytes_min.saturating_add(needed);
    if free >= least {
        return Ok(());
    }
    Err(SinkError::Full(format!(
        "the disk of `{}` has {free} bytes free, {least} are needed: make room",
        dir.display()
    )))
}

/// Removes the drafts of `meta.json` that a crash left, which tantivy never collects.
fn sweep(directory: &Path) -> Result<(), SinkError> {
    let listed = place::entries(directory);
    for path in listed.map_err(|fault| io_error("list", directory, &fault))? {
        if name_of(&path).starts_with(".tmp") {
            fs::remove_file(&path).map_err(|fault| io_error("remove", &path, &fault))?;
        }
    }
    Ok(())
}
