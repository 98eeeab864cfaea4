//! The mark that says whose place a server is: of which catalog, and which server it is.

use ::redis::Value;
use materializer_model::ports::SinkError;
use materializer_model::{CatalogId, Installation, SinkId};
use serde::{Deserialize, Serialize};

use super::connection::{Connection, string};
use super::keys;
use super::settings::{RedisPlace, RedisSettings};

/// Whose place a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The catalog.
    pub catalog: CatalogId,
    /// The server, by an id that was random when the mark was made.
    pub sink: SinkId,
}

/// Reads a text as a mark, and what it is once more as it is written.
pub(super) fn hostile(text: &str) {
    let i = "main".parse().expect("a name");
    if let Ok(mark) = Mark::decode(&i, text.as_bytes()) {
        assert_eq!(Mark::decode(&i, mark.encode().as_bytes()), Ok(mark));
    }
}

impl Mark {
    /// Returns the stored form.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("two texts always serialise")
    }

    fn decode(i: &Installation, stored: &[u8]) -> Result<Self, SinkError> {
        serde_json::from_slice(stored).map_err(|_| {
            SinkError::Damaged(format!(
                "`{}` is not a mark of ours: another program uses the prefix `{i}`; choose another \
                 `installation` or another database",
                keys::mark(i)
            ))
        })
    }

    /// Says whether this is the mark of the given place.
    pub(super) fn check(&self, place: &RedisPlace) -> Result<(), SinkError> {
        if self.catalog != place.catalog {
            return Err(SinkError::Damaged(format!(
                "redis at `{}` belongs to catalog `{}` and not to `{}`: choose another \
                 `installation` or another database",
                place.server.address(),
                self.catalog,
                place.catalog
            )));
        }
        match &place.sink {
            Some(sink) if *sink != self.sink => Err(SinkError::Damaged(format!(
                "redis at `{}` is server `{}` and not `{sink}`, which was written before",
                place.server.address(),
                self.sink
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

/// Judges the mark's stored value; `None` where there is none.
pub(super) fn judge_mark(
    place: &RedisPlace,
    stored: Option<&[u8]>,
) -> Result<Option<Mark>, SinkError> {
    let Some(stored) = stored else {
        return Ok(None);
    };
    let mark = Mark::decode(&place.installation, stored)?;
    mark.check(place)?;
    Ok(Some(mark))
}

/// Reads and judges the mark.
pub(super) fn check_mark(
    place: &RedisPlace,
    connection: &mut Connection,
) -> Result<Option<Mark>, SinkError> {
    let reply: Value = connection.call(&["GET", &keys::mark(&place.installation)])?;
    judge_mark(place, string(connection, reply)?.as_deref())
}

/// Finds the mark of an installation on a server, whichever catalog it is of; `None` where nothing of
/// ours was ever written.
///
/// # Errors
/// [`SinkError`]; `Damaged` where another program's value stands in its place.
pub fn find_mark(
    server: &RedisSettings,
    installation: &Installation,
) -> Result<Option<Mark>, SinkError> {
    let mut connection = Connection::connect(server)?;
    let reply = connection.call(&["GET", &keys::mark(installation)])?;
    let stored = string(&connection, reply)?;
    stored
        .map(|stored| Mark::decode(installation, &stored))
        .transpose()
}

/// Reads the mark of a place, `None` where nothing of ours was ever written.
///
/// # Errors
/// [`SinkError`]; `Damaged` where the mark is another catalog's or another server's.
pub fn read_mark(place: &RedisPlace) -> Result<Option<Mark>, SinkError> {
    let found = find_mark(&place.server, &place.installation)?;
    if let Some(mark) = &found {
        mark.check(place)?;
    }
    Ok(found)
}
