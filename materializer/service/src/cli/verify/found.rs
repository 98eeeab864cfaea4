//! What a comparison found, for people and for programs.

use std::fmt;

use materializer_model::{Row, Unit, VersionId};
use materializer_replay::verify::{Difference, Report};
use serde::Serialize;

use crate::output::Count;

/// The most characters of a row in an example.
const ROW_MAX: usize = 200;

/// What was found in one comparison.
#[derive(Serialize)]
pub(super) struct Found {
    compared: String,
    /// What people read before the row that should be there, and before the one that is.
    #[serde(skip)]
    labels: [String; 2],
    pub(super) right: bool,
    keys: u64,
    rows: u64,
    stored: Option<u64>,
    missing: u64,
    unexpected: u64,
    different: u64,
    passes: u64,
    examples: Vec<Example>,
}

/// A key whose row is not what it should be.
#[derive(Serialize)]
struct Example {
    key: String,
    should: Option<String>,
    is: Option<String>,
}

impl Found {
    /// What was found where a unit was held against its log.
    pub(super) fn of_unit(unit: &Unit, report: Report) -> Self {
        let labels = ["should".to_owned(), "is".to_owned()];
        Self::new(unit.to_string(), labels, report)
    }

    /// What was found where a version was held against another one.
    pub(super) fn of_two(is: &VersionId, should: &VersionId, report: Report) -> Self {
        let labels = [should.number.to_string(), is.number.to_string()];
        Self::new(format!("{is} against {}", should.number), labels, report)
    }

    fn new(compared: String, labels: [String; 2], report: Report) -> Self {
        Self {
            compared,
            labels,
            right: report.is_right(),
            keys: report.keys,
            rows: report.rows,
            stored: report.stored,
            missing: report.missing,
            unexpected: report.unexpected,
            different: report.different,
            passes: report.passes,
            examples: report.examples.iter().map(Example::new).collect(),
        }
    }
}

impl Example {
    fn new(difference: &Difference) -> Self {
        let row = |row: &Row| shown(&row.0);
        Self {
            key: shown(&difference.key.0),
            should: difference.should.as_ref().map(row),
            is: difference.is.as_ref().map(row),
        }
    }
}

/// Shows bytes as text where they are.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, rows) = (Count(self.keys), Count(self.rows));
        let compared = &self.compared;
        if self.right {
            return write!(f, "{compared}  right: {keys} keys compared, {rows} rows");
        }
        write!(
            f,
            "{compared}  wrong: {} missing, {} unexpected, {} different, of {keys} keys",
            Count(self.missing),
            Count(self.unexpected),
            Count(self.different),
        )?;
        let row = |row: &Option<String>| match row {
            None => "no row".to_owned(),
            Some(text) => text.chars().take(ROW_MAX).collect(),
        };
        let [should, is] = &self.labels;
        for example in &self.examples {
            write!(f, "\n  `{}`", example.key)?;
            write!(f, "\n    {should:<6}  {}", row(&example.should))?;
            write!(f, "\n    {is:<6}  {}", row(&example.is))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use materializer_model::Key;

    use super::*;

    #[test]
    fn what_differs_is_shown_with_what_should_be_and_what_is() {
        let difference = |key: &[u8], should: Option<&str>, is: Option<&str>| Difference {
            key: Key::new(key),
            should: should.map(|row| Row::new(row.as_bytes())),
            is: is.map(|row| Row::new(row.as_bytes())),
        };
        let report = Report {
            keys: 41_010,
            missing: 1,
            different: 1,
            examples: vec![
                difference(b"42", Some(r#"{"price":1}"#), None),
                difference(b"\xff", Some("1"), Some("2")),
            ],
            ..Report::default()
        };
        let expected = r#"products/v2/c0/s0  wrong: 1 missing, 0 unexpected, 1 different, of 41 010 keys
  `42`
    should  {"price":1}
    is      no row
  `\xff`
    should  1
    is      2"#;
        let unit = Unit {
            version: "products@v2".parse().unwrap(),
            copy: 0,
            shard: 0,
        };
        let found = Found::of_unit(&unit, report);
        assert_eq!(found.to_string(), expected);
    }

    #[test]
    fn rows_of_two_versions_are_told_apart_by_their_numbers() {
        let report = Report {
            keys: 1,
            different: 1,
            examples: vec![Difference {
                key: Key::new(b"42"),
                should: Some(Row::new(b"1")),
                is: Some(Row::new(b"2")),
            }],
            ..Report::default()
        };
        let id = |text: &str| text.parse::<VersionId>().unwrap();
        let found = Found::of_two(&id("products@v2"), &id("products@v1"), report);
        let expected =
            "products@v2 against v1  wrong: 0 missing, 0 unexpected, 1 different, of 1 keys
  `42`
    v1      1
    v2      2";
        assert_eq!(found.to_string(), expected);
    }
}
