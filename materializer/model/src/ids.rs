//! Names, numbers and tokens. Ids are newtypes, never a bare `String` or `u64`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name, a version or a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `[a-z0-9][a-z0-9-]*`, or longer than 63 bytes.
    #[error(
        "`{0}` is not a name: use lower-case letters, digits and `-`, at most 63, beginning with a letter or digit"
    )]
    Name(String),
    /// Not `VIEW@vN`.
    #[error("`{0}` is not a version: write `VIEW@vN`, as in `products@v2`")]
    Version(String),
    /// Not `VIEW/vN/cC/sS`.
    #[error("`{0}` is not a unit: write `VIEW/vN/cC/sS`, as in `products/v2/c0/s0`")]
    Unit(String),
    /// Not `CATALOG OFFSET CLAIM`.
    #[error("`{0}` is not a fencing token")]
    Token(String),
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 63
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || *b == b'-')
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_name(text) { Ok(Self(text.to_owned())) } else { Err(IdError::Name(text.to_owned())) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )+};
}

names! {
    /// A set of views that share one catalog; the prefix of everything they store.
    Installation,
    /// A named read model.
    ViewName,
}

macro_rules! opaque_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes an id made elsewhere: ids come in through arguments. Holds no space.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Returns the id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

opaque_ids! {
    /// The random id of one catalog, from its event 0.
    CatalogId,
    /// The random id of one claim record.
    ClaimId,
    /// A catalog event's random id.
    EventId,
    /// One run of one process.
    ProcessId,
    /// The random id of one sink server, from its mark.
    SinkId,
    /// A worker's id, kept in its data folder so that it follows the volume.
    WorkerId,
}

/// The number of a version. Begins at 1, is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(pub u32);

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for VersionNumber {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix('v')
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| IdError::Version(text.to_owned()))
    }
}

/// One immutable build of a view; written `products@v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionId {
    /// The view it is a build of.
    pub view: ViewName,
    /// Its number.
    pub number: VersionNumber,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.view, self.number)
    }
}

impl FromStr for VersionId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (view, number) = text
            .split_once('@')
            .ok_or_else(|| IdError::Version(text.to_owned()))?;
        Ok(Self {
            view: view.parse()?,
            number: number
                .parse()
                .map_err(|_| IdError::Version(text.to_owned()))?,
        })
    }
}

impl TryFrom<String> for VersionId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<VersionId> for String {
    fn from(id: VersionId) -> Self {
        id.to_string()
    }
}

/// The unit of writing: one shard of one copy of one version; written `products/v7/c0/s0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Unit {
    /// The version it belongs to.
    pub version: VersionId,
    /// Which whole second instance of the version (tantivy); 0 for Redis.
    pub copy: u16,
    /// Which part of its partitions (Redis); 0 for tantivy. Holds `partition % shards`.
    pub shard: u16,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VersionId { view, number } = &self.version;
        write!(f, "{view}/{number}/c{}/s{}", self.copy, self.shard)
    }
}

impl FromStr for Unit {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fault = || IdError::Unit(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let [view, number, copy, shard] = parts.as_slice() else {
            return Err(fault());
        };
        let index = |part: &str, prefix: char| {
            part.strip_prefix(prefix)
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(fault)
        };
        Ok(Self {
            version: VersionId {
                view: view.parse()?,
                number: number.parse().map_err(|_| fault())?,
            },
            copy: index(copy, 'c')?,
            shard: index(shard, 's')?,
        })
    }
}

impl TryFrom<String> for Unit {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.to_string()
    }
}

/// The fencing token of a unit's owner: where in which catalog's claims its claim stands.
///
/// Stored by sinks as `<catalog> <claim offset> <claim id>`. To commit, the sink's token must equal
/// ours; to take over, ours must outrank it; it is never lowered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    /// The catalog whose claims topic holds the claim.
    pub catalog: CatalogId,
    /// The offset of the claim record.
    pub claim_offset: u64,
    /// The random id of the claim, which tells our record from another at a reused offset.
    pub claim: ClaimId,
}

impl Token {
    /// Says whether this token may take over from `held`: the same catalog, and a later claim.
    #[must_use]
    pub fn outranks(&self, held: &Self) -> bool {
        self.catalog == held.catalog && self.claim_offset > held.claim_offset
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.catalog, self.claim_offset, self.claim)
    }
}

impl FromStr for Token {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fault = || IdError::Token(text.to_owned());
        let parts: Vec<&str> = text.split(' ').collect();
        let [catalog, offset, claim] = parts.as_slice() else {
            return Err(fault());
        };
        Ok(Self {
            catalog: CatalogId::new(*catalog),
            claim_offset: offset.parse().map_err(|_| fault())?,
            claim: ClaimId::new(*claim),
        })
    }
}

impl TryFrom<String> for Token {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_letters_digits_and_dashes() {
        for good in ["a", "0", "product-search", "a-"] {
            assert!(good.parse::<ViewName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "a:b", "a*", &"x".repeat(64)] {
            assert!(bad.parse::<ViewName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_units_and_tokens_read_back_as_written() {
        for text in ["products@v1", "product-search@v120"] {
            assert_eq!(
                text.parse::<VersionId>().map(|v| v.to_string()),
                Ok(text.to_owned())
            );
        }
        for bad in [
            "products",
            "products@1",
            "products@v",
            "products@v01",
            "products@v0",
            "@v1",
            "a@v-1",
        ] {
            assert!(bad.parse::<VersionId>().is_err(), "{bad}");
        }
        let unit = "products/v7/c1/s0";
        assert_eq!(
            unit.parse::<Unit>().map(|u| u.to_string()),
            Ok(unit.to_owned())
        );
        let token = "cat 12 claim";
        assert_eq!(
            token.parse::<Token>().map(|t| t.to_string()),
            Ok(token.to_owned())
        );
    }

    #[test]
    fn a_token_outranks_an_earlier_claim_of_its_own_catalog_only() {
        let token = |catalog: &str, claim_offset| Token {
            catalog: CatalogId::new(catalog),
            claim_offset,
            claim: ClaimId::new("x"),
        };
        assert!(token("a", 2).outranks(&token("a", 1)));
        assert!(!token("a", 1).outranks(&token("a", 1)));
        assert!(!token("b", 2).outranks(&token("a", 1)));
    }
}
