//! From a view's definition to tantivy's schema.
//!
//! The view's own fields come first, in the definition's order, the hidden ones behind them: so a
//! schema of the view's fields alone has the same field numbers, and a query that is parsed against
//! it cannot name a hidden field.
//!
//! | hidden | |
//! |---|---|
//! | `_key` | the term that finds, and deletes, a row: the key, or its hash where it is no short text |
//! | `_key_raw` | the key's bytes |
//! | `_part`, `_offset` | the record that the row comes from; together unique in an index |
//! | `_source` | the row's bytes |

use materializer_model::definition::{
    Field as Definition, FieldIndex, FieldType, LANGUAGES, TOKENIZERS,
};
use materializer_model::{Topic, ViewDefinition};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tantivy::schema::{
    BytesOptions, DateOptions, DateTimePrecision, FAST, Field, INDEXED, IndexRecordOption,
    JsonObjectOptions, NumericOptions, STORED, STRING, Schema, SchemaBuilder, TEXT,
    TextFieldIndexing, TextOptions,
};

use super::document::typed;
use super::tokenizers;

/// What is wrong with a field of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`document.{field}`: {why}")]
pub struct SchemaFault {
    /// The field's name.
    pub field: String,
    /// What is wrong and what to write instead.
    pub why: String,
}

/// One field of the view's documents.
#[derive(Debug)]
pub(super) struct DocumentField {
    pub(super) name: String,
    pub(super) field: Field,
    pub(super) index: FieldIndex,
}

/// The fields that no reader sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hidden {
    pub(super) key: Field,
    pub(super) key_raw: Field,
    pub(super) part: Field,
    pub(super) offset: Field,
    pub(super) source: Field,
}

/// The names of the hidden fields that are read as columns.
pub(super) const PART: &str = "_part";
pub(super) const OFFSET: &str = "_offset";

/// How the rows of one view stand in an index.
#[derive(Debug)]
pub struct IndexSchema {
    /// All fields.
    pub(super) all: Schema,
    /// The view's own fields, under the same numbers.
    pub(super) visible: Schema,
    pub(super) fields: Vec<DocumentField>,
    pub(super) hidden: Hidden,
    pub(super) topics: Vec<Topic>,
    /// sha256 of the schema, in hex.
    pub(super) hash: String,
    /// The stored names of the tokenizers in use, sorted.
    pub(super) tokenizers: Vec<String>,
}

impl IndexSchema {
    /// Compiles a definition. Pure.
    ///
    /// # Errors
    /// [`SchemaFault`] for the first field that cannot be indexed as it says.
    pub fn new(definition: &ViewDefinition) -> Result<Self, SchemaFault> {
        let (mut all, mut visible) = (Schema::builder(), Schema::builder());
        let mut fields: Vec<DocumentField> = Vec::new();
        for field in &definition.document {
            let index = checked(field)?;
            if fields.iter().any(|other| other.name == field.name) {
                return Err(fault(field, "is named twice"));
            }
            add(&mut visible, field, index);
            fields.push(DocumentField {
                name: field.name.clone(),
                field: add(&mut all, field, index),
                index: index.clone(),
            });
        }
        let hidden = Hidden {
            key: all.add_text_field("_key", STRING | STORED),
            key_raw: all.add_bytes_field("_key_raw", STORED),
            part: all.add_u64_field(PART, FAST),
            offset: all.add_u64_field(OFFSET, FAST),
            source: all.add_bytes_field("_source", STORED),
        };
        let all = all.build();
        let mut tokenizers: Vec<String> = fields
            .iter()
            .filter_map(|field| text_tokenizer(&field.index))
            .collect();
        tokenizers.sort();
        tokenizers.dedup();
        Ok(Self {
            hash: hash(&all),
            visible: visible.build(),
            all,
            fields,
            hidden,
            topics: definition.from.topics.clone(),
            tokenizers,
        })
    }

    /// Returns a field of the view, and the path inside it where `name` is `field.path` of a `json`
    /// field.
    pub(super) fn find<'a>(&self, name: &'a str) -> Option<(&DocumentField, &'a str)> {
        let exact = self.fields.iter().find(|field| field.name == name);
        if let Some(field) = exact {
            return Some((field, ""));
        }
        let (root, path) = name.split_once('.')?;
        let field = self.fields.iter().find(|field| field.name == root)?;
        (field.index.kind == FieldType::Json).then_some((field, path))
    }

    /// Says whether readers see every field.
    pub(super) fn shows_all(&self) -> bool {
        self.fields.iter().all(|field| field.index.stored)
    }
}

fn hash(schema: &Schema) -> String {
    let text = serde_json::to_string(schema).expect("a schema always serialises");
    format!("{:x}", Sha256::digest(text))
}

fn fault(field: &Definition, why: impl Into<String>) -> SchemaFault {
    SchemaFault {
        field: field.name.clone(),
        why: why.into(),
    }
}

/// Returns the stored name of a text field's tokenizer; `None` for the other types.
fn text_tokenizer(index: &FieldIndex) -> Option<String> {
    if index.kind != FieldType::Text {
        return None;
    }
    match (&index.language, &index.tokenizer) {
        (Some(language), _) => tokenizers::of_language(language),
        (None, Some(tokenizer)) => tokenizers::of_name(tokenizer),
        (None, None) => tokenizers::of_name("default"),
    }
}

/// Returns how a field is indexed, once it is known to make sense.
fn checked(field: &Definition) -> Result<&FieldIndex, SchemaFault> {
    if field.name.is_empty() || field.name.starts_with('_') {
        return Err(fault(
            field,
            "a name that begins with `_` is not the view's",
        ));
    }
    let Some(index) = &field.index else {
        return Err(fault(field, "a field of an index needs a `type`"));
    };
    let is_text = index.kind == FieldType::Text;
    if !is_text && (index.language.is_some() || index.tokenizer.is_some()) {
        let why = "`language` and `tokenizer` belong to `type: text`";
        return Err(fault(field, why));
    }
    if index.language.is_some() && index.tokenizer.is_some() {
        return Err(fault(field, "give a `language` or a `tokenizer`, not both"));
    }
    if is_text && text_tokenizer(index).is_none() {
        return Err(fault(
            field,
            format!(
                "no such language or tokenizer: the languages are {}; the tokenizers {}",
                LANGUAGES.join(", "),
                TOKENIZERS.join(", ")
            ),
        ));
    }
    if index.sort && index.kind == FieldType::Json {
        return Err(fault(field, "a `json` field cannot be sorted by"));
    }
    if index.facet && index.kind == FieldType::Bytes {
        return Err(fault(field, "a `bytes` field cannot be a facet"));
    }
    if let Some(missing) = &index.missing
        && let Err(expected) = typed(index.kind, missing)
    {
        return Err(fault(
            field,
            format!("`missing: {missing}` is not {expected}"),
        ));
    }
    Ok(index)
}

/// Adds a field. Numbers, booleans and dates are always columns as well: they are small, and ranges
/// and aggregations need them. Text and bytes are columns where the definition asks for it.
fn add(schema: &mut SchemaBuilder, field: &Definition, index: &FieldIndex) -> Field {
    let name = &field.name;
    let column = index.sort || index.facet;
    let numeric = || NumericOptions::from(INDEXED | FAST);
    match index.kind {
        FieldType::Text => {
            let tokenizer = text_tokenizer(index).expect("known since the field was checked");
            let indexing = TextFieldIndexing::default()
                .set_tokenizer(&tokenizer)
                .set_index_option(IndexRecordOption::WithFreqsAndPositions);
            let options = TextOptions::default().set_indexing_options(indexing);
            schema.add_text_field(name, with_column(options, column))
        }
        FieldType::String => schema.add_text_field(name, with_column(STRING, column)),
        FieldType::I64 => schema.add_i64_field(name, numeric()),
        FieldType::U64 => schema.add_u64_field(name, numeric()),
        FieldType::F64 => schema.add_f64_field(name, numeric()),
        FieldType::Bool => schema.add_bool_field(name, numeric()),
        FieldType::Date => {
            let options = DateOptions::from(INDEXED | FAST);
            schema.add_date_field(name, options.set_precision(DateTimePrecision::Milliseconds))
        }
        FieldType::Bytes => {
            let options = BytesOptions::default().set_indexed();
            let options = if column { options.set_fast() } else { options };
            schema.add_bytes_field(name, options)
        }
        FieldType::Json => {
            let options = JsonObjectOptions::from(TEXT).set_expand_dots_enabled();
            let options = if column {
                options.set_fast("raw")
            } else {
                options
            };
            schema.add_json_field(name, options)
        }
    }
}

fn with_column(options: TextOptions, column: bool) -> TextOptions {
    if column {
        options.set_fast("raw")
    } else {
        options
    }
}

/// Says what a field's values look like, for messages.
pub(super) fn expected(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text | FieldType::String => "text",
        FieldType::I64 => "a whole number of 64 bits",
        FieldType::U64 => "a whole number from 0, of 64 bits",
        FieldType::F64 => "a number",
        FieldType::Bool => "true or false",
        FieldType::Date => "a date: RFC 3339 text, or milliseconds since 1970, from 1678 to 2262",
        FieldType::Bytes => "bytes as base64 text",
        FieldType::Json => "a JSON object",
    }
}

/// Returns a JSON value for a message, cut to a length that fits a line.
pub(super) fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
