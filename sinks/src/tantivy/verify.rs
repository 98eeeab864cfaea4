//! Whether an index is whole: every file's checksum, and no key twice.
//!
//! tantivy checks a file's checksum neither when it is opened nor when it is read, and its own
//! `validate_checksum` looks only at the files that `.managed.json` names. What is found bad is never
//! repaired: derived data is built anew.

use std::path::{Path, PathBuf};

use materializer_model::Unit;
use materializer_model::ports::SinkError;
use tantivy::index::SegmentComponent;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, Index, Searcher, SegmentMeta, TERMINATED, TantivyError};

use super::owner::{self, fault_of};
use super::place::{Place, TantivySettings};
use super::read::IndexCopy;
use super::schema::IndexSchema;

/// The files without which no segment can be read; one with deletes needs those, too.
const NEEDED: [SegmentComponent; 6] = [
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::Terms,
    SegmentComponent::Store,
    SegmentComponent::FastFields,
    SegmentComponent::FieldNorms,
];

/// What is wrong with an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexReport {
    /// Files that are missing or have another checksum than they were written with.
    pub bad_files: Vec<String>,
    /// Keys that more than one row has: an example of each, at most 16.
    pub twice: Vec<String>,
}

/// Checks the files of a commit.
///
/// # Errors
/// [`SinkError::Damaged`] naming the files.
pub(super) fn check_files(index: &Index, directory: &Path) -> Result<(), SinkError> {
    let bad = bad_files(index).map_err(|fault| fault_of(directory, &fault))?;
    if bad.is_empty() {
        return Ok(());
    }
    Err(SinkError::Damaged(told(directory, &bad)))
}

/// Returns the files of the last commit that are missing or altered, sorted.
fn bad_files(index: &Index) -> Result<Vec<String>, TantivyError> {
    let mut bad = Vec::new();
    for segment in index.load_metas()?.segments {
        bad.extend(bad_files_of(index, &segment)?);
    }
    bad.sort();
    Ok(bad)
}

/// Returns the files of a segment that are missing or altered.
pub(super) fn bad_files_of(
    index: &Index,
    segment: &SegmentMeta,
) -> Result<Vec<String>, TantivyError> {
    let mut bad = Vec::new();
    for file in files_of(segment) {
        if is_bad(index, &file)? {
            bad.push(file.display().to_string());
        }
    }
    Ok(bad)
}

/// Returns the files of a segment.
pub(super) fn files_of(segment: &SegmentMeta) -> impl Iterator<Item = PathBuf> {
    let deletes = segment.has_deletes().then_some(SegmentComponent::Delete);
    let needed = NEEDED.into_iter().chain(deletes);
    needed.map(|component| segment.relative_path(component))
}

/// Says whether a file that should be there is missing or altered.
pub(super) fn is_bad(index: &Index, file: &Path) -> Result<bool, TantivyError> {
    let directory = index.directory();
    // An unreadable footer is as bad as a wrong checksum.
    Ok(!tantivy::Directory::exists(directory, file)?
        || !directory.validate_checksum(file).unwrap_or(false))
}

/// Says what is wrong with an index of which files are bad.
pub(super) fn told(directory: &Path, bad: &[String]) -> String {
    format!(
        "the index in `{}`: {} missing or not what was written: it must be built anew",
        directory.display(),
        bad.join(", ")
    )
}

/// Returns keys that more than one live row has.
fn twice(searcher: &Searcher, schema: &IndexSchema) -> Result<Vec<String>, TantivyError> {
    const EXAMPLES_MAX: usize = 16;
    let key = schema.hidden.key;
    let indices: Vec<_> = searcher
        .segment_readers()
        .iter()
        .map(|segment| segment.inverted_index(key))
        .collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for (at, index) in indices.iter().enumerate() {
        let mut terms = index.terms().stream()?;
        while terms.advance() {
            let mut live = 0;
            // A key that an earlier segment has was counted there.
            let mut seen_before = false;
            for (other, (index, segment)) in
                indices.iter().zip(searcher.segment_readers()).enumerate()
            {
                let Some(info) = index.terms().get(terms.key())? else {
                    continue;
                };
                seen_before |= other < at;
                let mut postings =
                    index.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
                let mut doc = postings.doc();
                while doc != TERMINATED {
                    live += usize::from(!segment.is_deleted(doc));
                    doc = postings.advance();
                }
            }
            if live > 1 && !seen_before {
                found.push(String::from_utf8_lossy(terms.key()).into_owned());
                if found.len() == EXAMPLES_MAX {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

impl IndexCopy {
    /// Checks the index that this copy serves: all its files, and that no key is there twice. Reads
    /// everything once.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`] before the copy was opened, or where the files cannot be reached.
    pub fn verify(&self) -> Result<IndexReport, SinkError> {
        let served = self.current();
        let served =
            served.ok_or_else(|| SinkError::Unavailable(format!("`{}` is not open", self.unit)))?;
        report(served.searcher.index(), &served.searcher, &self.schema)
    }
}

/// Checks a unit's index on this disk; `None` where there is none.
pub(super) fn check_stored(
    settings: &TantivySettings,
    unit: &Unit,
    schema: &IndexSchema,
) -> Result<Option<IndexReport>, SinkError> {
    let place = Place::new(settings, unit);
    let Some((index, payload)) = owner::stored(&place)? else {
        return Ok(None);
    };
    let directory = place.dir.join(&payload.directory);
    let reader = index
        .reader()
        .map_err(|fault| fault_of(&directory, &fault))?;
    report(&index, &reader.searcher(), schema).map(Some)
}

fn report(
    index: &Index,
    searcher: &Searcher,
    schema: &IndexSchema,
) -> Result<IndexReport, SinkError> {
    let unread = |fault: TantivyError| SinkError::Unavailable(fault.to_string());
    let bad_files = bad_files(index).map_err(unread)?;
    // With bad files the rest says nothing, and may panic.
    let twice = if bad_files.is_empty() {
        twice(searcher, schema).map_err(unread)?
    } else {
        Vec::new()
    };
    Ok(IndexReport { bad_files, twice })
}
