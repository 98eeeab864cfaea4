//! Names of views, versions and installations are part of folders, keys and patterns: whatever is taken for one
//! leaves none of them.

use std::path::{Component, Path};

use materializer_model::{Installation, Unit, VersionId, ViewName};
use materializer_view::parse;
use proptest::prelude::*;

/// Texts that mean something to a folder, a key, a pattern, a topic or a line.
fn spiteful() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "..", "/", "\\", "*", "?", "[", "]", ":", "::", "\0", "\n", " ", "-", ".", "~", "%2e",
            "products", "v1", "v10", "c0", "s0", "@", "é", "A", "main", "0",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

/// Says whether a text is one part of a path, of a key and of a pattern, and means itself in each.
fn is_plain(text: &str) -> bool {
    let mut parts = Path::new(text).components();
    let one = parts.next() == Some(Component::Normal(text.as_ref())) && parts.next().is_none();
    one && text.len() <= 63 && !text.contains([':', '*', '?', '[', ']', '\\', '/', '@', '_', '\0'])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_taken_for_a_name_is_one_plain_part_of_a_path_and_a_key(text in spiteful()) {
        if let Ok(name) = text.parse::<ViewName>() {
            prop_assert!(is_plain(name.as_str()), "{name:?}");
        }
        if let Ok(name) = text.parse::<Installation>() {
            prop_assert!(is_plain(name.as_str()), "{name:?}");
        }
        if let Ok(version) = text.parse::<VersionId>() {
            prop_assert!(is_plain(version.view.as_str()) && is_plain(&version.number.to_string()));
        }
        if let Ok(unit) = text.parse::<Unit>() {
            prop_assert!(is_plain(unit.version.view.as_str()));
            prop_assert_eq!(&unit.to_string(), &text, "a unit has one name");
        }
        let json = serde_json::to_string(&text).expect("a text");
        if let Ok(name) = serde_json::from_str::<ViewName>(&json) {
            prop_assert!(is_plain(name.as_str()), "a name that was stored is held to the same");
        }
    }

    #[test]
    fn a_definition_names_no_place_but_its_own(
        view in spiteful(),
        topic in spiteful(),
        connection in spiteful(),
        key in spiteful(),
    ) {
        let quoted = |text: &str| serde_json::to_string(text).expect("a text");
        let text = format!(
            "view: {}\nfrom: {{topics: [{}]}}\nkey: record.key\ndocument: {{x: event.x}}\n\
             to: {{redis: {{connection: {}, key: {}}}}}\n",
            quoted(&view), quoted(&topic), quoted(&connection), quoted(&format!("{key}{{key}}")),
        );
        if let Ok(definitions) = parse("view.yaml", &text) {
            for definition in definitions {
                prop_assert!(is_plain(definition.view.as_str()));
                for topic in &definition.from.topics {
                    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                    let text = topic.as_str();
                    prop_assert!(!text.is_empty() && text.len() <= 249 && text.chars().all(legal), "{text:?}");
                    prop_assert!(text != "." && text != "..", "{text:?}");
                }
            }
        }
    }
}
