//! The derivation of last-write documents: a record becomes an upsert or a delete of one row.
//!
//! Order: a null value deletes; `only` passes a record over; `key`; `where` decides between the row
//! and its delete; then the document. Each step is evaluated for this record alone, so the last
//! record of a key decides the row whatever came before.

use std::sync::Arc;
use std::time::Duration;

use cel::Env;
use materializer_model::clock::Timestamp;
use materializer_model::definition::{Format, RedisShape, Target, ViewDefinition};
use materializer_model::ports::Derive;
use materializer_model::{Change, Key, Mutation, Poison, PoisonKind, Record, Row};

use crate::evaluate::{Operand, Scope};
use crate::expression::{self, ExpressionFault};
use crate::extract::Paths;
use crate::functions::environment;
use crate::json;

/// Raise it when a record may give another mutation than before.
pub(crate) const REVISION: u32 = 1;

/// Why a definition that was parsed once does not compile: it is another release's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{place}`: {fault}")]
pub struct CompileError {
    /// The key of the definition, as `document.price`.
    pub place: String,
    /// What is wrong with its expression.
    pub fault: ExpressionFault,
}

/// A compiled view: the pure function from a record to mutations, at most one a record. For a record
/// that `only` excludes it adds none.
pub struct View {
    pub(crate) env: Arc<Env>,
    format: Format,
    paths: Paths,
    only: Option<Operand>,
    condition: Option<Operand>,
    key: Operand,
    row: RowPlan,
    ttl: Option<Duration>,
}

/// How a row is made.
#[derive(Debug)]
enum RowPlan {
    /// The record's value as it is.
    Bytes,
    /// JSON of these fields.
    Fields(Vec<FieldPlan>),
}

#[derive(Debug)]
struct FieldPlan {
    /// What stands before the value: `{"name":`, with a comma in place of the brace after the first.
    lead: String,
    operand: Operand,
}

/// What became of a record.
pub(crate) enum Derived {
    /// `only` excludes it.
    Excluded,
    /// The row goes: the value is null, or `where` does not hold.
    Deleted(Key),
    Row {
        key: Key,
        row: Row,
        expires_at: Option<Timestamp>,
    },
}

/// Compiles a definition.
///
/// # Errors
/// [`CompileError`] at the first expression that this release cannot compile.
pub fn compile(definition: &ViewDefinition) -> Result<View, CompileError> {
    let env = environment();
    let mut paths = Paths::default();
    let mut operand = |place: String, text: &str| {
        expression::compile(text, definition.format, &env)
            .map(|compiled| Operand::new(place.clone(), compiled, &mut paths))
            .map_err(|fault| CompileError { place, fault })
    };
    let only = &definition.only;
    let only = only
        .as_ref()
        .map(|only| operand("only".to_owned(), &only.0));
    let condition = &definition.condition;
    let condition = condition
        .as_ref()
        .map(|condition| operand("where".to_owned(), &condition.0));
    let key = operand("key".to_owned(), &definition.key.0)?;
    let mut fields = Vec::new();
    for (index, field) in definition.document.iter().enumerate() {
        let mut lead = vec![if index == 0 { b'{' } else { b',' }];
        json::append_string(&field.name, &mut lead);
        lead.push(b':');
        fields.push(FieldPlan {
            lead: String::from_utf8(lead).expect("JSON is text"),
            operand: operand(format!("document.{}", field.name), &field.value.0)?,
        });
    }
    let (bytes, ttl) = match &definition.to {
        Target::Redis(redis) => (redis.shape == RedisShape::Bytes, redis.ttl),
        Target::Memory {} | Target::Tantivy(_) => (false, None),
    };
    let (only, condition) = (only.transpose()?, condition.transpose()?);
    Ok(View {
        env,
        format: definition.format,
        paths,
        only,
        condition,
        key,
        row: if bytes {
            RowPlan::Bytes
        } else {
            RowPlan::Fields(fields)
        },
        ttl,
    })
}

impl View {
    /// Derives one record.
    pub(crate) fn derive(&self, record: &Record<'_>) -> Result<Derived, Poison> {
        let Some(value) = record.value else {
            return self.tombstone(record).map(Derived::Deleted);
        };
        let scope = self.scope(record, value)?;
        if !self.holds(self.only.as_ref(), &scope)? {
            return Ok(Derived::Excluded);
        }
        let key = self.key.key(&scope)?;
        if !self.holds(self.condition.as_ref(), &scope)? {
            return Ok(Derived::Deleted(key));
        }
        let expires_at = self.expires_at(record)?;
        let row = match &self.row {
            RowPlan::Bytes => Row::new(value),
            RowPlan::Fields(fields) => row(fields, &scope, value.len())?,
        };
        Ok(Derived::Row {
            key,
            row,
            expires_at,
        })
    }

    /// Decodes a record's value.
    pub(crate) fn scope<'r>(
        &'r self,
        record: &'r Record<'r>,
        value: &'r [u8],
    ) -> Result<Scope<'r>, Poison> {
        let slots = match self.format {
            Format::Json => json::decode(value, &self.paths)?,
            Format::Raw => Vec::new(),
        };
        Ok(Scope {
            env: &self.env,
            record,
            slots,
        })
    }

    fn holds(&self, condition: Option<&Operand>, scope: &Scope<'_>) -> Result<bool, Poison> {
        condition.map_or(Ok(true), |condition| condition.truth(scope))
    }

    /// Returns the key whose row a null value deletes.
    fn tombstone(&self, record: &Record<'_>) -> Result<Key, Poison> {
        if !self.key.is_record_key() {
            let why = "the value is null, and `key` is not `record.key`: there is no key to delete";
            return Err(Poison::new(PoisonKind::Key, "key", why));
        }
        record.key.map(Key::new).ok_or_else(no_record_key)
    }

    fn expires_at(&self, record: &Record<'_>) -> Result<Option<Timestamp>, Poison> {
        let Some(ttl) = self.ttl else {
            return Ok(None);
        };
        let Some(time) = record.timestamp else {
            let why = "the view has a `ttl`, and the record has no timestamp";
            return Err(Poison::new(PoisonKind::Timestamp, "to.redis.ttl", why));
        };
        Ok(Some(time.plus(ttl)))
    }

    /// Iterates over the expressions in the order in which they are evaluated.
    pub(crate) fn operands(&self) -> impl Iterator<Item = &Operand> {
        let fields = match &self.row {
            RowPlan::Bytes => &[],
            RowPlan::Fields(fields) => fields.as_slice(),
        };
        self.only
            .iter()
            .chain(Some(&self.key))
            .chain(&self.condition)
            .chain(fields.iter().map(|field| &field.operand))
    }
}

pub(crate) fn no_record_key() -> Poison {
    Poison::new(PoisonKind::Key, "key", "the record's key is null")
}

fn row(fields: &[FieldPlan], scope: &Scope<'_>, size: usize) -> Result<Row, Poison> {
    let mut row = Vec::with_capacity(size);
    for field in fields {
        row.extend_from_slice(field.lead.as_bytes());
        field.operand.append(scope, &mut row)?;
    }
    row.push(b'}');
    Ok(Row(row.into_boxed_slice()))
}

impl Derive for View {
    fn apply(&self, record: &Record<'_>, out: &mut Vec<Mutation>) -> Result<(), Poison> {
        let (key, change) = match self.derive(record)? {
            Derived::Excluded => return Ok(()),
            Derived::Deleted(key) => (key, Change::Delete),
            Derived::Row {
                key,
                row,
                expires_at,
            } => (key, Change::Upsert { row, expires_at }),
        };
        out.push(Mutation {
            key,
            change,
            origin: record.origin(),
        });
        Ok(())
    }

    fn exclude(&self, record: &Record<'_>) -> Option<Mutation> {
        let key = record.key.filter(|_| self.key.is_record_key())?;
        Some(Mutation {
            key: Key::new(key),
            change: Change::Delete,
            origin: record.origin(),
        })
    }
}
