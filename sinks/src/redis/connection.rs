//! One connection to a server: what is sent, the replies to it, and what a fault means to us.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "replies and faults are open enums of the client library"
)]

use ::redis::{
    Client, ClientTlsConfig, ErrorKind, RedisError, ServerError, TlsCertificates, Value,
};
use materializer_model::ports::SinkError;

use super::mark::check_mark;
use super::pack::Pack;
use super::settings::{RedisPlace, RedisSettings};

/// A connection. After an error it may hold replies that nobody read: whoever gets one drops it.
pub(super) struct Connection {
    inner: ::redis::Connection,
    address: String,
}

impl Connection {
    /// Connects, with TLS and login as the settings say.
    pub(super) fn connect(settings: &RedisSettings) -> Result<Self, SinkError> {
        let address = settings.address();
        let connect = || {
            let inner = client(settings)?.get_connection_with_timeout(settings.connect_timeout)?;
            inner.set_read_timeout(Some(settings.request_timeout))?;
            inner.set_write_timeout(Some(settings.request_timeout))?;
            Ok(inner)
        };
        match connect() {
            Ok(inner) => Ok(Self { inner, address }),
            Err(fault) => Err(transport_fault(&address, &fault)),
        }
    }

    /// Sends all commands and returns the reply to each, errors of the server among them.
    ///
    /// # Errors
    /// [`SinkError`] where the connection broke: any of the commands may have been carried out.
    pub(super) fn exchange(&mut self, pack: &Pack) -> Result<Vec<Value>, SinkError> {
        self.send_and_receive(pack)
            .map_err(|fault| transport_fault(&self.address, &fault))
    }

    fn send_and_receive(&mut self, pack: &Pack) -> Result<Vec<Value>, RedisError> {
        self.inner.send_packed_command(pack.bytes())?;
        (0..pack.commands())
            .map(|_| self.inner.recv_response())
            .collect()
    }

    /// Sends all commands and returns the reply to each.
    ///
    /// # Errors
    /// [`SinkError`]: the first error among the replies, or of the connection.
    pub(super) fn ask(&mut self, pack: &Pack) -> Result<Vec<Value>, SinkError> {
        let replies = self.exchange(pack)?;
        for reply in &replies {
            self.judge(reply)?;
        }
        Ok(replies)
    }

    /// Sends one command and returns its reply.
    ///
    /// # Errors
    /// [`SinkError`], also where the reply is an error.
    pub(super) fn call<P: AsRef<[u8]>>(&mut self, parts: &[P]) -> Result<Value, SinkError> {
        let mut pack = Pack::default();
        pack.command(parts);
        let mut replies = self.ask(&pack)?;
        Ok(replies.pop().expect("a reply for one command"))
    }

    /// Judges one reply, and what stands inside it.
    ///
    /// # Errors
    /// [`SinkError`] where it is an error of the server, or an array that holds one.
    pub(super) fn judge(&self, reply: &Value) -> Result<(), SinkError> {
        match reply {
            Value::ServerError(fault) => Err(self.fault(fault)),
            Value::Array(inside) => inside.iter().try_for_each(|reply| self.judge(reply)),
            _ => Ok(()),
        }
    }

    /// Says what an error of the server means.
    pub(super) fn fault(&self, fault: &ServerError) -> SinkError {
        server_fault(&self.address, fault.code(), fault.details().unwrap_or(""))
    }

    /// Says that the server answered something that its protocol does not allow here.
    pub(super) fn unexpected(&self, reply: &Value) -> SinkError {
        SinkError::Refused(format!(
            "redis at `{}` gave an answer of an unknown shape: {reply:?}",
            self.address
        ))
    }
}

/// Says whether a reply tells that the key is of another type than the command reads.
pub(super) fn is_wrong_type(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(fault) if fault.code() == "WRONGTYPE")
}

/// A connection that is made when it is needed, checked to lead to our mark, and dropped at the
/// first error.
pub(super) struct Link {
    place: RedisPlace,
    connection: Option<Connection>,
}

impl Link {
    pub(super) fn new(place: RedisPlace) -> Self {
        Self {
            place,
            connection: None,
        }
    }

    pub(super) fn place(&self) -> &RedisPlace {
        &self.place
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Does some work on the connection.
    ///
    /// # Errors
    /// [`SinkError`] of the work, or of connecting.
    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&RedisPlace, &mut Connection) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = Connection::connect(&self.place.server)?;
                check_mark(&self.place, &mut connection)?;
                connection
            }
        };
        let done = work(&self.place, &mut connection)?;
        self.connection = Some(connection);
        Ok(done)
    }
}

fn client(settings: &RedisSettings) -> Result<Client, RedisError> {
    let login = settings.login()?;
    if !settings.is_secured() {
        return Client::open(login);
    }
    // Only the first caller of the process sets the provider; whatever stands there will do.
    let _already_set = rustls::crypto::ring::default_provider().install_default();
    if settings.tls.authorities.is_none() && settings.tls.client.is_none() {
        return Client::open(login);
    }
    let certificates = TlsCertificates {
        client_tls: settings
            .tls
            .client
            .as_ref()
            .map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.clone(),
                client_key: key.clone(),
            }),
        root_cert: settings.tls.authorities.clone(),
    };
    Client::build_with_tls(login, certificates)
}

/// Says what a broken connection, or one that was never made, means.
fn transport_fault(address: &str, fault: &RedisError) -> SinkError {
    let why = format!("redis at `{address}`: {fault}");
    let text = fault.to_string();
    // The client library tells these by their text alone.
    let passes = text.contains("LOADING") || text.contains("max number of clients");
    let refused = match fault.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => !passes,
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let details = fault.detail().unwrap_or("");
            return server_fault(address, fault.code().unwrap_or(""), details);
        }
        _ => text.contains("invalid peer certificate"),
    };
    if refused {
        SinkError::Refused(why)
    } else {
        SinkError::Unavailable(why)
    }
}

/// Says what an error reply means, by its first word
/// (<https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors>).
fn server_fault(address: &str, code: &str, details: &str) -> SinkError {
    let why = format!("redis at `{address}`: {code} {details}");
    match code {
        // The disk that it cannot save to counts as full: Redis takes no write until it is mended.
        "OOM" | "MISCONF" => SinkError::Full(why),
        "READONLY" | "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN"
        | "NOREPLICAS" | "UNBLOCKED" => SinkError::Unavailable(why),
        "WRONGTYPE" => SinkError::Damaged(why),
        "ERR" if details.contains("max number of clients") => SinkError::Unavailable(why),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            SinkError::Refused(format!("{why}; Redis Cluster is not supported"))
        }
        _ => SinkError::Refused(why),
    }
}

/// Takes a string reply.
pub(super) fn string(connection: &Connection, reply: Value) -> Result<Option<Vec<u8>>, SinkError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        other => Err(connection.unexpected(&other)),
    }
}

/// Takes the replies to a `MULTI … EXEC`: what each command gave, among them errors of single ones.
pub(super) fn executed(
    connection: &Connection,
    mut replies: Vec<Value>,
) -> Result<Vec<Value>, SinkError> {
    let last = replies.pop().unwrap_or_default();
    // A command that was not queued tells more than the error of the `EXEC` that follows.
    for queued in &replies {
        connection.judge(queued)?;
    }
    if let Value::ServerError(fault) = &last {
        return Err(connection.fault(fault));
    }
    array(connection, last)
}

/// Takes an array reply.
pub(super) fn array(connection: &Connection, reply: Value) -> Result<Vec<Value>, SinkError> {
    match reply {
        Value::Array(values) => Ok(values),
        other => Err(connection.unexpected(&other)),
    }
}

/// Takes an integer reply.
pub(super) fn integer(connection: &Connection, reply: &Value) -> Result<i64, SinkError> {
    match reply {
        Value::Int(number) => Ok(*number),
        other => Err(connection.unexpected(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reply_is_told_by_what_is_done_about_it() {
        let kind = |code: &str, details: &str| match server_fault("a:1", code, details) {
            SinkError::Unavailable(_) => "unavailable",
            SinkError::Full(_) => "full",
            SinkError::Fenced(_) => "fenced",
            SinkError::Damaged(_) => "damaged",
            SinkError::Refused(_) => "refused",
        };
        for (code, details, expected) in [
            ("OOM", "command not allowed", "full"),
            ("MISCONF", "unable to persist to disk", "full"),
            ("READONLY", "a replica", "unavailable"),
            ("LOADING", "dataset in memory", "unavailable"),
            ("BUSY", "a script", "unavailable"),
            ("ERR", "max number of clients reached", "unavailable"),
            ("WRONGTYPE", "Operation against a key", "damaged"),
            ("NOPERM", "this user has no permissions", "refused"),
            ("NOAUTH", "Authentication required", "refused"),
            ("WRONGPASS", "invalid username-password pair", "refused"),
            ("MOVED", "1 127.0.0.1:7000", "refused"),
            ("ERR", "unknown command 'WATCH'", "refused"),
        ] {
            assert_eq!(kind(code, details), expected, "{code} {details}");
        }
    }
}
