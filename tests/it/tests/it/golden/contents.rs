//! What a version holds when it has been fed: compared as values, and kept as text for people to read.

use std::collections::BTreeMap;
use std::fmt;

use materializer_model::ports::{DeadLetter, StoredRow};
use materializer_model::progress::Health;
use materializer_model::{Counts, Fingerprint, Key, Offset, Partition, Topic, VersionId};

/// All that must be the same however the log was read. What may differ is left out: how many commits
/// there were, and when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contents {
    pub(crate) version: VersionId,
    pub(crate) fingerprint: Fingerprint,
    /// What stopped it before the log's end; `None` if nothing did.
    pub(crate) stopped: Option<Health>,
    /// The next offset to read.
    pub(crate) next: BTreeMap<(Topic, Partition), Offset>,
    pub(crate) counts: Counts,
    pub(crate) rows: BTreeMap<Key, StoredRow>,
    /// Each dead letter once, in order: they are sent at least once.
    pub(crate) letters: Vec<DeadLetter>,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}  fingerprint {}",
            self.version,
            self.fingerprint.short()
        )?;
        match &self.stopped {
            None => writeln!(f, "fed to the end of the log")?,
            Some(Health::Failed { why, at, hint }) => {
                let at = at.as_ref().map(ToString::to_string).unwrap_or_default();
                writeln!(f, "failed at {at}: {why}")?;
                writeln!(f, "  hint: {}", hint.as_deref().unwrap_or_default())?;
            }
            Some(other) => writeln!(f, "stopped: {other:?}")?,
        }
        for ((topic, partition), next) in &self.next {
            writeln!(f, "  {topic}/{partition} next {next}")?;
        }
        let Counts {
            skipped,
            failed,
            dead,
        } = self.counts;
        writeln!(f, "  skipped {skipped}, dead {dead}, failed {failed}")?;
        writeln!(f, "rows: {}", self.rows.len())?;
        for (key, stored) in &self.rows {
            write!(f, "  \"{key}\"  {}", Bytes(&stored.row.0))?;
            match stored.expires_at {
                None => writeln!(f)?,
                Some(at) => writeln!(f, "  until {at}")?,
            }
        }
        for letter in &self.letters {
            let DeadLetter {
                topic,
                origin,
                poison,
                ..
            } = letter;
            writeln!(
                f,
                "dead letter to {topic}: {origin}, {}: `{}`: {poison}",
                poison.kind, poison.place
            )?;
        }
        Ok(())
    }
}

/// Bytes as text where they are text, else with escapes.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => write!(f, "bytes {}", self.0.escape_ascii()),
        }
    }
}
