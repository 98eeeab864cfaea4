//! What our own programs have stored, or another hand in their place.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use materializer_model::{Checkpoint, Token, Unit, VersionId, VersionNumber, ViewName};
use materializer_sinks::hostile;

use crate::lines;

/// Stored texts of every kind, one a line: each is read as what it is or refused, and what is read is
/// written as it was read.
///
/// # Panics
/// Where it is not.
pub fn stored(bytes: &[u8]) {
    for line in lines(bytes).take(20) {
        if let Ok(checkpoint) = Checkpoint::decode(line.as_bytes()) {
            let again = Checkpoint::decode(checkpoint.encode().as_bytes());
            assert_eq!(again.expect("what is written is read"), checkpoint);
        }
        comes_back::<Token>(line);
        comes_back::<Unit>(line);
        comes_back::<VersionId>(line);
        comes_back::<VersionNumber>(line);
        comes_back::<ViewName>(line);
        hostile::stored(line);
    }
}

fn comes_back<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(
            value.to_string().parse().ok().as_ref(),
            Some(&value),
            "{text:?}"
        );
    }
}
