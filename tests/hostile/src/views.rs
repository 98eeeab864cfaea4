//! Definitions, expressions and records.

use std::sync::LazyLock;

use materializer_model::ports::Derive as _;
use materializer_model::record::Headers;
use materializer_model::{
    Change, Mutation, Offset, Partition, Record, Timestamp, Topic, ViewDefinition,
};
use materializer_view::{View, compile, fingerprint, parse};
use serde_json::Value;

/// A file of definitions is taken or told what is wrong with it; what is taken compiles, and comes back from
/// the catalog as it went in.
///
/// # Panics
/// Where that is not so.
pub fn views(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match parse("views.yaml", text) {
        Ok(definitions) => {
            for definition in definitions {
                compile(&definition).expect("what has no fault compiles");
                let stored = serde_json::to_string(&definition).expect("a definition is stored");
                let read: ViewDefinition = serde_json::from_str(&stored).expect("and read again");
                assert_eq!(fingerprint(&read), fingerprint(&definition));
            }
        }
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

/// An expression in the first line, a record's value behind it: the expression is refused, or gives a row, or
/// the record is poison.
///
/// # Panics
/// Where neither is so.
pub fn expressions(bytes: &[u8]) {
    let (expression, value) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b"{}"[..]),
    };
    let Ok(expression) = std::str::from_utf8(expression) else {
        return;
    };
    let quoted = expression.replace('\'', "''");
    let text = format!(
        "view: v\nfrom: {{topics: [t]}}\ndocument: {{x: '{quoted}'}}\nto: {{memory: {{}}}}\n"
    );
    if let Ok(definitions) = parse("view.yaml", &text) {
        let view = compile(&definitions[0]).expect("what has no fault compiles");
        derive(&view, Some(b"key"), Some(value));
    }
}

/// A record, its key in the first line: it gives rows that are JSON, or is poison.
///
/// # Panics
/// Where neither is so.
pub fn records(bytes: &[u8]) {
    static VIEWS: LazyLock<Vec<View>> = LazyLock::new(|| {
        let definitions = parse("views.yaml", include_str!("records.yaml")).expect("no fault");
        let views = definitions
            .iter()
            .map(|view| compile(view).expect("no fault"));
        views.collect()
    });
    let (key, value) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (Some(&bytes[..at]), Some(&bytes[at + 1..])),
        None => (Some(bytes), None),
    };
    for view in VIEWS.iter() {
        derive(view, key, value);
        derive(view, None, value);
    }
}

fn derive(view: &View, key: Option<&[u8]>, value: Option<&[u8]>) {
    let topic = Topic::new("t");
    let record = Record {
        topic: &topic,
        partition: Partition(3),
        offset: Offset(7),
        epoch: None,
        timestamp: Some(Timestamp(1_000)),
        key,
        value,
        headers: Headers::default(),
    };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    match view.apply(&record, &mut once) {
        Ok(()) => check(&once),
        Err(poison) => assert!(!poison.to_string().is_empty()),
    }
    // A function of the record: the second time is as the first.
    drop(view.apply(&record, &mut twice));
    assert_eq!(once, twice);
}

fn check(mutations: &[Mutation]) {
    assert!(mutations.len() <= 1, "one record, one row");
    for mutation in mutations {
        if let Change::Upsert { row, .. } = &mutation.change {
            // A number beyond a double's range is kept as it was written; this reader cannot take it.
            if let Err(fault) = serde_json::from_slice::<Value>(&row.0) {
                assert!(fault.to_string().contains("number out of range"), "{fault}");
            }
        }
    }
}
