//! A view's definition as plain data: what the YAML says, defaults written out.
//!
//! Made by `view`, stored as JSON in the catalog's `Started` event, from which every worker compiles
//! it again. Expressions stay text here.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::ViewName;
use crate::offset::Topic;

/// Serialises durations as whole milliseconds.
mod as_millis {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// Serialises optional durations as whole milliseconds or null.
mod as_optional_millis {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<u64>::deserialize(from).map(|ms| ms.map(Duration::from_millis))
    }
}

/// The hash of what decides a view's data (sha256, hex). Equal fingerprints give equal contents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    /// Returns the first 12 digits, enough for a person.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An expression's text: a path (`event.brand.name`, `record.key`) or CEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expression(pub String);

/// What a view is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewDefinition {
    /// Its name.
    pub view: ViewName,
    /// The log it is derived from.
    pub from: Source,
    /// How a record's value is decoded.
    pub format: Format,
    /// Which records are this view's business; `None` is all.
    pub only: Option<Expression>,
    /// Whether a record's document is in the view; `None` is always. When false it leaves the view.
    #[serde(rename = "where")]
    pub condition: Option<Expression>,
    /// The row's key.
    pub key: Expression,
    /// The row's fields in order; empty only for `as: bytes`.
    pub document: Vec<Field>,
    /// Where the rows are written.
    pub to: Target,
    /// What must hold before a promotion. No part of the fingerprint.
    pub gates: Gates,
    /// How long the previous version is fed after a promotion. No part of the fingerprint.
    #[serde(with = "as_millis")]
    pub soak: Duration,
    /// What happens to poison. No part of the fingerprint.
    pub on_error: OnError,
    /// Who promotes a ready version. No part of the fingerprint.
    pub promotion: Promotion,
}

/// The log a view is derived from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The topics, each read from its genesis.
    pub topics: Vec<Topic>,
    /// The topics' cleanup policy, where the broker cannot be asked; otherwise checked against it.
    pub policy: Option<CleanupPolicy>,
    /// How producers choose a record's partition; `None` is the only one that fits.
    pub partitioner: Option<Partitioner>,
    /// What is promised of the order of records of one key.
    pub order: Order,
}

/// A topic's `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CleanupPolicy {
    /// Old segments are deleted.
    #[serde(rename = "delete")]
    Delete,
    /// The last record of each key is kept.
    #[serde(rename = "compact")]
    Compact,
    /// Both.
    #[serde(rename = "compact,delete")]
    CompactDelete,
}

impl CleanupPolicy {
    /// Says whether compaction may remove records.
    #[must_use]
    pub fn compacts(self) -> bool {
        match self {
            Self::Compact | Self::CompactDelete => true,
            Self::Delete => false,
        }
    }
}

/// A known way from a record's key to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// The Java clients'.
    Murmur2,
    /// librdkafka's `consistent` and `consistent_random`.
    Crc32,
    /// sarama's and kafka-go's hash partitioners.
    Fnv1a,
}

/// What is promised of the order of one key's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// All records of a key stand in one partition; proved by the partitioner.
    Partition,
    /// Nothing: the last record read wins. Needs one shard.
    None,
}

/// How a record's value is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON value.
    Json,
    /// Bytes; expressions see only `record`.
    Raw,
}

/// One field of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Expression,
    /// How tantivy indexes it; `None` for other sinks.
    pub index: Option<FieldIndex>,
}

/// How tantivy indexes a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldIndex {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// `text`: stemmer and stop words of this language.
    pub language: Option<String>,
    /// `text`: a tokenizer by name, in place of a language.
    pub tokenizer: Option<String>,
    /// Whether documents show it.
    pub stored: bool,
    /// Whether results can be sorted by it.
    pub sort: bool,
    /// Whether its values can be counted.
    pub facet: bool,
    /// The value of a document that has none.
    pub missing: Option<serde_json::Value>,
}

/// The languages of [`FieldIndex::language`].
pub const LANGUAGES: &[&str] = &[
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
];

/// The tokenizers of [`FieldIndex::tokenizer`].
pub const TOKENIZERS: &[&str] = &["default", "folded", "whitespace", "raw"];

/// The type of a tantivy field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Tokenized text.
    Text,
    /// One term.
    String,
    /// A signed integer.
    I64,
    /// An unsigned integer.
    U64,
    /// A floating point number.
    F64,
    /// True or false.
    Bool,
    /// An instant: RFC 3339 text, or milliseconds since the Unix epoch.
    Date,
    /// Base64 text of bytes.
    Bytes,
    /// Any JSON object.
    Json,
}

/// Where the rows are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A map in this process; for `try`, tests and the simulator.
    Memory {},
    /// A Redis cache.
    Redis(RedisTarget),
    /// A tantivy index.
    Tantivy(TantivyTarget),
}

impl Target {
    /// Returns the sink's name as it stands in a definition and in labels.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory {} => "memory",
            Self::Redis(_) => "redis",
            Self::Tantivy(_) => "tantivy",
        }
    }

    /// Returns the number of the way in which the sink stores a row: part of the fingerprint. Raise it
    /// when the same rows are stored differently (another key, another tokenizer under its name).
    #[must_use]
    pub fn revision(&self) -> u32 {
        match self {
            Self::Memory {} | Self::Redis(_) | Self::Tantivy(_) => 1,
        }
    }

    /// Returns how many whole instances of a version there are.
    #[must_use]
    pub fn copies(&self) -> u16 {
        match self {
            Self::Memory {} | Self::Redis(_) => 1,
            Self::Tantivy(target) => target.copies,
        }
    }

    /// Returns into how many parts a version's partitions are split.
    #[must_use]
    pub fn shards(&self) -> u16 {
        match self {
            Self::Memory {} | Self::Tantivy(_) => 1,
            Self::Redis(target) => target.shards,
        }
    }
}

/// A Redis cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisTarget {
    /// The name of a connection in the configuration.
    pub connection: String,
    /// The row's key in Redis: `<literal>{key}`.
    pub key: String,
    /// The shape of a row.
    #[serde(rename = "as")]
    pub shape: RedisShape,
    /// How long after its record's time a row lives.
    #[serde(with = "as_optional_millis")]
    pub ttl: Option<Duration>,
    /// Into how many units the partitions are split. No part of the fingerprint.
    pub shards: u16,
}

/// The shape of a row in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisShape {
    /// A string: the row's JSON.
    Json,
    /// A hash: a field for each field that is not null.
    Hash,
    /// A string: the record's value as it is.
    Bytes,
}

/// A tantivy index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TantivyTarget {
    /// How many whole copies workers hold. No part of the fingerprint.
    pub copies: u16,
}

/// What must hold before a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// The most lag in seconds.
    pub lag_seconds: f64,
    /// The most lag in records.
    pub lag_records: u64,
    /// How long the continuous gates must have held without a break.
    #[serde(with = "as_millis")]
    pub stable_for: Duration,
    /// The candidate's count of documents divided by the live version's.
    pub documents_ratio: Option<Ratio>,
    /// Searches that must find something (tantivy).
    pub queries: Vec<QueryGate>,
    /// Keys that must exist (Redis).
    pub keys: Vec<String>,
}

/// An inclusive range of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64)", into = "(f64, f64)")]
pub struct Ratio {
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl From<(f64, f64)> for Ratio {
    fn from((min, max): (f64, f64)) -> Self {
        Self { min, max }
    }
}

impl From<Ratio> for (f64, f64) {
    fn from(ratio: Ratio) -> Self {
        (ratio.min, ratio.max)
    }
}

/// A search that must find something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryGate {
    /// The query string.
    pub q: String,
    /// The least number of hits.
    pub hits_min: u64,
}

/// What happens to poison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The unit stops before it; its health says where and why.
    Fail,
    /// It is counted and passed over.
    Skip,
    /// It is sent to a topic, counted and passed over, up to a limit.
    DeadLetter {
        /// The topic.
        topic: Topic,
        /// The most dead letters of a version; one more fails it.
        limit: u64,
    },
}

/// Who promotes a ready version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Promotion {
    /// A person, by `promote`.
    Manual,
    /// The coordinator, as soon as its gates hold.
    Auto,
}
