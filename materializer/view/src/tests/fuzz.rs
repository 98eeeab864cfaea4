//! Whatever comes in, nothing panics, and what comes out is JSON.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{apply, field, row};
use crate::{compile, parse};

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Quarters: serde_json reads longer fractions, here for comparison, up to a last digit off.
        any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-c]|.{0,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns what stands at a path, found the slow way.
fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |value, step| {
        let found = match step.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(step),
        };
        found.unwrap_or(&Value::Null)
    })
}

proptest! {
    #[test]
    fn a_path_finds_what_a_parsed_value_has(value in json(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value).unwrap()
        } else {
            value.to_string()
        };
        for (path, steps) in [
            ("event", &[][..]),
            ("event.a", &["a"]),
            ("event.a.b", &["a", "b"]),
            ("event[1].a", &["1", "a"]),
            ("event.b[0].c", &["b", "0", "c"]),
        ] {
            let row: Value = serde_json::from_str(&row(&field(path), &text)).unwrap();
            prop_assert_eq!(&row["x"], at(&value, steps), "{} of {}", path, text);
        }
    }

    #[test]
    fn a_value_goes_through_cel_and_back(value in json()) {
        // Beyond 2^53 a double has other digits, and that is documented.
        prop_assume!(!value.to_string().contains(|c: char| c.is_ascii_digit()));
        let row: Value = serde_json::from_str(&row(&field("true ? event : 1"), &value.to_string())).unwrap();
        prop_assert_eq!(&row["x"], &value);
    }

    #[test]
    fn any_bytes_are_a_row_or_poison(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for view in [field("event.a"), field("event.a.b + 1"), field("event")] {
            if let Ok(mutations) = apply(&view, &bytes) {
                prop_assert_eq!(mutations.len(), 1);
            }
        }
        bytes.splice(0..0, *b"{\"a\":");
        drop(apply(&field("event.a"), &bytes));
    }

    #[test]
    fn any_damage_to_json_is_a_row_or_poison(
        value in json(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = value.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let text = std::str::from_utf8(&bytes);
        // Poison where an object is looked for, a number to the reference that looks at nothing.
        prop_assume!(!text.is_ok_and(|text| text.parse().is_ok_and(f64::is_infinite)));
        let whole = text.is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let decoded = !matches!(
            apply(&field("event.a"), &bytes),
            Err(poison) if poison.kind == materializer_model::PoisonKind::Decode
        );
        prop_assert_eq!(decoded, whole, "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_is_a_definition_or_faults(text in "(view|from|to|: |\\{|\\}|\\[|\\]|\n|- |'|\"|#|&|\\*|!|---|a|é|\t| ){0,24}") {
        if let Err(faults) = parse("v.yaml", &text) {
            prop_assert!(!faults.to_string().is_empty());
        }
    }

    #[test]
    fn any_expression_compiles_or_has_a_fault(
        expression in "(event|record|\\.a|\\.key|\\[0\\]|\\(|\\)| \\+ | == |1|'a'|!|-|\\?|:|\\.map\\(x, |,|true|\\{|\\}|has\\(|x|é|\\\\|`){0,12}",
    ) {
        let quoted = expression.replace('\'', "''");
        let text = format!("view: v\nfrom: {{topics: [t]}}\ndocument: {{x: '{quoted}'}}\nto: {{memory: {{}}}}\n");
        match parse("v.yaml", &text) {
            Ok(definitions) => {
                let view = compile(&definitions[0]).unwrap();
                drop(apply(&view, br#"{"a":[1,{"a":"b"}]}"#));
            }
            Err(faults) => prop_assert!(!faults.to_string().is_empty()),
        }
    }
}
