//! The order of what is found, and pages of it.

use materializer_model::Unit;
use materializer_model::ports::{Expect, Sink};
use materializer_sinks::tantivy::TantivySink;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{commit, fingerprint, mutation, settings, token};
use crate::shop::{Shop, is_bad, keys_of, row, search, shop_view};

/// Returns all keys in an order, computed apart.
fn sorted(order: &[(&str, bool, bool)]) -> Vec<String> {
    let mut rows: Vec<usize> = (0..60).collect();
    let value = |n: usize, field: &str| match (&row(n)[field], field) {
        (Value::Null, "brand") => json!(""),
        (value, _) => value.clone(),
    };
    // The record's offset decides last.
    rows.sort_by_key(|n| if *n < 20 { *n } else { n + 100 });
    rows.sort_by(|a, b| {
        let keys = order.iter().map(|(field, descending, missing_first)| {
            let (a, b) = (value(*a, field), value(*b, field));
            match (a.is_null(), b.is_null()) {
                (true, true) => std::cmp::Ordering::Equal,
                (true, false) if *missing_first => std::cmp::Ordering::Less,
                (true, false) => std::cmp::Ordering::Greater,
                (false, true) if *missing_first => std::cmp::Ordering::Greater,
                (false, true) => std::cmp::Ordering::Less,
                (false, false) => {
                    let compared = match (a.as_f64(), b.as_f64()) {
                        (Some(a), Some(b)) => a.total_cmp(&b),
                        _ => a.as_str().cmp(&b.as_str()),
                    };
                    if *descending {
                        compared.reverse()
                    } else {
                        compared
                    }
                }
            }
        });
        keys.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    rows.into_iter().map(|n| format!("key-{n}")).collect()
}

#[test]
fn pages_behind_cursors_and_pages_by_number_give_the_whole_order() {
    let shop = Shop::new();
    let orders: [&[(&str, bool, bool)]; 6] = [
        &[],
        &[("price", false, false)],
        &[("price", true, true), ("added", false, false)],
        &[("brand", true, false), ("stock", true, false)],
        &[
            ("brand", false, false),
            ("price", false, true),
            ("added", true, false),
        ],
        &[("stock", false, false), ("brand", false, false)],
    ];
    for order in orders {
        let sort: Vec<Value> = order
            .iter()
            .map(|(field, descending, missing_first)| {
                json!({
                    "field": field,
                    "order": if *descending { "desc" } else { "asc" },
                    "missing": if *missing_first { "first" } else { "last" },
                })
            })
            .collect();
        let expected = sorted(order);
        assert_eq!(
            shop.keys(json!({"sort": sort, "size": 100})),
            expected,
            "{order:?}"
        );
        for size in [1, 7, 60] {
            let mut by_number = Vec::new();
            let mut by_cursor = Vec::new();
            let mut cursor = None;
            loop {
                let from = by_number.len();
                by_number.extend(shop.keys(json!({"sort": sort, "size": size, "from": from})));
                let page = shop.answer(json!({"sort": sort, "size": size, "search_after": cursor}));
                by_cursor.extend(keys_of(&page));
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(by_cursor, expected, "{order:?} in pages of {size}");
            assert_eq!(
                by_number,
                expected[..by_number.len()],
                "{order:?} in pages of {size}"
            );
        }
    }
}

#[test]
fn a_cursor_is_good_after_more_commits_and_on_no_other_version_or_order() {
    let mut shop = Shop::new();
    let sort = json!([{"field": "brand"}]);
    let page = shop.answer(json!({"sort": sort, "size": 20}));
    let rest =
        keys_of(&shop.answer(json!({"sort": sort, "size": 100, "search_after": page.cursor})));
    // Between two texts of the dictionary now, and one that did not exist.
    let new = json!({"title": "new", "brand": "Beta"});
    commit(&mut shop.sink, 4, vec![mutation("new", 400, Some(&new))]).expect("a commit");
    let later =
        keys_of(&shop.answer(json!({"sort": sort, "size": 100, "search_after": page.cursor})));
    let without_new: Vec<&String> = later.iter().filter(|key| *key != "new").collect();
    assert_eq!(without_new, rest.iter().collect::<Vec<_>>());
    assert!(later.contains(&"new".to_owned()));

    let other_order = shop.ask(json!({"sort": [{"field": "price"}], "search_after": page.cursor}));
    assert!(
        is_bad(&other_order, "search_after", "another `sort`"),
        "{other_order:?}"
    );
    let garbage = shop.ask(json!({"search_after": "00"}));
    assert!(is_bad(&garbage, "search_after", "no cursor"), "{garbage:?}");

    let dir = TempDir::new().expect("a folder");
    let next: Unit = "products/v2/c0/s0".parse().expect("a unit");
    let mut sink = TantivySink::new(settings(dir.path()), &next, &shop_view(), &fingerprint())
        .expect("a sink");
    assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
    commit(&mut sink, 1, Vec::new()).expect("a commit");
    let stale = search(
        &sink.copy(),
        json!({"sort": sort, "search_after": page.cursor}),
    );
    assert!(is_bad(&stale, "search_after", "`products@v1`"), "{stale:?}");
}
