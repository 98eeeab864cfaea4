//! Filters: exact values and ranges by field, which take no part in the score.

use std::ops::Bound;

use materializer_model::definition::FieldType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tantivy::Term;
use tantivy::query::{ConstScoreQuery, Occur, Query, RangeQuery, TermSetQuery};
use tantivy::schema::OwnedValue;

use super::query::unknown;
use super::{SearchError, SearchRequest};
use crate::tantivy::document::typed;
use crate::tantivy::schema::{DocumentField, IndexSchema, expected, shown};

/// The most values of one filter.
const VALUES_MAX: usize = 1024;

/// What a field must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Filter {
    /// One of these.
    AnyOf(Vec<Value>),
    /// A value between these.
    Range(Range),
    /// This.
    Is(Value),
}

/// A range, open where a bound is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Range {
    /// Greater than this.
    pub gt: Option<Value>,
    /// Greater than this, or equal.
    pub gte: Option<Value>,
    /// Less than this.
    pub lt: Option<Value>,
    /// Less than this, or equal.
    pub lte: Option<Value>,
}

/// One part of a search.
pub(super) type Clause = (Occur, Box<dyn Query>);

/// Returns the clauses of a request's filters.
pub(super) fn clauses(
    schema: &IndexSchema,
    request: &SearchRequest,
) -> Result<Vec<Clause>, SearchError> {
    let mut clauses: Vec<Clause> = Vec::new();
    for (name, filter) in &request.filters {
        let query = clause(schema, name, filter)
            .map_err(|why| SearchError::bad(format!("filters.{name}"), why))?;
        clauses.push((Occur::Must, Box::new(ConstScoreQuery::new(query, 0.0))));
    }
    Ok(clauses)
}

fn clause(schema: &IndexSchema, name: &str, filter: &Filter) -> Result<Box<dyn Query>, String> {
    let (field, _) = schema.find(name).ok_or_else(|| unknown(schema, name))?;
    match field.index.kind {
        FieldType::Text | FieldType::Json => {
            return Err(format!("words are found by `q`, as in `{name}:word`"));
        }
        FieldType::String
        | FieldType::I64
        | FieldType::U64
        | FieldType::F64
        | FieldType::Bool
        | FieldType::Date
        | FieldType::Bytes => {}
    }
    match filter {
        Filter::Is(value) => Ok(Box::new(TermSetQuery::new([term(field, value)?]))),
        Filter::AnyOf(values) if values.len() > VALUES_MAX => Err(format!(
            "it has {} values, {VALUES_MAX} are taken",
            values.len()
        )),
        Filter::AnyOf(values) => {
            let terms: Result<Vec<Term>, String> =
                values.iter().map(|value| term(field, value)).collect();
            Ok(Box::new(TermSetQuery::new(terms?)))
        }
        Filter::Range(range) => {
            let below = bound(field, ("gt", &range.gt), ("gte", &range.gte))?;
            let above = bound(field, ("lt", &range.lt), ("lte", &range.lte))?;
            if matches!((&below, &above), (Bound::Unbounded, Bound::Unbounded)) {
                return Err("a range has `gt`, `gte`, `lt` or `lte`".to_owned());
            }
            Ok(Box::new(RangeQuery::new(below, above)))
        }
    }
}

fn bound(
    field: &DocumentField,
    (open_name, open): (&str, &Option<Value>),
    (closed_name, closed): (&str, &Option<Value>),
) -> Result<Bound<Term>, String> {
    match (open, closed) {
        (None, None) => Ok(Bound::Unbounded),
        (Some(value), None) => Ok(Bound::Excluded(term(field, value)?)),
        (None, Some(value)) => Ok(Bound::Included(term(field, value)?)),
        (Some(_), Some(_)) => Err(format!("give `{open_name}` or `{closed_name}`, not both")),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of tantivy's values those that `typed` makes"
)]
fn term(field: &DocumentField, value: &Value) -> Result<Term, String> {
    let wrong = |expected: &str| format!("{} is not {expected}", shown(value));
    let at = field.field;
    match typed(field.index.kind, value).map_err(wrong)? {
        OwnedValue::Str(text) => Ok(Term::from_field_text(at, &text)),
        OwnedValue::I64(number) => Ok(Term::from_field_i64(at, number)),
        OwnedValue::U64(number) => Ok(Term::from_field_u64(at, number)),
        OwnedValue::F64(number) => Ok(Term::from_field_f64(at, number)),
        OwnedValue::Bool(truth) => Ok(Term::from_field_bool(at, truth)),
        OwnedValue::Date(date) => Ok(Term::from_field_date(at, date)),
        OwnedValue::Bytes(bytes) => Ok(Term::from_field_bytes(at, &bytes)),
        _ => Err(wrong(expected(field.index.kind))),
    }
}
