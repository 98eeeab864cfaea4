//! What a server is and how it is set: what a unit checks when it opens, and `doctor` shows.

use std::time::Duration;

use ::redis::Value;
use materializer_model::Clock;
use materializer_model::definition::RedisTarget;
use materializer_model::ports::{SinkError, Usage};

use super::connection::{Connection, string};
use super::keys;
use super::pack::Pack;
use super::settings::RedisPlace;

/// What happens when the memory is full, as far as it matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// `noeviction`: writes are refused.
    Refuse,
    /// `volatile-*`: keys with an expiry are lost.
    Expiring,
    /// `allkeys-*`: any key is lost, also an alias or a checkpoint.
    Any,
    /// The server does not say.
    Unknown,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version as three numbers; that of Redis which a Valkey is compatible with.
    pub version: (u32, u32, u32),
    /// Whether it is a replica, which takes no write.
    pub is_replica: bool,
    /// How many replicas are attached.
    pub replicas: u32,
    /// Whether it is a node of a Redis Cluster.
    pub is_cluster: bool,
    /// Whether it is still reading its data from disk.
    pub is_loading: bool,
    /// What it does when its memory is full.
    pub eviction: Eviction,
    /// Bytes used.
    pub memory_used: u64,
    /// Bytes that may be used; `None` is no limit.
    pub memory_max: Option<u64>,
}

impl ServerFacts {
    /// Asks a server; `INFO` answers also where `CONFIG` is blocked.
    pub(super) fn ask(connection: &mut Connection) -> Result<Self, SinkError> {
        let reply: Value = connection.call(&["INFO"])?;
        let text = string(connection, reply)?.unwrap_or_default();
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    /// Reads the reply to `INFO`; what it does not say is 0, `false` or unknown.
    #[must_use]
    pub fn parse(info: &str) -> Self {
        let value = |name: &str| {
            info.lines()
                .find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
        };
        let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
        let mut version = value("redis_version")
            .unwrap_or("")
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        let mut part = || version.next().unwrap_or(0);
        Self {
            version: (part(), part(), part()),
            is_replica: value("role") == Some("slave"),
            replicas: number("connected_slaves")
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0),
            is_cluster: value("cluster_enabled") == Some("1"),
            is_loading: value("loading") == Some("1"),
            eviction: match value("maxmemory_policy") {
                Some("noeviction") => Eviction::Refuse,
                Some(policy) if policy.starts_with("volatile-") => Eviction::Expiring,
                Some(_) => Eviction::Any,
                None => Eviction::Unknown,
            },
            memory_used: number("used_memory").unwrap_or(0),
            memory_max: number("maxmemory").filter(|max| *max > 0),
        }
    }

    /// Says whether a view may be written here.
    ///
    /// # Errors
    /// [`SinkError::Refused`] with the setting that would lose data, [`SinkError::Unavailable`]
    /// where it passes.
    pub fn check(&self, target: &RedisTarget, address: &str) -> Result<(), SinkError> {
        let refused = |why: &str| Err(SinkError::Refused(format!("redis at `{address}` {why}")));
        let passes = |why: &str| {
            Err(SinkError::Unavailable(format!(
                "redis at `{address}` {why}"
            )))
        };
        let (major, minor, patch) = self.version;
        if self.version < (7, 0, 0) {
            return refused(&format!(
                "is version {major}.{minor}.{patch}: use Redis 7.0 or Valkey 7.2 or later"
            ));
        }
        if self.is_cluster {
            return refused("is a node of a Redis Cluster, which is not supported");
        }
        match self.eviction {
            Eviction::Any => {
                return refused(
                    "may evict any key, the checkpoints too: set `maxmemory-policy noeviction`",
                );
            }
            Eviction::Expiring if target.ttl.is_some() => {
                return refused(
                    "may evict rows that have a `ttl`: set `maxmemory-policy noeviction`",
                );
            }
            Eviction::Expiring | Eviction::Refuse | Eviction::Unknown => {}
        }
        if self.is_loading {
            return passes("is loading its data");
        }
        if self.is_replica {
            return passes("is a replica");
        }
        Ok(())
    }

    /// Returns the memory as a sink's usage.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            documents: None,
            bytes: Some(self.memory_used),
            bytes_free: self
                .memory_max
                .map(|max| max.saturating_sub(self.memory_used)),
        }
    }
}

/// Every command that is sent, as `ACL DRYRUN` takes it, `KEY` standing for a key of ours.
const COMMANDS: [&[&str]; 21] = [
    &["INFO"],
    &["MULTI"],
    &["EXEC"],
    &["WATCH", "KEY"],
    &["UNWATCH"],
    &["GET", "KEY"],
    &["MGET", "KEY"],
    &["SET", "KEY", "v"],
    &["MSET", "KEY", "v"],
    &["HSET", "KEY", "f", "v"],
    &["HGET", "KEY", "f"],
    &["HGETALL", "KEY"],
    &["EXISTS", "KEY"],
    &["TTL", "KEY"],
    &["PEXPIREAT", "KEY", "1"],
    &["PEXPIRETIME", "KEY"],
    &["STRLEN", "KEY"],
    &["UNLINK", "KEY"],
    &["SCAN", "0", "MATCH", "KEY", "COUNT", "100"],
    &["WAIT", "0", "0"],
    &["PING"],
];

/// What `doctor` shows of a server.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What it says of itself.
    pub facts: ServerFacts,
    /// The commands that our user may not use; `None` where it may not ask either.
    pub commands_missing: Option<Vec<String>>,
    /// How long one `PING` took, the connect not counted.
    pub latency: Duration,
}

/// Asks a server what `doctor` shows. Writes nothing.
///
/// # Errors
/// [`SinkError`] where it cannot be reached, or refuses the login.
pub fn probe(place: &RedisPlace, clock: &dyn Clock) -> Result<Probe, SinkError> {
    let mut connection = Connection::connect(&place.server)?;
    let facts = ServerFacts::ask(&mut connection)?;
    let began = clock.monotonic();
    connection.call(&["PING"])?;
    let latency = clock.monotonic().since(began);
    let commands_missing = match commands_missing(&mut connection, place) {
        Ok(missing) => Some(missing),
        Err(SinkError::Refused(_)) => None,
        Err(fault) => return Err(fault),
    };
    Ok(Probe {
        facts,
        commands_missing,
        latency,
    })
}

/// Asks for each command whether our user may send it.
fn commands_missing(
    connection: &mut Connection,
    place: &RedisPlace,
) -> Result<Vec<String>, SinkError> {
    let reply = connection.call(&["ACL", "WHOAMI"])?;
    let user = string(connection, reply)?.unwrap_or_default();
    let key = keys::mark(&place.installation);
    let mut pack = Pack::default();
    for command in COMMANDS {
        pack.begin(3 + command.len());
        pack.part(b"ACL");
        pack.part(b"DRYRUN");
        pack.part(&user);
        for part in command {
            let part = if *part == "KEY" { key.as_str() } else { part };
            pack.part(part.as_bytes());
        }
    }
    let replies = connection.ask(&pack)?;
    let refused = |(command, reply): (&&[&str], &Value)| {
        (*reply != Value::Okay).then(|| command[0].to_owned())
    };
    Ok(COMMANDS.iter().zip(&replies).filter_map(refused).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use materializer_model::definition::RedisShape;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:1000\r\n\
        used_memory_human:1K\r\nmaxmemory:4000\r\nmaxmemory_policy:noeviction\r\n\
        loading:0\r\nrole:master\r\nconnected_slaves:2\r\ncluster_enabled:0\r\n";

    fn verdict(info: &str, ttl: Option<Duration>) -> Result<(), SinkError> {
        let target = RedisTarget {
            connection: "cache".into(),
            key: "{key}".into(),
            shape: RedisShape::Json,
            ttl,
            shards: 1,
        };
        ServerFacts::parse(info).check(&target, "cache:6379")
    }

    #[test]
    fn the_facts_are_read_from_info() {
        let facts = ServerFacts::parse(INFO);
        let expected = ServerFacts {
            version: (7, 0, 15),
            is_replica: false,
            replicas: 2,
            is_cluster: false,
            is_loading: false,
            eviction: Eviction::Refuse,
            memory_used: 1000,
            memory_max: Some(4000),
        };
        assert_eq!(facts, expected);
        assert_eq!(facts.usage().bytes_free, Some(3000));
    }

    #[test]
    fn a_server_that_would_lose_data_is_refused() {
        let day = Some(Duration::from_secs(86_400));
        let with = |from: &str, to: &str| INFO.replace(from, to);
        for (info, ttl, expected) in [
            (INFO.to_owned(), day, ""),
            (with("noeviction", "allkeys-lru"), None, "any key"),
            (with("noeviction", "volatile-lru"), None, ""),
            (with("noeviction", "volatile-lru"), day, "`ttl`"),
            (with("7.0.15", "6.2.14"), None, "Redis 7.0"),
            (
                with("cluster_enabled:0", "cluster_enabled:1"),
                None,
                "Cluster",
            ),
        ] {
            match verdict(&info, ttl) {
                Ok(()) => assert_eq!(expected, ""),
                Err(SinkError::Refused(why)) => {
                    assert!(!expected.is_empty() && why.contains(expected), "{why}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        for passing in [
            with("loading:0", "loading:1"),
            with("role:master", "role:slave"),
        ] {
            let found = verdict(&passing, None);
            assert!(matches!(found, Err(SinkError::Unavailable(_))), "{found:?}");
        }
    }
}
