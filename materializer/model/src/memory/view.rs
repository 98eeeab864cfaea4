//! A definition for the engine's tests, which need no language of views.

use std::time::Duration;

use crate::definition::{
    Expression, Format, Gates, OnError, Order, Promotion, Source, Target, ViewDefinition,
};
use crate::ids::ViewName;
use crate::offset::Topic;

/// Returns a view whose rows are its records' values, with narrow gates and without a soak.
#[must_use]
pub fn raw_view(view: ViewName, topic: Topic, to: Target) -> ViewDefinition {
    ViewDefinition {
        view,
        from: Source {
            topics: vec![topic],
            policy: None,
            partitioner: None,
            order: Order::Partition,
        },
        format: Format::Raw,
        only: None,
        condition: None,
        key: Expression("record.key".into()),
        document: Vec::new(),
        to,
        gates: Gates {
            lag_seconds: 10.0,
            lag_records: 5,
            stable_for: Duration::ZERO,
            documents_ratio: None,
            queries: Vec::new(),
            keys: Vec::new(),
        },
        soak: Duration::ZERO,
        on_error: OnError::Fail,
        promotion: Promotion::Manual,
    }
}
