//! What a definition decides, part by part; the hash of what decides data; why two definitions differ.
//!
//! Fingerprint and difference are computed from one list of parts, so they cannot disagree: the
//! fingerprint changes if and only if a part that decides data does, or a component's revision.

use std::collections::BTreeMap;
use std::fmt;

use materializer_model::Fingerprint;
use materializer_model::definition::{Expression, Format, Target, ViewDefinition};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::functions::environment;
use crate::reader::duration_text;
use crate::{document, expression, extract, json as json_values};

/// Whether a part decides the data, or only how a view is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decides {
    Data,
    Running,
}

/// One part of a definition.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    decides: Decides,
    value: Value,
    /// The value in words, where they are few.
    shown: Option<String>,
}

/// Parts by their keys in the definition.
type Parts = BTreeMap<String, Part>;

fn parts(definition: &ViewDefinition) -> Parts {
    let mut parts = Parts::new();
    let mut add = |place: &str, decides: Decides, value: Value| {
        let shown = match &value {
            Value::String(text) if text.len() <= 40 => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let part = Part {
            decides,
            value,
            shown,
        };
        parts.insert(place.to_owned(), part);
    };
    let ViewDefinition {
        view: _,
        from,
        format,
        only,
        condition,
        key,
        document,
        to,
        gates,
        soak,
        on_error,
        promotion,
    } = definition;
    add("from.topics", Decides::Data, json!(from.topics));
    add("from.policy", Decides::Data, json!(from.policy));
    add(
        "from.partitioner",
        Decides::Running,
        json!(from.partitioner),
    );
    add("from.order", Decides::Running, json!(from.order));
    add("format", Decides::Data, json!(format));
    add("only", Decides::Data, json!([only]));
    add("where", Decides::Data, json!([condition]));
    add("key", Decides::Data, json!([key]));
    for field in document {
        let place = format!("document.{}", field.name);
        add(&place, Decides::Data, json!(field));
    }
    let names: Vec<&str> = document.iter().map(|field| field.name.as_str()).collect();
    add(ORDER, Decides::Data, json!(names));
    add("to", Decides::Data, json!(to.kind()));
    match to {
        Target::Memory {} => {}
        Target::Redis(redis) => {
            let ttl = redis.ttl.map(duration_text);
            add(
                "to.redis.connection",
                Decides::Data,
                json!(redis.connection),
            );
            add("to.redis.key", Decides::Data, json!(redis.key));
            add("to.redis.as", Decides::Data, json!(redis.shape));
            add("to.redis.ttl", Decides::Data, json!(ttl));
            add("to.redis.shards", Decides::Running, json!(redis.shards));
        }
        Target::Tantivy(tantivy) => {
            add("to.tantivy.copies", Decides::Running, json!(tantivy.copies));
        }
    }
    let ratio = gates
        .documents_ratio
        .map(|ratio| format!("{}..{}", ratio.min, ratio.max));
    let stable_for = duration_text(gates.stable_for);
    add(
        "gates.lag_seconds",
        Decides::Running,
        json!(gates.lag_seconds),
    );
    add(
        "gates.lag_records",
        Decides::Running,
        json!(gates.lag_records),
    );
    add("gates.stable_for", Decides::Running, json!(stable_for));
    add("gates.documents_ratio", Decides::Running, json!(ratio));
    add("gates.queries", Decides::Running, json!(gates.queries));
    add("gates.keys", Decides::Running, json!(gates.keys));
    add("soak", Decides::Running, json!(duration_text(*soak)));
    add("on_error", Decides::Running, json!(on_error));
    add("promotion", Decides::Running, json!(promotion));
    parts
}

/// The part that is the order of the fields.
const ORDER: &str = "document";

/// Returns the fingerprint of a definition: of its data parts, and of the revisions of the components
/// that compute them.
#[must_use]
pub fn fingerprint(definition: &ViewDefinition) -> Fingerprint {
    let data: BTreeMap<String, Value> = parts(definition)
        .into_iter()
        .filter(|(_, part)| part.decides == Decides::Data)
        .map(|(place, part)| (place, part.value))
        .collect();
    let canonical = json!([data, components(definition)]).to_string();
    Fingerprint(format!("{:x}", Sha256::digest(canonical)))
}

/// Returns the hash of all that a definition says, how it runs included, and of whether its view shall be
/// retired: two that differ in nothing but their writing have the same. No component's revision is in it, so
/// that another release sees no change. A kind of part that is added has to be left out at its default.
#[must_use]
pub fn digest(definition: &ViewDefinition, retire: bool) -> String {
    let said: BTreeMap<String, Value> = parts(definition)
        .into_iter()
        .map(|(place, part)| (place, part.value))
        .collect();
    format!("{:x}", Sha256::digest(json!([said, retire]).to_string()))
}

/// Returns the revisions of the components that a definition uses.
fn components(definition: &ViewDefinition) -> BTreeMap<&'static str, u32> {
    let mut used = BTreeMap::from([
        ("document", document::REVISION),
        (definition.to.kind(), definition.to.revision()),
    ]);
    if definition.format == Format::Json {
        used.insert("json", json_values::REVISION);
        used.insert("paths", extract::REVISION);
    }
    let env = environment();
    let fields = definition.document.iter().map(|field| &field.value);
    let mut expressions = [&definition.only, &definition.condition]
        .into_iter()
        .flatten()
        .chain([&definition.key])
        .chain(fields);
    let is_path = |text: &Expression| {
        let compiled = expression::compile(&text.0, definition.format, &env);
        matches!(compiled, Ok(expression::Expression::Path(_)))
    };
    if !expressions.all(is_path) {
        used.insert("expression", expression::REVISION);
    }
    used
}

/// What lies between two definitions of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "difference", content = "because")]
pub enum Difference {
    /// Nothing.
    Same,
    /// Only how the view is run: changed in place.
    InPlace(Vec<Reason>),
    /// What the data is: a new version. Reasons that would have been in place stand behind.
    NewVersion(Vec<Reason>),
}

impl Difference {
    /// Returns the reasons.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Same => &[],
            Self::InPlace(reasons) | Self::NewVersion(reasons) => reasons,
        }
    }

    /// Judges the difference by the fingerprint that the old version was built with as well: a later
    /// release may compute the same definition differently.
    #[must_use]
    pub fn given(self, built: &Fingerprint, new: &Fingerprint) -> Self {
        if built == new || matches!(self, Self::NewVersion(_)) {
            return self;
        }
        let mut reasons = vec![Reason {
            place: String::new(),
            change: Change::Recomputed,
        }];
        reasons.extend_from_slice(self.reasons());
        Self::NewVersion(reasons)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self.reasons().iter().map(Reason::to_string).collect();
        let reasons = reasons.join(", ");
        match self {
            Self::Same => f.write_str("nothing to do"),
            Self::InPlace(_) => write!(f, "in place, because {reasons}"),
            Self::NewVersion(_) => write!(f, "new version, because {reasons}"),
        }
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its key in the definition; empty for the program itself.
    pub place: String,
    /// How it differs.
    #[serde(flatten)]
    pub change: Change,
}

/// How something differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// It was not there.
    Added,
    /// It is no longer there.
    Removed,
    /// It is another one.
    Changed,
    /// It is another one, in few words.
    Became {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// The order of the fields is another one.
    Reordered,
    /// This release computes the same definition differently.
    Recomputed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match &self.change {
            Change::Added => write!(f, "`{place}` was added"),
            Change::Removed => write!(f, "`{place}` was removed"),
            Change::Changed => write!(f, "`{place}` changed"),
            Change::Became { from, to } => write!(f, "`{place}` {from} → {to}"),
            Change::Reordered => write!(f, "the order of `{place}` changed"),
            Change::Recomputed => f.write_str("this release computes it differently"),
        }
    }
}

/// Says what lies between two definitions of one view.
#[must_use]
pub fn diff(old: &ViewDefinition, new: &ViewDefinition) -> Difference {
    let (old, new) = (parts(old), parts(new));
    let mut data = Vec::new();
    let mut running = Vec::new();
    let gone = old.iter().filter(|(place, _)| !new.contains_key(*place));
    for (place, part) in new.iter().chain(gone) {
        let Some(change) = change(old.get(place), new.get(place)) else {
            continue;
        };
        let reason = Reason {
            place: place.clone(),
            change,
        };
        match part.decides {
            Decides::Data => data.push(reason),
            Decides::Running => running.push(reason),
        }
    }
    // Where fields came or went, it says nothing new that their order is another one.
    let fields = format!("{ORDER}.");
    let only_order = !data.iter().any(|reason| reason.place.starts_with(&fields));
    for reason in data.iter_mut().filter(|reason| reason.place == ORDER) {
        reason.change = Change::Reordered;
    }
    data.retain(|reason| only_order || reason.place != ORDER);
    // Another target has other keys; that it is another one says it all.
    if data.iter().any(|reason| reason.place == "to") {
        data.retain(|reason| !reason.place.starts_with("to."));
        running.retain(|reason| !reason.place.starts_with("to."));
    }
    match (data.is_empty(), running.is_empty()) {
        (true, true) => Difference::Same,
        (true, false) => Difference::InPlace(running),
        (false, _) => {
            data.extend(running);
            Difference::NewVersion(data)
        }
    }
}

fn change(before: Option<&Part>, now: Option<&Part>) -> Option<Change> {
    let nothing = |part: &Part| part.value.is_null() || part.value == json!([null]);
    let before = before.filter(|part| !nothing(part));
    let now = now.filter(|part| !nothing(part));
    Some(match (before, now) {
        (None, None) => return None,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(before), Some(now)) if before.value == now.value => return None,
        (Some(before), Some(now)) => match (&before.shown, &now.shown) {
            (Some(from), Some(to)) => Change::Became {
                from: from.clone(),
                to: to.clone(),
            },
            _ => Change::Changed,
        },
    })
}
