//! From a query string to tantivy's query, once it is known to be harmless.
//!
//! It is parsed against the schema of the view's own fields, so that no hidden field can be named.

use tantivy::Searcher;
use tantivy::query::{AllQuery, Query, QueryParser, QueryParserError};
use tantivy::query_grammar::{self, UserInputAst, UserInputLeaf};
use tantivy::schema::Field;

use materializer_model::definition::FieldType;

use super::{SearchError, SearchLimits, SearchRequest};
use crate::tantivy::schema::IndexSchema;

/// The deepest nesting: the parser descends once for each.
const DEPTH_MAX: usize = 32;

/// A query and what was passed over in it.
pub(super) struct Parsed {
    pub(super) query: Box<dyn Query>,
    pub(super) warnings: Vec<String>,
}

/// Compiles the query string of a request.
pub(super) fn parse(
    schema: &IndexSchema,
    searcher: &Searcher,
    request: &SearchRequest,
    limits: &SearchLimits,
) -> Result<Parsed, SearchError> {
    let defaults = default_fields(schema, request)?;
    let Some(text) = &request.q else {
        return Ok(Parsed {
            query: Box::new(AllQuery),
            warnings: Vec::new(),
        });
    };
    check_size(text, limits)?;
    let (ast, faults) = query_grammar::parse_query_lenient(text);
    if let Some(fault) = faults.first()
        && !request.lenient
    {
        return Err(SearchError::bad(
            format!("q at {}", fault.pos),
            &*fault.message,
        ));
    }
    let mut warnings: Vec<String> = faults
        .iter()
        .map(|fault| format!("q at {}: {}", fault.pos, fault.message))
        .collect();
    let mut clauses = 0;
    visit(&ast, &mut |leaf| count(leaf, defaults.len(), &mut clauses));
    if clauses > limits.clauses {
        let why = format!(
            "it makes {clauses} clauses, {} are taken: use fewer words, or fewer `fields`",
            limits.clauses
        );
        return Err(SearchError::bad("q", why));
    }
    let tokenizers = searcher.index().tokenizers().clone();
    let parser = QueryParser::new(schema.visible.clone(), defaults, tokenizers);
    let (query, faults) = parser.build_query_from_user_input_ast_lenient(ast);
    if let Some(fault) = faults.first()
        && !request.lenient
    {
        return Err(SearchError::bad("q", explained(schema, fault)));
    }
    warnings.extend(
        faults
            .iter()
            .map(|fault| format!("q: {}", explained(schema, fault))),
    );
    Ok(Parsed { query, warnings })
}

fn default_fields(
    schema: &IndexSchema,
    request: &SearchRequest,
) -> Result<Vec<Field>, SearchError> {
    let Some(names) = &request.fields else {
        let texts = schema
            .fields
            .iter()
            .filter(|field| field.index.kind == FieldType::Text);
        return Ok(texts.map(|field| field.field).collect());
    };
    names
        .iter()
        .map(|name| match schema.find(name) {
            Some((field, "")) => Ok(field.field),
            Some(_) | None => Err(SearchError::bad("fields", unknown(schema, name))),
        })
        .collect()
}

fn check_size(text: &str, limits: &SearchLimits) -> Result<(), SearchError> {
    if text.len() > limits.query_bytes {
        let why = format!(
            "it has {} bytes, {} are taken",
            text.len(),
            limits.query_bytes
        );
        return Err(SearchError::bad("q", why));
    }
    // Counts those within quotes as well: more than enough are left.
    let mut depth: usize = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} parentheses within each other");
            return Err(SearchError::bad(format!("q at {at}"), why));
        }
    }
    Ok(())
}

fn visit(ast: &UserInputAst, each: &mut impl FnMut(&UserInputLeaf)) {
    match ast {
        UserInputAst::Clause(clauses) => {
            for (_, clause) in clauses {
                visit(clause, each);
            }
        }
        UserInputAst::Boost(inner, _) => visit(inner, each),
        UserInputAst::Leaf(leaf) => each(leaf),
    }
}

/// Adds how many clauses a leaf becomes: a phrase has a word for each white space, and whatever has no
/// field name is looked up in each default field.
fn count(leaf: &UserInputLeaf, defaults: usize, clauses: &mut usize) {
    let (named, words) = match leaf {
        UserInputLeaf::Literal(literal) => (
            literal.field_name.is_some(),
            literal.phrase.split_whitespace().count().max(1),
        ),
        UserInputLeaf::Range { field, .. } | UserInputLeaf::Regex { field, .. } => {
            (field.is_some(), 1)
        }
        UserInputLeaf::Set { field, elements } => (field.is_some(), elements.len()),
        UserInputLeaf::All | UserInputLeaf::Exists { .. } => (true, 1),
    };
    *clauses += if named {
        words
    } else {
        words * defaults.max(1)
    };
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of tantivy's faults those are told better that can be"
)]
fn explained(schema: &IndexSchema, fault: &QueryParserError) -> String {
    match fault {
        QueryParserError::FieldDoesNotExist(name) => unknown(schema, name),
        QueryParserError::NoDefaultFieldDeclared => {
            "the view has no `text` field: write `field:word`, or give `fields`".to_owned()
        }
        QueryParserError::AllButQueryForbidden => {
            "it only excludes: write `* -word` to find all rows without a word".to_owned()
        }
        QueryParserError::ExpectedFloat(_) => "a number was expected".to_owned(),
        _ => fault.to_string(),
    }
}

/// Says that there is no such field, and which there are.
pub(super) fn unknown(schema: &IndexSchema, name: &str) -> String {
    let names: Vec<String> = schema
        .fields
        .iter()
        .map(|field| format!("`{}`", field.name))
        .collect();
    format!("there is no field `{name}`; there are {}", names.join(", "))
}
