//! What stands at the key of a shard's token: the claim of its owner, or a mark that outlives the data.

use ::redis::Value;
use materializer_model::ports::SinkError;
use materializer_model::{Offset, Token};

use super::connection::{Connection, is_wrong_type, string};

const RETIRED: &str = "retired ";

/// What stands at the key of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredToken {
    /// The claim of the newest owner.
    Claimed(Token),
    /// Nobody writes here any more; with the offset of the event that retired it.
    Retired(String),
    /// A text that none of our programs writes, or what a key of another type is.
    Foreign(String),
}

impl StoredToken {
    /// Takes the reply to a `GET`; `None` where there is no such key.
    pub(super) fn take(connection: &Connection, reply: Value) -> Result<Option<Self>, SinkError> {
        if is_wrong_type(&reply) {
            return Ok(Some(Self::Foreign("a key of another type".to_owned())));
        }
        connection.judge(&reply)?;
        Ok(string(connection, reply)?.as_deref().map(Self::read))
    }

    pub(super) fn read(stored: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stored);
        if let Some(at) = text.strip_prefix(RETIRED) {
            return Self::Retired(at.to_owned());
        }
        match text.parse() {
            Ok(token) => Self::Claimed(token),
            Err(_) => Self::Foreign(text.into_owned()),
        }
    }
}

/// Returns the stored form of the retired mark.
pub(super) fn retired(at: Offset) -> String {
    format!("{RETIRED}{at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_mark_a_claim_and_another_text_are_told_apart() {
        let read = |text: &str| StoredToken::read(text.as_bytes());
        assert_eq!(retired(Offset(9)), "retired 9");
        assert_eq!(read("retired 9"), StoredToken::Retired("9".into()));
        let claim = "cat 12 claim".parse().expect("a token");
        assert_eq!(read("cat 12 claim"), StoredToken::Claimed(claim));
        assert_eq!(read("hello"), StoredToken::Foreign("hello".into()));
    }
}
