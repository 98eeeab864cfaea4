//! A record that a view cannot take in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a record is poison. A closed set: a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoisonKind {
    /// The value is not of the view's format.
    Decode,
    /// An expression failed, or gave a value of another type than its place takes.
    Expression,
    /// The key is missing, null, or not text or a number.
    Key,
    /// A field's value does not fit the field's type in the sink.
    Type,
    /// The key or the row is larger than the sink takes.
    TooLarge,
    /// The view has a `ttl` and the record has no timestamp.
    Timestamp,
    /// The record's partition is not the one that the topic's partitioner gives its key.
    Partition,
}

impl PoisonKind {
    /// Returns the kind as it is written in labels and headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Expression => "expression",
            Self::Key => "key",
            Self::Type => "type",
            Self::TooLarge => "too_large",
            Self::Timestamp => "timestamp",
            Self::Partition => "partition",
        }
    }
}

impl fmt::Display for PoisonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with a record. Where it stands is told by whoever holds the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Poison {
    /// The kind of fault.
    pub kind: PoisonKind,
    /// The key of the definition at fault, as `document.price` or `key`; empty where the record as
    /// a whole is.
    pub place: String,
    /// What is wrong, with the value where that helps: lower case, no full stop.
    pub why: String,
}

impl Poison {
    /// Makes a poison of its parts.
    #[must_use]
    pub fn new(kind: PoisonKind, place: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            kind,
            place: place.into(),
            why: why.into(),
        }
    }
}
