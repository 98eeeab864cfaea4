//! The view of a migration's history: one name, many editions.

use std::time::Duration;

use materializer_migrations::Verb;
use materializer_model::definition::{Expression, Field, OnError, Promotion};
use materializer_model::{Fingerprint, Topic, VersionId, VersionNumber, ViewDefinition, ViewName};

use crate::servers;

pub(super) fn view() -> ViewName {
    "v".parse().expect("a name")
}

pub(super) fn version(number: u32) -> VersionId {
    VersionId {
        view: view(),
        number: VersionNumber(number),
    }
}

/// Returns what every row of a definition's versions begins with.
pub(super) fn edition(definition: &ViewDefinition) -> &str {
    &definition.document[0].value.0
}

/// Returns the verb that asks for an edition of the view.
pub(super) fn apply(
    edition: u64,
    shards: u16,
    soak: Duration,
    promotion: Promotion,
    replace: bool,
    rebuild: bool,
) -> Verb {
    let mut definition = servers::definition(view(), &Topic::new("t"), shards, OnError::Skip);
    definition.document = vec![Field {
        name: "edition".into(),
        value: Expression(format!("e{edition}:")),
        index: None,
    }];
    definition.gates.stable_for = Duration::from_millis(500);
    definition.gates.lag_records = 50;
    definition.soak = soak;
    definition.promotion = promotion;
    Verb::Apply {
        fingerprint: Fingerprint(format!("edition {edition}")),
        definition: Box::new(definition),
        because: vec!["`edition` changed".into()],
        replace,
        rebuild,
    }
}
