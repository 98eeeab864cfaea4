//! What a search refuses, and where it ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use materializer_model::memory::ManualClock;
use materializer_model::{Clock, Monotonic, Timestamp};
use materializer_sinks::tantivy::search::{SearchError, SearchLimits, SearchRequest};
use serde_json::json;

use crate::shop::{Shop, is_bad};

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
        (
            json!({"highlight": {"fields": ["title", "title"]}}),
            "highlight.fields",
            "twice",
        ),
        (json!({"q": "title:/.*(a|b)*/"}), "q", "Regex"),
    ] {
        let text: String = request.to_string().chars().take(80).collect();
        let answer = shop.ask(request);
        assert!(is_bad(&answer, place, says), "{text}: {answer:?}");
    }
    let unknown = serde_json::from_value::<SearchRequest>(json!({"query": "x"}));
    assert!(unknown.is_err(), "unknown keys are refused");
    // Whatever is found of them, nothing falls over.
    for odd in [
        "-".repeat(4000),
        "NOT ".repeat(1000),
        "a".to_owned() + &"^2".repeat(2000),
        "+-".repeat(2000) + "a",
        "title:".repeat(600),
        "[".repeat(4000),
        "\"".repeat(4000) + "~",
        "a OR ".repeat(800) + "b",
    ] {
        for lenient in [false, true] {
            shop.ask(json!({"q": odd, "lenient": lenient})).ok();
        }
    }
    let lenient = shop.answer(json!({"q": "blue nosuch:x title:", "lenient": true}));
    assert!(
        lenient.total > 0 && !lenient.warnings.is_empty(),
        "{lenient:?}"
    );
}

/// A clock on which every look takes a second.
struct Hurried(Mutex<u64>);

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
        ..SearchLimits::new(Arc::new(Hurried(Mutex::new(0))))
    };
    let late = shop.sink.copy().search(&SearchRequest::default(), &limits);
    assert!(matches!(late, Err(SearchError::Timeout(_))), "{late:?}");
    let sized = |size| {
        let limits = SearchLimits {
            time: Duration::from_secs(30),
            ..SearchLimits::new(Arc::new(Hurried(Mutex::new(0))))
        };
        let request = SearchRequest {
            size: Some(size),
            ..SearchRequest::default()
        };
        shop.sink.copy().search(&request, &limits).map(|_| ())
    };
    assert_eq!(sized(1), Ok(()));
    assert!(
        matches!(sized(60), Err(SearchError::Timeout(_))),
        "its rows count too"
    );
    let limits = SearchLimits {
        answer_bytes: 300,
        ..SearchLimits::new(Arc::new(ManualClock::new(Timestamp(0))))
    };
    let large = shop.sink.copy().search(&SearchRequest::default(), &limits);
    assert!(matches!(large, Err(SearchError::TooLarge(_))), "{large:?}");
}
