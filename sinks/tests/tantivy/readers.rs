//! What `docs/readers.md` says of a search, held true.

use std::collections::BTreeSet;

use materializer_sinks::tantivy::search::SearchRequest;
use serde_json::{Map, Value};

use crate::shop::Shop;

const PAGE: &str = include_str!("../../../docs/readers.md");

fn keys(request: &Value) -> BTreeSet<String> {
    let keys = request.as_object().map(Map::keys);
    keys.into_iter().flatten().cloned().collect()
}

/// Returns every key that a search takes.
fn all_keys() -> BTreeSet<String> {
    keys(&serde_json::to_value(SearchRequest::default()).expect("JSON"))
}

#[test]
fn every_key_of_a_search_has_its_row_and_no_row_is_of_another_key() {
    let (_, section) = PAGE.split_once("\n## Searching\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<String> = rows
        .filter_map(|row| row.split(" | ").next())
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect();
    assert_eq!(told, all_keys());
}

#[test]
fn every_search_of_the_page_finds_something_and_together_they_use_every_key() {
    let shop = Shop::new();
    let mut used = BTreeSet::new();
    let mut cursor = None;
    for body in PAGE.split("/search -d '").skip(1) {
        let (body, _) = body.split_once('\'').expect("a quoted body");
        let mut request: Value =
            serde_json::from_str(body).unwrap_or_else(|fault| panic!("{body}: {fault}"));
        used.extend(keys(&request));
        if let Some(after) = request.get_mut("search_after") {
            *after = cursor
                .take()
                .map(Value::String)
                .expect("the page before has a cursor");
        }
        let answer = shop.answer(request.clone());
        let asked = |key| request.get(key).is_some();
        assert!(answer.total > 0, "{body}");
        assert_eq!(answer.hits.is_empty(), request["size"] == 0, "{body}");
        assert_eq!(answer.facets.is_empty(), !asked("facets"), "{body}");
        assert_eq!(answer.aggs.is_some(), asked("aggs"), "{body}");
        assert_eq!(answer.warnings.is_empty(), !asked("lenient"), "{body}");
        for hit in &answer.hits {
            assert_eq!(hit.highlight.is_empty(), !asked("highlight"), "{body}");
        }
        cursor = answer.cursor;
    }
    assert_eq!(used, all_keys());
}
