//! Serving readers: commands on a view's rows, answered by one version each.
//!
//! Alias and rows are read in one step (`MGET alias key…`, or one `MULTI`), under the version that is
//! thought to be live. Where the alias says another one, the answer is thrown away and the command is
//! sent again for that version: a reader sees the old version or the new, never a mixture, never one
//! that is being deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::Value;
use materializer_model::ports::{AliasPointer, SinkError};
use materializer_model::{VersionId, VersionNumber, ViewName};

use super::alias::{Stored, take_alias};
use super::connection::{Connection, Link, executed, is_wrong_type, string};
use super::keys;
use super::pack::Pack;
use super::settings::RedisPlace;

/// How many times the alias may move while one request is answered. It moves once in hours: this ends
/// what would otherwise have no end.
const ATTEMPTS: usize = 100;

/// One read. A key is the rendered one, as `product:42`: what a reader of Redis would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// `GET`: [`Reply::Bytes`] or [`Reply::Nil`]; [`Reply::WrongType`] for a hash.
    Get(Vec<u8>),
    /// `STRLEN`: [`Reply::Number`] of bytes, 0 where there is no row; [`Reply::WrongType`] for a hash.
    Length(Vec<u8>),
    /// `EXISTS` of one key: [`Reply::Number`].
    Exists(Vec<u8>),
    /// `HGET` of a key and a field: [`Reply::Bytes`] or [`Reply::Nil`].
    HashGet(Vec<u8>, Vec<u8>),
    /// `HGETALL`: [`Reply::Fields`], empty where there is no row.
    HashAll(Vec<u8>),
    /// `TTL`: [`Reply::Number`] of seconds, -1 without expiry, -2 without row.
    TimeToLive(Vec<u8>),
}

/// What one read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No such row or field.
    Nil,
    /// A value.
    Bytes(Vec<u8>),
    /// A number.
    Number(i64),
    /// Names and values, in the order of the server.
    Fields(Vec<(Vec<u8>, Vec<u8>)>),
    /// The row is of another shape than the command reads.
    WrongType,
}

/// Reads that one version answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The view.
    pub view: ViewName,
    /// The version whose rows are known to be of the shape that the reads are for. Of another one,
    /// which the alias may lead to by now, the shape is looked at: an `MGET` tells a hash as no row.
    pub shaped_as: VersionNumber,
    /// The reads, answered in order, as of one instant.
    pub reads: Vec<Read>,
}

/// What was found, and which version answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The version, and the alias epoch.
    pub pointer: AliasPointer,
    /// A reply for each read.
    pub replies: Vec<Reply>,
}

/// The newest alias of each view that any reader of one server has seen: readers that share it never follow
/// an alias back. One that is missing is forgotten, so that what a person wrote there can be mended.
#[derive(Clone, Debug, Default)]
pub struct NewestAliases(Arc<Mutex<BTreeMap<ViewName, AliasPointer>>>);

impl NewestAliases {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ViewName, AliasPointer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, view: &ViewName) -> Option<AliasPointer> {
        self.lock().get(view).cloned()
    }

    fn raise(&self, view: &ViewName, to: &AliasPointer) {
        let mut newest = self.lock();
        if newest.get(view).is_none_or(|known| known.epoch < to.epoch) {
            newest.insert(view.clone(), to.clone());
        }
    }

    fn forget(&self, view: &ViewName) {
        self.lock().remove(view);
    }
}

/// One connection of a gateway. Blocks; each thread has its own. Reads change nothing, so they are
/// sent again once where a connection that was idle turns out to be gone.
pub struct ViewReads {
    link: Link,
    newest: NewestAliases,
}

impl ViewReads {
    /// Makes a reader; it connects when it is first used.
    #[must_use]
    pub fn new(place: RedisPlace, newest: NewestAliases) -> Self {
        Self {
            link: Link::new(place),
            newest,
        }
    }

    /// Answers requests, all in one pipeline. One that fails alone leaves the others as they are.
    ///
    /// The errors are [`SinkError::Unavailable`] for a view that has no alias here, also after a
    /// lost connection, or one that is older than what was seen before, and [`SinkError`] as the server
    /// says.
    pub fn answer(&mut self, requests: &[ReadRequest]) -> Vec<Result<Answer, SinkError>> {
        let mut answers: Vec<Option<Result<Answer, SinkError>>> = vec![None; requests.len()];
        for _ in 0..ATTEMPTS {
            let open: Vec<_> = (0..requests.len())
                .filter(|&at| answers[at].is_none())
                .collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<_> = open.iter().map(|&at| &requests[at]).collect();
            match self.round(&asked) {
                Ok(found) => open
                    .iter()
                    .zip(found)
                    .for_each(|(&at, found)| answers[at] = found),
                Err(fault) => open
                    .iter()
                    .for_each(|&at| answers[at] = Some(Err(fault.clone()))),
            }
        }
        let settle = |(answer, request): (Option<_>, &ReadRequest)| {
            answer.unwrap_or_else(|| {
                Err(SinkError::Unavailable(format!(
                    "the alias `{}` moved {ATTEMPTS} times while one request was answered",
                    request.view
                )))
            })
        };
        answers.into_iter().zip(requests).map(settle).collect()
    }

    /// Sends each request for the version that is thought to be live; `None` where it is another.
    fn round(
        &mut self,
        requests: &[&ReadRequest],
    ) -> Result<Vec<Option<Result<Answer, SinkError>>>, SinkError> {
        let was_connected = self.link.is_connected();
        let newest = &self.newest;
        let ask = |place: &RedisPlace, connection: &mut Connection| {
            let plans: Vec<_> = requests
                .iter()
                .map(|request| Plan::new(place, request, newest.get(&request.view)))
                .collect();
            let mut pack = Pack::default();
            plans.iter().for_each(|plan| plan.pack(&mut pack));
            let mut replies = connection.exchange(&pack)?.into_iter();
            let mut found = Vec::with_capacity(plans.len());
            for plan in &plans {
                let replies: Vec<_> = replies.by_ref().take(plan.commands()).collect();
                found.push(match plan.take(connection, replies) {
                    Ok((pointer, answer)) => plan.judge(newest, pointer, answer),
                    Err(fault) => Some(Err(fault)),
                });
            }
            Ok(found)
        };
        match self.link.run(ask) {
            Err(SinkError::Unavailable(_)) if was_connected => self.link.run(ask),
            found => found,
        }
    }
}

/// One request for one version.
struct Plan<'a> {
    request: &'a ReadRequest,
    alias: String,
    /// The version that is read, with the prefix of its rows; `None` asks for the alias alone.
    version: Option<(AliasPointer, String)>,
}

impl<'a> Plan<'a> {
    fn new(place: &RedisPlace, request: &'a ReadRequest, newest: Option<AliasPointer>) -> Self {
        let prefix = |pointer: AliasPointer| {
            let version = VersionId {
                view: request.view.clone(),
                number: pointer.version,
            };
            (pointer, keys::rows(&place.installation, &version))
        };
        Self {
            request,
            alias: keys::alias(&place.installation, &request.view),
            version: newest.map(prefix),
        }
    }

    /// Says whether one `MGET` does all of it.
    fn is_plain(&self) -> bool {
        let Self {
            request, version, ..
        } = self;
        let asked = version.as_ref().map(|(pointer, _)| pointer.version);
        asked == Some(request.shaped_as)
            && request
                .reads
                .iter()
                .all(|read| matches!(read, Read::Get(_)))
    }

    fn commands(&self) -> usize {
        match self.version {
            Some(_) if !self.is_plain() => 3 + self.request.reads.len(),
            Some(_) | None => 1,
        }
    }

    fn pack(&self, pack: &mut Pack) {
        let Some((_, prefix)) = &self.version else {
            pack.command(&["GET", &self.alias]);
            return;
        };
        let prefix = prefix.as_bytes();
        let reads = &self.request.reads;
        if self.is_plain() {
            pack.begin(2 + reads.len());
            pack.part(b"MGET");
            pack.part(self.alias.as_bytes());
            for read in reads {
                pack.joined(prefix, key(read));
            }
            return;
        }
        pack.command(&["MULTI"]);
        pack.command(&["GET", &self.alias]);
        for read in reads {
            let (name, field): (&[u8], _) = match read {
                Read::Get(_) => (b"GET", None),
                Read::Length(_) => (b"STRLEN", None),
                Read::Exists(_) => (b"EXISTS", None),
                Read::HashGet(_, field) => (b"HGET", Some(field)),
                Read::HashAll(_) => (b"HGETALL", None),
                Read::TimeToLive(_) => (b"TTL", None),
            };
            pack.begin(if field.is_some() { 3 } else { 2 });
            pack.part(name);
            pack.joined(prefix, key(read));
            if let Some(field) = field {
                pack.part(field);
            }
        }
        pack.command(&["EXEC"]);
    }

    /// Takes the replies apart: the alias as it is now, and what was read.
    fn take(
        &self,
        connection: &Connection,
        mut replies: Vec<Value>,
    ) -> Result<(Option<AliasPointer>, Vec<Reply>), SinkError> {
        if self.version.is_none() {
            let reply = replies.pop().unwrap_or_default();
            let pointer = take_alias(connection, &self.alias, reply)?;
            return Ok((pointer, Vec::new()));
        }
        let mut values = executed(connection, replies)?.into_iter();
        let pointer = take_alias(connection, &self.alias, values.next().unwrap_or_default())?;
        let replies = self.request.reads.iter().zip(values);
        let replies = replies.map(|(read, value)| take_reply(connection, read, value));
        Ok((pointer, replies.collect::<Result<_, _>>()?))
    }

    /// Returns the answer if it is the live version's, `None` if that is another one by now.
    fn judge(
        &self,
        newest: &NewestAliases,
        pointer: Option<AliasPointer>,
        replies: Vec<Reply>,
    ) -> Option<Result<Answer, SinkError>> {
        let view = &self.request.view;
        let unavailable = |why: String| Some(Err(SinkError::Unavailable(why)));
        let Some(pointer) = pointer else {
            newest.forget(view);
            return unavailable(format!("`{view}` has no alias in redis"));
        };
        newest.raise(view, &pointer);
        let (asked, _) = self.version.as_ref()?;
        if pointer != *asked && pointer.epoch <= asked.epoch {
            return unavailable(format!(
                "the alias `{view}` in redis went back from `{}` to `{}`",
                Stored(asked.clone()),
                Stored(pointer)
            ));
        }
        (asked.version == pointer.version).then_some(Ok(Answer { pointer, replies }))
    }
}

fn key(read: &Read) -> &[u8] {
    match read {
        Read::Get(key)
        | Read::Length(key)
        | Read::Exists(key)
        | Read::HashGet(key, _)
        | Read::HashAll(key)
        | Read::TimeToLive(key) => key,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "replies are an open enum of the client library"
)]
fn take_reply(connection: &Connection, read: &Read, value: Value) -> Result<Reply, SinkError> {
    match value {
        foreign if is_wrong_type(&foreign) => Ok(Reply::WrongType),
        Value::ServerError(fault) => Err(connection.fault(&fault)),
        Value::Nil => Ok(Reply::Nil),
        Value::Int(number) => Ok(Reply::Number(number)),
        Value::BulkString(bytes) => Ok(Reply::Bytes(bytes)),
        Value::Array(values) if matches!(read, Read::HashAll(_)) => {
            let mut fields = Vec::with_capacity(values.len() / 2);
            let mut values = values.into_iter();
            while let (Some(name), Some(value)) = (values.next(), values.next()) {
                let bytes = |value| Ok(string(connection, value)?.unwrap_or_default());
                fields.push((bytes(name)?, bytes(value)?));
            }
            Ok(Reply::Fields(fields))
        }
        other => Err(connection.unexpected(&other)),
    }
}
