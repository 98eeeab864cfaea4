//! What a request means: an answer at once, or reads of rows and how their answers become a reply.

use std::sync::Arc;

use materializer_model::definition::RedisShape;
use materializer_sinks::redis::Read;

use super::super::routes::{RedisRoute, Routes};
use super::super::rows::RowRead;
use super::super::{Limits, ReadError};
use super::assemble::{Assemble, fault_reply};
use super::commands::{COMMANDS, Name, Reading};
use super::decode::Request;
use super::reply::Reply;
use super::session::{self, Session};

/// What is done about a request.
#[derive(Debug)]
pub(super) enum Plan {
    /// It is answered at once.
    Now(Reply),
    /// It is answered, and the connection ends.
    Close(Reply),
    /// Rows are read.
    Read(Vec<RowRead>, Assemble),
}

impl Plan {
    /// Returns what is read for it.
    pub(super) fn reads(&self) -> Option<&[RowRead]> {
        match self {
            Self::Now(_) | Self::Close(_) => None,
            Self::Read(reads, _) => Some(reads),
        }
    }
}

/// Says what is done about a request. `routes` is the snapshot that answers it; `None` until the
/// catalog has been read.
pub(super) fn plan(
    request: Request,
    session: &mut Session,
    routes: Option<&Routes>,
    limits: &Limits,
) -> Plan {
    let mut words = request.into_iter();
    let word = words.next().unwrap_or_default().to_ascii_lowercase();
    let arguments: Vec<Vec<u8>> = words.collect();
    let command = COMMANDS.iter().find(|c| c.word.as_bytes() == word);
    if !session.is_admitted() && !command.is_some_and(|command| command.name.is_open()) {
        return Plan::Now(Reply::Error("NOAUTH Authentication required.".into()));
    }
    let Some(command) = command else {
        return Plan::Now(refusal(&word));
    };
    let count = i64::try_from(arguments.len()).unwrap_or(i64::MAX - 1) + 1;
    if count < command.arity.abs() || (command.arity > 0 && count > command.arity) {
        return Plan::Now(Reply::Error(format!(
            "ERR wrong number of arguments for '{}' command",
            command.word
        )));
    }
    let first = || arguments.first().cloned().unwrap_or_default();
    let reply = match command.name {
        Name::Auth => session.authenticate(&arguments),
        Name::Client => session.client(&arguments),
        Name::Command => session::describe(&arguments),
        Name::Echo => Reply::Bulk(first()),
        Name::Hello => session.hello(&arguments),
        Name::Info => Reply::text(session::info(routes)),
        Name::Ping if arguments.is_empty() => Reply::Simple("PONG"),
        Name::Ping => Reply::Bulk(first()),
        Name::Quit => return Plan::Close(Reply::Simple("OK")),
        Name::Select => session::select(&first()),
        Name::Read(reading) => match routes {
            Some(routes) => match read(reading, arguments, routes, limits) {
                Ok(plan) => return plan,
                Err(fault) => fault_reply(&fault),
            },
            None => Reply::Error("LOADING the gateway has not read the catalog yet".into()),
        },
    };
    if session.has_failed() {
        return Plan::Close(reply);
    }
    Plan::Now(reply)
}

fn refusal(word: &[u8]) -> Reply {
    let word = word[..word.len().min(64)].escape_ascii();
    let known: Vec<&str> = COMMANDS.iter().map(|command| command.word).collect();
    let known = known.join(" ");
    Reply::Error(format!(
        "ERR `{word}` is refused: a materializer gateway is read-only, it answers {known}"
    ))
}

/// Plans a command that reads rows. Its arity says that the first argument is there.
fn read(
    reading: Reading,
    arguments: Vec<Vec<u8>>,
    routes: &Routes,
    limits: &Limits,
) -> Result<Plan, ReadError> {
    let route = Arc::clone(route_of(reading, &arguments[0], routes)?);
    let mut words = arguments.into_iter();
    let mut word = || words.next().unwrap_or_default();
    let read = match reading {
        Reading::Get => Read::Get(word()),
        Reading::Hget => Read::HashGet(word(), word()),
        Reading::Hgetall => Read::HashAll(word()),
        Reading::Ttl => Read::TimeToLive(word()),
        Reading::Exists => {
            return read_many(reading, Read::Exists, words.collect(), routes, limits);
        }
        Reading::Mget => return read_many(reading, Read::Get, words.collect(), routes, limits),
    };
    let reads = vec![read];
    Ok(Plan::Read(vec![RowRead { route, reads }], Assemble::Single))
}

/// Plans a command with many keys: one read for each view that they belong to.
fn read_many(
    reading: Reading,
    read: fn(Vec<u8>) -> Read,
    keys: Vec<Vec<u8>>,
    routes: &Routes,
    limits: &Limits,
) -> Result<Plan, ReadError> {
    if keys.len() > limits.keys {
        let why = format!("more than {} keys in one command", limits.keys);
        return Err(ReadError::Invalid(why));
    }
    let mut of_views: Vec<RowRead> = Vec::new();
    let mut places = Vec::with_capacity(keys.len());
    for key in keys {
        let route = route_of(reading, &key, routes)?;
        let known = of_views
            .iter()
            .position(|known| Arc::ptr_eq(&known.route, route));
        let view = known.unwrap_or_else(|| {
            of_views.push(RowRead {
                route: Arc::clone(route),
                reads: Vec::new(),
            });
            of_views.len() - 1
        });
        places.push((view, of_views[view].reads.len()));
        of_views[view].reads.push(read(key));
    }
    let assemble = if reading == Reading::Exists {
        Assemble::Count
    } else {
        Assemble::List(places)
    };
    Ok(Plan::Read(of_views, assemble))
}

/// Returns the route of a key, if its view's rows are of the shape that the command reads.
fn route_of<'a>(
    reading: Reading,
    key: &[u8],
    routes: &'a Routes,
) -> Result<&'a Arc<RedisRoute>, ReadError> {
    let route = routes.redis_view(key)?;
    let fits = match (reading, route.shape) {
        (Reading::Get | Reading::Mget, RedisShape::Json | RedisShape::Bytes)
        | (Reading::Hget | Reading::Hgetall, RedisShape::Hash)
        | (Reading::Exists | Reading::Ttl, _) => true,
        (Reading::Get | Reading::Mget, RedisShape::Hash)
        | (Reading::Hget | Reading::Hgetall, RedisShape::Json | RedisShape::Bytes) => false,
    };
    fits.then_some(route).ok_or(ReadError::WrongType)
}

#[cfg(test)]
mod tests {
    use materializer_model::Offset;
    use materializer_sinks::redis::Reply as Found;

    use super::super::super::Answered;
    use super::super::super::routes::Route;
    use super::super::reply::Protocol;
    use super::*;
    use crate::config::AccessSection;

    fn routes() -> Routes {
        let route = |version: &str, literal: &str, shape| {
            Route::Redis(Arc::new(RedisRoute {
                version: version.parse().unwrap(),
                epoch: Offset(12),
                connection: "cache".into(),
                literal: literal.into(),
                shape,
            }))
        };
        Routes::new([
            route("products@v7", "product:", RedisShape::Json),
            route("users@v1", "user:", RedisShape::Hash),
            route("prices@v3", "price:", RedisShape::Bytes),
        ])
    }

    fn session() -> Session {
        let nothing = AccessSection::default().read().unwrap();
        Session::new(5, Arc::new(nothing))
    }

    fn planned(line: &str) -> Plan {
        let request = line.split(' ').map(|word| word.as_bytes().to_vec());
        let mut session = session();
        let limits = Limits {
            keys: 4,
            ..Limits::default()
        };
        plan(request.collect(), &mut session, Some(&routes()), &limits)
    }

    /// Checks the beginning of the answer that is given at once.
    fn check(line: &str, expected: &str) {
        let (Plan::Now(reply) | Plan::Close(reply)) = planned(line) else {
            panic!("`{line}` reads rows");
        };
        let mut bytes = Vec::new();
        reply.encode(Protocol::Two, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with(expected), "{line}: {text}");
    }

    #[test]
    fn what_reads_no_row_is_answered_at_once() {
        check("PING", "+PONG\r\n");
        check("ping hello", "$5\r\nhello\r\n");
        check("ECHO a", "$1\r\na\r\n");
        check("SELECT 0", "+OK\r\n");
        check("SELECT 1", "-ERR DB index is out of range");
        check("AUTH secret", "+OK\r\n");
        check("CLIENT ID", ":5\r\n");
        check("CLIENT SETINFO LIB-NAME redis-py", "+OK\r\n");
        check("CLIENT KILL 5", "-ERR");
        let long = "x".repeat(257);
        check(&format!("CLIENT SETNAME {long}"), "-ERR the name is longer");
        check(&format!("HELLO 2 SETNAME {long}"), "-ERR");
        check("COMMAND COUNT", ":15\r\n");
        check("COMMAND", "*15\r\n*6\r\n$4\r\nauth\r\n:-2\r\n");
        check("COMMAND DOCS", "*0\r\n");
        check("HELLO", "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
        check("HELLO 4", "-NOPROTO");
        check("HELLO 4 AUTH a b", "-NOPROTO");
        check("HELLO 3 AUTH a", "-ERR");
        check(
            "HELLO 2 SETNAME me",
            "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n",
        );
        check("HELLO 2 OTHER", "-ERR");
        check("INFO", "$");
        check("QUIT", "+OK\r\n");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        check(
            "SET product:1 x",
            "-ERR `set` is refused: a materializer gateway is read-only",
        );
        check("EVAL x 0", "-ERR `eval` is refused");
        check("GET", "-ERR wrong number of arguments for 'get' command");
        check(
            "GET a b",
            "-ERR wrong number of arguments for 'get' command",
        );
        check(
            "HGET user:1",
            "-ERR wrong number of arguments for 'hget' command",
        );
        check("GET order:1", "-ERR no live view has keys like `order:1`");
        check(
            "MGET product:1 order:1",
            "-ERR no live view has keys like `order:1`",
        );
        check("GET user:1", "-WRONGTYPE");
        check("MGET product:1 user:1", "-WRONGTYPE");
        check("HGETALL price:1", "-WRONGTYPE");
        check(
            "MGET product:1 price:2 product:3 price:4 product:5",
            "-ERR more than 4 keys",
        );
        let mut session = session();
        let request = vec![b"GET".to_vec(), b"product:1".to_vec()];
        let before = plan(request, &mut session, None, &Limits::default());
        let Plan::Now(Reply::Error(why)) = before else {
            panic!("{before:?}");
        };
        assert!(why.starts_with("LOADING "), "{why}");
    }

    fn answered(answer: Vec<Found>) -> Result<Answered<Vec<Found>>, ReadError> {
        Ok(Answered {
            version: "products@v7".parse().unwrap(),
            epoch: Offset(12),
            answer,
        })
    }

    /// Checks what is read for a line, and the reply that the answers make.
    fn check_read(line: &str, reads: &[(&str, Vec<Read>)], found: &[Vec<Found>], reply: Reply) {
        let Plan::Read(planned, assemble) = planned(line) else {
            panic!("`{line}` reads no row");
        };
        let planned: Vec<_> = planned
            .iter()
            .map(|read| (read.route.version.to_string(), read.reads.clone()))
            .collect();
        let reads: Vec<_> = reads
            .iter()
            .map(|(version, reads)| ((*version).to_owned(), reads.clone()))
            .collect();
        assert_eq!(planned, reads, "{line}");
        let answers = found.iter().cloned().map(answered).collect();
        assert_eq!(assemble.reply(answers), reply, "{line}");
    }

    #[test]
    fn rows_are_read_by_the_view_of_their_keys_and_answered_in_the_order_of_the_keys() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let get = |key: &str| Read::Get(bytes(key));
        let exists = |key: &str| Read::Exists(bytes(key));
        let value = |text: &str| Found::Bytes(bytes(text));
        let read = [("products@v7", vec![get("product:1")])];
        check_read(
            "get product:1",
            &read,
            &[vec![value("{}")]],
            Reply::text("{}"),
        );
        check_read("GET product:1", &read, &[vec![Found::Nil]], Reply::Nil);
        check_read(
            "MGET product:1 price:1 product:2",
            &[
                ("products@v7", vec![get("product:1"), get("product:2")]),
                ("prices@v3", vec![get("price:1")]),
            ],
            &[vec![value("a"), Found::Nil], vec![value("b")]],
            Reply::Array(vec![Reply::text("a"), Reply::text("b"), Reply::Nil]),
        );
        check_read(
            "EXISTS product:1 user:1 product:1",
            &[
                (
                    "products@v7",
                    vec![exists("product:1"), exists("product:1")],
                ),
                ("users@v1", vec![exists("user:1")]),
            ],
            &[
                vec![Found::Number(1), Found::Number(1)],
                vec![Found::Number(0)],
            ],
            Reply::Integer(2),
        );
        let read = [(
            "users@v1",
            vec![Read::HashGet(bytes("user:1"), bytes("name"))],
        )];
        check_read(
            "HGET user:1 name",
            &read,
            &[vec![value("Ann")]],
            Reply::text("Ann"),
        );
        let read = [("users@v1", vec![Read::HashAll(bytes("user:1"))])];
        let found = Found::Fields(vec![(bytes("name"), bytes("Ann"))]);
        let reply = Reply::Map(vec![(Reply::text("name"), Reply::text("Ann"))]);
        check_read("HGETALL user:1", &read, &[vec![found]], reply);
        let read = [("prices@v3", vec![Read::TimeToLive(bytes("price:1"))])];
        check_read(
            "TTL price:1",
            &read,
            &[vec![Found::Number(-1)]],
            Reply::Integer(-1),
        );
    }
}
