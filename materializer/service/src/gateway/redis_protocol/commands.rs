//! The commands that the gateway answers. It is no Redis: it reads rows by the views' key templates, and
//! every command that is not here is refused.

/// A command that the gateway answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Auth,
    Client,
    Command,
    Echo,
    Hello,
    Info,
    Ping,
    Quit,
    Read(Reading),
    Select,
}

impl Name {
    /// Says whether the command is answered before the login.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Auth | Self::Hello | Self::Quit)
    }
}

/// A command that reads rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Exists,
    Get,
    Hget,
    Hgetall,
    Mget,
    Ttl,
}

/// A command as `COMMAND` describes it.
pub(super) struct Command {
    pub(super) name: Name,
    pub(super) word: &'static str,
    /// As Redis counts it: with the command's word, negative for "at least".
    pub(super) arity: i64,
    /// Positions of the first and the last key, and the step between two; 0 for none.
    pub(super) keys: [i64; 3],
}

const fn command(name: Name, word: &'static str, arity: i64, keys: [i64; 3]) -> Command {
    Command {
        name,
        word,
        arity,
        keys,
    }
}

const NO_KEY: [i64; 3] = [0, 0, 0];
const ONE_KEY: [i64; 3] = [1, 1, 1];
const ALL_KEYS: [i64; 3] = [1, -1, 1];

pub(super) const COMMANDS: [Command; 15] = [
    command(Name::Auth, "auth", -2, NO_KEY),
    command(Name::Client, "client", -2, NO_KEY),
    command(Name::Command, "command", -1, NO_KEY),
    command(Name::Echo, "echo", 2, NO_KEY),
    command(Name::Read(Reading::Exists), "exists", -2, ALL_KEYS),
    command(Name::Read(Reading::Get), "get", 2, ONE_KEY),
    command(Name::Hello, "hello", -1, NO_KEY),
    command(Name::Read(Reading::Hget), "hget", 3, ONE_KEY),
    command(Name::Read(Reading::Hgetall), "hgetall", 2, ONE_KEY),
    command(Name::Info, "info", -1, NO_KEY),
    command(Name::Read(Reading::Mget), "mget", -2, ALL_KEYS),
    command(Name::Ping, "ping", -1, NO_KEY),
    command(Name::Quit, "quit", -1, NO_KEY),
    command(Name::Select, "select", 2, NO_KEY),
    command(Name::Read(Reading::Ttl), "ttl", 2, ONE_KEY),
];
