//! Typed reading of YAML nodes. What is not as it should be becomes a fault, and `None` here.

use std::time::Duration;

use materializer_model::definition::Ratio;

use crate::faults::{Place, Sheet, nearest, one_of};
use crate::keys;
use crate::yaml::{Content, Node};

/// A mapping whose keys were checked against the table of keys.
pub(crate) struct Entries<'n, 'a> {
    entries: Vec<(&'n str, &'n Node<'a>)>,
    /// Where the mapping begins.
    pub(crate) at: Place,
}

impl<'n, 'a> Entries<'n, 'a> {
    /// Returns a key's value.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node<'a>> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, node)| node)
    }

    /// Iterates over keys and values in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'n str, &'n Node<'a>)> {
        self.entries.iter().copied()
    }
}

impl Sheet<'_> {
    /// Reads a mapping of free names, each used once.
    pub(crate) fn free_mapping<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        what: &str,
    ) -> Option<Entries<'n, 'a>> {
        let Content::Map(pairs) = &node.content else {
            self.wrong(node, what);
            return None;
        };
        let mut entries: Vec<(&str, &Node<'_>)> = Vec::new();
        for (key, value) in pairs {
            let Some(name) = key.text() else {
                self.wrong(key, "a name");
                continue;
            };
            if entries.iter().any(|(known, _)| *known == name) {
                self.helped(
                    key.at,
                    format!("`{name}` is given twice"),
                    "remove one of them",
                );
                continue;
            }
            entries.push((name, value));
        }
        Some(Entries {
            entries,
            at: node.at,
        })
    }

    /// Reads a mapping of the language, whose path in the table of keys is `path`.
    pub(crate) fn mapping<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        path: &str,
    ) -> Option<Entries<'n, 'a>> {
        let known = keys::names(path);
        let mut read = self.free_mapping(node, &format!("a mapping of {}", one_of(&known)))?;
        if let Content::Map(pairs) = &node.content {
            for (key, _) in pairs {
                if let Some(name) = key.text().filter(|name| !known.contains(name)) {
                    self.unknown_key(key.at, name, &known);
                }
            }
        }
        read.entries.retain(|(name, _)| known.contains(name));
        for name in keys::required_names(path) {
            if read.get(name).is_none() {
                let whole = match path {
                    "" => name.to_owned(),
                    _ => format!("{path}.{name}"),
                };
                let message = format!("`{}` is missing", whole.replace(".*", ""));
                self.push(self.fault(read.at, message));
            }
        }
        Some(read)
    }

    /// Adds the fault of a key that is not known here: a slip of the pen, or at home elsewhere.
    fn unknown_key(&mut self, at: Place, name: &str, known: &[&str]) {
        match keys::home(name) {
            Some(home) if nearest(name, known).is_none() => {
                let message = format!("unknown key `{name}`");
                self.helped(at, message, format!("it belongs into `{home}`"));
            }
            Some(_) | None => self.unknown(at, "key", name, known),
        }
    }

    /// Adds the fault that a node is not `what`.
    pub(crate) fn wrong(&mut self, node: &Node<'_>, what: &str) {
        match &node.content {
            Content::Faulty => {}
            Content::Plain(text) => {
                self.expected(node.at, format!("`{text}` does not fit here"), what);
            }
            Content::Quoted(text) => {
                let message = format!("the text `{text}` does not fit here");
                self.expected(node.at, message, what);
            }
            Content::Null | Content::List(_) | Content::Map(_) => {
                self.expected(node.at, format!("{} does not fit here", node.kind()), what);
            }
        }
    }

    /// Reads a scalar's text.
    pub(crate) fn text<'n>(&mut self, node: &'n Node<'_>, what: &str) -> Option<&'n str> {
        let text = node.text();
        if text.is_none() {
            self.wrong(node, what);
        }
        text
    }

    /// Reads a list.
    pub(crate) fn list<'n, 'a>(&mut self, node: &'n Node<'a>, what: &str) -> &'n [Node<'a>] {
        match &node.content {
            Content::List(items) => items,
            Content::Null
            | Content::Plain(_)
            | Content::Quoted(_)
            | Content::Map(_)
            | Content::Faulty => {
                self.wrong(node, what);
                &[]
            }
        }
    }

    /// Reads one of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        node: &Node<'_>,
        what: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = self.text(node, &one_of(&known))?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.unknown(node.at, what, text, &known);
        }
        found.map(|(_, value)| *value)
    }

    /// Reads `true` or `false`.
    pub(crate) fn flag(&mut self, node: &Node<'_>) -> Option<bool> {
        match &node.content {
            Content::Plain(text) if text == "true" => Some(true),
            Content::Plain(text) if text == "false" => Some(false),
            Content::Null
            | Content::Plain(_)
            | Content::Quoted(_)
            | Content::List(_)
            | Content::Map(_)
            | Content::Faulty => {
                self.wrong(node, "`true` or `false`");
                None
            }
        }
    }

    /// Reads a whole number within bounds.
    pub(crate) fn number<T>(&mut self, node: &Node<'_>, min: T, max: T) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let what = format!("a whole number from {min} to {max}");
        let Content::Plain(text) = &node.content else {
            self.wrong(node, &what);
            return None;
        };
        let number = text
            .parse()
            .ok()
            .filter(|number| *number >= min && *number <= max);
        if number.is_none() {
            self.wrong(node, &what);
        }
        number
    }

    /// Reads a number of seconds.
    pub(crate) fn seconds(&mut self, node: &Node<'_>) -> Option<f64> {
        let seconds = match &node.content {
            Content::Plain(text) => text.parse().ok(),
            Content::Null
            | Content::Quoted(_)
            | Content::List(_)
            | Content::Map(_)
            | Content::Faulty => None,
        };
        let seconds = seconds.filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
        if seconds.is_none() {
            self.wrong(node, "a number of seconds, without a unit");
        }
        seconds
    }

    /// Reads a duration.
    pub(crate) fn duration(&mut self, node: &Node<'_>) -> Option<Duration> {
        const WHAT: &str = "a duration: `500ms`, `10s`, `2m`, `24h` or `30d`";
        let duration = duration(self.text(node, WHAT)?);
        if duration.is_none() {
            self.wrong(node, WHAT);
        }
        duration
    }

    /// Reads a ratio's range.
    pub(crate) fn ratio(&mut self, node: &Node<'_>) -> Option<Ratio> {
        const WHAT: &str = "a range from low to high, as `0.9..1.1`";
        let text = self.text(node, WHAT)?;
        let bound = |text: &str| {
            let bound: f64 = text.trim().parse().ok()?;
            (bound.is_finite() && bound >= 0.0).then_some(bound)
        };
        let ratio = text
            .split_once("..")
            .and_then(|(min, max)| Some((bound(min)?, bound(max)?)))
            .filter(|(min, max)| min <= max)
            .map(Ratio::from);
        if ratio.is_none() {
            self.wrong(node, WHAT);
        }
        ratio
    }
}

/// Returns the duration of a text as `500ms`; none for more than a thousand years.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let longest = 1_000 * 365 * 86_400_000;
    let millis = count.parse::<u64>().ok()?.checked_mul(millis)?;
    (millis <= longest).then(|| Duration::from_millis(millis))
}

/// Returns a duration as [`duration`] reads it, in the largest unit that divides it.
pub(crate) fn duration_text(span: Duration) -> String {
    let millis = span.as_millis();
    for (size, unit) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        let millis = Duration::from_millis;
        for (text, expected) in [
            ("500ms", Some(millis(500))),
            ("10s", Some(millis(10_000))),
            ("2m", Some(millis(120_000))),
            ("24h", Some(millis(86_400_000))),
            ("30d", Some(millis(2_592_000_000))),
            ("0s", Some(millis(0))),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5h", None),
            ("2 m", None),
            ("2M", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_duration_reads_back_as_it_is_shown() {
        for text in ["1ms", "1500ms", "59s", "1h", "36h", "30d"] {
            assert_eq!(duration(text).map(duration_text).as_deref(), Some(text));
        }
    }
}
