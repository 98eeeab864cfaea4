//! What a view makes of one record, expression by expression, and where in its file a fault stands.

use materializer_model::clock::Timestamp;
use materializer_model::{Key, Poison, Record, Row, ViewName};

use crate::document::{Derived, View};
use crate::faults::{Fault, Place, Sheet};
use crate::yaml::{Content, Node, documents};

/// What a view makes of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What each expression gives, whether or not it is needed, in the order of evaluation. Empty for
    /// a null value, and where the value cannot be decoded.
    pub steps: Vec<Step>,
    /// What becomes of the record.
    pub outcome: Outcome,
}

/// What one expression gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its key in the definition, as `document.price`.
    pub place: String,
    /// What it gives, as JSON.
    pub gave: Result<String, Poison>,
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `only` passes it over.
    Excluded,
    /// The row of the key goes: the value is null, or `where` does not hold.
    Deleted {
        /// The row's key.
        key: Key,
    },
    /// It is the row of the key.
    Document {
        /// The row's key.
        key: Key,
        /// The row.
        row: Row,
        /// When the row ends by itself.
        expires_at: Option<Timestamp>,
    },
    /// The view cannot take it in.
    Poison(Poison),
}

impl View {
    /// Shows what each expression gives for a record, and what becomes of it.
    #[must_use]
    pub fn explain(&self, record: &Record<'_>) -> Explanation {
        let scope = record.value.map(|value| self.scope(record, value));
        let steps = match &scope {
            Some(Ok(scope)) => self
                .operands()
                .map(|operand| {
                    let mut json = Vec::new();
                    let gave = operand.append(scope, &mut json);
                    Step {
                        place: operand.place.clone(),
                        gave: gave.map(|()| String::from_utf8_lossy(&json).into_owned()),
                    }
                })
                .collect(),
            Some(Err(_)) | None => Vec::new(),
        };
        let outcome = match self.derive(record) {
            Ok(Derived::Excluded) => Outcome::Excluded,
            Ok(Derived::Deleted(key)) => Outcome::Deleted { key },
            Ok(Derived::Row {
                key,
                row,
                expires_at,
            }) => Outcome::Document {
                key,
                row,
                expires_at,
            },
            Err(poison) => Outcome::Poison(poison),
        };
        Explanation { steps, outcome }
    }
}

/// Points at the expression of a file that found a record to be poison, so that it can be shown like
/// a fault of the file. `None` where the definition does not have the place.
#[must_use]
pub fn point_at(file: &str, text: &str, view: &ViewName, poison: &Poison) -> Option<Fault> {
    let mut sheet = Sheet::new(file, text);
    let documents = documents(text, &mut sheet);
    let definition = documents
        .iter()
        .find(|node| value_of(node, "view").and_then(Node::text) == Some(view.as_str()))?;
    let at = match poison.place.as_str() {
        "" => value_of(definition, "from")?.at,
        // A field's name may hold dots.
        place => match place.strip_prefix("document.") {
            Some(name) => expression_of(value_of(value_of(definition, "document")?, name)?),
            None => place
                .split('.')
                .try_fold(definition, value_of)
                .map(expression_of)?,
        },
    };
    Some(sheet.fault(at, poison.why.as_str()))
}

fn value_of<'n, 'a>(node: &'n Node<'a>, name: &str) -> Option<&'n Node<'a>> {
    let Content::Map(entries) = &node.content else {
        return None;
    };
    let found = entries.iter().find(|(key, _)| key.text() == Some(name));
    found.map(|(_, value)| value)
}

/// Returns where a field's expression stands: `{value: EXPR, …}`, or the node itself.
fn expression_of(node: &Node<'_>) -> Place {
    value_of(node, "value").unwrap_or(node).at
}
