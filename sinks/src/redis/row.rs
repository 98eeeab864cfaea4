//! The shape of a row in Redis, there and back.

use std::collections::BTreeMap;

use materializer_model::Row;
use materializer_model::definition::RedisShape;
use serde_json::value::RawValue;

/// Returns a row's fields as a hash holds them: text without its quotes, other values as they are
/// written in JSON, null absent. `None` where the row is not an object.
pub(super) fn fields(row: &Row) -> Option<BTreeMap<String, String>> {
    let object: BTreeMap<String, &RawValue> = serde_json::from_slice(&row.0).ok()?;
    let mut fields = BTreeMap::new();
    for (name, value) in object {
        let text = match value.get() {
            "null" => continue,
            quoted if quoted.starts_with('"') => serde_json::from_str(quoted).ok()?,
            plain => plain.to_owned(),
        };
        fields.insert(name, text);
    }
    Some(fields)
}

/// Returns the row that a hash with these fields is read back as.
pub(super) fn from_fields(fields: &BTreeMap<String, String>) -> Row {
    let text = serde_json::to_string(fields).expect("texts always serialise");
    Row::new(text.as_bytes())
}

/// Returns the form in which a row comes back from Redis, `None` where nothing is stored for it.
pub(super) fn stored(shape: RedisShape, row: &Row) -> Option<Row> {
    match shape {
        RedisShape::Json | RedisShape::Bytes => Some(row.clone()),
        RedisShape::Hash => fields(row)
            .filter(|fields| !fields.is_empty())
            .map(|fields| from_fields(&fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &str, expected: Option<&str>) {
        let found = stored(RedisShape::Hash, &Row::new(row.as_bytes()));
        assert_eq!(found, expected.map(|row| Row::new(row.as_bytes())), "{row}");
    }

    #[test]
    fn a_hash_holds_text_bare_numbers_verbatim_and_no_null() {
        check(
            r#"{"t":"a \"b\" é","n":1.50,"big":123456789012345678901,"yes":true,"o":{"a":[1]},"z":null}"#,
            Some(
                r#"{"big":"123456789012345678901","n":"1.50","o":"{\"a\":[1]}","t":"a \"b\" é","yes":"true"}"#,
            ),
        );
        check(r#"{"z":null}"#, None);
        check("{}", None);
        check("[1]", None);
        assert_eq!(fields(&Row::new(b"[1]")), None);
    }
}
