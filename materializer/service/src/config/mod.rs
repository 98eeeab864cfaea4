//! The settings of a process: defaults, then `materializer.yaml`, then `MATERIALIZER__*`.
//!
//! Everything is checked here, at the start, and all faults are told together by key. What the parts
//! get is their own section with values of the right types; nobody else looks at the environment.
//! Secrets come from a value, from the file that `…_file` names, or from the environment, and are
//! never printed.

pub(crate) mod access;
mod section;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use materializer_model::ids::IdError;
use materializer_model::{Installation, ViewName};

use crate::identity::account;

pub use access::AccessSection;
pub use section::duration;
use section::{Report, Section, boolean, size};
use tree::{Node, Value};

/// The file that is read where no other is named.
pub const FILE: &str = "materializer.yaml";

/// A text that is printed nowhere.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that is from now on printed nowhere.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, for the one who must send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One fault of the settings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The setting's full name; empty where the file as a whole is at fault.
    pub key: String,
    /// Where it was said: `materializer.yaml:3`, or a variable's name.
    pub place: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, place, why } = self;
        if key.is_empty() {
            write!(f, "{place}: {why}")
        } else {
            write!(f, "{place}: `{key}`: {why}")
        }
    }
}

/// All faults of the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "fault" } else { "faults" };
        write!(f, "the settings have {} {plural}", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// The settings of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The set of views that share one catalog.
    pub installation: Installation,
    /// How the brokers are reached.
    pub kafka: KafkaSection,
    /// The sinks' servers, by the name that definitions use.
    pub connections: BTreeMap<String, Connection>,
    /// Where this process keeps its id and its indices.
    pub data_dir: PathBuf,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where the Redis protocol is served.
    pub redis: SocketAddr,
    /// Where other processes reach this one's HTTP, `host:port` or with its scheme; `None` is `http`.
    pub advertise: Option<String>,
    /// What the two ports demand of whoever connects.
    pub access: AccessSection,
    /// Whether one broker, create times and a mock are good enough.
    pub dev: bool,
    /// How units are fed.
    pub worker: WorkerSection,
    /// How readers are answered.
    pub gateway: GatewaySection,
    /// The folder whose definitions a coordinator applies by itself; `None` is none.
    pub definitions: Option<PathBuf>,
    /// How long a version is kept after the last reader was routed to it.
    pub drain: Duration,
    /// How the log of this process looks.
    pub log: LogSection,
    /// Whom the catalog names as the one who asked.
    pub who: String,
}

/// How the brokers are reached.
#[derive(Clone, Debug, Default)]
pub struct KafkaSection {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// librdkafka's properties. Any of them may be a secret.
    pub properties: BTreeMap<String, Secret>,
    /// Whether they are librdkafka's mock of a broker, which leaves some requests unanswered: the demo's.
    pub mock: bool,
}

/// A sink's server.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `redis://host:port/db`, or `rediss://` for TLS; without user and password.
    pub url: String,
    /// The ACL user.
    pub username: Option<String>,
    /// Its password, as it was when the settings were read.
    pub password: Option<Secret>,
    /// The file that the password is read from anew for each connection.
    pub password_file: Option<PathBuf>,
    /// The file of the certificate authority that signed the server's certificate.
    pub tls_ca: Option<PathBuf>,
    /// Whether any certificate is good enough.
    pub tls_insecure: bool,
}

/// How units are fed.
#[derive(Clone, Debug)]
pub struct WorkerSection {
    /// The most units that this process feeds at once.
    pub slots: usize,
    /// The only views that this process feeds; empty is all.
    pub only: Vec<ViewName>,
    /// How long a tantivy copy's owner must be silent before another worker builds it anew.
    pub reclaim_after: Duration,
    /// The pause between two checks of all files of an index that is open.
    pub check_every: Duration,
    /// The memory of one unit's fold.
    pub fold_memory: usize,
    /// How long after a topic got more partitions every producer knows of them.
    pub growth_settles: Duration,
}

/// How readers are answered.
#[derive(Clone, Debug)]
pub struct GatewaySection {
    /// The most bytes of rows in one answer.
    pub reply_size: usize,
    /// The most bytes of rows, of all connections together, that wait to be written.
    pub memory: usize,
}

/// How the log of this process looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSection {
    /// What is logged: `info`, or `info,materializer_kafka=debug`.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

impl Config {
    /// Reads the settings of a file, where there is one, under the environment's.
    ///
    /// `named` says that the file was asked for by name: then it must exist.
    ///
    /// # Errors
    /// [`Faults`] with all that is wrong.
    pub fn load(
        path: &Path,
        named: bool,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(Faults(vec![Fault {
                    key: String::new(),
                    place: path.display().to_string(),
                    why: format!("cannot be read: {error}"),
                }]));
            }
        };
        Self::from_text(&path.display().to_string(), &text, environment)
    }

    /// Reads the settings of a text under the environment's.
    ///
    /// # Errors
    /// [`Faults`] with all that is wrong.
    pub fn from_text(
        file: &str,
        text: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let mut root = Node::from_yaml(file, text).map_err(|fault| Faults(vec![fault]))?;
        root.overlay(environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let report = Report {
            file,
            faults: Vec::new().into(),
        };
        let config = read(&root, &report, environment);
        let faults = report.faults.into_inner();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(Faults(faults))
        }
    }

    /// Returns where other processes reach this one's HTTP: `host:port`, behind `https://` where it
    /// speaks TLS.
    #[must_use]
    pub fn address(&self) -> String {
        let own = || self.http.to_string();
        let address = self.advertise.clone().unwrap_or_else(own);
        if self.access.speaks_tls() && !address.contains("://") {
            format!("https://{address}")
        } else {
            address
        }
    }
}

const SOCKET: &str = "an address with a port, as in `127.0.0.1:8080`";

fn read(root: &Node, report: &Report<'_>, environment: &BTreeMap<String, String>) -> Config {
    let mut top = Section::new("", Some(root), report);
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let config = Config {
        installation: top
            .read("installation", |text| {
                text.parse().map_err(|error: IdError| error.to_string())
            })
            .unwrap_or_else(|| "main".parse().expect("a name")),
        kafka: read_kafka(top.node("kafka"), report),
        connections: read_connections(top.node("connections"), report),
        data_dir: top
            .text("data_dir")
            .map_or_else(|| PathBuf::from("data"), PathBuf::from),
        http: top.parse("http", SOCKET).unwrap_or_else(|| loopback(8080)),
        redis: top.parse("redis", SOCKET).unwrap_or_else(|| loopback(6380)),
        advertise: top.read("advertise", access::place),
        access: access::read(top.node("access"), report),
        dev: top.read("dev", boolean).unwrap_or(false),
        worker: read_worker(top.node("worker"), report),
        gateway: read_gateway(top.node("gateway"), report),
        definitions: top.text("definitions").map(PathBuf::from),
        drain: top
            .read("drain", duration)
            .unwrap_or(Duration::from_secs(60)),
        log: read_log(top.node("log"), report),
        who: top
            .text("who")
            .map_or_else(|| account(environment), str::to_owned),
    };
    for (key, address) in [("http", config.http), ("redis", config.redis)] {
        if let Err(why) = config.access.guard(address) {
            top.fault(key, why);
        }
    }
    top.finish();
    config
}

fn read_kafka(node: Option<&Node>, report: &Report<'_>) -> KafkaSection {
    let mut section = Section::new("kafka", node, report);
    let brokers = section.text("brokers").unwrap_or_default().to_owned();
    if brokers.is_empty() {
        section.fault(
            "brokers",
            "missing: say where Kafka is, as in `localhost:9092`",
        );
    }
    let mut written = Section::new("kafka.properties", section.node("properties"), report);
    let mut properties = BTreeMap::new();
    let names: Vec<&String> = written.all().map(|(name, _)| name).collect();
    for name in names {
        let property = name.strip_suffix("_file").unwrap_or(name);
        if let Some(value) = written.secret(property) {
            properties.insert(property.to_owned(), value);
        }
    }
    let mock = section.read("mock", boolean).unwrap_or(false);
    section.finish();
    KafkaSection {
        brokers,
        properties,
        mock,
    }
}

fn read_connections(node: Option<&Node>, report: &Report<'_>) -> BTreeMap<String, Connection> {
    let mut connections = BTreeMap::new();
    for (name, node) in Section::new("connections", node, report).all() {
        let path = format!("connections.{name}");
        if name.parse::<ViewName>().is_err() {
            report.add(
                &path,
                Some(&node.origin),
                "not a name: lower-case letters, digits and `-`",
            );
            continue;
        }
        let wrapped;
        let node = if matches!(node.value, Value::Text(_)) {
            wrapped = Node {
                origin: node.origin.clone(),
                value: Value::Map(BTreeMap::from([("url".to_owned(), node.clone())])),
            };
            &wrapped
        } else {
            node
        };
        if let Some(connection) = read_connection(&path, node, report) {
            connections.insert(name.clone(), connection);
        }
    }
    connections
}

fn read_connection(path: &str, node: &Node, report: &Report<'_>) -> Option<Connection> {
    let mut section = Section::new(path, Some(node), report);
    let url = section.read("url", split_url);
    if url.is_none() && section.text("url").is_none() {
        section.fault("url", "missing: write `redis://host:6379`");
    }
    let username = section.text("username").map(str::to_owned);
    let password = section.secret("password");
    let password_file = section.text("password_file").map(PathBuf::from);
    let tls_ca = section.text("tls_ca").map(PathBuf::from);
    let tls_insecure = section.read("tls_insecure", boolean).unwrap_or(false);
    section.finish();
    let url = url?;
    Some(Connection {
        url: url.bare,
        username: username.or(url.username),
        password: password.or(url.password),
        password_file,
        tls_ca,
        tls_insecure,
    })
}

struct SplitUrl {
    bare: String,
    username: Option<String>,
    password: Option<Secret>,
}

/// Takes user and password out of a Redis URL, so that the rest can be printed. They are taken as
/// they stand, without percent decoding: a password with `@` or `/` belongs in `password`.
fn split_url(text: &str) -> Result<SplitUrl, String> {
    let fault = || "not a Redis URL: write `redis://host:6379`, or `rediss://` for TLS".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(fault)?;
    if !matches!(scheme, "redis" | "rediss") {
        return Err(fault());
    }
    let (account, place) = match rest.rsplit_once('@') {
        Some((account, place)) => (Some(account), place),
        None => (None, rest),
    };
    if place.is_empty() || place.starts_with('/') {
        return Err(fault());
    }
    let (username, password) = match account.map(|a| a.split_once(':').unwrap_or((a, ""))) {
        Some((username, password)) => (username, password),
        None => ("", ""),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(SplitUrl {
        bare: format!("{scheme}://{place}"),
        username: some(username),
        password: some(password).map(Secret::new),
    })
}

fn read_worker(node: Option<&Node>, report: &Report<'_>) -> WorkerSection {
    let mut section = Section::new("worker", node, report);
    let only = section.list("only");
    let worker = WorkerSection {
        slots: section.parse("slots", "a number of units").unwrap_or(8),
        only: only
            .into_iter()
            .filter_map(|name| {
                name.parse()
                    .map_err(|error: IdError| section.fault("only", error.to_string()))
                    .ok()
            })
            .collect(),
        reclaim_after: section
            .read("reclaim_after", duration)
            .unwrap_or(Duration::from_secs(600)),
        check_every: section
            .read("check_every", duration)
            .unwrap_or(Duration::from_secs(3_600)),
        fold_memory: section.read("fold_memory", size).unwrap_or(64 << 20),
        growth_settles: section
            .read("growth_settles", duration)
            .unwrap_or(Duration::from_secs(600)),
    };
    section.finish();
    worker
}

fn read_gateway(node: Option<&Node>, report: &Report<'_>) -> GatewaySection {
    let mut section = Section::new("gateway", node, report);
    let gateway = GatewaySection {
        reply_size: section.read("reply_size", size).unwrap_or(32 << 20),
        memory: section.read("memory", size).unwrap_or(256 << 20),
    };
    if gateway.memory < gateway.reply_size {
        section.fault(
            "memory",
            "less than `gateway.reply_size`: no such reply could be sent",
        );
    }
    section.finish();
    gateway
}

fn read_log(node: Option<&Node>, report: &Report<'_>) -> LogSection {
    let mut section = Section::new("log", node, report);
    let filter = section.text("filter").unwrap_or("info").to_owned();
    if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
        section.fault("filter", format!("`{filter}` is not a filter: {error}"));
    }
    let json = section
        .read("format", |text| match text {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err(format!("`{text}` is not `text` or `json`")),
        })
        .unwrap_or(false);
    section.finish();
    LogSection { filter, json }
}

#[cfg(test)]
mod tests;
