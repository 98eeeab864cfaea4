//! What clients ask of a connection and of the server, before and beside rows.

use std::fmt::Write as _;
use std::sync::Arc;

use super::super::Limits;
use super::super::routes::Routes;
use super::commands::{COMMANDS, Command, Name};
use super::reply::{Protocol, Reply};
use crate::access::Demands;

/// The release of Redis whose protocol and errors the gateway follows.
const REDIS_VERSION: &str = "7.0.0";

/// The longest name of a connection: it is kept for as long as the connection.
const NAME_BYTES_MAX: usize = 256;

/// Redis' own words.
const HELLO_WITHOUT_LOGIN: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select \
    the RESP protocol version at the same time";

/// After so many wrong tokens a connection ends.
const LOGIN_FAULTS_MAX: u32 = 5;

/// What the gateway knows of a connection.
#[derive(Debug)]
pub(super) struct Session {
    id: i64,
    /// What `CLIENT SETNAME` called it.
    name: Vec<u8>,
    /// What `HELLO` agreed upon.
    protocol: Protocol,
    /// What was demanded when it was accepted: who has logged in stays.
    demands: Arc<Demands>,
    admitted: bool,
    login_faults: u32,
}

impl Session {
    /// Begins the connection of that number.
    pub(super) fn new(id: i64, demands: Arc<Demands>) -> Self {
        Self {
            id,
            name: Vec::new(),
            protocol: Protocol::default(),
            admitted: !demands.token(),
            demands,
            login_faults: 0,
        }
    }

    /// Returns what is demanded of the client.
    pub(super) fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Says whether the client has logged in, or need not.
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Says whether the client has shown so many wrong tokens that it is closed on.
    pub(super) fn has_failed(&self) -> bool {
        self.login_faults >= LOGIN_FAULTS_MAX
    }

    /// Returns what the client may send.
    pub(super) fn limits(&self, limits: Limits) -> Limits {
        if self.admitted {
            limits
        } else {
            limits.before_login()
        }
    }

    /// Answers `AUTH [user] token`. Where no token is demanded any is taken, as by a Redis whose default user
    /// has `nopass`: a client keeps its password when its host and port change.
    pub(super) fn authenticate(&mut self, arguments: &[Vec<u8>]) -> Reply {
        let login = match arguments {
            [token] => self.log_in(None, token),
            [user, token] => self.log_in(Some(user), token),
            _ => return Reply::Error("ERR syntax error".into()),
        };
        match login {
            Ok(()) => Reply::Simple("OK"),
            Err(refused) => refused,
        }
    }

    /// Takes a login, and returns the reply to one that is wrong. There is one user, Redis' default one.
    fn log_in(&mut self, user: Option<&[u8]>, token: &[u8]) -> Result<(), Reply> {
        let known = user.is_none_or(|user| user == b"default");
        if self.demands.token() && !(self.demands.accepts(token) && known) {
            self.login_faults += 1;
            let refused = "WRONGPASS invalid username-password pair or user is disabled.";
            return Err(Reply::Error(refused.into()));
        }
        self.admitted = true;
        Ok(())
    }

    /// Returns how the next reply is written.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Answers `CLIENT`, as far as clients ask it of their own accord.
    pub(super) fn client(&mut self, arguments: &[Vec<u8>]) -> Reply {
        let word = arguments[0].to_ascii_lowercase();
        match (word.as_slice(), &arguments[1..]) {
            (b"id", []) => Reply::Integer(self.id),
            (b"getname", []) if self.name.is_empty() => Reply::Nil,
            (b"getname", []) => Reply::Bulk(self.name.clone()),
            (b"setname", [name]) if name.len() > NAME_BYTES_MAX => Reply::Error(format!(
                "ERR the name is longer than {NAME_BYTES_MAX} bytes"
            )),
            (b"setname", [name]) => {
                self.name.clone_from(name);
                Reply::Simple("OK")
            }
            // The library's name and version: taken, since clients send them unasked, and not kept.
            (b"setinfo", [_, _]) => Reply::Simple("OK"),
            _ => Reply::Error(format!(
                "ERR `CLIENT {}` with {} arguments is refused: the gateway answers ID GETNAME SETNAME SETINFO",
                word[..word.len().min(64)].escape_ascii(),
                arguments.len() - 1
            )),
        }
    }

    /// Answers `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing changes if it is refused.
    pub(super) fn hello(&mut self, arguments: &[Vec<u8>]) -> Reply {
        let protocol = match arguments.first().map(Vec::as_slice) {
            None => self.protocol,
            Some(b"2") => Protocol::Two,
            Some(b"3") => Protocol::Three,
            Some(_) => return Reply::Error("NOPROTO unsupported protocol version".into()),
        };
        let (mut name, mut login) = (None, None);
        let mut options = arguments.get(1..).unwrap_or_default();
        loop {
            options = match options {
                [] => break,
                [word, user, token, rest @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                    login = Some((user, token));
                    rest
                }
                [word, called, rest @ ..]
                    if word.eq_ignore_ascii_case(b"setname") && called.len() <= NAME_BYTES_MAX =>
                {
                    name = Some(called);
                    rest
                }
                [word, ..] => {
                    let word = word[..word.len().min(64)].escape_ascii();
                    return Reply::Error(format!("ERR syntax error in HELLO option `{word}`"));
                }
            };
        }
        if let Some((user, token)) = login
            && let Err(refused) = self.log_in(Some(user), token)
        {
            return refused;
        }
        if !self.admitted {
            return Reply::Error(HELLO_WITHOUT_LOGIN.into());
        }
        self.protocol = protocol;
        if let Some(name) = name {
            self.name.clone_from(name);
        }
        let number = match protocol {
            Protocol::Two => 2,
            Protocol::Three => 3,
        };
        let facts = [
            ("server", Reply::text("redis")),
            ("version", Reply::text(REDIS_VERSION)),
            ("proto", Reply::Integer(number)),
            ("id", Reply::Integer(self.id)),
            ("mode", Reply::text("standalone")),
            ("role", Reply::text("master")),
            ("modules", Reply::Array(Vec::new())),
        ];
        let facts = facts.map(|(name, fact)| (Reply::text(name), fact));
        Reply::Map(facts.into())
    }
}

/// Answers `SELECT`.
pub(super) fn select(database: &[u8]) -> Reply {
    if database == b"0" {
        Reply::Simple("OK")
    } else {
        Reply::Error("ERR DB index is out of range: the gateway has database 0 alone".into())
    }
}

/// Answers `COMMAND`: what there is, for clients that ask where the keys stand.
pub(super) fn describe(arguments: &[Vec<u8>]) -> Reply {
    let word = arguments.first().map(|word| word.to_ascii_lowercase());
    match word.as_deref() {
        None => Reply::Array(COMMANDS.iter().map(description).collect()),
        Some(b"count") => Reply::Integer(i64::try_from(COMMANDS.len()).unwrap_or(i64::MAX)),
        // redis-cli asks it for its hints, and goes on with none.
        Some(b"docs") => Reply::Array(Vec::new()),
        Some(_) => Reply::Error("ERR the gateway answers COMMAND, COMMAND COUNT".into()),
    }
}

fn description(command: &Command) -> Reply {
    let flag = match command.name {
        Name::Read(_) => "readonly",
        Name::Auth
        | Name::Client
        | Name::Command
        | Name::Echo
        | Name::Hello
        | Name::Info
        | Name::Ping
        | Name::Quit
        | Name::Select => "fast",
    };
    let mut parts = vec![
        Reply::text(command.word),
        Reply::Integer(command.arity),
        Reply::Array(vec![Reply::Simple(flag)]),
    ];
    parts.extend(command.keys.map(Reply::Integer));
    Reply::Array(parts)
}

/// Answers `INFO`, whatever section is asked for. `loading` is what clients look at before they send
/// anything else.
pub(super) fn info(routes: Option<&Routes>) -> String {
    let mut text = format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nserver_name:materializer\r\n\
         materializer_version:{}\r\nredis_mode:standalone\r\n\
         # Persistence\r\nloading:{}\r\n# Replication\r\nrole:master\r\n# Views\r\n",
        env!("CARGO_PKG_VERSION"),
        u8::from(routes.is_none()),
    );
    for route in routes.into_iter().flat_map(Routes::iter) {
        let (version, epoch) = (route.version(), route.epoch());
        let (view, number) = (&version.view, version.number);
        write!(text, "{view}:version={number},alias_epoch={epoch}\r\n")
            .expect("a string takes any text");
    }
    text
}
