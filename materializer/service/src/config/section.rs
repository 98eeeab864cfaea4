//! Reads one group of settings: takes keys by name, and in the end knows those that nobody took.
//!
//! A fault never stops the reading: all of them are told together. A key that is at fault reads as its
//! default, which is never used, since the whole configuration is refused then.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::tree::{Node, Origin, Value};
use super::{Fault, Secret};

/// One group of settings while it is read.
pub(super) struct Section<'a> {
    path: String,
    map: Option<&'a BTreeMap<String, Node>>,
    taken: BTreeSet<String>,
    report: &'a Report<'a>,
}

/// The faults found so far, and the name of the file they are in.
pub(super) struct Report<'a> {
    pub(super) file: &'a str,
    pub(super) faults: RefCell<Vec<Fault>>,
}

impl Report<'_> {
    pub(super) fn add(&self, key: &str, origin: Option<&Origin>, why: impl Into<String>) {
        let place = match origin {
            Some(Origin::Line(line)) => format!("{}:{line}", self.file),
            Some(Origin::Variable(name)) => name.clone(),
            None => self.file.to_owned(),
        };
        self.faults.borrow_mut().push(Fault {
            key: key.to_owned(),
            place,
            why: why.into(),
        });
    }
}

impl<'a> Section<'a> {
    /// Begins to read a group; `None` is one that was not written.
    pub(super) fn new(path: &str, node: Option<&'a Node>, report: &'a Report<'a>) -> Self {
        let map = match node.map(|node| (&node.value, &node.origin)) {
            None => None,
            Some((Value::Map(map), _)) => Some(map),
            // An area left empty, `kafka:` with every key commented out.
            Some((Value::Text(text), _)) if text.is_empty() => None,
            Some((Value::Text(_) | Value::List(_), origin)) => {
                report.add(path, Some(origin), "expected keys below it");
                None
            }
        };
        Self {
            path: path.to_owned(),
            map,
            taken: BTreeSet::new(),
            report,
        }
    }

    /// Returns a key's full name.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Takes a key with everything below it.
    pub(super) fn node(&mut self, key: &str) -> Option<&'a Node> {
        self.taken.insert(key.to_owned());
        self.map?.get(key)
    }

    /// Takes every key that was written.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        if let Some(map) = self.map {
            self.taken.extend(map.keys().cloned());
        }
        self.map.into_iter().flatten()
    }

    /// Tells a fault of a key.
    pub(super) fn fault(&self, key: &str, why: impl Into<String>) {
        let origin = self
            .map
            .and_then(|map| map.get(key))
            .map(|node| &node.origin);
        self.report.add(&self.name(key), origin, why);
    }

    /// Takes a text; an empty one is none.
    pub(super) fn text(&mut self, key: &str) -> Option<&'a str> {
        match &self.node(key)?.value {
            Value::Text(text) if text.is_empty() => None,
            Value::Text(text) => Some(text),
            Value::List(_) | Value::Map(_) => {
                self.fault(key, "expected one value");
                None
            }
        }
    }

    /// Takes a list, or one text with commas.
    pub(super) fn list(&mut self, key: &str) -> Vec<&'a str> {
        let words = |text: &'a str| {
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
        };
        match self.node(key).map(|node| &node.value) {
            None => Vec::new(),
            Some(Value::Text(text)) => words(text).collect(),
            Some(Value::List(items)) => items
                .iter()
                .filter_map(|item| match &item.value {
                    Value::Text(text) => Some(words(text)),
                    Value::List(_) | Value::Map(_) => {
                        self.report.add(
                            &self.name(key),
                            Some(&item.origin),
                            "expected a list of names",
                        );
                        None
                    }
                })
                .flatten()
                .collect(),
            Some(Value::Map(_)) => {
                self.fault(key, "expected a list of names");
                Vec::new()
            }
        }
    }

    /// Takes a value by its reader, which says what it expected.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        reader: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match reader(self.text(key)?) {
            Ok(value) => Some(value),
            Err(why) => {
                self.fault(key, why);
                None
            }
        }
    }

    /// Takes a value that knows how to be read from text.
    pub(super) fn parse<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        self.read(key, |text| {
            text.parse()
                .map_err(|_| format!("`{text}` is not {expected}"))
        })
    }

    /// Takes a secret: from `KEY`, or from the file that `KEY_file` names, without its last line end.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let from_file = format!("{key}_file");
        let value = self.text(key).map(|text| Secret::new(text.to_owned()));
        let path: Option<PathBuf> = self.text(&from_file).map(PathBuf::from);
        match (value, path) {
            (Some(_), Some(_)) => {
                self.fault(
                    &from_file,
                    format!("`{}` is set as well: one of the two", self.name(key)),
                );
                None
            }
            (Some(value), None) => Some(value),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(error) => {
                    self.fault(
                        &from_file,
                        format!("cannot read `{}`: {error}", path.display()),
                    );
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// Ends the group: every key that nobody took is a fault, with the nearest one that exists.
    pub(super) fn finish(self) {
        let Some(map) = self.map else { return };
        for (key, node) in map {
            if self.taken.contains(key) {
                continue;
            }
            let near = self.taken.iter().min_by_key(|known| distance(known, key));
            let hint = match near {
                Some(known) if distance(known, key) <= 3 => {
                    format!("not a setting, did you mean `{}`?", self.name(known))
                }
                Some(_) | None => format!(
                    "not a setting, there are {}",
                    self.taken
                        .iter()
                        .map(|known| format!("`{known}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            self.report.add(&self.name(key), Some(&node.origin), hint);
        }
    }
}

/// Reads a span of time: `500ms`, `30s`, `2m`, `24h`, `7d`.
/// # Errors
/// What is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("`{text}` is not a duration: write `500ms`, `30s`, `2m`, `24h` or `7d`");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
    let (digits, unit) = text.split_at(split);
    let count: u64 = digits.parse().map_err(|_| fault())?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fault()),
    };
    count
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(fault)
}

/// Reads a number of bytes: `65536`, `512KiB`, `64MiB`, `4GiB`.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let fault = || format!("`{text}` is not a size: write `512KiB`, `64MiB` or `4GiB`");
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let count: usize = digits.parse().map_err(|_| fault())?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(fault()),
    };
    count.checked_mul(1 << shift).ok_or_else(fault)
}

/// Reads `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is not `true` or `false`")),
    }
}

/// Returns how many letters must change to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_text_with_a_unit() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("7d", Some(604_800_000)),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("99999999999999999d", None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("64MiB", Some(64 << 20)),
            ("10", Some(10)),
            ("1MB", None),
            ("", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
