//! Facets and aggregations, in one collector of tantivy's.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tantivy::Searcher;
use tantivy::aggregation::agg_req::{Aggregations, get_fast_field_names};
use tantivy::aggregation::{AggContextParams, AggregationCollector, AggregationLimitsGuard};

use super::query::unknown;
use super::{Facet, FacetValue, SearchError, SearchLimits, SearchRequest};
use crate::tantivy::schema::IndexSchema;

/// The most values of one facet.
const VALUES_MAX: u32 = 1_000;

/// Keeps facets apart from aggregations of the same name.
const FACET: &str = "facet ";
const AGGREGATION: &str = "aggregation ";

/// Returns the collector of a request's facets and aggregations; `None` if it asks for none.
pub(super) fn collector(
    schema: &IndexSchema,
    searcher: &Searcher,
    request: &SearchRequest,
    limits: &SearchLimits,
) -> Result<Option<AggregationCollector>, SearchError> {
    let mut all = Aggregations::default();
    for (name, size) in &request.facets {
        let bad = |why: String| SearchError::bad(format!("facets.{name}"), why);
        let (field, _) = schema
            .find(name)
            .ok_or_else(|| bad(unknown(schema, name)))?;
        if !field.index.facet {
            let why = format!("`{name}` is not counted: write `facet: true` at it in the view");
            return Err(bad(why));
        }
        if *size == 0 || *size > VALUES_MAX {
            return Err(bad(format!("from 1 to {VALUES_MAX} values")));
        }
        // As many of each segment as there may be, so that the counts are exact.
        let terms = json!({"field": name, "size": size, "segment_size": limits.buckets});
        let terms = serde_json::from_value(json!({"terms": terms}))
            .map_err(|fault| bad(fault.to_string()))?;
        all.insert(format!("{FACET}{name}"), terms);
    }
    if let Some(aggregations) = &request.aggs {
        let bad = |why: String| SearchError::bad("aggs", why);
        let asked: Aggregations =
            serde_json::from_value(aggregations.clone()).map_err(|fault| bad(fault.to_string()))?;
        for name in get_fast_field_names(&asked) {
            if schema.find(&name).is_none() {
                return Err(bad(unknown(schema, &name)));
            }
        }
        let named = asked.into_iter();
        all.extend(named.map(|(name, asked)| (format!("{AGGREGATION}{name}"), asked)));
    }
    if all.is_empty() {
        return Ok(None);
    }
    let guard = AggregationLimitsGuard::new(Some(limits.aggregation_bytes), Some(limits.buckets));
    let tokenizers = searcher.index().tokenizers().clone();
    let context = AggContextParams::new(guard, tokenizers);
    Ok(Some(AggregationCollector::from_aggs(all, context)))
}

/// Takes the results apart again.
pub(super) fn results(
    results: &impl serde::Serialize,
    request: &SearchRequest,
) -> Result<(BTreeMap<String, Facet>, Option<Value>), SearchError> {
    let failed = |fault: serde_json::Error| SearchError::Failed(fault.to_string());
    let (mut facets, mut aggregations) = (BTreeMap::new(), serde_json::Map::new());
    let Value::Object(results) = serde_json::to_value(results).map_err(failed)? else {
        return Err(SearchError::Failed(
            "the aggregations are no object".to_owned(),
        ));
    };
    for (name, result) in results {
        if let Some(name) = name.strip_prefix(FACET) {
            facets.insert(name.to_owned(), facet(&result));
        } else if let Some(name) = name.strip_prefix(AGGREGATION) {
            aggregations.insert(name.to_owned(), result);
        }
    }
    let aggregations = request
        .aggs
        .is_some()
        .then_some(Value::Object(aggregations));
    Ok((facets, aggregations))
}

fn facet(result: &Value) -> Facet {
    let buckets = result["buckets"].as_array().map_or(&[][..], Vec::as_slice);
    let values = buckets.iter().map(|bucket| FacetValue {
        // Booleans and dates have their text beside their number.
        value: bucket
            .get("key_as_string")
            .unwrap_or(&bucket["key"])
            .clone(),
        count: bucket["doc_count"].as_u64().unwrap_or(0),
    });
    Facet {
        values: values.collect(),
        others: result["sum_other_doc_count"].as_u64().unwrap_or(0),
    }
}
