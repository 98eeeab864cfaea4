//! Reading an index back: [`IndexCopy`] serves readers from the last durable commit, [`TantivyReader`]
//! reads rows with their checkpoint for `verify`.
//!
//! Each answer comes from one searcher, which keeps the files it needs until it is dropped, whatever
//! is merged or deleted meanwhile.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use materializer_model::ports::{Scanned, SinkError, SinkReader, Snapshot, StoredRow};
use materializer_model::{Checkpoint, Key, Origin, Row, Unit, ViewDefinition};
use tantivy::schema::{IndexRecordOption, Value as _};
use tantivy::{
    DocAddress, DocSet, IndexReader, ReloadPolicy, Searcher, TERMINATED, TantivyDocument,
    TantivyError,
};

use super::owner::{self, fault_of};
use super::payload::Payload;
use super::place::{self, Place, TantivySettings};
use super::schema::{IndexSchema, OFFSET, PART};
use super::search::SearchError;

/// How often a reader in another process tries to see rows and payload of one commit.
const SNAPSHOT_TRIES: usize = 100;

/// One commit as readers see it.
pub(super) struct Served {
    pub(super) schema: Arc<IndexSchema>,
    pub(super) searcher: Searcher,
    /// `None` where rows stand without a checkpoint.
    payload: Option<Payload>,
    bytes: u64,
    bytes_free: Option<u64>,
}

impl Served {
    pub(super) fn new(
        schema: &Arc<IndexSchema>,
        searcher: Searcher,
        payload: Option<Payload>,
        directory: &Path,
    ) -> Self {
        Self {
            schema: Arc::clone(schema),
            searcher,
            payload,
            bytes: place::bytes_of(directory),
            bytes_free: place::free_bytes(directory),
        }
    }

    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.payload.as_ref().and_then(Payload::checkpoint)
    }

    fn bar_passed(&self) -> bool {
        let payload = self.payload.as_ref();
        payload.is_some_and(|payload| payload.bar_passed)
    }

    /// Returns the row of a key, if there is one.
    fn row(&self, key: &Key) -> Result<Option<Loaded>, TantivyError> {
        match self.find(key)? {
            Some(at) => self.load(at).map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, key: &Key) -> Result<Option<DocAddress>, TantivyError> {
        let term = self.schema.key_term(key);
        for (ordinal, segment) in (0..).zip(self.searcher.segment_readers()) {
            let index = segment.inverted_index(self.schema.hidden.key)?;
            let Some(mut postings) = index.read_postings(&term, IndexRecordOption::Basic)? else {
                continue;
            };
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if !segment.is_deleted(doc) {
                    return Ok(Some(DocAddress::new(ordinal, doc)));
                }
                doc = postings.advance();
            }
        }
        Ok(None)
    }

    /// Reads the row at an address.
    pub(super) fn load(&self, at: DocAddress) -> Result<Loaded, TantivyError> {
        let segment = self.searcher.segment_reader(at.segment_ord);
        let part = segment.fast_fields().u64(PART)?.first(at.doc_id);
        let offset = segment.fast_fields().u64(OFFSET)?.first(at.doc_id);
        let origin = part
            .zip(offset)
            .and_then(|(part, offset)| self.schema.origin(part, offset));
        let document: TantivyDocument = self.searcher.doc(at)?;
        let (key, row) = key_and_row(&self.schema, &document);
        let lost = || TantivyError::InternalError("a row has no origin".to_owned());
        Ok(Loaded {
            key,
            row,
            origin: origin.ok_or_else(lost)?,
        })
    }
}

/// A row with its key and origin.
pub(super) struct Loaded {
    pub(super) key: Key,
    pub(super) row: Row,
    pub(super) origin: Origin,
}

/// How a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// The checkpoint of the last commit; `None` before the first.
    pub checkpoint: Option<Checkpoint>,
    /// Whether readers may be served: the bar was reached once.
    pub servable: bool,
    /// Rows.
    pub documents: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes free on that disk.
    pub bytes_free: Option<u64>,
}

/// A row as readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// JSON: the row without the fields that are not `stored`.
    pub source: Vec<u8>,
    /// The record that it comes from.
    pub origin: Origin,
}

/// A copy that this process holds, as readers see it: the last durable commit. Shared by threads.
pub struct IndexCopy {
    pub(super) unit: Unit,
    pub(super) schema: Arc<IndexSchema>,
    served: RwLock<Option<Arc<Served>>>,
    /// What is wrong with its files, once something is.
    damage: OnceLock<String>,
    /// How far it is with the one check of all files before it serves.
    proof: Mutex<Proof>,
}

/// How far a copy is with the check of all its files before it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nobody has asked for it.
    #[default]
    Open,
    /// It shall be made now.
    Asked,
    /// All files were what was written.
    Made,
}

impl IndexCopy {
    pub(super) fn new(unit: Unit, schema: Arc<IndexSchema>) -> Self {
        Self {
            unit,
            schema,
            served: RwLock::new(None),
            damage: OnceLock::new(),
            proof: Mutex::default(),
        }
    }

    pub(super) fn proof(&self) -> Proof {
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that all files are to be checked now, or were; what was made stays so.
    pub(super) fn raise_proof(&self, to: Proof) {
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        if *proof != Proof::Made {
            *proof = to;
        }
    }

    /// Gives readers a later commit. Requests under way go on with theirs.
    pub(super) fn serve(&self, served: Served) {
        let mut held = self.served.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Arc::new(served));
    }

    /// Takes in that files of it are not what they were: nobody is answered from it any more.
    pub(super) fn damage(&self, why: String) {
        let _said_before = self.damage.set(why);
    }

    /// Says whether files of it were found to be not what they were.
    ///
    /// # Errors
    /// [`SinkError::Damaged`] with the files.
    pub(super) fn check_whole(&self) -> Result<(), SinkError> {
        match self.damage.get() {
            Some(why) => Err(SinkError::Damaged(why.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn current(&self) -> Option<Arc<Served>> {
        let held = self.served.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    /// Returns how the copy stands; `None` before it was first opened.
    #[must_use]
    pub fn state(&self) -> Option<CopyState> {
        let served = self.current()?;
        Some(CopyState {
            checkpoint: served.checkpoint().cloned(),
            servable: served.bar_passed(),
            documents: served.searcher.num_docs(),
            bytes: served.bytes,
            bytes_free: served.bytes_free,
        })
    }

    /// Returns the commit to answer a reader from.
    ///
    /// # Errors
    /// [`SearchError::Unservable`] before the bar was reached, and once it is damaged.
    pub(super) fn servable(&self) -> Result<Arc<Served>, SearchError> {
        self.check_whole()
            .map_err(|fault| SearchError::Unservable(format!("`{}`: {fault}", self.unit)))?;
        let served = self.current().filter(|served| served.bar_passed());
        served.ok_or_else(|| {
            let why = format!("`{}` is still being built", self.unit);
            SearchError::Unservable(why)
        })
    }

    /// Returns the row of a key, if there is one.
    ///
    /// # Errors
    /// [`SearchError::Unservable`] or [`SearchError::Failed`].
    pub fn get(&self, key: &Key) -> Result<Option<Found>, SearchError> {
        let served = self.servable()?;
        let Some(loaded) = served.row(key).map_err(SearchError::failed)? else {
            return Ok(None);
        };
        Ok(Some(Found {
            source: self.schema.shown_of(&loaded.row.0),
            origin: loaded.origin,
        }))
    }

    /// Returns a reader of this copy, for `verify`.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> TantivyReader {
        TantivyReader(Source::Held(Arc::clone(self)))
    }
}

fn key_and_row(schema: &IndexSchema, document: &TantivyDocument) -> (Key, Row) {
    let bytes = |field| document.get_first(field).and_then(|value| value.as_bytes());
    let key = Key::new(bytes(schema.hidden.key_raw).unwrap_or_default());
    let row = Row::new(bytes(schema.hidden.source).unwrap_or_default());
    (key, row)
}

/// Reads the rows of one copy with the checkpoint they belong to.
pub struct TantivyReader(Source);

enum Source {
    /// A copy that this process writes.
    Held(Arc<IndexCopy>),
    /// An index on this disk, whoever writes it.
    Stored(Place, Arc<IndexSchema>),
}

impl TantivyReader {
    /// Makes a reader of a unit's index on this disk, also beside its owner. Needs write permission:
    /// tantivy takes a lock while it opens the files.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the definition cannot be indexed.
    pub fn open(
        settings: &TantivySettings,
        unit: &Unit,
        definition: &ViewDefinition,
    ) -> Result<Self, SinkError> {
        let schema = IndexSchema::new(definition)
            .map_err(|fault| SinkError::Refused(format!("`{}`: {fault}", unit.version)))?;
        let place = Place::new(settings, unit);
        Ok(Self(Source::Stored(place, Arc::new(schema))))
    }

    /// Returns the newest commit; `None` where there is no index.
    fn served(&self) -> Result<Option<Arc<Served>>, SinkError> {
        match &self.0 {
            Source::Held(copy) => Ok(copy.current()),
            Source::Stored(place, schema) => Ok(stored(place, schema)?.map(Arc::new)),
        }
    }
}

/// Sees rows and payload of one commit, beside an owner that may be committing. The directory is
/// looked up each time: it is another one after a rebuild.
fn stored(place: &Place, schema: &Arc<IndexSchema>) -> Result<Option<Served>, SinkError> {
    let Some((index, payload)) = owner::stored(place)? else {
        return Ok(None);
    };
    let directory = place.dir.join(&payload.directory);
    let failed = |fault: TantivyError| fault_of(&directory, &fault);
    let payload = || Ok(index.load_metas().map_err(failed)?.payload);
    let reader: IndexReader = index
        .reader_builder()
        .reload_policy(ReloadPolicy::Manual)
        .try_into()
        .map_err(failed)?;
    for _ in 0..SNAPSHOT_TRIES {
        let before = payload()?;
        reader.reload().map_err(failed)?;
        let searcher = reader.searcher();
        if payload()? != before {
            continue;
        }
        let payload = before.as_deref().map(Payload::decode).transpose();
        let payload = payload.map_err(SinkError::Damaged)?;
        return Ok(Some(Served::new(schema, searcher, payload, &directory)));
    }
    let why = format!("`{}` changes too quickly to be read", directory.display());
    Err(SinkError::Unavailable(why))
}

impl SinkReader for TantivyReader {
    fn read(&mut self, keys: &[Key]) -> Result<Snapshot, SinkError> {
        let Some(served) = self.served()? else {
            return Ok(Snapshot {
                checkpoint: None,
                rows: vec![None; keys.len()],
            });
        };
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let loaded = served.row(key).map_err(unreadable)?;
            rows.push(loaded.map(|loaded| StoredRow {
                row: loaded.row,
                expires_at: None,
            }));
        }
        Ok(Snapshot {
            checkpoint: served.checkpoint().cloned(),
            rows,
        })
    }

    fn scan(
        &mut self,
        visit: &mut dyn FnMut(Key, StoredRow) -> bool,
    ) -> Result<Scanned, SinkError> {
        let Some(served) = self.served()? else {
            return Ok(Scanned {
                before: None,
                after: None,
            });
        };
        // One searcher: the checkpoint is the same before and after.
        let scanned = Scanned {
            before: served.checkpoint().cloned(),
            after: served.checkpoint().cloned(),
        };
        for segment in served.searcher.segment_readers() {
            let store = segment
                .get_store_reader(1)
                .map_err(|fault| unreadable(fault.into()))?;
            for document in store.iter::<TantivyDocument>(segment.alive_bitset()) {
                let (key, row) = key_and_row(&served.schema, &document.map_err(unreadable)?);
                let row = StoredRow {
                    row,
                    expires_at: None,
                };
                if !visit(key, row) {
                    return Ok(scanned);
                }
            }
        }
        Ok(scanned)
    }
}

fn unreadable(fault: TantivyError) -> SinkError {
    SinkError::Damaged(format!("read a row: {fault}"))
}
