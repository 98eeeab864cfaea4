//! What is left on a server of every version there ever was, whether or not a catalog knows of it.

use std::collections::BTreeMap;

use materializer_model::ports::{AliasPointer, SinkError};
use materializer_model::{Installation, Offset, VersionId, ViewName};

use super::alias::take_alias;
use super::connection::Connection;
use super::keys;
use super::mark::{Mark, find_mark};
use super::pack::Pack;
use super::read::scan_prefix;
use super::settings::RedisSettings;
use super::token::StoredToken;

/// How many keys one `SCAN` is asked for; nobody waits behind it but a restore.
const SCAN_KEYS: &str = "1000";

/// What a server tells of an installation beside its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Whose place it is.
    pub mark: Mark,
    /// The alias of each view.
    pub aliases: BTreeMap<ViewName, AliasPointer>,
    /// The offset in the token of each version that was claimed; the highest of its shards.
    pub claimed: BTreeMap<VersionId, u64>,
    /// The event that retired each version that leaves a mark.
    pub retired: BTreeMap<VersionId, Offset>,
}

/// Looks through all keys of a server for what an installation wrote beside rows; `None` where it
/// never wrote anything. Takes as long as `SCAN` does: about a second for a million keys.
///
/// # Errors
/// [`SinkError`]; `Damaged` where another program's value stands in the place of the mark.
pub fn find_traces(
    server: &RedisSettings,
    installation: &Installation,
) -> Result<Option<Traces>, SinkError> {
    let Some(mark) = find_mark(server, installation)? else {
        return Ok(None);
    };
    let mut traces = Traces {
        mark,
        aliases: BTreeMap::new(),
        claimed: BTreeMap::new(),
        retired: BTreeMap::new(),
    };
    let mut connection = Connection::connect(server)?;
    let mut cursor = b"0".to_vec();
    loop {
        let (next, names) = page(&mut connection, installation, &cursor)?;
        read(&mut connection, &names, &mut traces)?;
        if next == b"0" {
            return Ok(Some(traces));
        }
        cursor = next;
    }
}

/// One of our keys.
enum Name {
    Alias(String, ViewName),
    Token(String, VersionId),
}

fn page(
    connection: &mut Connection,
    installation: &Installation,
    cursor: &[u8],
) -> Result<(Vec<u8>, Vec<Name>), SinkError> {
    let prefix = keys::own(installation);
    let (next, found) = scan_prefix(connection, &prefix, cursor, SCAN_KEYS)?;
    let texts = found.into_iter().flat_map(String::from_utf8);
    let names = texts.filter_map(|key| name(&prefix, key)).collect();
    Ok((next, names))
}

/// Says what a key is, by its name.
fn name(prefix: &str, key: String) -> Option<Name> {
    let parts: Vec<&str> = key.strip_prefix(prefix)?.split(':').collect();
    match parts[..] {
        [view, "alias"] => {
            let view = view.parse().ok()?;
            Some(Name::Alias(key, view))
        }
        [view, number, shard, "token"] if shard.starts_with('s') => {
            let view = view.parse().ok()?;
            let number = number.parse().ok()?;
            Some(Name::Token(key, VersionId { view, number }))
        }
        _ => None,
    }
}

fn read(connection: &mut Connection, names: &[Name], traces: &mut Traces) -> Result<(), SinkError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut pack = Pack::default();
    for name in names {
        let (Name::Alias(key, _) | Name::Token(key, _)) = name;
        pack.command(&["GET", key]);
    }
    let replies = connection.exchange(&pack)?;
    for (name, reply) in names.iter().zip(replies) {
        match name {
            Name::Alias(key, view) => {
                if let Some(pointer) = take_alias(connection, key, reply)? {
                    traces.aliases.insert(view.clone(), pointer);
                }
            }
            Name::Token(_, version) => {
                if let Some(token) = StoredToken::take(connection, reply)? {
                    note(traces, version, &token);
                }
            }
        }
    }
    Ok(())
}

fn note(traces: &mut Traces, version: &VersionId, token: &StoredToken) {
    match token {
        StoredToken::Claimed(token) => {
            let known = traces.claimed.entry(version.clone()).or_default();
            *known = (*known).max(token.claim_offset);
        }
        StoredToken::Retired(at) => {
            let at = Offset(at.parse().unwrap_or(0));
            traces.retired.insert(version.clone(), at);
        }
        // It keeps every claim out, whatever it is.
        StoredToken::Foreign(_) => {
            traces.claimed.entry(version.clone()).or_default();
        }
    }
}
