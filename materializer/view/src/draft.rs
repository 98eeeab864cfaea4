//! The first definition of a topic: what `init TOPIC` writes, from sampled records.
//!
//! A draft is meant to be edited. It parses and compiles as it is; what it guessed stands in comments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use materializer_model::Record;
use serde_json::Value;

/// More fields than this are listed in a comment at best.
const FIELDS_MAX: usize = 30;
/// A name that tells kinds of records apart, and the most kinds that are plausible.
const DISCRIMINATORS: &[&str] = &["kind", "type", "event_type", "eventType", "event", "op"];
const KINDS_MAX: usize = 20;

/// What was seen of one field.
#[derive(Debug, Default)]
struct Seen {
    records: usize,
    texts: BTreeMap<String, usize>,
    whole: bool,
    fractions: bool,
    bools: bool,
    nested: bool,
    long: bool,
}

/// What was seen of the samples.
#[derive(Debug, Default)]
struct Sample {
    objects: usize,
    others: usize,
    null_keys: usize,
    binary_keys: usize,
    tombstones: usize,
    /// By path; objects are looked into once.
    fields: BTreeMap<String, Seen>,
}

/// Writes the draft of a definition for a topic, from some of its records: of the most frequent kind,
/// where a field tells kinds apart.
#[must_use]
pub fn draft(topic: &str, samples: &[Record<'_>]) -> String {
    let seen = look(samples, None);
    if seen.objects == 0 {
        return raw_draft(topic, samples.len(), &seen);
    }
    let Some((name, kinds)) = seen.discriminator() else {
        return json_draft(topic, samples.len(), &seen, None, &seen);
    };
    let (kind, _) = kinds.first().expect("a discriminator has a kind");
    // The fields of records that `only` excludes would be missing in every document.
    let mut chosen = look(samples, Some((name, kind)));
    chosen.fields.remove(name);
    json_draft(topic, samples.len(), &seen, Some((name, &kinds)), &chosen)
}

/// Looks at the samples, or at those alone whose value has this text in this field.
fn look(samples: &[Record<'_>], kind: Option<(&str, &str)>) -> Sample {
    let mut seen = Sample::default();
    for record in samples {
        match record.key {
            None => seen.null_keys += 1,
            Some(key) if std::str::from_utf8(key).is_err() => seen.binary_keys += 1,
            Some(_) => {}
        }
        let Some(value) = record.value else {
            seen.tombstones += 1;
            continue;
        };
        let Ok(Value::Object(members)) = serde_json::from_slice(value) else {
            seen.others += 1;
            continue;
        };
        if kind.is_some_and(|(name, kind)| members.get(name) != Some(&Value::from(kind))) {
            continue;
        }
        seen.objects += 1;
        for (name, value) in members.into_iter().filter(|(name, _)| is_identifier(name)) {
            let Value::Object(inner) = value else {
                seen.take(name, &value);
                continue;
            };
            for (below, value) in inner.iter().filter(|(below, _)| is_identifier(below)) {
                seen.take(format!("{name}.{below}"), value);
            }
        }
    }
    seen
}

impl Sample {
    /// Returns the first fields by name and path; a name is a path with `_` for its dots.
    fn named(&self) -> Vec<(String, &str, &Seen)> {
        let mut named: Vec<(String, &str, &Seen)> = Vec::new();
        for (path, field) in self.fields.iter().take(FIELDS_MAX) {
            let mut name = path.replace('.', "_");
            while named.iter().any(|(taken, ..)| *taken == name) {
                name.push('_');
            }
            named.push((name, path, field));
        }
        named
    }

    fn take(&mut self, path: String, value: &Value) {
        let seen = self.fields.entry(path).or_default();
        seen.records += 1;
        match value {
            Value::Null => {}
            Value::Bool(_) => seen.bools = true,
            Value::Number(number) if number.is_f64() => seen.fractions = true,
            Value::Number(_) => seen.whole = true,
            Value::String(text) => {
                seen.long |= text.contains(' ');
                if seen.texts.len() <= KINDS_MAX || seen.texts.contains_key(text) {
                    *seen.texts.entry(text.clone()).or_default() += 1;
                }
            }
            Value::Array(_) | Value::Object(_) => seen.nested = true,
        }
    }

    /// Returns the field that tells kinds of records apart, and the kinds, the most frequent first.
    fn discriminator(&self) -> Option<(&str, Vec<(&str, usize)>)> {
        let (name, seen) = DISCRIMINATORS
            .iter()
            .find_map(|name| self.fields.get_key_value(*name))?;
        let plausible = (1..=KINDS_MAX).contains(&seen.texts.len()) && seen.kind() == "string";
        let mut kinds: Vec<(&str, usize)> = seen
            .texts
            .iter()
            .map(|(kind, n)| (kind.as_str(), *n))
            .collect();
        kinds.sort_by_key(|(_, records)| std::cmp::Reverse(*records));
        plausible.then_some((name, kinds))
    }
}

impl Seen {
    /// Returns the type that a search index would give the field.
    fn kind(&self) -> &'static str {
        match (
            self.texts.is_empty(),
            self.bools,
            self.fractions,
            self.whole,
        ) {
            _ if self.nested => "json",
            (true, true, false, false) => "bool",
            (true, false, false, true) => "i64",
            (true, false, true, _) => "f64",
            (false, false, false, false) if self.long => "text",
            _ => "string",
        }
    }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &["in", "true", "false", "null"];
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name)
}

/// Adds a line to a text.
macro_rules! line {
    ($out:expr, $($text:tt)*) => {
        writeln!($out, $($text)*).expect("a text is written to memory")
    };
}

/// Makes a view's name of a topic's: `shop.products` → `products`.
#[must_use]
pub fn view_name(topic: &str) -> String {
    let last = topic.rsplit('.').next().unwrap_or(topic);
    let plain: String = last
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    match plain.trim_matches('-') {
        "" => "view".to_owned(),
        name => name.to_owned(),
    }
}

/// Returns the name of one of what a view holds: `product` of `products`. What it cannot tell stays.
fn singular(name: &str) -> String {
    match name.strip_suffix('s') {
        Some(one) if !one.is_empty() && !one.ends_with(['s', 'u', 'i', 'e', '-']) => one.to_owned(),
        Some(_) | None => name.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn head(out: &mut String, topic: &str, records: usize) {
    line!(
        out,
        "# A draft from {records} records of `{topic}`; docs/views.md explains every key."
    );
    line!(
        out,
        "# See what it makes of real records: materializer try FILE --take 5"
    );
    line!(out, "view: {}", view_name(topic));
    line!(out, "from: {{topics: [{}]}}", quoted(topic));
}

fn key(out: &mut String, seen: &Sample) {
    for (records, what) in [
        (
            seen.null_keys,
            "have a null key: they are poison with this key",
        ),
        (
            seen.binary_keys,
            "have a key that is not text: rows are keyed by its bytes",
        ),
        (
            seen.tombstones,
            "have a null value: they delete the row of their key",
        ),
    ] {
        if records > 0 {
            line!(out, "# {records} sampled records {what}.");
        }
    }
    line!(out, "key: record.key");
}

/// Writes the draft of a view of JSON objects; `chosen` is what was seen of those of its kind.
fn json_draft(
    topic: &str,
    records: usize,
    seen: &Sample,
    kinds: Option<(&str, &[(&str, usize)])>,
    chosen: &Sample,
) -> String {
    let mut out = String::new();
    head(&mut out, topic, records);
    line!(out, "format: json");
    if seen.others > 0 {
        line!(out, "# {} sampled values are no JSON object.", seen.others);
    }
    if let Some((name, kinds)) = kinds {
        only(&mut out, name, kinds);
    }
    line!(
        out,
        "# where: event.hidden != true    # when false, the document leaves the view"
    );
    key(&mut out, seen);
    line!(out, "document:");
    for (name, path, field) in chosen.named() {
        let kind = field.kind();
        let share = if field.records < chosen.objects {
            ", not in every record"
        } else {
            ""
        };
        line!(out, "  {name}: event.{path}    # {kind}{share}");
    }
    if chosen.fields.is_empty() {
        line!(out, "  value: event");
    }
    if chosen.fields.len() > FIELDS_MAX {
        line!(
            out,
            "# … and {} more fields",
            chosen.fields.len() - FIELDS_MAX
        );
    }
    targets(&mut out, topic, chosen);
    out
}

/// Proposes the most frequent kind.
fn only(out: &mut String, name: &str, kinds: &[(&str, usize)]) {
    let literal = |kind: &str| Value::from(kind).to_string();
    let shown: Vec<String> = kinds
        .iter()
        .map(|(kind, records)| format!("{} ({records})", literal(kind)))
        .collect();
    line!(
        out,
        "# `{name}` tells kinds of records apart: {}",
        shown.join(", ")
    );
    if let Some((kind, _)) = kinds.first() {
        let condition = format!("event.{name} == {}", literal(kind));
        line!(out, "only: {}", quoted(&condition));
    }
}

fn targets(out: &mut String, topic: &str, seen: &Sample) {
    let one = singular(&view_name(topic));
    line!(
        out,
        "to: {{redis: {{connection: cache, key: '{one}:{{key}}', as: json}}}}"
    );
    line!(
        out,
        "# For a search index give each field a type, and another target:"
    );
    for (name, path, field) in seen.named().into_iter().take(3) {
        let kind = field.kind();
        let language = if kind == "text" {
            ", language: english"
        } else {
            ""
        };
        line!(
            out,
            "#   {name}: {{value: event.{path}, type: {kind}{language}}}"
        );
    }
    line!(out, "# to: {{tantivy: {{copies: 1}}}}");
}

fn raw_draft(topic: &str, records: usize, seen: &Sample) -> String {
    let mut out = String::new();
    head(&mut out, topic, records);
    line!(
        out,
        "# No sampled value is a JSON object: rows are the values as they are."
    );
    line!(out, "format: raw");
    key(&mut out, seen);
    let one = singular(&view_name(topic));
    line!(
        out,
        "to: {{redis: {{connection: cache, key: '{one}:{{key}}', as: bytes}}}}"
    );
    out
}

#[cfg(test)]
mod tests {
    use materializer_model::clock::Timestamp;
    use materializer_model::record::Headers;
    use materializer_model::{Offset, Partition, Topic};

    use super::*;
    use crate::tests::{row, view};

    /// A record's key and value.
    type KeyValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

    fn drafted(topic: &str, records: &[KeyValue<'_>]) -> String {
        let name = Topic::new(topic);
        let samples: Vec<Record<'_>> = records
            .iter()
            .map(|(key, value)| Record {
                topic: &name,
                partition: Partition(0),
                offset: Offset(0),
                epoch: None,
                timestamp: Some(Timestamp(0)),
                key: *key,
                value: *value,
                headers: Headers::default(),
            })
            .collect();
        draft(topic, &samples)
    }

    #[test]
    fn a_draft_names_the_fields_and_the_frequent_kind() {
        let shoe =
            br#"{"kind":"it's","title":"Red shoe","price":5,"brand":{"name":"Walk"},"odd name":1}"#;
        let text = drafted(
            "Shop.Products_EU",
            &[
                (Some(b"1"), Some(shoe)),
                (None, Some(shoe)),
                (Some(b"\xff"), Some(br#"{"kind":"order","price":2.5}"#)),
                (Some(b"1"), None),
            ],
        );
        for expected in [
            "view: products-eu\n",
            "from: {topics: ['Shop.Products_EU']}\n",
            "only: 'event.kind == \"it''s\"'\n",
            "# A draft from 4 records of",
            "  brand_name: event.brand.name    # string\n",
            "  price: event.price    # i64\n",
            "1 sampled records have a null key",
            "1 sampled records have a key that is not text",
            "to: {redis: {connection: cache, key: 'products-eu:{key}', as: json}}\n",
            "# to: {tantivy: {copies: 1}}\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let row = row(&view(&text), std::str::from_utf8(shoe).unwrap());
        assert!(row.contains(r#""brand_name":"Walk""#), "{row}");
    }

    #[test]
    fn a_draft_has_the_fields_of_its_kind_alone() {
        let product = br#"{"kind":"product","title":"Red shoe"}"#;
        let stock = br#"{"kind":"stock","shelf":"A7"}"#;
        let text = drafted(
            "shop.products",
            &[
                (Some(b"1"), Some(product)),
                (Some(b"2"), Some(product)),
                (Some(b"1"), Some(stock)),
            ],
        );
        let document = text.split("document:\n").nth(1).expect("a document");
        assert!(
            document.starts_with("  title: event.title    # text\nto: "),
            "{text}"
        );
        assert!(
            text.contains(r#"# `kind` tells kinds of records apart: "product" (2), "stock" (1)"#)
        );
    }

    #[test]
    fn a_key_names_one_of_what_a_view_holds() {
        for (view, one) in [
            ("products", "product"),
            ("products-eu", "products-eu"),
            ("address", "address"),
            ("prices", "prices"),
            ("status", "status"),
            ("s", "s"),
        ] {
            assert_eq!(singular(view), one);
        }
    }

    #[test]
    fn a_draft_parses_whatever_was_sampled() {
        for (topic, records) in [
            ("t", vec![]),
            ("..-", vec![(None, Some(&b"\xff"[..]))]),
            ("a_b", vec![(Some(&b"k"[..]), Some(&b"[1]"[..]))]),
            (
                "x",
                vec![(
                    Some(&b"k"[..]),
                    Some(&br#"{"":1,"a b":2,"in":3,"_x":4}"#[..]),
                )],
            ),
            (
                "x",
                vec![(None, Some(&br#"{"type":"a\nb'\"\\","event":{"in":1}}"#[..]))],
            ),
            (
                "x",
                vec![(None, Some(&br#"{"a":{"b":{"c":1}},"a_b":[1]}"#[..]))],
            ),
        ] {
            let text = drafted(topic, &records);
            view(&text);
        }
    }
}
