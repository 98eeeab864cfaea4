//! Taking a unit: its directory is found or made, and judged before anything is written to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use materializer_model::Token;
use materializer_model::ports::{Expect, SinkError};
use tantivy::directory::error::OpenReadError;
use tantivy::store::{Compressor, ZstdCompressor};
use tantivy::{Index, IndexSettings, TantivyError};

use super::payload::Payload;
use super::place::{self, Place, io_error, name_of};
use super::schema::IndexSchema;
use super::tokenizers;
use super::write::Target;

/// What a directory of a unit holds.
enum Contents {
    /// Its creation was interrupted: nothing was ever committed.
    Unfinished,
    /// An index, as its last commit describes it.
    Index(Box<(Index, Payload)>),
}

/// An index that the given token may write, and what its last commit said. Nothing was written yet;
/// `None` where there is none and one may be made.
pub(super) fn find(
    target: &Target,
    me: &Token,
    expect: Expect,
) -> Result<Option<(Index, Payload)>, SinkError> {
    let place = &target.place;
    let version = &place.unit.version;
    if place::retired_mark(&target.settings, version).exists() {
        return Err(SinkError::Damaged(format!("`{version}` is retired")));
    }
    let Some((index, payload)) = stored(place)? else {
        return match expect {
            Expect::Maybe => Ok(None),
            Expect::Data => Err(SinkError::Damaged(format!(
                "there is no index of `{}` in `{}` although commits were reported: it must be built anew",
                place.unit,
                place.dir.display()
            ))),
        };
    };
    judge(target, &payload, me)?;
    if expect == Expect::Data && payload.checkpoint().is_none() {
        return Err(SinkError::Damaged(format!(
            "the index of `{}` in `{}` is empty although commits were reported: it must be built anew",
            place.unit,
            place.dir.display()
        )));
    }
    Ok(Some((index, payload)))
}

/// Returns the unit's index, if there is one; there is never more than one.
pub(super) fn stored(place: &Place) -> Result<Option<(Index, Payload)>, SinkError> {
    let directories = place
        .directories()
        .map_err(|fault| io_error("list", &place.dir, &fault))?;
    let mut found: Option<(Index, Payload)> = None;
    for directory in directories {
        let Contents::Index(index) = contents(&directory)? else {
            continue;
        };
        if let Some((_, other)) = &found {
            return Err(SinkError::Damaged(format!(
                "`{}` holds two indices of `{}`, `{}` and `{}`: move one away",
                place.dir.display(),
                place.unit,
                other.directory,
                name_of(&directory)
            )));
        }
        found = Some(*index);
    }
    Ok(found)
}

/// Reads what a directory holds. Writes nothing.
fn contents(directory: &Path) -> Result<Contents, SinkError> {
    let damaged =
        |why: String| SinkError::Damaged(format!("the index in `{}`: {why}", directory.display()));
    if !directory.join("meta.json").exists() {
        return Ok(Contents::Unfinished);
    }
    let mut index = Index::open_in_dir(directory).map_err(|fault| fault_of(directory, &fault))?;
    index.set_tokenizers(tokenizers::manager());
    let metas = index
        .load_metas()
        .map_err(|fault| fault_of(directory, &fault))?;
    let Some(payload) = &metas.payload else {
        if metas.segments.is_empty() {
            return Ok(Contents::Unfinished);
        }
        return Err(damaged("it holds rows without a checkpoint".to_owned()));
    };
    let payload = Payload::decode(payload).map_err(damaged)?;
    if payload.directory != name_of(directory) {
        let why = format!("it was made as `{}`: put it back there", payload.directory);
        return Err(damaged(why));
    }
    Ok(Contents::Index(Box::new((index, payload))))
}

/// Says whether an index is this unit's, of this definition, and may be written with this token.
fn judge(target: &Target, payload: &Payload, me: &Token) -> Result<(), SinkError> {
    let Target {
        place,
        schema,
        fingerprint,
        ..
    } = target;
    let directory = place.dir.join(&payload.directory);
    let differs = |what: &str, theirs: &dyn std::fmt::Display, ours: &dyn std::fmt::Display| {
        Err(SinkError::Damaged(format!(
            "the index in `{}` has {what} `{theirs}`, expected is `{ours}`",
            directory.display()
        )))
    };
    if payload.catalog != me.catalog {
        return differs("the catalog", &payload.catalog, &me.catalog);
    }
    if payload.unit != place.unit {
        return differs("the unit", &payload.unit, &place.unit);
    }
    if payload.fingerprint != *fingerprint {
        return differs("the fingerprint", &payload.fingerprint, fingerprint);
    }
    if payload.schema_hash != schema.hash {
        return differs("the schema", &payload.schema_hash, &schema.hash);
    }
    let held = &payload.token;
    if held != me && !me.outranks(held) {
        return Err(SinkError::Fenced(held.clone()));
    }
    Ok(())
}

/// Makes the directory of a new index, in place of those whose creation was interrupted.
pub(super) fn create(
    place: &Place,
    schema: &Arc<IndexSchema>,
    token: &Token,
) -> Result<(Index, PathBuf), SinkError> {
    let leftovers = place
        .directories()
        .map_err(|fault| io_error("list", &place.dir, &fault))?;
    for leftover in leftovers {
        fs::remove_dir_all(&leftover).map_err(|fault| io_error("remove", &leftover, &fault))?;
    }
    let directory = place.dir.join(place.directory_name(token));
    fs::create_dir(&directory).map_err(|fault| io_error("create", &directory, &fault))?;
    place::sync_dir(&place.dir).map_err(|fault| io_error("sync", &place.dir, &fault))?;
    let settings = IndexSettings {
        docstore_compression: Compressor::Zstd(ZstdCompressor::default()),
        ..IndexSettings::default()
    };
    let index = Index::builder()
        .schema(schema.all.clone())
        .settings(settings)
        .tokenizers(tokenizers::manager())
        .create_in_dir(&directory)
        .map_err(|fault| fault_of(&directory, &fault))?;
    Ok((index, directory))
}

/// Returns what the worker does about a fault of tantivy: damage where the files are not what they
/// were, else the unit is opened again after a while.
pub(super) fn fault_of(directory: &Path, fault: &TantivyError) -> SinkError {
    let text = format!("the index in `{}`: {fault}", directory.display());
    // Worker threads pass an I/O error on as text alone.
    let full = text.contains("No space left") || text.contains("StorageFull");
    if full {
        return SinkError::Full(text);
    }
    if let TantivyError::IoError(fault) = fault {
        return io_error("use the index in", directory, fault);
    }
    let damaged = matches!(
        fault,
        TantivyError::DataCorruption(_)
            | TantivyError::IncompatibleIndex(_)
            | TantivyError::OpenReadError(OpenReadError::IncompatibleIndex(_))
            | TantivyError::SchemaError(_)
    );
    if damaged {
        return SinkError::Damaged(text);
    }
    SinkError::Unavailable(text)
}
