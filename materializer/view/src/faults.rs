//! Faults of a definition's text: where, what was expected, and the line itself.
//!
//! All faults of a text are collected before any is told. A fault carries its own source line, so
//! that it can be shown without the file, as text or as JSON.

use std::fmt;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// A stretch of one line of the text, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) line: usize,
    /// From 0.
    pub(crate) column: usize,
    /// At least 1 when shown.
    pub(crate) length: usize,
}

/// One fault of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file's name as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters are at fault.
    pub length: usize,
    /// The line itself.
    pub source: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What was expected there.
    pub expected: Option<String>,
    /// What to do: the nearest valid name, or another way.
    pub help: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let byte = |characters: usize| {
            self.source
                .char_indices()
                .nth(characters)
                .map_or(self.source.len(), |(at, _)| at)
        };
        let from = byte(self.column - 1);
        let to = byte(self.column - 1 + self.length).max(from);
        let mut annotation = AnnotationKind::Primary.span(from..to);
        if let Some(expected) = &self.expected {
            annotation = annotation.label(format!("expected {expected}"));
        }
        let snippet = Snippet::source(self.source.as_str())
            .line_start(self.line)
            .path(self.file.as_str())
            .annotation(annotation);
        let mut group = Level::ERROR
            .primary_title(self.message.as_str())
            .element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// All faults of a text, in its order; at least one. Shown as text, or serialised as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Returns the faults in the order of the text.
    #[must_use]
    pub fn all(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// A text and the faults found in it so far.
pub(crate) struct Sheet<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    faults: Vec<Fault>,
}

impl<'a> Sheet<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            lines: text.split('\n').collect(),
            faults: Vec::new(),
        }
    }

    fn line(&self, number: usize) -> &'a str {
        let line = self.lines.get(number.wrapping_sub(1)).copied();
        line.unwrap_or_default().trim_end_matches('\r')
    }

    /// Returns what stands at a place.
    pub(crate) fn text_at(&self, at: Place) -> String {
        let line = self.line(at.line).chars();
        line.skip(at.column).take(at.length).collect()
    }

    /// Makes a fault that is not collected.
    pub(crate) fn fault(&self, at: Place, message: impl Into<String>) -> Fault {
        Fault {
            file: self.file.to_owned(),
            line: at.line.max(1),
            column: at.column + 1,
            length: at.length.max(1),
            source: self.line(at.line).to_owned(),
            message: message.into(),
            expected: None,
            help: None,
        }
    }

    /// Adds a fault.
    pub(crate) fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Adds a fault and what was expected in its place.
    pub(crate) fn expected(
        &mut self,
        at: Place,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let mut fault = self.fault(at, message);
        fault.expected = Some(expected.into());
        self.faults.push(fault);
    }

    /// Adds a fault and what to do about it.
    pub(crate) fn helped(
        &mut self,
        at: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut fault = self.fault(at, message);
        fault.help = Some(help.into());
        self.faults.push(fault);
    }

    /// Adds a fault about a word that is none of the known ones, with the nearest of them.
    pub(crate) fn unknown(&mut self, at: Place, what: &str, word: &str, known: &[&str]) {
        let mut fault = self.fault(at, format!("unknown {what} `{word}`"));
        fault.expected = Some(one_of(known));
        fault.help = nearest(word, known).map(|near| format!("did you mean `{near}`?"));
        self.faults.push(fault);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// Returns `value`, or the faults if there are any.
    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, Faults> {
        if self.faults.is_empty() {
            return Ok(value);
        }
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        Err(Faults(self.faults))
    }
}

/// Returns "`a`, `b` or `c`".
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// Returns the known word that is a slip of the pen away from `word`.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let slips = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Counts the insertions, deletions and replacements from one word to the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, have) in from.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, want) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(have != *want);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_a_slip_away_or_none() {
        for (word, expected) in [
            ("onyl", None),
            ("onli", Some("only")),
            ("documnet", Some("document")),
            ("Gates", Some("gates")),
            ("nonsense", None),
        ] {
            let known = ["only", "document", "gates", "to"];
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }

    #[test]
    fn a_fault_shows_its_line_and_points_at_characters_not_bytes() {
        let mut sheet = Sheet::new("v.yaml", "first\nklé: ünknown\n");
        let at = Place {
            line: 2,
            column: 5,
            length: 7,
        };
        assert_eq!(sheet.text_at(at), "ünknown");
        sheet.unknown(at, "word", "ünknown", &["unknown"]);
        let shown = sheet.finish(()).unwrap_err().to_string();
        let expected = "error: unknown word `ünknown`\n --> v.yaml:2:6\n  |\n2 | klé: ünknown\n  |      ^^^^^^^ expected `unknown`\n  |\n  = help: did you mean `unknown`?";
        assert_eq!(shown, expected);
    }
}
