//! A pass over what a version stored, a page at a time: counted or deleted at a pace that leaves the
//! server to its readers.

use ::redis::Value;
use materializer_model::ports::SinkError;
use materializer_model::{Clock, Monotonic, VersionId};

use super::connection::{Connection, integer};
use super::pack::Pack;
use super::read::scan_page;
use super::settings::RedisPlace;

/// How far a pass is. Valid on one connection: a cursor means nothing to another server.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    cursor: Vec<u8>,
    /// The rows that were counted or deleted so far.
    pub(super) rows: u64,
}

impl Default for Pass {
    fn default() -> Self {
        Self {
            cursor: b"0".to_vec(),
            rows: 0,
        }
    }
}

impl Pass {
    /// Visits pages of keys until the time is over, one at least; says whether none is left. `visit`
    /// returns how many rows it counted or deleted.
    pub(super) fn walk(
        &mut self,
        place: &RedisPlace,
        connection: &mut Connection,
        version: &VersionId,
        (clock, until): (&dyn Clock, Monotonic),
        visit: impl Fn(&mut Connection, &[Vec<u8>]) -> Result<u64, SinkError>,
    ) -> Result<bool, SinkError> {
        loop {
            let (next, found) = scan_page(place, connection, version, &self.cursor)?;
            self.rows += visit(connection, &found)?;
            self.cursor = next;
            if self.cursor == b"0" {
                return Ok(true);
            }
            if clock.monotonic() >= until {
                return Ok(false);
            }
        }
    }
}

/// Counts the rows of a page.
pub(super) fn count(_: &mut Connection, page: &[Vec<u8>]) -> Result<u64, SinkError> {
    Ok(u64::try_from(page.len()).unwrap_or(u64::MAX))
}

/// Deletes the rows of a page; returns how many there were still.
pub(super) fn delete(connection: &mut Connection, page: &[Vec<u8>]) -> Result<u64, SinkError> {
    if page.is_empty() {
        return Ok(0);
    }
    let mut pack = Pack::default();
    pack.begin(1 + page.len());
    pack.part(b"UNLINK");
    page.iter().for_each(|key| pack.part(key));
    let reply: Value = connection.ask(&pack)?.pop().unwrap_or_default();
    Ok(u64::try_from(integer(connection, &reply)?).unwrap_or(0))
}
