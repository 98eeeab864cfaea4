//! What a search finds.

use std::collections::BTreeSet;

use materializer_model::Key;
use materializer_model::ports::{Expect, Sink};
use materializer_sinks::tantivy::search::{SearchError, SearchResponse};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{checkpoint, commit, filled, settings, token, view};
use crate::shop::{Shop, keys_of, number, price, row, search, shop_view};

#[test]
fn words_phrases_filters_and_ranges_find_their_rows() {
    let shop = Shop::new();
    let odd = |n: usize| n % 2 == 1;
    let price = |n: usize| price(n).as_f64();
    let check = |request: Value, matches: &dyn Fn(usize) -> bool| {
        let mut request = request;
        request["size"] = json!(100);
        let found: BTreeSet<String> = shop.keys(request.clone()).into_iter().collect();
        let expected: BTreeSet<String> = (0..60)
            .filter(|n| matches(*n))
            .map(|n| format!("key-{n}"))
            .collect();
        assert_eq!(found, expected, "{request}");
        assert_eq!(shop.answer(request).total, number(expected.len()));
    };
    check(json!({}), &|_| true);
    check(json!({"q": "*"}), &|_| true);
    check(json!({"q": "shoe"}), &|_| true);
    check(json!({"q": "+blue +shoe"}), &odd);
    check(json!({"q": "title:\"blue running\""}), &odd);
    check(json!({"q": "title:\"running blue\""}), &|_| false);
    check(json!({"q": "brand:Zeta"}), &|n| n % 4 == 1);
    check(json!({"q": "specs.size:3"}), &|n| n % 10 == 3);
    check(json!({"q": "Zeta", "fields": ["brand"]}), &|n| n % 4 == 1);
    check(json!({"q": "+blue +price:[0 TO 2}"}), &|n| {
        odd(n) && price(n).is_some_and(|p| (0.0..2.0).contains(&p))
    });
    check(json!({"filters": {"brand": "Zeta"}}), &|n| n % 4 == 1);
    check(json!({"filters": {"brand": ["Zeta", "Acme"]}}), &|n| {
        n % 4 < 2
    });
    check(json!({"filters": {"brand": ""}}), &|n| n % 4 == 2);
    check(json!({"filters": {"price": {"gt": 0.5}}}), &|n| {
        price(n).is_some_and(|p| p > 0.5)
    });
    check(
        json!({"filters": {"price": {"gte": 0.5, "lt": 2.5}}}),
        &|n| price(n).is_some_and(|p| (0.5..2.5).contains(&p)),
    );
    check(json!({"filters": {"stock": -1, "brand": "Acme"}}), &|n| {
        n % 3 == 0 && n % 4 == 0
    });
    check(
        json!({"filters": {"added": {"lt": "2024-01-03T00:00:00Z"}}}),
        &|n| n % 28 < 2,
    );
}

#[test]
fn rows_are_served_without_what_is_not_stored() {
    let shop = Shop::new();
    let found = shop
        .sink
        .copy()
        .get(&Key::new(b"key-7"))
        .expect("a read")
        .expect("a row");
    let mut expected = row(7);
    expected.as_object_mut().expect("an object").remove("cost");
    let source: Value = serde_json::from_slice(&found.source).expect("JSON");
    assert_eq!(source, expected);
    assert_eq!(found.origin.offset.0, 7);
    let hit =
        &shop.answer(json!({"q": "key", "filters": {"stock": 0}, "size": 1, "lenient": true}));
    assert_eq!(hit.total, 0, "hidden fields are not searched");
    assert_eq!(shop.sink.copy().get(&Key::new(b"key-60")), Ok(None));
    let hits = shop.answer(json!({"size": 1})).hits;
    assert!(!hits[0].source.get().contains("cost"), "{}", hits[0].source);
}

#[test]
fn highlights_are_escaped() {
    let shop = Shop::new();
    let wish = json!({"q": "shoe", "size": 1, "highlight": {"fields": ["title"]}});
    let marked = shop.answer(wish).hits[0].highlight["title"].clone();
    assert!(marked.contains("<b>shoes</b>"), "{marked}");
    assert!(marked.contains("&lt;b&gt;no"), "{marked}");
}

#[test]
fn facets_and_aggregations_count_what_is_found() {
    let shop = Shop::new();
    let answer = shop.answer(json!({
        "q": "blue", "size": 0, "facets": {"brand": 1, "specs.colour": 5},
        "aggs": {"brand": {"avg": {"field": "price"}}, "stock": {"histogram": {"field": "stock", "interval": 1.0}}},
    }));
    let value = |facet: &str| {
        let facet = &answer.facets[facet];
        let values = facet.values.iter();
        (
            values
                .map(|v| (v.value.clone(), v.count))
                .collect::<Vec<_>>(),
            facet.others,
        )
    };
    let (brands, others) = value("brand");
    assert_eq!((brands.len(), brands[0].1, others), (1, 15, 15));
    assert_eq!(value("specs.colour"), (vec![(json!("dark red"), 30)], 0));
    let prices: Vec<f64> = (0..60)
        .filter(|n| n % 2 == 1)
        .filter_map(|n| row(n)["price"].as_f64())
        .collect();
    let average = prices.iter().sum::<f64>() / f64::from(u32::try_from(prices.len()).expect("few"));
    let aggs = answer.aggs.expect("aggregations");
    let found = aggs["brand"]["value"].as_f64().expect("a number");
    assert!((found - average).abs() < 1e-9, "{aggs}");
    assert_eq!(
        aggs["stock"]["buckets"].as_array().map(Vec::len),
        Some(3),
        "{aggs}"
    );
}

#[test]
fn a_copy_below_its_bar_serves_nobody() {
    let dir = TempDir::new().expect("a folder");
    let mut sink = crate::place::sink(&settings(dir.path()), &shop_view());
    let copy = sink.copy();
    let unservable = |answer: Result<SearchResponse, SearchError>| {
        assert!(
            matches!(answer, Err(SearchError::Unservable(_))),
            "{answer:?}"
        );
    };
    unservable(search(&copy, json!({})));
    assert_eq!(sink.open(&token(1), Expect::Maybe), Ok(None));
    unservable(search(&copy, json!({})));
    commit(&mut sink, 1, Vec::new()).expect("a commit");
    assert_eq!(search(&copy, json!({})).expect("an answer").total, 0);
    let state = copy.state().expect("open");
    assert_eq!(
        (state.servable, state.checkpoint),
        (true, Some(checkpoint(1)))
    );
}

#[test]
fn cities_of_the_world_are_found_by_their_names() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/data/json/world-cities.json"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: the cities are not there");
        return;
    };
    let cities: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let definition = view(&[
        ("name", json!({"type": "text", "tokenizer": "folded"})),
        (
            "country",
            json!({"type": "string", "facet": true, "sort": true}),
        ),
        ("population", json!({"type": "u64", "sort": true})),
    ]);
    let rows: Vec<(String, Value)> = cities
        .iter()
        .map(|city| {
            let key = city["geonameid"].as_str().expect("text").to_owned();
            (key, json!({"name": city["alternatenames"], "country": city["country"], "population": city["population"]}))
        })
        .collect();
    let dir = TempDir::new().expect("a folder");
    let sink = filled(&settings(dir.path()), &definition, &rows);
    let copy = sink.copy();
    let found = search(&copy, json!({"q": "Рас-эль-Хайма", "size": 1})).expect("an answer");
    assert_eq!(keys_of(&found), ["291074"]);
    let largest = search(
        &copy,
        json!({"sort": [{"field": "population", "order": "desc"}], "size": 3, "facets": {"country": 3}}),
    );
    let largest = largest.expect("an answer");
    let most = cities
        .iter()
        .max_by_key(|city| city["population"].as_u64())
        .expect("some");
    assert_eq!(largest.hits[0].key.as_deref(), most["geonameid"].as_str());
    assert_eq!(largest.total, number(rows.len()));
    assert_eq!(copy.verify().expect("a report"), Default::default());
}
