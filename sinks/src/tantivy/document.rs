//! From a row to tantivy's document, and a key to its term.
//!
//! A wrong type would kill tantivy's worker thread after `add_document` has returned `Ok`, so every
//! value is made of its field's type here, while the record is still known.

use std::fmt;

use materializer_model::definition::FieldType;
use materializer_model::{Key, Offset, Origin, Partition, Poison, PoisonKind, Row};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tantivy::schema::{BytesOptions, OwnedValue, Value as _};
use tantivy::{DateTime, TantivyDocument, Term};

use super::schema::{DocumentField, IndexSchema, expected, shown};

/// A term of more bytes is left out by tantivy without a word.
const TERM_BYTES_MAX: usize = 65_530;

/// The longest key that is its own term.
const KEY_TERM_BYTES_MAX: usize = 512;

/// The largest row: several times what a broker takes by default.
const ROW_BYTES_MAX: usize = 16 << 20;

/// Returns the text that finds a key: the key itself where it is UTF-8, at most 512 bytes and does
/// not begin with `\x01`; else `\x01` and its sha256 in hex.
pub(super) fn key_text(key: &Key) -> String {
    match std::str::from_utf8(&key.0) {
        Ok(text) if text.len() <= KEY_TERM_BYTES_MAX && !text.starts_with('\u{1}') => {
            text.to_owned()
        }
        Ok(_) | Err(_) => format!("\u{1}{:x}", Sha256::digest(&key.0)),
    }
}

impl IndexSchema {
    /// Returns the term that finds the row of a key.
    pub(super) fn key_term(&self, key: &Key) -> Term {
        Term::from_field_text(self.hidden.key, &key_text(key))
    }

    /// Returns the document of a row.
    ///
    /// # Errors
    /// [`Poison`] naming the field, its value, and what was expected.
    pub(super) fn document(
        &self,
        key: &Key,
        row: &Row,
        origin: &Origin,
    ) -> Result<TantivyDocument, Poison> {
        if row.0.len() > ROW_BYTES_MAX {
            let why = format!(
                "the row has {} bytes, an index takes {ROW_BYTES_MAX}",
                row.0.len()
            );
            return Err(Poison::new(PoisonKind::TooLarge, "document", why));
        }
        let values: Map<String, Value> = serde_json::from_slice(&row.0).map_err(|fault| {
            let why = format!("the row is not a JSON object: {fault}");
            Poison::new(PoisonKind::Type, "document", why)
        })?;
        let mut document = TantivyDocument::new();
        for field in &self.fields {
            add(&mut document, field, values.get(&field.name))?;
        }
        document.add_text(self.hidden.key, key_text(key));
        document.add_bytes(self.hidden.key_raw, &key.0);
        document.add_u64(self.hidden.part, self.part(origin)?);
        document.add_u64(self.hidden.offset, origin.offset.0);
        document.add_bytes(self.hidden.source, &row.0);
        Ok(document)
    }

    /// Returns `_part`: the topic's place in the definition, and the partition, 32 bits each.
    fn part(&self, origin: &Origin) -> Result<u64, Poison> {
        let topic = self.topics.iter().position(|topic| *topic == origin.topic);
        let topic = topic.and_then(|at| u32::try_from(at).ok());
        let (Some(topic), Ok(partition)) = (topic, u32::try_from(origin.partition.0)) else {
            let why = format!("the view does not read {origin}");
            return Err(Poison::new(PoisonKind::Decode, "from.topics", why));
        };
        Ok(u64::from(topic) << 32 | u64::from(partition))
    }

    /// Returns the record that a row comes from; `None` where `part` is not of this view.
    pub(super) fn origin(&self, part: u64, offset: u64) -> Option<Origin> {
        let topic = self.topics.get(usize::try_from(part >> 32).ok()?)?;
        Some(Origin {
            topic: topic.clone(),
            partition: Partition(i32::try_from(part & u64::from(u32::MAX)).ok()?),
            offset: Offset(offset),
        })
    }
}

/// Adds a field's values: those of an array one by one, or `missing` where there is none.
fn add(
    document: &mut TantivyDocument,
    field: &DocumentField,
    value: Option<&Value>,
) -> Result<(), Poison> {
    let values = match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(values)) => values.as_slice(),
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_))) => {
            std::slice::from_ref(value)
        }
    };
    let mut present = values.iter().filter(|value| !value.is_null()).peekable();
    if present.peek().is_none()
        && let Some(missing) = &field.index.missing
    {
        return add_one(document, field, missing);
    }
    for value in present {
        add_one(document, field, value)?;
    }
    Ok(())
}

fn add_one(
    document: &mut TantivyDocument,
    field: &DocumentField,
    value: &Value,
) -> Result<(), Poison> {
    let place = || format!("document.{}", field.name);
    let value = typed(field.index.kind, value).map_err(|expected| {
        let why = format!("{} is not {expected}", shown(value));
        Poison::new(PoisonKind::Type, place(), why)
    })?;
    if let Some(bytes) = term_bytes(field, &value)
        && bytes > TERM_BYTES_MAX
    {
        let why = format!("the value has {bytes} bytes, a term takes {TERM_BYTES_MAX}");
        return Err(Poison::new(PoisonKind::TooLarge, place(), why));
    }
    document.add_field_value(field.field, &value);
    Ok(())
}

/// Returns the length of the one term that a value becomes; `None` where it is cut into words.
fn term_bytes(field: &DocumentField, value: &OwnedValue) -> Option<usize> {
    let index = &field.index;
    let whole = match index.kind {
        FieldType::Text => index.sort || index.facet || index.tokenizer.as_deref() == Some("raw"),
        FieldType::String | FieldType::Bytes => true,
        FieldType::I64
        | FieldType::U64
        | FieldType::F64
        | FieldType::Bool
        | FieldType::Date
        | FieldType::Json => false,
    };
    if !whole {
        return None;
    }
    let bytes = value.as_bytes().map(<[u8]>::len);
    bytes.or_else(|| value.as_str().map(str::len))
}

/// Makes a value of a field's type.
///
/// # Errors
/// What was expected, where the value is something else.
pub(super) fn typed(kind: FieldType, value: &Value) -> Result<OwnedValue, &'static str> {
    let typed = match (kind, value) {
        (FieldType::Text | FieldType::String, Value::String(text)) => {
            Some(OwnedValue::Str(text.clone()))
        }
        (FieldType::I64, Value::Number(number)) => number
            .as_i64()
            .or_else(|| whole(number.as_f64()?))
            .map(OwnedValue::I64),
        (FieldType::U64, Value::Number(number)) => number
            .as_u64()
            .or_else(|| u64::try_from(whole(number.as_f64()?)?).ok())
            .map(OwnedValue::U64),
        (FieldType::F64, Value::Number(number)) => number.as_f64().map(OwnedValue::F64),
        (FieldType::Bool, Value::Bool(truth)) => Some(OwnedValue::Bool(*truth)),
        (FieldType::Date, _) => date(value).map(OwnedValue::Date),
        (FieldType::Bytes, Value::String(_)) => {
            let bytes = tantivy::schema::FieldType::Bytes(BytesOptions::default());
            bytes.value_from_json(value.clone()).ok()
        }
        (FieldType::Json, Value::Object(_)) => Some(OwnedValue::from(value.clone())),
        _ => None,
    };
    typed.ok_or(expected(kind))
}

/// Returns a float that is a whole number as one: CEL's numbers are all floats.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() != 0.0 || number.abs() > EXACT {
        return None;
    }
    #[allow(clippy::as_conversions, reason = "exact: whole and below 2^53")]
    Some(number as i64)
}

fn date(value: &Value) -> Option<DateTime> {
    let nanoseconds = match value {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_nanosecond(),
        Value::Number(number) => {
            let milliseconds = number.as_i64().or_else(|| whole(number.as_f64()?))?;
            i128::from(milliseconds) * 1_000_000
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    i64::try_from(nanoseconds)
        .ok()
        .map(DateTime::from_timestamp_nanos)
}

impl IndexSchema {
    /// Returns a row as readers see it: without the fields that are not `stored`, the others as they
    /// stand.
    pub(super) fn shown_of(&self, row: &[u8]) -> Vec<u8> {
        if self.shows_all() {
            return row.to_vec();
        }
        let Ok(Fields(fields)) = serde_json::from_slice(row) else {
            return b"{}".to_vec();
        };
        let mut shown = Vec::with_capacity(row.len());
        for (name, value) in fields {
            let hidden = self
                .fields
                .iter()
                .any(|field| field.name == name && !field.index.stored);
            if hidden {
                continue;
            }
            shown.push(if shown.is_empty() { b'{' } else { b',' });
            shown.extend(Value::from(name).to_string().bytes());
            shown.push(b':');
            shown.extend(value.get().bytes());
        }
        if shown.is_empty() {
            shown.push(b'{');
        }
        shown.push(b'}');
        shown
    }
}

/// An object's fields in order, their values as they stand.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Deserialize<'a> for Fields<'a> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'a> Visitor<'a> for InOrder {
            type Value = Fields<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Fields<'a>, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_its_own_term_unless_it_is_long_or_no_text() {
        let hashed = |text: &str| text.len() == 65 && text.starts_with('\u{1}');
        for plain in ["", "key 1", "ключ", &"k".repeat(512)] {
            assert_eq!(key_text(&Key::new(plain.as_bytes())), plain);
        }
        for other in [&b"\xff"[..], &[b'k'; 513], b"\x01a"] {
            assert!(
                hashed(&key_text(&Key::new(other))),
                "{}",
                other.escape_ascii()
            );
        }
        let impostor = key_text(&Key::new(b"\xff"));
        assert_ne!(key_text(&Key::new(impostor.as_bytes())), impostor);
    }

    #[test]
    fn a_value_is_of_its_fields_type_or_refused() {
        let check = |kind, value: Value, expected: Option<OwnedValue>| {
            assert_eq!(typed(kind, &value).ok(), expected, "{kind:?} {value}");
        };
        let milliseconds = |ms: i64| OwnedValue::Date(DateTime::from_timestamp_millis(ms));
        check(FieldType::I64, json!(-3), Some(OwnedValue::I64(-3)));
        check(FieldType::I64, json!(3.0), Some(OwnedValue::I64(3)));
        check(FieldType::I64, json!(3.5), None);
        check(FieldType::I64, json!(u64::MAX), None);
        check(FieldType::I64, json!(1e300), None);
        check(
            FieldType::U64,
            json!(u64::MAX),
            Some(OwnedValue::U64(u64::MAX)),
        );
        check(FieldType::U64, json!(-1.0), None);
        check(FieldType::F64, json!(1), Some(OwnedValue::F64(1.0)));
        check(FieldType::Bool, json!("true"), None);
        check(FieldType::String, json!(1), None);
        check(FieldType::Date, json!(1_000), Some(milliseconds(1_000)));
        check(
            FieldType::Date,
            json!("1970-01-01T01:00:01+01:00"),
            Some(milliseconds(1_000)),
        );
        check(FieldType::Date, json!("1970-01-01"), None);
        check(FieldType::Date, json!("9999-01-01T00:00:00Z"), None);
        check(
            FieldType::Bytes,
            json!("AQI="),
            Some(OwnedValue::Bytes(vec![1, 2])),
        );
        check(FieldType::Bytes, json!("AQ I"), None);
        check(FieldType::Json, json!([1]), None);
    }
}
