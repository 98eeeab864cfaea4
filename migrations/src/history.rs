//! The catalog's events in words, for `history` and for the log.

use materializer_model::progress::GateReading;

use crate::event::Body;

/// Says in one line what an event asks or makes so.
#[must_use]
pub fn describe(body: &Body) -> String {
    match body {
        Body::Request { verb, plan } => format!("asked to {}: {plan}", verb.word()),
        Body::CatalogCreated { catalog, .. } => format!("catalog {catalog} created"),
        Body::Adopted { topics } => format!("catalog bound to topic {}", topics.catalog),
        Body::Taken {} => "taken by a coordinator".to_owned(),
        Body::Refused { why, .. } => format!("refused: {why}"),
        Body::Nothing { why } => format!("nothing to do: {why}"),
        Body::NoOp {} => "nothing, to settle an unknown outcome".to_owned(),
        Body::Started(started) => {
            let version = &started.version;
            let because = reasons(&started.because);
            let replaced = started.replaces.map(|old| format!(", in place of {old}"));
            format!("{version} started{}{because}", replaced.unwrap_or_default())
        }
        Body::SettingsChanged {
            version, because, ..
        } => format!("{version} changed in place{}", reasons(because)),
        Body::Promoted {
            version,
            from,
            ends,
            evidence,
            waived,
        } => {
            let from = from.map_or_else(String::new, |from| format!(" (was {from})"));
            let ends = ends.map_or_else(String::new, |ends| format!(", the soak of {ends} ended"));
            let gates = held(evidence, waived.len());
            format!("{} → {}{from}{ends}; {gates}", version.view, version.number)
        }
        Body::RolledBack { version, from, .. } => {
            format!(
                "rolled back: {} → {} (was {from})",
                version.view, version.number
            )
        }
        Body::AliasConfirmed { view, epoch } => {
            format!("alias {view} of event {epoch} read back everywhere; the soak begins")
        }
        Body::SoakInterrupted { version, why } => {
            format!("the soak of {version} was interrupted: {why}")
        }
        Body::SoakRestarted { version } => format!("the soak of {version} begins anew"),
        Body::SoakEnded { version } => format!("the soak of {version} ended; it drains"),
        Body::ViewRetired { view } => format!("view {view} retired; it drains"),
        Body::Retiring { version } => format!("nobody reads {version}; its deletion begins"),
        Body::Retired { version } => format!("{version} retired: nothing of it is left"),
        Body::Aborted { version } => format!("{version} aborted; its deletion begins"),
        Body::Paused { version } => format!("{version} paused"),
        Body::Resumed { version } => format!("{version} resumed"),
        Body::Skipped { view, at } => format!("{view} skips {at}, in every build"),
    }
}

fn reasons(because: &[String]) -> String {
    if because.is_empty() {
        return String::new();
    }
    format!(", because {}", because.join(", "))
}

fn held(evidence: &[GateReading], waived: usize) -> String {
    let held = evidence.iter().filter(|reading| reading.holds).count();
    let waived = if waived == 0 {
        String::new()
    } else {
        format!(", {waived} waived")
    };
    format!("gates {held}/{}{waived}", evidence.len())
}
