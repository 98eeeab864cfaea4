//! Searching a copy: what a request may ask, what it is answered, and the one searcher between them.
//!
//! The types are the HTTP API's JSON. Unknown keys are refused, so that a wish that is not understood
//! is a fault and not a wrong answer. A search ends at a deadline, and holds a bounded number of hits
//! and bytes.

mod answer;
mod facets;
mod filter;
mod highlight;
mod query;
mod top;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tantivy::TantivyError;

pub use filter::Filter;

/// The most hits that can be reached by `from` and `size`; beyond them there is `search_after`.
pub const HITS_MAX: usize = 10_000;

/// A search. Everything may be left out; `{}` finds all rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// The query string: `title:shoe -brand:"Old Co" price:[10 TO 20}`. `None` is every row.
    pub q: Option<String>,
    /// The fields that words without a field name are looked up in; every `text` field by default.
    pub fields: Option<Vec<String>>,
    /// Makes the most of a faulty query string instead of refusing it; the answer warns.
    pub lenient: bool,
    /// What a row must have besides, by field: a value, a list of values, or a range.
    pub filters: BTreeMap<String, Filter>,
    /// The order; by score where there is a `q`, else by place in the log.
    pub sort: Vec<SortKey>,
    /// How many hits to pass over.
    pub from: Option<usize>,
    /// How many hits to return, 10 by default.
    pub size: Option<usize>,
    /// The cursor of an answer: goes on behind its last hit. In place of `from`.
    pub search_after: Option<String>,
    /// Fields whose matching words are marked.
    pub highlight: Option<Highlight>,
    /// How many of the most frequent values to count, by field with `facet: true`.
    pub facets: BTreeMap<String, u32>,
    /// Aggregations in Elasticsearch's form.
    pub aggs: Option<Value>,
}

/// One key of an order: `{"field": "price", "order": "desc"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    /// A field with `sort: true`, or `_score`.
    pub field: String,
    /// The direction; by default `desc` for `_score`, else `asc`.
    #[serde(default)]
    pub order: Option<Order>,
    /// Where rows without a value stand, whatever the direction.
    #[serde(default)]
    pub missing: Missing,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The least first.
    Asc,
    /// The greatest first.
    Desc,
}

/// Where rows without a value stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// Before all others.
    First,
    /// After all others.
    #[default]
    Last,
}

/// What is marked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Highlight {
    /// `text` fields that are `stored`.
    pub fields: Vec<String>,
    /// The most characters of a piece.
    #[serde(default = "Highlight::max_chars")]
    pub max_chars: usize,
}

impl Highlight {
    fn max_chars() -> usize {
        150
    }
}

/// The answer to a search, all of it from one state of the index.
#[derive(Debug, Serialize, Deserialize)]
pub struct SearchResponse {
    /// How many rows match; exact.
    pub total: u64,
    /// Some of them, in order.
    pub hits: Vec<Hit>,
    /// Where the next page begins; none at the end, and none in an order by score, which changes with
    /// every commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The counts that were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facets: BTreeMap<String, Facet>,
    /// The aggregations that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggs: Option<Value>,
    /// What `lenient` passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A row that was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hit {
    /// Its key, if that is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its key in hex, if that is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hex: Option<String>,
    /// How well it matches, in an order by score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// The row, without the fields that are not `stored`.
    pub source: Box<RawValue>,
    /// The best piece of each field that has one: HTML, escaped, the words in `<b>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub highlight: BTreeMap<String, String>,
}

/// The counts of one field's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facet {
    /// The most frequent values.
    pub values: Vec<FacetValue>,
    /// How many occurrences the others have together.
    pub others: u64,
}

/// One value's count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FacetValue {
    /// The value.
    pub value: Value,
    /// How many of the rows found have it.
    pub count: u64,
}

/// Why a search has no answer, by what the asker can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The request is at fault.
    #[error("{place}: {why}")]
    BadRequest {
        /// The key of the request, and for `q` the character: `q at 6`.
        place: String,
        /// What is wrong, and what to write instead.
        why: String,
    },
    /// The copy is not ready for readers: ask another.
    #[error("{0}")]
    Unservable(String),
    /// The answer would be too large: ask for less.
    #[error("{0}")]
    TooLarge(String),
    /// The time was over.
    #[error("the search took longer than {0:?}")]
    Timeout(Duration),
    /// The index could not be read.
    #[error("{0}")]
    Failed(String),
}

impl SearchError {
    pub(super) fn bad(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self::BadRequest {
            place: place.into(),
            why: why.into(),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
    pub(super) fn failed(fault: TantivyError) -> Self {
        Self::Failed(fault.to_string())
    }
}

/// What a search may use.
#[derive(Clone)]
pub struct SearchLimits {
    /// Tells when the time is over.
    pub clock: Arc<dyn Clock>,
    /// How long a search may take.
    pub time: Duration,
    /// The most bytes of a query string.
    pub query_bytes: usize,
    /// The most words, ranges and values in a query string, each counted for each field.
    pub clauses: usize,
    /// The most bytes of the rows in an answer.
    pub answer_bytes: usize,
    /// The most bytes that facets and aggregations may take.
    pub aggregation_bytes: u64,
    /// The most buckets of all facets and aggregations.
    pub buckets: u32,
}

impl SearchLimits {
    /// Takes a clock, with 5 s, 4 KiB of query, 1 024 clauses, 32 MiB of rows, 64 MiB for
    /// aggregations, and 65 000 buckets.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            time: Duration::from_secs(5),
            query_bytes: 4 << 10,
            clauses: 1024,
            answer_bytes: 32 << 20,
            aggregation_bytes: 64 << 20,
            buckets: 65_000,
        }
    }
}
