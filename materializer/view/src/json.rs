//! JSON: a record's text into slots, a slot's text into rows, keys and CEL values.
//!
//! A value by path keeps its own text: numbers are never parsed on the way into a row. The walk is
//! serde_json's, which checks the grammar of all that it passes over, without recursion
//! (`docs/decisions/0101-view-language.md`).

use std::collections::HashMap;
use std::fmt;

use cel::common::types::{CelBool, CelDouble, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::Val;
use materializer_model::{Poison, PoisonKind};
use serde::de::{Deserialize, DeserializeSeed, IgnoredAny};
use serde_json::value::RawValue;

use crate::extract::{Paths, Slots, Walk};

/// Raise it when a text may give another value than before.
pub(crate) const REVISION: u32 = 1;

/// Levels of a value in a row: what every reader's parser takes.
const DEPTH_MAX: usize = 100;

/// Finds the values at paths in a record's text, all of which is checked.
pub(crate) fn decode<'r>(value: &'r [u8], paths: &Paths) -> Result<Slots<&'r RawValue>, Poison> {
    let not_json = |error: &dyn fmt::Display| {
        let why = format!("the value is not JSON: {error}");
        Poison::new(PoisonKind::Decode, "", why)
    };
    let text = std::str::from_utf8(value).map_err(|error| not_json(&error))?;
    let mut slots = vec![None; paths.len()];
    if paths.trees().is_empty() {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
    }
    for tree in paths.trees() {
        let mut from = serde_json::Deserializer::from_str(text);
        let walk = Walk {
            tree,
            slots: &mut slots,
        };
        walk.deserialize(&mut from)
            .and_then(|()| from.end())
            .map_err(|error| not_json(&error))?;
    }
    Ok(slots)
}

/// Adds a value's text to a row: a scalar as it is, an object or a list without its blanks.
///
/// # Errors
/// Tells what a reader's parser would refuse: a half of a surrogate pair, too many levels.
pub(crate) fn append(raw: &RawValue, row: &mut Vec<u8>) -> Result<(), String> {
    let text = raw.get().as_bytes();
    let nested = matches!(text.first(), Some(b'{' | b'['));
    if !nested {
        if text.contains(&b'\\') {
            string(raw)?;
        }
        row.extend_from_slice(text);
        return Ok(());
    }
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let end = at + string_length(&text[at..]);
                let string = &text[at..end];
                if string.contains(&b'\\') {
                    parsed(string)?;
                }
                row.extend_from_slice(string);
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(format!("nested deeper than {DEPTH_MAX} levels"));
                }
                row.push(byte);
            }
            b'}' | b']' => {
                depth -= 1;
                row.push(byte);
            }
            _ => row.push(byte),
        }
        at += 1;
    }
    Ok(())
}

/// Returns how long the string is with which a valid text begins.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Returns the text of a JSON string whose grammar is known to be right.
fn parsed(string: &[u8]) -> Result<String, String> {
    serde_json::from_slice(string).map_err(|_| "a text holds half of a surrogate pair".to_owned())
}

/// Returns the text of a JSON string.
fn string(raw: &RawValue) -> Result<String, String> {
    parsed(raw.get().as_bytes())
}

/// Returns the bytes of a key: a string's text, a number as it is written.
pub(crate) fn key(raw: &RawValue) -> Result<Box<[u8]>, String> {
    let text = raw.get();
    match text.as_bytes() {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Ok(inner.into()),
        [b'"', ..] => Ok(string(raw)?.into_bytes().into()),
        [b'-' | b'0'..=b'9', ..] => Ok(text.as_bytes().into()),
        [b'n', ..] => Err("null is no key".to_owned()),
        [b't' | b'f', ..] => Err("a bool is no key".to_owned()),
        [b'[', ..] => Err("a list is no key".to_owned()),
        _ => Err("an object is no key".to_owned()),
    }
}

/// Returns a value for CEL, in which every number is a double.
pub(crate) fn cel_value(raw: &RawValue) -> Result<Box<dyn Val + '_>, String> {
    cel_part(raw, 0)
}

/// Each level is split by a walk of its own, so that numbers keep their text until std parses them:
/// serde_json's own doubles may be a last digit off.
fn cel_part(raw: &RawValue, depth: usize) -> Result<Box<dyn Val + '_>, String> {
    let text = raw.get();
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(match text.as_bytes() {
        [b'n', ..] => Box::new(CelNull),
        [b't', ..] => Box::new(CelBool::from(true)),
        [b'f', ..] => Box::new(CelBool::from(false)),
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
            Box::new(CelString::from(&text[1..text.len() - 1]))
        }
        [b'"', ..] => Box::new(CelString::from(string(raw)?)),
        [b'[', ..] => {
            let items: Vec<&RawValue> = split(text)?;
            let items: Result<Vec<_>, _> = items
                .into_iter()
                .map(|item| cel_part(item, depth + 1))
                .collect();
            Box::new(CelList::from(items?))
        }
        [b'{', ..] => {
            let members: HashMap<String, &RawValue> = split(text)?;
            let mut values = HashMap::with_capacity(members.len());
            for (name, member) in members {
                let name = CelMapKey::String(CelString::from(name));
                values.insert(name, cel_part(member, depth + 1)?);
            }
            Box::new(CelMap::from(values))
        }
        _ => {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            let number = number.ok_or_else(|| format!("{text} is no number of 64 bits"))?;
            Box::new(CelDouble::from(number))
        }
    })
}

fn split<'r, T: Deserialize<'r>>(text: &'r str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Adds a value that CEL gave to a row: whole doubles as integers, a mapping by its sorted keys.
///
/// # Errors
/// Tells which value has no JSON form.
pub(crate) fn append_cel(value: &cel::Value, row: &mut Vec<u8>) -> Result<(), String> {
    use cel::Value;
    match value {
        Value::Null => row.extend_from_slice(b"null"),
        Value::Bool(value) => row.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Int(value) => row.extend_from_slice(value.to_string().as_bytes()),
        Value::UInt(value) => row.extend_from_slice(value.to_string().as_bytes()),
        Value::Float(value) => row.extend_from_slice(number(*value)?.as_bytes()),
        Value::String(text) => append_string(text, row),
        Value::List(values) => {
            row.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    row.push(b',');
                }
                append_cel(value, row)?;
            }
            row.push(b']');
        }
        Value::Map(map) => {
            let mut entries: Vec<_> = map.map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            row.push(b'{');
            for (index, (name, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    row.push(b',');
                }
                let cel::objects::Key::String(name) = name else {
                    return Err("a mapping whose names are not texts has no JSON form".to_owned());
                };
                append_string(name, row);
                row.push(b':');
                append_cel(value, row)?;
            }
            row.push(b'}');
        }
        Value::Bytes(_) => return Err("bytes have no JSON form; use `string(…)`".to_owned()),
        Value::Function(..) | Value::Opaque(_) | Value::Struct(_) => {
            return Err(format!("{} has no JSON form", kind(value)));
        }
    }
    Ok(())
}

/// Returns what a value is, in words.
pub(crate) fn kind(value: &cel::Value) -> &'static str {
    use cel::Value;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::String(_) => "a text",
        Value::Bytes(_) => "a value of bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Function(..) | Value::Opaque(_) | Value::Struct(_) => "a value of another type",
    }
}

/// Adds a text as a JSON string.
pub(crate) fn append_string(text: &str, row: &mut Vec<u8>) {
    serde_json::to_writer(row, text).expect("a text is written to memory");
}

/// Writes a double as JavaScript does where it is whole and exact, and shortest otherwise.
pub(crate) fn number(value: f64) -> Result<String, String> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if !value.is_finite() {
        return Err(format!("{value} has no JSON form"));
    }
    if value.fract() == 0.0 && value.abs() < EXACT_MAX {
        // Adding zero makes the negative zero a plain one.
        return Ok(format!("{:.0}", value + 0.0));
    }
    Ok(serde_json::Number::from_f64(value)
        .expect("finite above")
        .to_string())
}
