//! Taking a unit: who owns it, whether the place is ours, and the order of a takeover.
//!
//! 1. Under `WATCH` of mark, token, checkpoint and the end of an unfinished commit these are read and judged.
//! 2. The token is written by compare-and-set, also where it is ours already: that voids whatever an
//!    older connection, of ours or of another owner, still has in a socket's buffer.
//! 3. In the same round trip the next `WATCH` is set and token and checkpoint are read again: they
//!    must be what was judged, and are what the first commit is compared with.

use ::redis::Value;
use materializer_model::definition::RedisTarget;
use materializer_model::ports::{Expect, SinkError, Usage};
use materializer_model::{Checkpoint, SinkId, Token, Unit};

use super::connection::{Connection, array, string};
use super::keys::UnitKeys;
use super::mark::{Mark, judge_mark};
use super::pack::Pack;
use super::probe::ServerFacts;
use super::settings::RedisPlace;
use super::token::StoredToken;

/// How often a takeover is tried again when something changed while it was judged.
const ATTEMPTS: usize = 5;

/// Token and checkpoint as they were read under the `WATCH` that now stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) token: Option<Vec<u8>>,
    pub(super) checkpoint: Option<Vec<u8>>,
}

impl Held {
    /// Adds `WATCH` and the read whose reply [`Held::take`] takes: the last two replies.
    pub(super) fn ask(keys: &UnitKeys, pack: &mut Pack) {
        pack.command(&["WATCH", &keys.token, &keys.checkpoint]);
        pack.command(&["MGET", &keys.token, &keys.checkpoint]);
    }

    /// Takes the reply to the `MGET`.
    pub(super) fn take(connection: &Connection, reply: Value) -> Result<Self, SinkError> {
        let mut values = array(connection, reply)?.into_iter();
        let mut next = || string(connection, values.next().unwrap_or_default());
        Ok(Self {
            token: next()?,
            checkpoint: next()?,
        })
    }
}

/// A unit that is ours, on a connection under whose `WATCH` it is so.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) keys: UnitKeys,
    pub(super) me: Token,
    pub(super) held: Held,
    /// Up to where rows may be ahead of the checkpoint, as it is stored.
    pub(super) unfinished: Option<Checkpoint>,
    pub(super) usage: Usage,
    pub(super) parts_written: u64,
    /// The room for the next transaction.
    pub(super) pack: Pack,
}

/// What a takeover found.
struct Taken {
    mark: Mark,
    held: Held,
    checkpoint: Option<Checkpoint>,
    unfinished: Option<Checkpoint>,
}

/// With what a unit is taken.
#[derive(Clone, Debug)]
pub(super) struct Taker {
    pub(super) me: Token,
    pub(super) expect: Expect,
    /// The lowest claim that can have been made of this version.
    pub(super) claims_from: u64,
}

/// What takes a unit, and remembers which server it was found on.
pub(super) struct Owner {
    pub(super) place: RedisPlace,
    pub(super) target: RedisTarget,
    pub(super) unit: Unit,
    pub(super) keys: UnitKeys,
    /// The id that the mark gets where there is none yet.
    pub(super) sink: SinkId,
}

impl Owner {
    /// Takes the unit and returns its checkpoint.
    pub(super) fn open(
        &mut self,
        taker: &Taker,
    ) -> Result<(Session, Option<Checkpoint>), SinkError> {
        let mut connection = Connection::connect(&self.place.server)?;
        let facts = ServerFacts::ask(&mut connection)?;
        facts.check(&self.target, &self.place.server.address())?;
        for _ in 0..ATTEMPTS {
            let Some(taken) = self.take(&mut connection, taker)? else {
                continue;
            };
            self.place.sink = Some(taken.mark.sink);
            let session = Session {
                connection,
                keys: self.keys.clone(),
                me: taker.me.clone(),
                held: taken.held,
                unfinished: taken.unfinished,
                usage: facts.usage(),
                parts_written: 0,
                pack: Pack::default(),
            };
            return Ok((session, taken.checkpoint));
        }
        Err(SinkError::Unavailable(format!(
            "the token of `{}` changed {ATTEMPTS} times while it was taken",
            self.unit
        )))
    }

    /// Tries once; `None` where something changed in between.
    fn take(&self, connection: &mut Connection, taker: &Taker) -> Result<Option<Taken>, SinkError> {
        let me = &taker.me;
        let UnitKeys {
            mark: mark_key,
            token: token_key,
            checkpoint: checkpoint_key,
            unfinished: unfinished_key,
            ..
        } = &self.keys;
        let mut look = Pack::default();
        look.command(&["WATCH", mark_key, token_key, checkpoint_key, unfinished_key]);
        // Not `MGET`: that shows a key of another type as missing.
        for key in [mark_key, token_key, checkpoint_key, unfinished_key] {
            look.command(&["GET", key]);
        }
        let mut replies = connection.ask(&look)?.into_iter().skip(1);
        let mut next = || string(connection, replies.next().unwrap_or_default());
        let mark = judge_mark(&self.place, next()?.as_deref())?;
        let found = Held {
            token: next()?,
            checkpoint: next()?,
        };
        let unfinished = next()?;
        check_age(&self.unit, &found, taker.claims_from)?;
        judge(&self.unit, &found, mark.is_some(), me, taker.expect)?;
        let checkpoint = self.decode("checkpoint", found.checkpoint.as_deref())?;
        let unfinished = self.decode("unfinished commit", unfinished.as_deref())?;

        let is_marked = mark.is_some();
        let mark = mark.unwrap_or_else(|| Mark {
            catalog: self.place.catalog.clone(),
            sink: self.place.sink.clone().unwrap_or_else(|| self.sink.clone()),
        });
        let mut raise = Pack::default();
        raise.command(&["MULTI"]);
        if !is_marked {
            raise.command(&["SET", mark_key, &mark.encode()]);
        }
        raise.command(&["SET", token_key, &me.to_string()]);
        raise.command(&["EXEC"]);
        Held::ask(&self.keys, &mut raise);
        let mut replies = connection.ask(&raise)?;
        let held = Held::take(connection, replies.pop().unwrap_or_default())?;
        let executed = replies.get(replies.len().saturating_sub(2));
        let is_taken = executed != Some(&Value::Nil)
            && held.token.as_deref() == Some(me.to_string().as_bytes())
            && held.checkpoint == found.checkpoint;
        Ok(is_taken.then_some(Taken {
            mark,
            held,
            checkpoint,
            unfinished,
        }))
    }

    fn decode(&self, what: &str, stored: Option<&[u8]>) -> Result<Option<Checkpoint>, SinkError> {
        stored
            .map(Checkpoint::decode)
            .transpose()
            .map_err(|fault| SinkError::Damaged(format!("{what} of `{}`: {fault}", self.unit)))
    }
}

/// Says whether `me` may take a unit of which this was found.
pub(super) fn judge(
    unit: &Unit,
    found: &Held,
    is_marked: bool,
    me: &Token,
    expect: Expect,
) -> Result<(), SinkError> {
    let damaged = |why: &str| Err(SinkError::Damaged(format!("`{unit}` in redis: {why}")));
    let Some(token) = &found.token else {
        return match (expect, &found.checkpoint) {
            (Expect::Data, _) => damaged(
                "its token is missing although commits were reported: the server was emptied or \
                 is another one; start a new version, or roll back",
            ),
            (Expect::Maybe, Some(_)) => damaged("there is a checkpoint and no token"),
            (Expect::Maybe, None) => Ok(()),
        };
    };
    if !is_marked {
        return damaged("there is a token and no mark: keys of ours were deleted");
    }
    outranks(unit, token, me)?;
    if expect == Expect::Data && found.checkpoint.is_none() {
        return damaged(
            "its checkpoint is missing although commits were reported; start a new version, or \
             roll back",
        );
    }
    Ok(())
}

/// Says whether the last owner can have been one of this version, and not of one that a catalog which
/// is older than its sinks does not know and gave the number of to another.
fn check_age(unit: &Unit, found: &Held, claims_from: u64) -> Result<(), SinkError> {
    let stored = found.token.as_deref().map(StoredToken::read);
    match stored {
        Some(StoredToken::Claimed(held)) if held.claim_offset < claims_from => {
            Err(SinkError::Damaged(format!(
                "`{unit}` in redis: another version was built under this number, before the catalog \
                 was restored: give it up and apply the view again, for the next number"
            )))
        }
        Some(StoredToken::Claimed(_) | StoredToken::Retired(_) | StoredToken::Foreign(_))
        | None => Ok(()),
    }
}

/// Says whether `me` may write where `stored` is the token.
pub(super) fn outranks(unit: &Unit, stored: &[u8], me: &Token) -> Result<(), SinkError> {
    let damaged = |why: String| Err(SinkError::Damaged(format!("`{unit}` in redis: {why}")));
    let held = match StoredToken::read(stored) {
        StoredToken::Claimed(held) => held,
        StoredToken::Retired(at) => {
            return damaged(format!("it was retired by the event at offset {at}"));
        }
        StoredToken::Foreign(text) => {
            return damaged(format!("its token is `{text}`, which is not one of ours"));
        }
    };
    if held == *me || me.outranks(&held) {
        Ok(())
    } else if held.outranks(me) {
        Err(SinkError::Fenced(held))
    } else {
        damaged(format!(
            "its token is `{held}`, which our claims do not know"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use materializer_model::{CatalogId, ClaimId};

    fn token(catalog: &str, claim_offset: u64, claim: &str) -> Token {
        Token {
            catalog: CatalogId::new(catalog),
            claim_offset,
            claim: ClaimId::new(claim),
        }
    }

    #[test]
    fn a_unit_is_taken_only_where_it_is_ours_and_whole() {
        let unit: Unit = "products/v7/c0/s0".parse().expect("a unit");
        let me = token("cat", 5, "me");
        let verdict = |stored: Option<&str>, checkpoint: bool, marked, expect| {
            let found = Held {
                token: stored.map(|text| text.as_bytes().to_vec()),
                checkpoint: checkpoint.then(|| b"{}".to_vec()),
            };
            match judge(&unit, &found, marked, &me, expect) {
                Ok(()) => "taken".to_owned(),
                Err(SinkError::Fenced(by)) => format!("fenced by {by}"),
                Err(SinkError::Damaged(_)) => "damaged".to_owned(),
                Err(other) => panic!("{other:?}"),
            }
        };
        use Expect::{Data, Maybe};
        for (stored, checkpoint, marked, expect, expected) in [
            (None, false, false, Maybe, "taken"),
            (None, false, true, Maybe, "taken"),
            (None, false, true, Data, "damaged"),
            (None, true, true, Maybe, "damaged"),
            (Some("cat 5 me"), true, true, Data, "taken"),
            (Some("cat 5 me"), false, true, Maybe, "taken"),
            (Some("cat 5 me"), false, true, Data, "damaged"),
            (Some("cat 5 me"), true, false, Data, "damaged"),
            (Some("cat 4 old"), true, true, Data, "taken"),
            (Some("cat 6 new"), true, true, Data, "fenced by cat 6 new"),
            (Some("cat 5 other"), true, true, Data, "damaged"),
            (Some("foreign 4 old"), true, true, Data, "damaged"),
            (Some("retired 9"), false, true, Maybe, "damaged"),
            (Some("hello"), false, true, Maybe, "damaged"),
        ] {
            let found = verdict(stored, checkpoint, marked, expect);
            assert_eq!(
                found, expected,
                "{stored:?} {checkpoint} {marked} {expect:?}"
            );
        }
    }
}
