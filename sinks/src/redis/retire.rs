//! What comes before a version's rows are deleted.
//!
//! The tokens become permanent retired marks and the checkpoints go, with the ends of unfinished commits,
//! in one transaction; every attached replica acknowledges that (and with it all that was written before,
//! the alias among it); then rows. A pass over all keys that began after the mark finds every row, since
//! nobody can write one any more. It is over once every attached replica has the deletions, too.
//!
//! A claim of another catalog keeps everybody out. What is no token at all, in a place that bears our mark,
//! is written over: it is nobody's claim, and a version could never be deleted otherwise.

use ::redis::Value;
use materializer_model::ports::{AliasPointer, SinkError};
use materializer_model::{Offset, VersionId};

use super::alias;
use super::connection::{Connection, integer};
use super::keys;
use super::mark::check_mark;
use super::pack::Pack;
use super::probe::ServerFacts;
use super::settings::RedisPlace;
use super::token::{StoredToken, retired};

/// How long a replica may take to acknowledge the retired mark.
const REPLICA_WAIT_MS: &str = "1000";

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
    let removed: Vec<_> = (0..shards)
        .flat_map(|shard| {
            [
                keys::checkpoint(i, version, shard),
                keys::unfinished(i, version, shard),
            ]
        })
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
    let mut replies = connection.exchange(&look)?.into_iter();
    connection.judge(&replies.next().unwrap_or_default())?;
    let stored: Vec<_> = replies
        .map(|reply| StoredToken::take(connection, reply))
        .collect::<Result<_, _>>()?;
    if !is_marked && stored.iter().all(Option::is_none) {
        connection.call(&["UNWATCH"])?;
        return Ok(false);
    }
    for token in stored.iter().flatten() {
        check_retirable(place, version, token, is_marked)?;
    }
    refuse_live(
        version,
        alias::read(place, connection, &version.view)?.as_ref(),
    )?;
    if stored.iter().all(|token| is_retired(token.as_ref())) {
        connection.call(&["UNWATCH"])?;
        return Ok(true);
    }
    let mut write = Pack::default();
    write.command(&["MULTI"]);
    for (token, stored) in tokens.iter().zip(&stored) {
        if !is_retired(stored.as_ref()) {
            write.command(&["SET", token, &retired(at)]);
        }
    }
    write.begin(1 + removed.len());
    write.part(b"UNLINK");
    for key in &removed {
        write.part(key.as_bytes());
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

fn is_retired(token: Option<&StoredToken>) -> bool {
    match token {
        Some(StoredToken::Retired(_)) => true,
        Some(StoredToken::Claimed(_) | StoredToken::Foreign(_)) | None => false,
    }
}

fn check_retirable(
    place: &RedisPlace,
    version: &VersionId,
    token: &StoredToken,
    is_marked: bool,
) -> Result<(), SinkError> {
    let text = match token {
        StoredToken::Retired(_) => return Ok(()),
        StoredToken::Claimed(held) if held.catalog == place.catalog => return Ok(()),
        StoredToken::Foreign(_) if is_marked => return Ok(()),
        StoredToken::Claimed(held) => held.to_string(),
        StoredToken::Foreign(text) => text.clone(),
    };
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
