//! The catalog's events in words, for `history` and for the log.

use std::collections::BTreeSet;

use materializer_model::VersionNumber;
use materializer_model::ports::ControlRecord;
use materializer_model::progress::GateReading;
use tracing::{debug, info};

use crate::catalog::Verdict;
use crate::event::{Body, Envelope, Read, Started};

/// Logs the facts among what was read of a catalog, whoever appended them. One that does not count
/// changed nothing and is nobody's concern.
pub(crate) fn log_facts(read: &[(ControlRecord, Verdict)]) {
    for (record, verdict) in read {
        let Read::Known(event) = Envelope::of(record) else {
            continue;
        };
        let Some(view) = event.views.keys().next() else {
            continue;
        };
        let about = subject(&event.body).unwrap_or_else(|| view.to_string());
        let what = describe(&event.body);
        let why = Some(&event.why).filter(|why| !why.is_empty());
        match verdict {
            Verdict::Accepted => info!(who = %event.who, why = why.map(display), "{about}: {what}"),
            Verdict::Stale(_)
            | Verdict::TooEarly
            | Verdict::TooLate
            | Verdict::Misplaced
            | Verdict::Newer => debug!(who = %event.who, %verdict, "{about}: not so: {what}"),
        }
    }
}

/// Returns the version or the view that an event is about; nothing where its body names none.
#[must_use]
pub fn subject(body: &Body) -> Option<String> {
    match body {
        Body::Request { verb, plan, .. } => Some(
            plan.version()
                .map_or_else(|| verb.view().to_string(), ToString::to_string),
        ),
        Body::Started(Started { version, .. })
        | Body::SettingsChanged { version, .. }
        | Body::Promoted { version, .. }
        | Body::RolledBack { version, .. }
        | Body::SoakInterrupted { version, .. }
        | Body::SoakRestarted { version }
        | Body::SoakEnded { version }
        | Body::Retiring { version }
        | Body::Retired { version }
        | Body::Aborted { version }
        | Body::Paused { version }
        | Body::Resumed { version } => Some(version.to_string()),
        Body::AliasConfirmed { view, .. }
        | Body::ViewRetired { view }
        | Body::Skipped { view, .. }
        | Body::Declared { view, .. } => Some(view.to_string()),
        Body::Grown(growth) => Some(growth.topic.to_string()),
        Body::CatalogCreated { .. }
        | Body::Adopted { .. }
        | Body::Taken {}
        | Body::Refused { .. }
        | Body::Nothing { .. }
        | Body::NoOp {} => None,
    }
}

/// Says in a few words what an event asks of its subject, or makes so.
#[must_use]
pub fn describe(body: &Body) -> String {
    match body {
        Body::Request { verb, .. } => format!("{} was asked for", verb.word()),
        Body::CatalogCreated { .. } => "the catalog begins".to_owned(),
        Body::Adopted { .. } => "restored: bound to the topics that it is in".to_owned(),
        Body::Taken {} => "a coordinator works on it".to_owned(),
        Body::Refused { why, .. } => format!("refused: {why}"),
        Body::Nothing { why } => format!("nothing to do: {why}"),
        Body::NoOp {} => "nothing, to settle an unknown outcome".to_owned(),
        Body::Started(started) => start(started),
        Body::SettingsChanged { because, .. } => format!("changed{}", reasons(because)),
        Body::Promoted {
            from, ends, waived, ..
        } => promotion(*from, *ends, waived),
        Body::RolledBack { from, waived, .. } => {
            format!("live again, {from} rolled back{}", without(waived))
        }
        Body::AliasConfirmed { .. } => "every gateway serves the live version".to_owned(),
        Body::SoakInterrupted { why, .. } => format!("soak interrupted: {why}"),
        Body::SoakRestarted { .. } => "soak begins anew".to_owned(),
        Body::SoakEnded { .. } => "soak over".to_owned(),
        Body::ViewRetired { .. } => "retired as a whole".to_owned(),
        Body::Retiring { .. } => "no reader left, deletion begins".to_owned(),
        Body::Retired { .. } => "deleted".to_owned(),
        Body::Aborted { .. } => "given up, deletion begins".to_owned(),
        Body::Paused { .. } => "paused".to_owned(),
        Body::Resumed { .. } => "fed again".to_owned(),
        Body::Skipped { at, topic_id, .. } => {
            let builds = topic_id
                .as_ref()
                .map_or("the builds there are", |_| "every build");
            format!("record {at} is skipped in {builds}")
        }
        Body::Grown(growth) => format!("{} partitions became {}", growth.from, growth.to),
        Body::Declared { refused: None, .. } => "is as it is declared".to_owned(),
        Body::Declared {
            refused: Some(why), ..
        } => format!("its declaration is refused: {why}"),
    }
}

/// Returns what an event rests on, a line each: the plan that was shown, the gates as they were read.
#[must_use]
pub fn details(body: &Body) -> Vec<String> {
    let gate = |reading: &GateReading| {
        let mark = if reading.holds { '✓' } else { '✗' };
        format!("{mark} {} {}", reading.gate, reading.reading)
    };
    match body {
        Body::Request { plan, .. } => vec![plan.to_string()],
        Body::Promoted { evidence, .. } | Body::RolledBack { evidence, .. } => {
            evidence.iter().map(gate).collect()
        }
        Body::Refused { gates, .. } => gates.iter().map(gate).collect(),
        Body::CatalogCreated { .. }
        | Body::Adopted { .. }
        | Body::Taken {}
        | Body::Nothing { .. }
        | Body::NoOp {}
        | Body::Started(_)
        | Body::SettingsChanged { .. }
        | Body::AliasConfirmed { .. }
        | Body::SoakInterrupted { .. }
        | Body::SoakRestarted { .. }
        | Body::SoakEnded { .. }
        | Body::ViewRetired { .. }
        | Body::Retiring { .. }
        | Body::Retired { .. }
        | Body::Aborted { .. }
        | Body::Paused { .. }
        | Body::Resumed { .. }
        | Body::Skipped { .. }
        | Body::Grown(_)
        | Body::Declared { .. } => Vec::new(),
    }
}

fn start(started: &Started) -> String {
    let replaced = started.replaces.map(|old| format!(" in place of {old}"));
    let replaced = replaced.unwrap_or_default();
    format!("started{replaced}{}", reasons(&started.because))
}

fn promotion(
    from: Option<VersionNumber>,
    ends: Option<VersionNumber>,
    waived: &BTreeSet<String>,
) -> String {
    let from = from.map_or_else(String::new, |from| format!(", {from} stands by"));
    let ends = ends.map_or_else(String::new, |ends| format!(", the soak of {ends} is over"));
    format!("promoted{from}{ends}{}", without(waived))
}

fn reasons(because: &[String]) -> String {
    if because.is_empty() {
        return String::new();
    }
    format!(", because {}", because.join(", "))
}

fn without(waived: &BTreeSet<String>) -> String {
    if waived.is_empty() {
        return String::new();
    }
    let gates: Vec<&str> = waived.iter().map(String::as_str).collect();
    format!(", without {}", gates.join(" and "))
}
