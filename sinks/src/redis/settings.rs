//! Where a Redis is and how it is reached.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs, io};

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use materializer_model::ports::SinkError;
use materializer_model::{CatalogId, Installation, SinkId};

/// A password. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a password.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a `rediss://` connection is secured.
#[derive(Clone, Default)]
pub struct Tls {
    /// PEM of the authorities that are trusted; `None` trusts those of the machine.
    pub authorities: Option<Vec<u8>>,
    /// PEM of our certificate and of its key, where the server asks for one.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

/// One Redis server. Printing it shows no secret.
#[derive(Clone)]
pub struct RedisSettings {
    pub(super) info: ConnectionInfo,
    pub(super) tls: Tls,
    /// Where the password stands, if it may change while connections are made.
    pub(super) password_file: Option<PathBuf>,
    /// The longest a connect takes, TLS and login included.
    pub connect_timeout: Duration,
    /// The longest that a reply is waited for.
    pub request_timeout: Duration,
}

impl RedisSettings {
    /// Reads `redis://[user[:password]@]host[:port][/database]`; with `rediss://` it is TLS, and
    /// `#insecure` behind it trusts any certificate. Waits 3 s for a connect and 5 s for a reply.
    ///
    /// # Errors
    /// [`SinkError::Refused`] where the text is no such address; the text, which may hold a
    /// password, is not repeated.
    pub fn parse(url: &str) -> Result<Self, SinkError> {
        let refused = |why: String| {
            SinkError::Refused(format!(
                "the address is no Redis address: {why}; write `redis://host:port/database`"
            ))
        };
        let info = url
            .into_connection_info()
            .map_err(|fault| refused(fault.to_string()))?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Ok(Self {
            info: info.set_redis_settings(settings).set_tcp_settings(tcp),
            tls: Tls::default(),
            password_file: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
        })
    }

    /// Logs in as the given user (`None` is Redis' default user), in place of what the address says.
    #[must_use]
    pub fn with_login(mut self, user: Option<&str>, password: &Password) -> Self {
        let mut settings = self.info.redis_settings().clone().set_password(&password.0);
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// Reads the password of the login anew for each connection, from a file, without its last line end: so
    /// one that is changed while we run is taken up.
    #[must_use]
    pub fn with_password_file(mut self, file: PathBuf) -> Self {
        self.password_file = Some(file);
        self
    }

    /// Returns what a connection is made with now.
    ///
    /// # Errors
    /// Where the password cannot be read.
    pub(super) fn login(&self) -> io::Result<ConnectionInfo> {
        let Some(file) = &self.password_file else {
            return Ok(self.info.clone());
        };
        let text = fs::read_to_string(file).map_err(|fault| {
            let why = format!("read the password in `{}`: {fault}", file.display());
            io::Error::new(fault.kind(), why)
        })?;
        let password = text.trim_end_matches(['\r', '\n']);
        let settings = self.info.redis_settings().clone().set_password(password);
        Ok(self.info.clone().set_redis_settings(settings))
    }

    /// Secures a `rediss://` address; the others take no notice.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Returns `host:port` or the socket's path, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        self.info.addr().to_string()
    }

    pub(super) fn is_secured(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("address", &self.address())
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// An installation's place in a Redis server.
#[derive(Clone, Debug)]
pub struct RedisPlace {
    /// The server.
    pub server: RedisSettings,
    /// The prefix of everything that is stored.
    pub installation: Installation,
    /// The catalog that the place belongs to: any other's mark is refused.
    pub catalog: CatalogId,
    /// The id that the server's mark must have, where the catalog knows it.
    pub sink: Option<SinkId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_is_not_shown() {
        let settings = RedisSettings::parse("rediss://shop:s3cret@cache.test:6390/2#insecure")
            .expect("an address")
            .with_login(Some("shop"), &Password::new("s3cret"));
        assert!(settings.is_secured());
        let shown = format!("{settings:?} {:?}", Password::new("s3cret"));
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(settings.address(), "cache.test:6390");
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for bad in [
            "",
            "cache:s3cret",
            "http://s3cret@cache",
            "redis://:s3cret@",
        ] {
            let refused = RedisSettings::parse(bad).map(|_| ());
            let Err(SinkError::Refused(why)) = refused else {
                panic!("{bad}: {refused:?}");
            };
            assert!(!why.contains("s3cret"), "{why}");
        }
    }
}
