//! Evaluation of compiled expressions against one record.

use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::common::types::{CelBytes, CelInt, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Value};
use materializer_model::{Key, Poison, PoisonKind, Record};
use serde_json::value::RawValue;

use crate::budget;
use crate::document::no_record_key;
use crate::expression::{Expression, Input};
use crate::extract::{Paths, Slots};
use crate::json;

/// One record, decoded.
pub(crate) struct Scope<'r> {
    pub(crate) env: &'r Arc<Env>,
    pub(crate) record: &'r Record<'r>,
    pub(crate) slots: Slots<&'r RawValue>,
}

/// An expression at its place in the definition.
#[derive(Debug)]
pub(crate) struct Operand {
    /// The key of the definition, as `document.price`.
    pub(crate) place: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Value(Source),
    Formula { root: IdedExpr, inputs: Vec<Source> },
}

/// A value that a record gives, its part of the decoded value in a slot.
type Source = Input<usize>;

impl Source {
    fn new(input: Input, paths: &mut Paths) -> Self {
        match input {
            Input::Event(path) => Self::Event(paths.slot(&path)),
            Input::Key => Self::Key,
            Input::Topic => Self::Topic,
            Input::Partition => Self::Partition,
            Input::Offset => Self::Offset,
            Input::Timestamp => Self::Timestamp,
            Input::Header(name) => Self::Header(name),
        }
    }

    /// Returns the value for CEL.
    fn cel<'r>(&self, scope: &Scope<'r>) -> Result<Box<dyn Val + 'r>, String> {
        let record = scope.record;
        Ok(match self {
            Self::Event(slot) => match scope.slots[*slot] {
                Some(raw) => json::cel_value(raw)?,
                None => Box::new(CelNull),
            },
            Self::Key => match record.key {
                Some(key) => text_or_bytes(key),
                None => Box::new(CelNull),
            },
            Self::Topic => Box::new(CelString::from(record.topic.as_str())),
            Self::Partition => Box::new(CelInt::from(i64::from(record.partition.0))),
            Self::Offset => {
                let offset = i64::try_from(record.offset.0);
                Box::new(CelInt::from(offset.map_err(|error| error.to_string())?))
            }
            Self::Timestamp => match record.timestamp {
                Some(time) => Box::new(CelInt::from(time.0)),
                None => Box::new(CelNull),
            },
            Self::Header(name) => match header(record, name) {
                Some(value) => text_or_bytes(value),
                None => Box::new(CelNull),
            },
        })
    }

    /// Adds the value to a row.
    fn append(&self, scope: &Scope<'_>, row: &mut Vec<u8>) -> Result<(), String> {
        let record = scope.record;
        let null = |row: &mut Vec<u8>| row.extend_from_slice(b"null");
        match self {
            Self::Event(slot) => match scope.slots[*slot] {
                Some(raw) => json::append(raw, row)?,
                None => null(row),
            },
            Self::Key => match record.key {
                Some(key) => json::append_string(text("the record's key", key)?, row),
                None => null(row),
            },
            Self::Topic => json::append_string(record.topic.as_str(), row),
            Self::Partition => row.extend_from_slice(record.partition.to_string().as_bytes()),
            Self::Offset => row.extend_from_slice(record.offset.to_string().as_bytes()),
            Self::Timestamp => match record.timestamp {
                Some(time) => row.extend_from_slice(time.to_string().as_bytes()),
                None => null(row),
            },
            Self::Header(name) => match header(record, name) {
                Some(value) => json::append_string(text("the header", value)?, row),
                None => null(row),
            },
        }
        Ok(())
    }

    /// Returns the value as a row's key.
    fn key(&self, scope: &Scope<'_>) -> Result<Key, Poison> {
        let poison = |why| Poison::new(PoisonKind::Key, "key", why);
        match self {
            Self::Event(slot) => match scope.slots[*slot] {
                Some(raw) => json::key(raw).map(Key).map_err(poison),
                None => Err(poison("nothing stands at this path".to_owned())),
            },
            Self::Key => scope.record.key.map(Key::new).ok_or_else(no_record_key),
            Self::Header(name) => header(scope.record, name)
                .map(Key::new)
                .ok_or_else(|| poison("the record has no such header".to_owned())),
            Self::Topic => Ok(Key::new(scope.record.topic.as_str().as_bytes())),
            Self::Partition => Ok(Key::new(scope.record.partition.to_string().as_bytes())),
            Self::Offset => Ok(Key::new(scope.record.offset.to_string().as_bytes())),
            Self::Timestamp => match scope.record.timestamp {
                Some(time) => Ok(Key::new(time.to_string().as_bytes())),
                None => Err(poison("the record has no timestamp".to_owned())),
            },
        }
    }
}

/// Returns the last header of a name, where its value is not null.
fn header<'r>(record: &Record<'r>, name: &str) -> Option<&'r [u8]> {
    let named = record
        .headers
        .iter()
        .filter(|(key, _)| *key == name.as_bytes());
    named.last().and_then(|(_, value)| value)
}

fn text<'r>(what: &str, bytes: &'r [u8]) -> Result<&'r str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

fn text_or_bytes<'r>(bytes: &'r [u8]) -> Box<dyn Val + 'r> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Box::new(CelString::from(text)),
        Err(_) => Box::new(CelBytes::from(bytes.to_vec())),
    }
}

impl Operand {
    pub(crate) fn new(place: String, expression: Expression, paths: &mut Paths) -> Self {
        let what = match expression {
            Expression::Path(input) => What::Value(Source::new(input, paths)),
            Expression::Formula { root, inputs } => What::Formula {
                root,
                inputs: inputs
                    .into_iter()
                    .map(|input| Source::new(input, paths))
                    .collect(),
            },
        };
        Self { place, what }
    }

    pub(crate) fn is_record_key(&self) -> bool {
        matches!(self.what, What::Value(Source::Key))
    }

    fn poison(&self, why: impl AsRef<str>) -> Poison {
        Poison::new(
            PoisonKind::Expression,
            self.place.as_str(),
            brief(why.as_ref()),
        )
    }

    /// Evaluates a condition.
    pub(crate) fn truth(&self, scope: &Scope<'_>) -> Result<bool, Poison> {
        let value = match &self.what {
            What::Value(source) => source
                .cel(scope)
                .and_then(|value| Value::try_from(value.as_ref()).map_err(|error| told(&error))),
            What::Formula { root, inputs } => compute(root, inputs, scope),
        };
        let value = value.map_err(|why| self.poison(why))?;
        let Value::Bool(truth) = value else {
            return Err(self.poison(format!("gives {}, not a bool", json::kind(&value))));
        };
        Ok(truth)
    }

    /// Evaluates a row's key.
    pub(crate) fn key(&self, scope: &Scope<'_>) -> Result<Key, Poison> {
        let (root, inputs) = match &self.what {
            What::Value(source) => return source.key(scope),
            What::Formula { root, inputs } => (root, inputs),
        };
        let poison = |why| Poison::new(PoisonKind::Key, "key", why);
        match compute(root, inputs, scope).map_err(|why| self.poison(why))? {
            Value::String(text) => Ok(Key::new(text.as_bytes())),
            Value::Int(number) => Ok(Key::new(number.to_string().as_bytes())),
            Value::UInt(number) => Ok(Key::new(number.to_string().as_bytes())),
            Value::Float(number) => json::number(number)
                .map(|text| Key::new(text.as_bytes()))
                .map_err(poison),
            other @ (Value::Bool(_)
            | Value::Bytes(_)
            | Value::Function(..)
            | Value::List(_)
            | Value::Map(_)
            | Value::Null
            | Value::Opaque(_)
            | Value::Struct(_)) => Err(poison(format!("{} is no key", json::kind(&other)))),
        }
    }

    /// Evaluates a field and adds it to a row.
    pub(crate) fn append(&self, scope: &Scope<'_>, row: &mut Vec<u8>) -> Result<(), Poison> {
        let appended = match &self.what {
            What::Value(source) => source.append(scope, row),
            What::Formula { root, inputs } => {
                compute(root, inputs, scope).and_then(|value| json::append_cel(&value, row))
            }
        };
        appended.map_err(|why| self.poison(why))
    }
}

/// The variables `@0`, `@1`, … of an expression.
struct Variables<'r>(Vec<Box<dyn Val + 'r>>);

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let at: usize = name.strip_prefix('@')?.parse().ok()?;
        self.0.get(at).map(|value| CowVal::Borrowed(value.as_ref()))
    }
}

fn compute(root: &IdedExpr, inputs: &[Source], scope: &Scope<'_>) -> Result<Value, String> {
    let values: Result<_, _> = inputs.iter().map(|input| input.cel(scope)).collect();
    let variables = Variables(values?);
    budget::begin();
    let mut context = Context::with_env(Arc::clone(scope.env));
    context.set_variable_resolver(&variables);
    context.resolve(root).map_err(|error| told(&error))
}

/// Cuts a reason that quotes the record's values: it goes into reports and headers.
fn brief(why: &str) -> String {
    const CHARS_MAX: usize = 300;
    match why.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &why[..at]),
        None => why.to_owned(),
    }
}

/// Puts an error of an evaluation in this project's words.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the crate's errors may grow; all of them are poison"
)]
fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => {
            let name = overload.function().trim_matches(['_', '@']);
            let types = overload.argument_types().join(" and ");
            format!("`{name}` does not take {types}").replace("null_type", "null")
        }
        ExecutionError::FunctionError { function, message } => format!("`{function}`: {message}"),
        ExecutionError::UnexpectedType { got, want } => format!("{got} where {want} is needed"),
        ExecutionError::InternalError(why) => why.clone(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "divided by zero".to_owned()
        }
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_lowercase().chain(letters).collect()
            })
        }
    }
}
