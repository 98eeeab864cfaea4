//! Marking the words that matched.

use std::collections::BTreeMap;

use materializer_model::definition::FieldType;
use serde_json::{Map, Value};
use tantivy::Searcher;
use tantivy::query::Query;
use tantivy::snippet::SnippetGenerator;

use super::query::unknown;
use super::{SearchError, SearchRequest};
use crate::tantivy::schema::IndexSchema;

/// The most characters of a piece that can be asked for.
const CHARS_MAX: usize = 10_000;

/// Marks the fields of rows, one after another.
pub(super) struct Marker(Vec<(String, SnippetGenerator)>);

impl Marker {
    /// Prepares to mark what a request asks for; marks nothing where it asks for nothing.
    pub(super) fn new(
        schema: &IndexSchema,
        searcher: &Searcher,
        query: &dyn Query,
        request: &SearchRequest,
    ) -> Result<Self, SearchError> {
        let Some(wish) = &request.highlight else {
            return Ok(Self(Vec::new()));
        };
        if wish.max_chars == 0 || wish.max_chars > CHARS_MAX {
            let why = format!("from 1 to {CHARS_MAX}");
            return Err(SearchError::bad("highlight.max_chars", why));
        }
        let mut fields: Vec<(String, SnippetGenerator)> = Vec::new();
        for name in &wish.fields {
            let bad = |why: String| Err(SearchError::bad("highlight.fields", why));
            let Some((field, "")) = schema.find(name) else {
                return bad(unknown(schema, name));
            };
            if field.index.kind != FieldType::Text || !field.index.stored {
                return bad(format!("`{name}` is not a `text` field that is `stored`"));
            }
            if fields.iter().any(|(known, _)| known == name) {
                return bad(format!("`{name}` is named twice"));
            }
            let mut generator = SnippetGenerator::create(searcher, query, field.field)
                .map_err(SearchError::failed)?;
            generator.set_max_num_chars(wish.max_chars);
            fields.push((name.clone(), generator));
        }
        Ok(Self(fields))
    }

    /// Returns the best piece of each field of a row, where a word matched in it.
    pub(super) fn mark(&self, row: &[u8]) -> BTreeMap<String, String> {
        if self.0.is_empty() {
            return BTreeMap::new();
        }
        let row: Map<String, Value> = serde_json::from_slice(row).unwrap_or_default();
        let marked = self.0.iter().filter_map(|(name, generator)| {
            let texts = match row.get(name)? {
                Value::String(text) => vec![text.as_str()],
                Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
            };
            let snippets = texts.into_iter().map(|text| generator.snippet(text));
            let html = snippets.filter(|snippet| !snippet.highlighted().is_empty());
            Some((name.clone(), html.map(|snippet| snippet.to_html()).next()?))
        });
        marked.collect()
    }
}
