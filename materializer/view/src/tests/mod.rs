//! Definitions and records through the whole crate.

use materializer_model::clock::Timestamp;
use materializer_model::ports::Derive;
use materializer_model::record::Headers;
use materializer_model::{Change, Mutation, Offset, Partition, Poison, Record, Topic};

use crate::{View, compile, parse};

mod definitions;
mod fuzz;
mod records;

/// Compiles the one definition of a text.
pub(crate) fn view(text: &str) -> View {
    let definitions = parse("v.yaml", text).unwrap_or_else(|faults| panic!("{faults}"));
    compile(&definitions[0]).unwrap()
}

/// A view of one expression, in a field `x`.
pub(crate) fn field(expression: &str) -> View {
    let quoted = expression.replace('\'', "''");
    view(&format!(
        "view: v\nfrom: {{topics: [t]}}\ndocument: {{x: '{quoted}'}}\nto: {{memory: {{}}}}\n"
    ))
}

pub(crate) fn with_record<T>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    then: impl FnOnce(&Record<'_>) -> T,
) -> T {
    let topic = Topic::new("t");
    then(&Record {
        topic: &topic,
        partition: Partition(3),
        offset: Offset(7),
        epoch: None,
        timestamp: Some(Timestamp(1_000)),
        key,
        value,
        headers: Headers::default(),
    })
}

pub(crate) fn apply(view: &View, value: &[u8]) -> Result<Vec<Mutation>, Poison> {
    with_record(Some(b"k"), Some(value), |record| {
        let mut out = Vec::new();
        view.apply(record, &mut out).map(|()| out)
    })
}

/// Returns the row that a value gives; what became of it where there is none.
pub(crate) fn row(view: &View, value: &str) -> String {
    match apply(view, value.as_bytes()) {
        Err(poison) => format!("{} at {}: {poison}", poison.kind, poison.place),
        Ok(mutations) => match mutations.as_slice() {
            [] => "passed over".to_owned(),
            [
                Mutation {
                    change: Change::Delete,
                    ..
                },
            ] => "deleted".to_owned(),
            [
                Mutation {
                    change: Change::Upsert { row, .. },
                    ..
                },
            ] => format!("{row:?}"),
            more => panic!("{more:?}"),
        },
    }
}
