//! Reading a unit back, for `verify`, canaries and counts.

use std::collections::BTreeMap;

use ::redis::Value;
use materializer_model::definition::{RedisShape, RedisTarget};
use materializer_model::ports::{Scanned, SinkError, SinkReader, Snapshot, StoredRow};
use materializer_model::{Checkpoint, Key, Row, Timestamp, Unit, VersionId};

use super::connection::{Connection, Link, array, executed, integer, is_wrong_type, string};
use super::keys::{UnitKeys, literal, pattern, rows};
use super::pack::Pack;
use super::row;
use super::settings::RedisPlace;

/// How many keys one `SCAN` is asked for: the server serves nobody else for about 60 µs.
pub(super) const SCAN_KEYS: &str = "100";

/// Reads one unit of a version.
///
/// Rows carry no shard: of a version with several, a scan sees the rows of all.
pub struct RedisReader {
    link: Link,
    unit: Unit,
    keys: UnitKeys,
    literal: String,
    shape: RedisShape,
}

impl RedisReader {
    /// Makes a reader; it connects when it is first used.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the key template is not `<literal>{key}`.
    pub fn new(place: RedisPlace, target: &RedisTarget, unit: Unit) -> Result<Self, SinkError> {
        Ok(Self {
            keys: UnitKeys::new(&place.installation, &unit, target)?,
            literal: literal(target)?.to_owned(),
            shape: target.shape,
            link: Link::new(place),
            unit,
        })
    }

    /// Reads the checkpoint and these keys, whole, in one transaction.
    fn snapshot(&mut self, rows: &[Vec<u8>]) -> Result<Snapshot, SinkError> {
        let Self {
            link,
            keys,
            shape,
            unit,
            ..
        } = self;
        link.run(|_, connection| {
            let mut pack = Pack::default();
            pack.command(&["MULTI"]);
            pack.command(&["GET", &keys.checkpoint]);
            let get: &[u8] = match shape {
                RedisShape::Json | RedisShape::Bytes => b"GET",
                RedisShape::Hash => b"HGETALL",
            };
            for key in rows {
                pack.command(&[get, key]);
                pack.command(&[b"PEXPIRETIME", key.as_slice()]);
            }
            pack.command(&["EXEC"]);
            let replies = connection.exchange(&pack)?;
            let mut replies = executed(connection, replies)?.into_iter();
            let mut next = || replies.next().unwrap_or_default();
            let checkpoint = next();
            connection.judge(&checkpoint)?;
            let checkpoint = string(connection, checkpoint)?
                .map(|stored| Checkpoint::decode(&stored))
                .transpose()
                .map_err(|fault| SinkError::Damaged(format!("checkpoint of `{unit}`: {fault}")))?;
            let rows = rows.iter().map(|_| {
                let row = take_row(connection, *shape, next())?;
                let expires_at = take_expiry(connection, &next())?;
                Ok(row.map(|row| StoredRow { row, expires_at }))
            });
            let rows = rows.collect::<Result<_, SinkError>>()?;
            Ok(Snapshot { checkpoint, rows })
        })
    }

    /// Asks for the next page of the version's keys: the cursor after it, and the keys.
    fn page(&mut self, cursor: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), SinkError> {
        let version = &self.unit.version;
        self.link
            .run(|place, connection| scan_page(place, connection, version, cursor))
    }
}

impl SinkReader for RedisReader {
    fn read(&mut self, keys: &[Key]) -> Result<Snapshot, SinkError> {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| [self.keys.row.as_bytes(), &*key.0].concat())
            .collect();
        self.snapshot(&rows)
    }

    fn scan(
        &mut self,
        visit: &mut dyn FnMut(Key, StoredRow) -> bool,
    ) -> Result<Scanned, SinkError> {
        let before = self.snapshot(&[])?.checkpoint;
        let prefix = rows(&self.link.place().installation, &self.unit.version);
        let mut cursor = b"0".to_vec();
        'pages: loop {
            let (next, found) = self.page(&cursor)?;
            let rows = match found.is_empty() {
                true => Vec::new(),
                false => self.snapshot(&found)?.rows,
            };
            for (key, row) in found.iter().zip(rows) {
                let key = key
                    .strip_prefix(prefix.as_bytes())
                    .and_then(|rendered| rendered.strip_prefix(self.literal.as_bytes()))
                    .map(Key::new)
                    .ok_or_else(|| {
                        SinkError::Damaged(format!(
                            "`{}` stands among the rows of `{}` and is none of them",
                            key.escape_ascii(),
                            self.unit.version
                        ))
                    })?;
                // It was deleted, or it ended, since the page was read.
                let Some(row) = row else { continue };
                if !visit(key, row) {
                    break 'pages;
                }
            }
            if next == b"0" {
                break;
            }
            cursor = next;
        }
        let after = self.snapshot(&[])?.checkpoint;
        Ok(Scanned { before, after })
    }

    fn stored(&self, row: &Row) -> Option<Row> {
        row::stored(self.shape, row)
    }
}

/// Asks for a page of a version's keys. Returns the cursor after it, `0` at the end, and those keys
/// that begin with the version's prefix, byte by byte.
pub(super) fn scan_page(
    place: &RedisPlace,
    connection: &mut Connection,
    version: &VersionId,
    cursor: &[u8],
) -> Result<(Vec<u8>, Vec<Vec<u8>>), SinkError> {
    scan_prefix(
        connection,
        &rows(&place.installation, version),
        cursor,
        SCAN_KEYS,
    )
}

/// Asks for a page of the keys that begin with one of our prefixes, byte by byte. Returns the cursor after
/// it, `0` at the end, and those keys.
pub(super) fn scan_prefix(
    connection: &mut Connection,
    prefix: &str,
    cursor: &[u8],
    count: &str,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), SinkError> {
    let pattern = pattern(prefix);
    let page = connection.call(&[
        b"SCAN",
        cursor,
        b"MATCH",
        pattern.as_bytes(),
        b"COUNT",
        count.as_bytes(),
    ])?;
    let mut parts = array(connection, page)?.into_iter();
    let next = string(connection, parts.next().unwrap_or_default())?.unwrap_or_default();
    let mut found = Vec::new();
    for key in array(connection, parts.next().unwrap_or_default())? {
        found.extend(string(connection, key)?);
    }
    found.retain(|key| key.starts_with(prefix.as_bytes()));
    Ok((next, found))
}

/// What a row is read back as whose key somebody made one of another type: no row that was ever written.
const FOREIGN: &[u8] = b"a key of another type";

fn take_row(
    connection: &Connection,
    shape: RedisShape,
    reply: Value,
) -> Result<Option<Row>, SinkError> {
    if is_wrong_type(&reply) {
        return Ok(Some(Row::new(FOREIGN)));
    }
    connection.judge(&reply)?;
    match shape {
        RedisShape::Json | RedisShape::Bytes => {
            Ok(string(connection, reply)?.map(|bytes| Row(bytes.into())))
        }
        RedisShape::Hash => {
            let mut fields = BTreeMap::new();
            let mut values = array(connection, reply)?.into_iter();
            while let (Some(name), Some(value)) = (values.next(), values.next()) {
                let text = |reply| {
                    let bytes = string(connection, reply)?.unwrap_or_default();
                    Ok(String::from_utf8_lossy(&bytes).into_owned())
                };
                fields.insert(text(name)?, text(value)?);
            }
            Ok((!fields.is_empty()).then(|| row::from_fields(&fields)))
        }
    }
}

fn take_expiry(connection: &Connection, reply: &Value) -> Result<Option<Timestamp>, SinkError> {
    let at = integer(connection, reply)?;
    Ok((at >= 0).then_some(Timestamp(at)))
}
