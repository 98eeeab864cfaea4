//! Writing a commit: in parts, each a compare-and-set, of which only the last moves the checkpoint.
//!
//! The first of several stores where the commit ends, the last removes that: whoever opens the unit after
//! some of them is told up to where rows may be ahead of the checkpoint. A later commit that ends before
//! there leaves it in place.

use ::redis::Value;
use materializer_model::definition::RedisShape;
use materializer_model::ports::{SinkError, Usage};
use materializer_model::{Change, Checkpoint, Commit, Mutation, Row, Timestamp, Unit};

use super::connection::string;
use super::keys::UnitKeys;
use super::owner::{Held, Session, outranks};
use super::pack::Pack;
use super::probe::ServerFacts;
use super::row;

/// The most keys that one transaction writes: the server serves nobody else for about 0.3 ms.
const PART_KEYS: usize = 500;

/// The bytes after which a transaction takes no further row. Live commits are far below it, so that
/// readers see them whole.
const PART_BYTES: usize = 4 << 20;

/// How many transactions pass between two looks at the server's memory.
const PARTS_PER_MEMORY_CHECK: u64 = 256;

impl Session {
    /// Writes a commit. After an error the session is over: whether the commit was applied is told
    /// by the checkpoint that the next one finds.
    pub(super) fn write(
        &mut self,
        unit: &Unit,
        shape: RedisShape,
        commit: &Commit,
    ) -> Result<(), SinkError> {
        let before = commit.previous.as_ref().map(|at| at.encode().into_bytes());
        let after = commit.checkpoint.encode();
        let mut rest = commit.batch.mutations();
        let mut begins = part_len(rest) < rest.len();
        loop {
            self.check_held(unit, before.as_deref())?;
            let (part, later) = rest.split_at(part_len(rest));
            rest = later;
            let until = std::mem::take(&mut begins).then(|| self.begin_parts(commit));
            let beside = if let Some(until) = &until {
                Beside::Unfinished(until)
            } else if !rest.is_empty() {
                Beside::Nothing
            } else {
                Beside::Checkpoint {
                    at: &after,
                    finishes: self.finishes_parts(commit),
                }
            };
            self.pack.clear();
            pack_part(&mut self.pack, &self.keys, shape, part, beside);
            self.write_part(unit)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes in that rows may be ahead up to the end of a commit, and returns what says so.
    fn begin_parts(&mut self, commit: &Commit) -> String {
        let ends = &commit.checkpoint;
        let until = self.unfinished.get_or_insert_with(|| ends.clone());
        until.raise_to(ends);
        until.encode()
    }

    /// Says whether rows were ahead, and are not any more once a commit is whole.
    fn finishes_parts(&mut self, commit: &Commit) -> bool {
        let passed = |until: &mut Checkpoint| !commit.checkpoint.is_behind(until);
        self.unfinished.take_if(passed).is_some()
    }

    /// Compares what was read under the `WATCH` with what we wrote last.
    fn check_held(&self, unit: &Unit, checkpoint: Option<&[u8]>) -> Result<(), SinkError> {
        let Some(token) = &self.held.token else {
            return Err(again(unit, "its token is gone"));
        };
        outranks(unit, token, &self.me)?;
        if token != self.me.to_string().as_bytes() {
            return Err(again(unit, "its token went back"));
        }
        if self.held.checkpoint.as_deref() != checkpoint {
            return Err(again(
                unit,
                "its checkpoint is not the one this commit follows",
            ));
        }
        Ok(())
    }

    /// Sends the transaction that was packed and sets the `WATCH` for the next.
    fn write_part(&mut self, unit: &Unit) -> Result<(), SinkError> {
        let executed_at = self.pack.commands() - 1;
        Held::ask(&self.keys, &mut self.pack);
        let asks_memory = self.parts_written % PARTS_PER_MEMORY_CHECK == PARTS_PER_MEMORY_CHECK - 1;
        if asks_memory {
            self.pack.command(&["INFO", "memory"]);
        }
        // In order: a command that was not queued tells more than the `EXECABORT` that follows.
        let mut replies = self.connection.ask(&self.pack)?;
        if asks_memory {
            self.usage = self.memory(replies.pop())?;
        }
        self.held = Held::take(&self.connection, replies.pop().unwrap_or_default())?;
        self.parts_written += 1;
        if replies.get(executed_at) == Some(&Value::Nil) {
            // Something touched token or checkpoint: a later owner, or an emptied server.
            self.held
                .token
                .as_deref()
                .map_or(Ok(()), |token| outranks(unit, token, &self.me))?;
            return Err(again(unit, "its token or checkpoint changed"));
        }
        Ok(())
    }

    fn memory(&self, reply: Option<Value>) -> Result<Usage, SinkError> {
        let text = string(&self.connection, reply.unwrap_or_default())?.unwrap_or_default();
        Ok(ServerFacts::parse(&String::from_utf8_lossy(&text)).usage())
    }
}

/// Says that the unit must be opened again, which tells what has become of it.
fn again(unit: &Unit, why: &str) -> SinkError {
    SinkError::Unavailable(format!("`{unit}` in redis: {why}"))
}

/// Returns how many mutations the next transaction writes: at least one, where there is one.
fn part_len(mutations: &[Mutation]) -> usize {
    let mut bytes = 0;
    for (count, mutation) in mutations.iter().take(PART_KEYS).enumerate() {
        bytes += mutation.weight();
        if count > 0 && bytes > PART_BYTES {
            return count;
        }
    }
    mutations.len().min(PART_KEYS)
}

/// What one transaction writes beside its rows.
#[derive(Clone, Copy, Debug)]
enum Beside<'a> {
    Nothing,
    /// With the first of several parts: up to where rows are ahead from here on.
    Unfinished(&'a str),
    /// With the last part, or the only one.
    Checkpoint {
        at: &'a str,
        /// Whether rows were ahead, and are not any more.
        finishes: bool,
    },
}

/// Packs one transaction. No key is changed by two mutations of a batch, so only what is removed
/// before it is written anew must come first.
fn pack_part(
    pack: &mut Pack,
    keys: &UnitKeys,
    shape: RedisShape,
    mutations: &[Mutation],
    beside: Beside<'_>,
) {
    pack.command(&["MULTI"]);
    let removed = |mutation: &&Mutation| shape == RedisShape::Hash || upsert(mutation).is_none();
    pack_removals(pack, keys, mutations.iter().filter(removed));
    match shape {
        RedisShape::Json | RedisShape::Bytes => pack_strings(pack, keys, mutations),
        RedisShape::Hash => pack_hashes(pack, keys, mutations),
    }
    match beside {
        Beside::Nothing => {}
        Beside::Unfinished(until) => pack.command(&["SET", &keys.unfinished, until]),
        Beside::Checkpoint { at, finishes } => {
            pack.command(&["SET", &keys.checkpoint, at]);
            if finishes {
                pack.command(&["DEL", &keys.unfinished]);
            }
        }
    }
    pack.command(&["EXEC"]);
}

/// Returns the row that a mutation leaves behind, if it leaves one.
fn upsert(mutation: &Mutation) -> Option<(&Row, Option<Timestamp>)> {
    match &mutation.change {
        // Redis takes no expiry at or before 1970; a row that has one is over.
        Change::Upsert {
            expires_at: Some(at),
            ..
        } if at.0 <= 0 => None,
        Change::Upsert { row, expires_at } => Some((row, *expires_at)),
        Change::Delete => None,
    }
}

/// Packs the removal of keys, if there are any.
fn pack_removals<'a>(
    pack: &mut Pack,
    keys: &UnitKeys,
    mutations: impl Iterator<Item = &'a Mutation> + Clone,
) {
    let count = mutations.clone().count();
    if count == 0 {
        return;
    }
    pack.begin(1 + count);
    pack.part(b"UNLINK");
    for mutation in mutations {
        pack.joined(keys.row.as_bytes(), &mutation.key.0);
    }
}

/// Packs rows that are strings: one `MSET` for all that do not expire, a `SET` for each that does.
fn pack_strings(pack: &mut Pack, keys: &UnitKeys, mutations: &[Mutation]) {
    let lasting = mutations
        .iter()
        .filter_map(|mutation| match upsert(mutation) {
            Some((row, None)) => Some((&mutation.key, row)),
            Some((_, Some(_))) | None => None,
        });
    let count = lasting.clone().count();
    if count > 0 {
        pack.begin(1 + 2 * count);
        pack.part(b"MSET");
        for (key, row) in lasting {
            pack.joined(keys.row.as_bytes(), &key.0);
            pack.part(&row.0);
        }
    }
    for mutation in mutations {
        if let Some((row, Some(expires_at))) = upsert(mutation) {
            pack.begin(5);
            pack.part(b"SET");
            pack.joined(keys.row.as_bytes(), &mutation.key.0);
            pack.part(&row.0);
            pack.part(b"PXAT");
            pack.part(expires_at.to_string().as_bytes());
        }
    }
}

/// Packs rows that are hashes; a row without a field is no key at all.
fn pack_hashes(pack: &mut Pack, keys: &UnitKeys, mutations: &[Mutation]) {
    for mutation in mutations {
        let Some((row, expires_at)) = upsert(mutation) else {
            continue;
        };
        let fields = row::fields(row).expect("`check` lets only objects pass");
        if fields.is_empty() {
            continue;
        }
        pack.begin(2 + 2 * fields.len());
        pack.part(b"HSET");
        pack.joined(keys.row.as_bytes(), &mutation.key.0);
        for (name, value) in &fields {
            pack.part(name.as_bytes());
            pack.part(value.as_bytes());
        }
        if let Some(expires_at) = expires_at {
            pack.begin(3);
            pack.part(b"PEXPIREAT");
            pack.joined(keys.row.as_bytes(), &mutation.key.0);
            pack.part(expires_at.to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use materializer_model::{Key, Offset, Origin, Partition, Topic};

    fn mutation(key: &str, row: Option<(&str, Option<i64>)>) -> Mutation {
        Mutation {
            key: Key::new(key.as_bytes()),
            change: row.map_or(Change::Delete, |(row, expires_at)| Change::Upsert {
                row: Row::new(row.as_bytes()),
                expires_at: expires_at.map(Timestamp),
            }),
            origin: Origin {
                topic: Topic::new("t"),
                partition: Partition(0),
                offset: Offset(0),
            },
        }
    }

    /// Shows a pack as one line a command.
    fn lines(pack: &Pack) -> Vec<String> {
        let text = String::from_utf8_lossy(pack.bytes()).into_owned();
        let commands = text.split('*').skip(1);
        let words = |command: &str| {
            let words = command
                .lines()
                .skip(1)
                .filter(|line| !line.starts_with('$'));
            words.collect::<Vec<_>>().join(" ")
        };
        commands.map(words).collect()
    }

    fn check(shape: RedisShape, mutations: &[Mutation], beside: Beside<'_>, expected: &[&str]) {
        let keys = UnitKeys {
            mark: "mark".into(),
            token: "token".into(),
            checkpoint: "checkpoint".into(),
            unfinished: "unfinished".into(),
            row: "p:".into(),
        };
        let mut pack = Pack::default();
        pack_part(&mut pack, &keys, shape, mutations, beside);
        assert_eq!(lines(&pack), expected);
        assert_eq!(pack.commands(), expected.len());
    }

    #[test]
    fn rows_and_checkpoint_are_one_transaction() {
        let mutations = [
            mutation("a", Some(("1", None))),
            mutation("b", None),
            mutation("c", Some(("3", Some(99)))),
            mutation("d", Some(("4", None))),
            mutation("e", Some(("5", Some(0)))),
        ];
        let expected = [
            "MULTI",
            "UNLINK p:b p:e",
            "MSET p:a 1 p:d 4",
            "SET p:c 3 PXAT 99",
            "SET checkpoint at",
            "EXEC",
        ];
        let whole = Beside::Checkpoint {
            at: "at",
            finishes: false,
        };
        let empty = ["MULTI", "SET checkpoint at", "EXEC"];
        check(RedisShape::Json, &mutations, whole, &expected);
        check(RedisShape::Json, &[], whole, &empty);
    }

    #[test]
    fn the_first_of_several_parts_says_where_they_end_and_the_last_one_takes_it_back() {
        let last = Beside::Checkpoint {
            at: "at",
            finishes: true,
        };
        for (beside, expected) in [
            (Beside::Unfinished("at"), &["SET unfinished at"][..]),
            (Beside::Nothing, &[]),
            (last, &["SET checkpoint at", "DEL unfinished"]),
        ] {
            let expected = [&["MULTI", "UNLINK p:b"], expected, &["EXEC"]].concat();
            check(RedisShape::Bytes, &[mutation("b", None)], beside, &expected);
        }
    }

    #[test]
    fn a_hash_is_removed_before_it_is_written_anew() {
        let mutations = [
            mutation("a", Some((r#"{"x":"1","y":null,"z":2}"#, Some(99)))),
            mutation("b", Some((r#"{"y":null}"#, None))),
            mutation("c", None),
        ];
        let expected = [
            "MULTI",
            "UNLINK p:a p:b p:c",
            "HSET p:a x 1 z 2",
            "PEXPIREAT p:a 99",
            "EXEC",
        ];
        check(RedisShape::Hash, &mutations, Beside::Nothing, &expected);
    }

    #[test]
    fn a_part_is_bounded_in_keys_and_in_bytes() {
        let small = vec![mutation("a", None); 2 * PART_KEYS];
        assert_eq!(part_len(&small), PART_KEYS);
        assert_eq!(part_len(&small[..3]), 3);
        assert_eq!(part_len(&[]), 0);
        let large = "x".repeat(PART_BYTES);
        let large = mutation("a", Some((&large, None)));
        assert_eq!(part_len(&[large.clone(), large.clone()]), 1);
        assert_eq!(part_len(&[small[0].clone(), large]), 1);
    }
}
