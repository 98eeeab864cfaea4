//! Answering a request: one searcher from the query to the last byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tantivy::query::{BooleanQuery, Occur};
use tantivy::{Score, TantivyError};

use materializer_model::{Monotonic, VersionId};

use super::highlight::Marker;
use super::top::{After, Bounded, Kept, Key, Rank, TopRows};
use super::{
    HITS_MAX, Hit, Order, SearchError, SearchLimits, SearchRequest, SearchResponse, SortKey,
    facets, filter, query,
};
use crate::tantivy::read::{IndexCopy, Served};
use crate::tantivy::schema::IndexSchema;

/// The hits of a page that does not say how many.
const SIZE: usize = 10;

/// The most keys of an order.
const KEYS_MAX: usize = 8;

/// What a cursor holds: the last hit of a page, of one version in one order.
#[derive(Serialize, Deserialize)]
struct Cursor {
    version: VersionId,
    sort: Vec<SortKey>,
    ranks: Vec<Rank>,
    record: (u64, u64),
}

/// Which part of the order is asked for.
struct Page {
    from: usize,
    size: usize,
    after: Option<After>,
}

impl IndexCopy {
    /// Answers a search from the last durable commit. Blocks; several threads may search at once.
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn search(
        &self,
        request: &SearchRequest,
        limits: &SearchLimits,
    ) -> Result<SearchResponse, SearchError> {
        let served = self.servable()?;
        let searcher = &served.searcher;
        let sort = order(request);
        let keys = keys(&self.schema, &sort)?;
        let page = self.page(request, &sort)?;
        let parsed = query::parse(&self.schema, searcher, request, limits)?;
        let mut clauses = filter::clauses(&self.schema, request)?;
        clauses.insert(0, (Occur::Must, parsed.query.box_clone()));

        let by_score = keys.iter().any(|key| matches!(key, Key::Score(_)));
        let late = Arc::new(AtomicBool::new(false));
        let end = limits.clock.monotonic().plus(limits.time);
        let rows = TopRows {
            keys,
            after: page.after,
            keep: page.from + page.size,
        };
        let collector = Bounded {
            inner: (
                rows,
                facets::collector(&self.schema, searcher, request, limits)?,
            ),
            clock: Arc::clone(&limits.clock),
            end,
            late: Arc::clone(&late),
        };
        let ((total, rows), counted) = searcher
            .search(&BooleanQuery::new(clauses), &collector)
            .map_err(|fault| {
                if late.load(Ordering::Relaxed) {
                    return SearchError::Timeout(limits.time);
                }
                fault_of(fault)
            })?;

        let (facets, aggs) = match &counted {
            Some(counted) => facets::results(counted, request)?,
            None => Default::default(),
        };
        // Skipped after counting: the rows before it were needed to know which come next.
        let rows: Vec<(Kept, Score)> = rows.into_iter().skip(page.from).collect();
        let more = rows.len() == page.size && page.size > 0 && !by_score;
        let cursor = rows.last().filter(|_| more);
        let cursor = cursor.map(|(last, _)| self.cursor(&sort, last));
        let marker = Marker::new(&self.schema, searcher, &*parsed.query, request)?;
        Ok(SearchResponse {
            total,
            hits: hits(&served, &rows, by_score, &marker, limits, end)?,
            cursor,
            facets,
            aggs,
            warnings: parsed.warnings,
        })
    }

    fn page(&self, request: &SearchRequest, sort: &[SortKey]) -> Result<Page, SearchError> {
        let (from, size) = (request.from.unwrap_or(0), request.size.unwrap_or(SIZE));
        if from.saturating_add(size) > HITS_MAX {
            let why = format!(
                "`from` and `size` together reach {HITS_MAX} hits: go on with `search_after`"
            );
            return Err(SearchError::bad("from", why));
        }
        let Some(text) = &request.search_after else {
            return Ok(Page {
                from,
                size,
                after: None,
            });
        };
        let bad = |why: String| SearchError::bad("search_after", why);
        if from > 0 {
            return Err(bad("it stands in place of `from`".to_owned()));
        }
        let cursor = from_hex(text).and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok());
        let cursor = cursor.ok_or_else(|| bad("it is no cursor of ours".to_owned()))?;
        if cursor.version != self.unit.version {
            return Err(bad(format!(
                "the cursor is of `{}`, and `{}` answers now: begin again",
                cursor.version, self.unit.version
            )));
        }
        if cursor.sort != sort || cursor.ranks.len() != sort.len() {
            return Err(bad(
                "the cursor is of another `sort`: begin again".to_owned()
            ));
        }
        Ok(Page {
            from,
            size,
            after: Some(After {
                ranks: cursor.ranks,
                record: cursor.record,
            }),
        })
    }

    fn cursor(&self, sort: &[SortKey], last: &Kept) -> String {
        let cursor = Cursor {
            version: self.unit.version.clone(),
            sort: sort.to_vec(),
            ranks: last.ranks.clone(),
            record: last.record,
        };
        to_hex(&serde_json::to_vec(&cursor).expect("texts and numbers always serialise"))
    }
}

/// Returns the order that is asked for, or meant.
fn order(request: &SearchRequest) -> Vec<SortKey> {
    if !request.sort.is_empty() || request.q.is_none() {
        return request.sort.clone();
    }
    vec![SortKey {
        field: SCORE.to_owned(),
        order: None,
        missing: super::Missing::Last,
    }]
}

/// The name of the score in an order.
const SCORE: &str = "_score";

fn keys(schema: &IndexSchema, sort: &[SortKey]) -> Result<Vec<Key>, SearchError> {
    let bad = |why: String| Err(SearchError::bad("sort", why));
    if sort.len() > KEYS_MAX {
        return bad(format!("it has {} keys, {KEYS_MAX} are taken", sort.len()));
    }
    let mut keys = Vec::with_capacity(sort.len());
    for key in sort {
        if key.field == SCORE {
            keys.push(Key::Score(key.order.unwrap_or(Order::Desc)));
            continue;
        }
        let Some((field, "")) = schema.find(&key.field) else {
            return bad(query::unknown(schema, &key.field));
        };
        if !field.index.sort {
            return bad(format!(
                "results are not sorted by `{}`: write `sort: true` at it in the view",
                key.field
            ));
        }
        keys.push(Key::Field {
            name: key.field.clone(),
            kind: field.index.kind,
            order: key.order.unwrap_or(Order::Asc),
            missing: key.missing,
        });
    }
    Ok(keys)
}

fn hits(
    served: &Served,
    rows: &[(Kept, Score)],
    by_score: bool,
    marker: &Marker,
    limits: &SearchLimits,
    end: Monotonic,
) -> Result<Vec<Hit>, SearchError> {
    let mut hits = Vec::with_capacity(rows.len());
    let mut bytes: usize = 0;
    for (kept, score) in rows {
        // To mark the words of long rows takes its time.
        if limits.clock.monotonic() >= end {
            return Err(SearchError::Timeout(limits.time));
        }
        let loaded = served.load(kept.at).map_err(SearchError::failed)?;
        bytes += loaded.row.0.len();
        if bytes > limits.answer_bytes {
            return Err(SearchError::TooLarge(format!(
                "the first {} rows have more than {} bytes: ask for a smaller `size`",
                hits.len() + 1,
                limits.answer_bytes
            )));
        }
        let source = String::from_utf8(served.schema.shown_of(&loaded.row.0))
            .ok()
            .and_then(|text| RawValue::from_string(text).ok());
        let source = source.ok_or_else(|| {
            SearchError::Failed(format!("the row of {} is no JSON", loaded.origin))
        })?;
        let text = std::str::from_utf8(&loaded.key.0).ok();
        hits.push(Hit {
            key: text.map(str::to_owned),
            key_hex: text.is_none().then(|| to_hex(&loaded.key.0)),
            score: by_score.then_some(*score),
            source,
            highlight: marker.mark(&loaded.row.0),
        });
    }
    Ok(hits)
}

/// Returns whose fault a failed search is.
fn fault_of(fault: TantivyError) -> SearchError {
    if let TantivyError::AggregationError(fault) = &fault {
        return SearchError::bad("aggs", fault.to_string());
    }
    if let TantivyError::InvalidArgument(why) = fault {
        return SearchError::bad("q", why);
    }
    SearchError::failed(fault)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() % 2 == 1 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let bytes = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    bytes.collect()
}
