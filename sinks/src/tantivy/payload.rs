//! What a commit says of itself: the payload in tantivy's `meta.json`, renamed into place together with
//! the list of segments.

use std::sync::Arc;

use materializer_model::progress::StoredCheckpoint;
use materializer_model::{CatalogId, Checkpoint, Fingerprint, Token, Unit};
use serde::{Deserialize, Serialize};

use super::schema::IndexSchema;

/// The payload's format number.
const FORMAT: u32 = 1;

/// Format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    f: u32,
    pub(super) catalog: CatalogId,
    pub(super) unit: Unit,
    pub(super) token: Token,
    /// The directory's own name: another one tells of a copied or swapped directory.
    pub(super) directory: String,
    pub(super) fingerprint: Fingerprint,
    pub(super) checkpoint: Option<StoredCheckpoint>,
    /// Whether the bar was ever reached: from then on readers may be served.
    pub(super) bar_passed: bool,
    pub(super) phase: Phase,
    /// The version of tantivy that wrote the commit.
    pub(super) tantivy: String,
    pub(super) schema_hash: String,
    pub(super) tokenizers: Vec<String>,
}

/// Which way of writing the index is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Rows replace rows, in the log's order.
    Live,
}

/// Only the number, which every format has.
#[derive(Deserialize)]
struct Numbered {
    f: u32,
}

impl Payload {
    /// Returns the payload of an index that holds nothing yet.
    pub(super) fn begin(
        unit: &Unit,
        token: &Token,
        directory: &str,
        fingerprint: &Fingerprint,
        schema: &Arc<IndexSchema>,
    ) -> Self {
        Self {
            f: FORMAT,
            catalog: token.catalog.clone(),
            unit: unit.clone(),
            token: token.clone(),
            directory: directory.to_owned(),
            fingerprint: fingerprint.clone(),
            checkpoint: None,
            bar_passed: false,
            phase: Phase::Live,
            tantivy: tantivy::version_string().to_owned(),
            schema_hash: schema.hash.clone(),
            tokenizers: schema.tokenizers.clone(),
        }
    }

    /// Returns this payload with a later owner.
    pub(super) fn owned_by(&self, token: &Token) -> Self {
        Self {
            token: token.clone(),
            tantivy: tantivy::version_string().to_owned(),
            ..self.clone()
        }
    }

    /// Returns this payload moved to a later checkpoint.
    pub(super) fn moved_to(&self, checkpoint: &Checkpoint) -> Self {
        Self {
            bar_passed: self.bar_passed || checkpoint.has_reached_bar(),
            checkpoint: Some(StoredCheckpoint(checkpoint.clone())),
            ..self.clone()
        }
    }

    /// Returns the checkpoint; `None` before the first commit.
    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref().map(|stored| &stored.0)
    }

    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialise")
    }

    /// Reads a payload of any format ever written.
    ///
    /// # Errors
    /// Why the text is none, in words.
    pub(super) fn decode(text: &str) -> Result<Self, String> {
        let unreadable = |fault: serde_json::Error| format!("its payload is not readable: {fault}");
        let Numbered { f } = serde_json::from_str(text).map_err(unreadable)?;
        if f != FORMAT {
            return Err(format!(
                "its payload has format {f}, this program reads format {FORMAT}: use the newer program"
            ));
        }
        serde_json::from_str(text).map_err(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT_1: &str = r#"{"f":1,"catalog":"cat","unit":"products/v7/c0/s0","token":"cat 12 claim","directory":"v7-c0-5f1d09aa","fingerprint":"abc","checkpoint":"{\"f\":1,\"seq\":3,\"topics\":{},\"bar\":{},\"counts\":{\"skipped\":0,\"failed\":0,\"dead\":0}}","bar_passed":true,"phase":"live","tantivy":"tantivy v0.27.0","schema_hash":"def","tokenizers":["english_v1"]}"#;

    #[test]
    fn format_1_is_written_and_read_for_ever() {
        let payload = Payload::decode(FORMAT_1).expect("format 1");
        assert_eq!(payload.encode(), FORMAT_1);
        assert_eq!(payload.checkpoint().map(|at| at.seq), Some(3));
    }

    #[test]
    fn a_newer_format_is_told_from_garbage() {
        let newer = Payload::decode(r#"{"f":2,"x":1}"#);
        assert!(newer.is_err_and(|why| why.contains("newer program")));
        assert!(Payload::decode("v1").is_err_and(|why| why.contains("not readable")));
    }
}
