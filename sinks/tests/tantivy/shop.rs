//! A shop's index, and how it is asked.

use std::sync::Arc;

use materializer_model::memory::ManualClock;
use materializer_model::{Timestamp, ViewDefinition};
use materializer_sinks::tantivy::search::{
    SearchError, SearchLimits, SearchRequest, SearchResponse,
};
use materializer_sinks::tantivy::{IndexCopy, TantivySink};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{commit, filled, mutation, settings, view};

/// A shop with an index; dropped together.
pub(crate) struct Shop {
    _dir: TempDir,
    pub(crate) sink: TantivySink,
}

pub(crate) fn shop_view() -> ViewDefinition {
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

pub(crate) const BRANDS: [Option<&str>; 4] = [Some("Acme"), Some("Zeta"), None, Some("Möbius")];

/// Returns the price of a row; every fifth has none.
pub(crate) fn price(n: usize) -> Value {
    if n.is_multiple_of(5) {
        return Value::Null;
    }
    json!(f64::from(u32::try_from(n % 7).expect("few")) - 2.5)
}

pub(crate) fn row(n: usize) -> Value {
    json!({
        "title": format!("{} running shoes <b>no {n}</b>", ["Red", "Blue"][n % 2]),
        "brand": BRANDS[n % 4],
        "price": price(n),
        "stock": i64::try_from(n % 3).expect("few") - 1,
        "added": format!("2024-01-{:02}T00:00:00Z", n % 28 + 1),
        "cost": 1.5,
        "specs": {"size": n % 10, "colour": "dark red"},
    })
}

impl Shop {
    /// Makes an index of 60 rows in several segments, some of them deleted or replaced.
    pub(crate) fn new() -> Self {
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

    pub(crate) fn ask(&self, request: Value) -> Result<SearchResponse, SearchError> {
        search(&self.sink.copy(), request)
    }

    pub(crate) fn answer(&self, request: Value) -> SearchResponse {
        let text = request.to_string();
        self.ask(request)
            .unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    pub(crate) fn keys(&self, request: Value) -> Vec<String> {
        keys_of(&self.answer(request))
    }
}

pub(crate) fn search(copy: &Arc<IndexCopy>, request: Value) -> Result<SearchResponse, SearchError> {
    let request: SearchRequest = serde_json::from_value(request).expect("a request");
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    copy.search(&request, &SearchLimits::new(clock))
}

pub(crate) fn keys_of(response: &SearchResponse) -> Vec<String> {
    let hits = response.hits.iter();
    hits.map(|hit| hit.key.clone().expect("text")).collect()
}

pub(crate) fn is_bad<T>(answer: &Result<T, SearchError>, at: &str, says: &str) -> bool {
    matches!(answer, Err(SearchError::BadRequest { place, why }) if place == at && why.contains(says))
}

pub(crate) fn number(count: usize) -> u64 {
    u64::try_from(count).expect("few")
}
