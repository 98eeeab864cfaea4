//! What a search finds, in which order, and what it refuses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::memory::ManualClock;
use materializer_model::ports::{Expect, Sink};
use materializer_model::{Clock, Key, Monotonic, Timestamp, Unit, ViewDefinition};
use materializer_sinks::tantivy::search::{
    SearchError, SearchLimits, SearchRequest, SearchResponse,
};
use materializer_sinks::tantivy::{IndexCopy, TantivySink};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{checkpoint, commit, filled, fingerprint, mutation, settings, token, view};

/// A shop with an index; dropped together.
struct Shop {
    _dir: TempDir,
    sink: TantivySink,
}

fn shop_view() -> ViewDefinition {
    view(&[
        ("title", json!({"type": "text", "language": "english"})),
        (
            "brand",
            json!({"type": "string", "facet": true, "sort": true, "missing": ""}),
        ),
        ("price", json!({"type": "f64", "sort": true})),
        ("stock", json!({"type": "i64", "sort": true})),
        ("added", json!({"type": "date", "sort": true})),
        ("cost", json!({"type": "f64", "stored": false})),
        ("specs", json!({"type": "json", "facet": true})),
    ])
}

const BRANDS: [Option<&str>; 4] = [Some("Acme"), Some("Zeta"), None, Some("Möbius")];

fn row(n: usize) -> Value {
    json!({
        "title": format!("{} running shoes <b>no {n}</b>", if n % 2 == 0 { "Red" } else { "Blue" }),
        "brand": BRANDS[n % 4],
        "price": if n % 5 == 0 { Value::Null } else { json!(f64::from(u32::try_from(n % 7).expect("few")) - 2.5) },
        "stock": i64::try_from(n % 3).expect("few") - 1,
        "added": format!("2024-01-{:02}T00:00:00Z", n % 28 + 1),
        "cost": 1.5,
        "specs": {"size": n % 10, "colour": "dark red"},
    })
}

impl Shop {
    /// Makes an index of 60 rows in several segments, some of them deleted or replaced.
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let rows: Vec<(String, Value)> = (0..30).map(|n| (format!("key-{n}"), row(n))).collect();
        let mut sink = filled(&settings(dir.path()), &shop_view(), &rows);
        let later = |range: std::ops::Range<usize>| {
            let set = |n: usize| {
                let offset = u64::try_from(n).expect("few") + 100;
                mutation(&format!("key-{n}"), offset, Some(&row(n)))
            };
            range.map(set).collect::<Vec<_>>()
        };
        commit(&mut sink, 2, later(20..50)).expect("a commit");
        let mut last = later(50..62);
        last.push(mutation("key-60", 300, None));
        last.push(mutation("key-61", 301, None));
        commit(&mut sink, 3, last).expect("a commit");
        Self { _dir: dir, sink }
    }

    fn ask(&self, request: Value) -> Result<SearchResponse, SearchError> {
        search(&self.sink.copy(), request)
    }

    fn answer(&self, request: Value) -> SearchResponse {
        let text = request.to_string();
        self.ask(request)
            .unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    fn keys(&self, request: Value) -> Vec<String> {
        keys_of(&self.answer(request))
    }
}

fn search(copy: &Arc<IndexCopy>, request: Value) -> Result<SearchResponse, SearchError> {
    let request: SearchRequest = serde_json::from_value(request).expect("a request");
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    copy.search(&request, &SearchLimits::new(clock))
}

fn keys_of(response: &SearchResponse) -> Vec<String> {
    let hits = response.hits.iter();
    hits.map(|hit| hit.key.clone().expect("text")).collect()
}

#[test]
fn words_phrases_filters_and_ranges_find_their_rows() {
    let shop = Shop::new();
    let odd = |n: usize| n % 2 == 1;
    let price = |n: usize| row(n)["price"].as_f64();
    let check = |request: Value, matches: &dyn Fn(usize) -> bool| {
        let mut request = request;
        request["size"] = json!(100);
        let found: BTreeSet<String> = shop.keys(request.clone()).into_iter().collect();
        let expected: BTreeSet<String> = (0..60)
            .filter(|n| matches(*n))
            .map(|n| format!("key-{n}"))
            .collect();
        assert_eq!(found, expected, "{request}");
        assert_eq!(shop.answer(request).total, expected.len() as u64);
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
            let compared = match (a.is_null(), b.is_null()) {
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
            };
            compared
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

fn is_bad<T>(answer: &Result<T, SearchError>, at: &str, says: &str) -> bool {
    matches!(answer, Err(SearchError::BadRequest { place, why }) if place == at && why.contains(says))
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
    let average = prices.iter().sum::<f64>() / prices.len() as f64;
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
fn what_cannot_be_answered_is_refused_with_the_place() {
    let shop = Shop::new();
    let deep = "(".repeat(4_000);
    let words: Vec<String> = (0..600).map(|n| format!("w{n}")).collect();
    let words = words.join(" ");
    for (request, place, says) in [
        (json!({"q": "title:"}), "q at 6", "expected word"),
        (json!({"q": "nosuch:x"}), "q", "there is no field `nosuch`"),
        (json!({"q": "_key:key-1"}), "q", "there is no field `_key`"),
        (
            json!({"q": "_offset:[0 TO 9]"}),
            "q",
            "there is no field `_offset`",
        ),
        (json!({"q": "price:cheap"}), "q", "number"),
        (json!({"q": "x".repeat(5_000)}), "q", "5000 bytes"),
        (json!({"q": deep}), "q at 32", "parentheses"),
        (
            json!({"q": words, "fields": ["title", "brand"]}),
            "q",
            "1200 clauses",
        ),
        (json!({"q": "-blue"}), "q", "only excludes"),
        (json!({"fields": ["nosuch"]}), "fields", "no field"),
        (
            json!({"filters": {"nosuch": 1}}),
            "filters.nosuch",
            "no field",
        ),
        (
            json!({"filters": {"price": "x"}}),
            "filters.price",
            "is not a number",
        ),
        (
            json!({"filters": {"price": {"gt": 1, "gte": 1}}}),
            "filters.price",
            "not both",
        ),
        (
            json!({"filters": {"price": {}}}),
            "filters.price",
            "a range has",
        ),
        (
            json!({"filters": {"title": "shoe"}}),
            "filters.title",
            "`q`",
        ),
        (json!({"sort": [{"field": "cost"}]}), "sort", "sort: true"),
        (json!({"sort": [{"field": "_offset"}]}), "sort", "no field"),
        (json!({"size": 10_001}), "from", "search_after"),
        (json!({"from": 9_999, "size": 2}), "from", "search_after"),
        (
            json!({"facets": {"price": 3}}),
            "facets.price",
            "facet: true",
        ),
        (json!({"facets": {"brand": 0}}), "facets.brand", "from 1"),
        (
            json!({"aggs": {"x": {"avg": {"field": "_offset"}}}}),
            "aggs",
            "no field",
        ),
        (json!({"aggs": {"x": {"nosuch": {}}}}), "aggs", "nosuch"),
        (
            json!({"highlight": {"fields": ["brand"]}}),
            "highlight.fields",
            "`text`",
        ),
    ] {
        let text: String = request.to_string().chars().take(80).collect();
        let answer = shop.ask(request);
        assert!(is_bad(&answer, place, says), "{text}: {answer:?}");
    }
    let unknown = serde_json::from_value::<SearchRequest>(json!({"query": "x"}));
    assert!(unknown.is_err(), "unknown keys are refused");
    let lenient = shop.answer(json!({"q": "blue nosuch:x title:", "lenient": true}));
    assert!(
        lenient.total > 0 && !lenient.warnings.is_empty(),
        "{lenient:?}"
    );
}

/// A clock on which every look takes a second.
struct Hurried(std::sync::Mutex<u64>);

impl Clock for Hurried {
    fn monotonic(&self) -> Monotonic {
        let mut looks = self.0.lock().expect("a lock");
        *looks += 1;
        Monotonic(Duration::from_secs(*looks))
    }

    fn broker(&self) -> Option<Timestamp> {
        None
    }
}

#[test]
fn a_search_ends_at_its_deadline_and_at_its_bytes() {
    let shop = Shop::new();
    let limits = SearchLimits {
        time: Duration::from_millis(500),
        ..SearchLimits::new(Arc::new(Hurried(std::sync::Mutex::new(0))))
    };
    let late = shop.sink.copy().search(&SearchRequest::default(), &limits);
    assert!(matches!(late, Err(SearchError::Timeout(_))), "{late:?}");
    let limits = SearchLimits {
        answer_bytes: 300,
        ..SearchLimits::new(Arc::new(ManualClock::new(Timestamp(0))))
    };
    let large = shop.sink.copy().search(&SearchRequest::default(), &limits);
    assert!(matches!(large, Err(SearchError::TooLarge(_))), "{large:?}");
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
    copy.withdraw();
    unservable(search(&copy, json!({})));
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
    assert_eq!(largest.total, rows.len() as u64);
    assert_eq!(copy.verify().expect("a report"), Default::default());
}
