//! The key that readers follow to a view's live version.

use std::fmt;
use std::str::FromStr;

use ::redis::Value;
use materializer_model::ports::{AliasPointer, SinkError};
use materializer_model::{Offset, VersionId, ViewName};
use tracing::warn;

use super::connection::{Connection, is_wrong_type, string};
use super::keys;
use super::mark::judge_mark;
use super::pack::Pack;
use super::settings::RedisPlace;
use super::token::StoredToken;

/// How often a move is tried again when the alias or the mark changed while it was judged.
const ATTEMPTS: usize = 5;

/// The stored form of a pointer: `v7 1042`.
pub(super) struct Stored(pub(super) AliasPointer);

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.version, self.0.epoch)
    }
}

impl FromStr for Stored {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (version, epoch) = text.split_once(' ').ok_or(())?;
        Ok(Self(AliasPointer {
            version: version.parse().map_err(|_| ())?,
            epoch: epoch.parse().map(Offset).map_err(|_| ())?,
        }))
    }
}

/// Takes the reply to `GET alias`. What is not a pointer of ours, a key of another type or another
/// text, is told as none: it serves no reader, and is written over.
pub(super) fn take_alias(
    connection: &Connection,
    key: &str,
    reply: Value,
) -> Result<Option<AliasPointer>, SinkError> {
    if is_wrong_type(&reply) {
        warn!(key, "an alias is a key of another type");
        return Ok(None);
    }
    connection.judge(&reply)?;
    let Some(stored) = string(connection, reply)? else {
        return Ok(None);
    };
    let pointer = std::str::from_utf8(&stored)
        .ok()
        .and_then(|text| text.parse().ok());
    if pointer.is_none() {
        warn!(key, value = %stored.escape_ascii(), "an alias holds another text");
    }
    Ok(pointer.map(|Stored(pointer)| pointer))
}

/// Reads a view's alias.
pub(super) fn read(
    place: &RedisPlace,
    connection: &mut Connection,
    view: &ViewName,
) -> Result<Option<AliasPointer>, SinkError> {
    let key = keys::alias(&place.installation, view);
    let mut pack = Pack::default();
    pack.command(&["GET", &key]);
    let reply = connection.exchange(&pack)?.pop().unwrap_or_default();
    take_alias(connection, &key, reply)
}

/// Moves a view's alias from a lower epoch, or from none, and reads it back.
///
/// It leads only to a version of which every shard was taken by an owner and is not retired: to a
/// reader a version whose keys are gone, by a `FLUSHALL` or on a new server, is one without rows.
pub(super) fn advance(
    place: &RedisPlace,
    connection: &mut Connection,
    view: &ViewName,
    to: &AliasPointer,
    shards: u16,
) -> Result<(), SinkError> {
    let key = keys::alias(&place.installation, view);
    for _ in 0..ATTEMPTS {
        judge(place, connection, view, to, shards)?;
        let mut write = Pack::default();
        write.command(&["MULTI"]);
        write.command(&["SET", &key, &Stored(to.clone()).to_string()]);
        write.command(&["EXEC"]);
        write.command(&["GET", &key]);
        let mut replies = connection.ask(&write)?;
        let read_back = replies.pop().unwrap_or_default();
        if take_alias(connection, &key, read_back)?.as_ref() == Some(to) {
            return Ok(());
        }
    }
    Err(unsettled(view))
}

/// Says whether the alias may be moved. What that depends on is watched from here on.
fn judge(
    place: &RedisPlace,
    connection: &mut Connection,
    view: &ViewName,
    to: &AliasPointer,
    shards: u16,
) -> Result<(), SinkError> {
    let version = VersionId {
        view: view.clone(),
        number: to.version,
    };
    let key = keys::alias(&place.installation, view);
    let mark = keys::mark(&place.installation);
    let tokens = (0..shards).map(|shard| keys::token(&place.installation, &version, shard));
    let watched: Vec<_> = [mark, key.clone()].into_iter().chain(tokens).collect();
    let mut look = Pack::default();
    look.begin(1 + watched.len());
    look.part(b"WATCH");
    watched.iter().for_each(|key| look.part(key.as_bytes()));
    watched.iter().for_each(|key| look.command(&["GET", key]));
    let mut replies = connection.exchange(&look)?.into_iter();
    let mut next = || replies.next().unwrap_or_default();
    connection.judge(&next())?;
    let text = |reply| {
        connection.judge(&reply)?;
        string(connection, reply)
    };
    if judge_mark(place, text(next())?.as_deref())?.is_none() {
        return Err(SinkError::Damaged(format!(
            "redis at `{}` holds no mark of `{}`: nothing of ours is there that an alias could lead to",
            place.server.address(),
            place.installation
        )));
    }
    if let Some(held) = take_alias(connection, &key, next())?
        && held != *to
        && held.epoch >= to.epoch
    {
        return Err(SinkError::Damaged(format!(
            "the alias `{view}` is `{}` already, which is not before `{}`",
            Stored(held),
            Stored(to.clone())
        )));
    }
    for shard in 0..shards {
        let token = text(next())?;
        check_shard(place, &version, shard, token.as_deref())?;
    }
    Ok(())
}

/// Says whether readers may be led to a version one of whose shards has this token.
fn check_shard(
    place: &RedisPlace,
    version: &VersionId,
    shard: u16,
    token: Option<&[u8]>,
) -> Result<(), SinkError> {
    let why = match token.map(StoredToken::read) {
        Some(StoredToken::Claimed(held)) if held.catalog == place.catalog => return Ok(()),
        Some(StoredToken::Claimed(_) | StoredToken::Foreign(_)) => "another program's".to_owned(),
        Some(StoredToken::Retired(at)) => format!("retired by the event at offset {at}"),
        None => "missing: the server was emptied, or is another one".to_owned(),
    };
    Err(SinkError::Damaged(format!(
        "`{version}` in redis at `{}`: the token of shard {shard} is {why}; no alias is set to it: \
         start a new version, or roll back",
        place.server.address()
    )))
}

/// Removes a view's alias if its epoch is below `at`. What is not a pointer of ours is left alone.
pub(super) fn remove(
    place: &RedisPlace,
    connection: &mut Connection,
    view: &ViewName,
    at: Offset,
) -> Result<(), SinkError> {
    let key = keys::alias(&place.installation, view);
    for _ in 0..ATTEMPTS {
        connection.call(&["WATCH", &key])?;
        let is_older = read(place, connection, view)?.is_some_and(|held| held.epoch < at);
        if !is_older {
            return connection.call(&["UNWATCH"]).map(|_| ());
        }
        let mut write = Pack::default();
        write.command(&["MULTI"]);
        write.command(&["UNLINK", &key]);
        write.command(&["EXEC"]);
        if connection.ask(&write)?.pop() != Some(Value::Nil) {
            return Ok(());
        }
    }
    Err(unsettled(view))
}

fn unsettled(view: &ViewName) -> SinkError {
    SinkError::Unavailable(format!(
        "the alias `{view}` changed {ATTEMPTS} times while it was written"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use materializer_model::VersionNumber;

    #[test]
    fn a_pointer_is_stored_for_ever_as_version_and_epoch() {
        let pointer = AliasPointer {
            version: VersionNumber(7),
            epoch: Offset(1042),
        };
        let read = |text: &str| text.parse().ok().map(|Stored(pointer)| pointer);
        assert_eq!(Stored(pointer.clone()).to_string(), "v7 1042");
        assert_eq!(read("v7 1042"), Some(pointer));
        for bad in ["", "v7", "v7 ", "7 1", "v7 -1", "v7 1 2", "v07 1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
