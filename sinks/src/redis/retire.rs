//! Deleting and counting what a version stored, a page at a time.
//!
//! Order of a deletion: the tokens become permanent retired marks and the checkpoints go, in one
//! transaction; every attached replica acknowledges that (and with it all that was written before,
//! the alias among it); then rows. A pass over all keys that began after the mark finds every row,
//! since nobody can write one any more.

use std::time::Duration;

use ::redis::Value;
use materializer_model::ports::{AliasPointer, Counting, Retired, SinkError};
use materializer_model::{Clock, Offset, Token, VersionId};

use super::alias;
use super::connection::{Connection, integer, string};
use super::keys;
use super::mark::check_mark;
use super::pack::Pack;
use super::probe::ServerFacts;
use super::read::scan_page;
use super::settings::RedisPlace;

/// How long a replica may take to acknowledge the retired mark.
const REPLICA_WAIT_MS: &str = "1000";

/// A pass over all keys of a server: valid on one connection.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    cursor: Vec<u8>,
    rows: u64,
}

impl Pass {
    fn begin() -> Self {
        Self {
            cursor: b"0".to_vec(),
            rows: 0,
        }
    }
}

/// Counts rows until the budget is used up; `pass` is where it stands, `None` before and after.
pub(super) fn count(
    place: &RedisPlace,
    connection: &mut Connection,
    clock: &dyn Clock,
    version: &VersionId,
    budget: Duration,
    pass: &mut Option<Pass>,
) -> Result<Counting, SinkError> {
    let until = clock.monotonic().plus(budget);
    let mut at = pass.take().unwrap_or_else(Pass::begin);
    loop {
        let (next, found) = scan_page(place, connection, version, &at.cursor)?;
        at.rows += u64::try_from(found.len()).unwrap_or(u64::MAX);
        at.cursor = next;
        let rows = at.rows;
        let finished = at.cursor == b"0";
        if finished {
            return Ok(Counting { rows, finished });
        }
        if clock.monotonic() >= until {
            *pass = Some(at);
            return Ok(Counting { rows, finished });
        }
    }
}

/// Deletes rows until the budget is used up; `pass` is where it stands, `None` before and after.
pub(super) fn delete(
    place: &RedisPlace,
    connection: &mut Connection,
    clock: &dyn Clock,
    version: &VersionId,
    budget: Duration,
    pass: &mut Option<Pass>,
) -> Result<Retired, SinkError> {
    let until = clock.monotonic().plus(budget);
    let mut at = pass.take().unwrap_or_else(Pass::begin);
    let mut deleted = 0;
    loop {
        let (next, found) = scan_page(place, connection, version, &at.cursor)?;
        if !found.is_empty() {
            let mut pack = Pack::default();
            pack.begin(1 + found.len());
            pack.part(b"UNLINK");
            for key in &found {
                pack.part(key);
            }
            let reply = connection.ask(&pack)?.pop().unwrap_or_default();
            deleted += u64::try_from(integer(connection, &reply)?).unwrap_or(0);
        }
        at.cursor = next;
        let finished = at.cursor == b"0";
        if finished {
            return Ok(Retired { deleted, finished });
        }
        if clock.monotonic() >= until {
            *pass = Some(at);
            return Ok(Retired { deleted, finished });
        }
    }
}

/// Makes the tokens of all shards retired marks and removes the checkpoints. Says whether there is
/// anything of ours to delete: where neither the server's mark nor a token is left, there is not.
pub(super) fn mark_retired(
    place: &RedisPlace,
    connection: &mut Connection,
    version: &VersionId,
    shards: u16,
    at: Offset,
) -> Result<bool, SinkError> {
    let i = &place.installation;
    let tokens: Vec<_> = (0..shards)
        .map(|shard| keys::token(i, version, shard))
        .collect();
    let checkpoints: Vec<_> = (0..shards)
        .map(|shard| keys::checkpoint(i, version, shard))
        .collect();
    let is_marked = check_mark(place, connection)?.is_some();
    let mut look = Pack::default();
    look.begin(1 + 1 + tokens.len());
    look.part(b"WATCH");
    look.part(keys::alias(i, &version.view).as_bytes());
    for token in &tokens {
        look.part(token.as_bytes());
    }
    for token in &tokens {
        look.command(&["GET", token]);
    }
    let mut stored = Vec::new();
    for reply in connection.ask(&look)?.into_iter().skip(1) {
        stored.push(string(connection, reply)?);
    }
    if !is_marked && stored.iter().all(Option::is_none) {
        connection.call(&["UNWATCH"])?;
        return Ok(false);
    }
    for token in stored.iter().flatten() {
        check_retirable(place, version, token)?;
    }
    refuse_live(
        version,
        alias::read(place, connection, &version.view)?.as_ref(),
    )?;
    if stored
        .iter()
        .all(|token| token.as_deref().is_some_and(is_retired))
    {
        connection.call(&["UNWATCH"])?;
        return Ok(true);
    }
    let mut write = Pack::default();
    write.command(&["MULTI"]);
    for (token, stored) in tokens.iter().zip(&stored) {
        if !stored.as_deref().is_some_and(is_retired) {
            write.command(&["SET", token, &format!("retired {at}")]);
        }
    }
    write.begin(1 + checkpoints.len());
    write.part(b"UNLINK");
    for checkpoint in &checkpoints {
        write.part(checkpoint.as_bytes());
    }
    write.command(&["EXEC"]);
    let executed = connection.ask(&write)?.pop().unwrap_or_default();
    if executed == Value::Nil {
        return Err(SinkError::Unavailable(format!(
            "`{version}` in redis: a token or the alias changed while it was retired"
        )));
    }
    Ok(true)
}

/// Waits until every attached replica has what was written so far.
pub(super) fn await_replicas(
    place: &RedisPlace,
    connection: &mut Connection,
) -> Result<(), SinkError> {
    let attached = ServerFacts::ask(connection)?.replicas;
    if attached == 0 {
        return Ok(());
    }
    let reply = connection.call(&["WAIT", &attached.to_string(), REPLICA_WAIT_MS])?;
    let acknowledged = integer(connection, &reply)?;
    if acknowledged < i64::from(attached) {
        return Err(SinkError::Unavailable(format!(
            "redis at `{}`: {acknowledged} of {attached} replicas acknowledged the retirement in \
             {REPLICA_WAIT_MS} ms",
            place.server.address()
        )));
    }
    Ok(())
}

fn is_retired(token: &[u8]) -> bool {
    token.starts_with(b"retired ")
}

fn check_retirable(place: &RedisPlace, version: &VersionId, token: &[u8]) -> Result<(), SinkError> {
    let text = String::from_utf8_lossy(token);
    let is_ours = text
        .parse::<Token>()
        .is_ok_and(|held| held.catalog == place.catalog);
    if is_ours || is_retired(token) {
        return Ok(());
    }
    Err(SinkError::Damaged(format!(
        "`{version}` in redis: its token is `{text}`, which is not of catalog `{}`; nothing was \
         deleted",
        place.catalog
    )))
}

fn refuse_live(version: &VersionId, alias: Option<&AliasPointer>) -> Result<(), SinkError> {
    match alias {
        Some(alias) if alias.version == version.number => Err(SinkError::Refused(format!(
            "`{version}` is what the alias `{}` leads to; nothing was deleted",
            version.view
        ))),
        Some(_) | None => Ok(()),
    }
}
