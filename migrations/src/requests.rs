//! Answers to requests: what a verb asked for is done, was so already, or is refused with the reason.

use std::collections::BTreeSet;

use materializer_model::progress::GateReading;
use materializer_model::{EventId, VersionId};

use crate::catalog::{Asked, Catalog};
use crate::client::started;
use crate::decide::{Action, Fact, Judged, Observed, Question, Subject, judge};
use crate::defect::Defect;
use crate::event::{Body, Verb};
use crate::gates;
use crate::judge::{Refusal, plan};
use crate::plan::Plan;
use crate::versions::View;
use materializer_model::defect::is_planted;

/// Returns what is to be done about a request now; nothing while evidence is awaited.
pub(crate) fn answer(
    catalog: &Catalog,
    seen: &Observed<'_>,
    id: &EventId,
    asked: &Asked,
) -> Vec<Action> {
    let fact = |body| {
        let mut fact = Fact::new(catalog, asked.verb.view(), body);
        fact.answers = Some(id.clone());
        fact.not_after = asked.expires();
        vec![fact.append()]
    };
    if seen.now >= asked.expires() && is_planted(Defect::ExpiredUnanswered) {
        return Vec::new();
    }
    if seen.now >= asked.expires() {
        let mut late = Fact::new(catalog, asked.verb.view(), expired());
        late.answers = Some(id.clone());
        return vec![late.append()];
    }
    if is_settled(catalog, asked) {
        return fact(settled());
    }
    let plan = match plan(catalog, &asked.verb) {
        Err(refusal) => return fact(refused(refusal)),
        Ok(Plan::Nothing { why }) => return fact(Body::Nothing { why }),
        Ok(plan) if plan != asked.plan => return fact(moved_on(&plan)),
        Ok(plan) => plan,
    };
    if let Some(body) = without_gates(&plan, &asked.verb) {
        return fact(body);
    }
    let waive = waived(&asked.verb);
    if let Some(gate) = waive.iter().find(|gate| !gates::is_waivable(gate)) {
        return fact(cannot_waive(gate));
    }
    let view = catalog.view(asked.verb.view());
    let view = view.expect("a plan to move an alias names a view");
    let version = plan
        .version()
        .expect("a plan to move an alias names a version");
    let question = Question {
        subject: Subject::Request(id.clone()),
        version: &view.versions[&version.number],
        live: view.live(),
        back: matches!(plan, Plan::RollBack { .. }),
    };
    match judge(seen, &question) {
        Judged::Wait(actions) => actions,
        Judged::Read {
            readings,
            not_after,
        } => {
            if !gates::failing(&readings, &waive).is_empty() {
                return fact(not_ready(version, readings, &waive));
            }
            let body = moved(&plan, view, readings, waive);
            let mut fact = Fact::new(catalog, &version.view, body);
            fact.answers = Some(id.clone());
            fact.not_after = not_after.min(asked.expires());
            vec![fact.append()]
        }
    }
}

/// Says whether the declaration behind a request is settled, as where two processes asked. The plan alone does not
/// tell it: a person may have undone since what was done then.
fn is_settled(catalog: &Catalog, asked: &Asked) -> bool {
    let view = catalog.view(asked.verb.view());
    let settled = view.and_then(|view| view.declared.as_ref());
    settled.is_some_and(|settled| Some(&settled.digest) == asked.declaration.as_ref())
}

/// Returns the promotion of a version as things are in its view.
pub(crate) fn promoted(
    view: &View,
    version: &VersionId,
    evidence: Vec<GateReading>,
    waived: BTreeSet<String>,
) -> Body {
    let standby = view.standby().map(|standby| standby.id.number);
    Body::Promoted {
        version: version.clone(),
        from: view.live().map(|live| live.id.number),
        ends: standby.filter(|standby| *standby != version.number),
        evidence,
        waived,
    }
}

/// Returns the fact that moves the alias.
fn moved(plan: &Plan, view: &View, evidence: Vec<GateReading>, waive: BTreeSet<String>) -> Body {
    let covers = |gate: &String| evidence.iter().any(|r| r.gate == *gate && !r.holds);
    let waived: BTreeSet<String> = waive.into_iter().filter(covers).collect();
    if let Plan::RollBack { version, from, .. } = plan {
        return Body::RolledBack {
            version: version.clone(),
            from: *from,
            evidence,
            waived,
        };
    }
    let version = plan.version().expect("a plan to promote names a version");
    promoted(view, version, evidence, waived)
}

/// Returns the fact that carries out a plan which no gate guards.
fn without_gates(plan: &Plan, verb: &Verb) -> Option<Body> {
    let body = match plan.clone() {
        Plan::Start { .. } => Body::Started(started(plan, verb)?),
        Plan::ChangeSettings { version, because } => {
            let Verb::Apply { definition, .. } = verb else {
                return None;
            };
            Body::SettingsChanged {
                version,
                definition: definition.clone(),
                because,
            }
        }
        Plan::EndSoak { version } => Body::SoakEnded { version },
        Plan::RetireView { view, versions: _ } => Body::ViewRetired { view },
        Plan::Abort { version } => Body::Aborted { version },
        Plan::Pause { version } => Body::Paused { version },
        Plan::Resume { version } => Body::Resumed { version },
        Plan::Skip {
            version,
            at,
            topic_id,
        } => Body::Skipped {
            view: version.view,
            at,
            topic_id,
        },
        Plan::Promote { .. } | Plan::RollBack { .. } => return None,
        Plan::Nothing { why } => Body::Nothing { why },
    };
    Some(body)
}

fn waived(verb: &Verb) -> BTreeSet<String> {
    match verb {
        Verb::Promote { waive, .. } | Verb::Rollback { waive, .. } => waive.clone(),
        Verb::Apply { .. }
        | Verb::Pause { .. }
        | Verb::Resume { .. }
        | Verb::Skip { .. }
        | Verb::Retire { .. }
        | Verb::Abort { .. } => BTreeSet::new(),
    }
}

fn refused(refusal: Refusal) -> Body {
    Body::Refused {
        why: refusal.why,
        hint: refusal.hint,
        gates: Vec::new(),
    }
}

fn expired() -> Body {
    refused(Refusal {
        why: "the request is older than 60 s".to_owned(),
        hint: Some("ask again, if it is still meant".to_owned()),
    })
}

fn settled() -> Body {
    refused(Refusal {
        why: "what is declared was carried out already".to_owned(),
        hint: None,
    })
}

fn moved_on(now: &Plan) -> Body {
    refused(Refusal {
        why: format!("the catalog moved on since the plan was shown; the plan is now: {now}"),
        hint: Some("look at it and ask again".to_owned()),
    })
}

fn cannot_waive(gate: &str) -> Body {
    let names = gates::names().into_iter();
    let waivable: Vec<&str> = names.filter(|gate| gates::is_waivable(gate)).collect();
    let why = if gates::names().contains(&gate) {
        format!("gate `{gate}` cannot be waived")
    } else {
        format!("there is no gate `{gate}`")
    };
    refused(Refusal {
        why,
        hint: Some(format!("these can be waived: {}", waivable.join(", "))),
    })
}

fn not_ready(version: &VersionId, readings: Vec<GateReading>, waive: &BTreeSet<String>) -> Body {
    let failing = gates::failing(&readings, waive);
    let words = failing.iter().map(|r| format!("{} {}", r.gate, r.reading));
    let words: Vec<String> = words.collect();
    let why = format!("`{version}` is not ready: {}", words.join("; "));
    let waivable: Vec<String> = failing
        .iter()
        .filter(|reading| gates::is_waivable(&reading.gate))
        .map(|reading| format!("--waive {}", reading.gate))
        .collect();
    let hint = if waivable.len() == failing.len() {
        format!("if this is meant, `{} --reason '…'`", waivable.join(" "))
    } else {
        format!(
            "`materializer status {}` shows what it waits for",
            version.view
        )
    };
    Body::Refused {
        why,
        hint: Some(hint),
        gates: readings,
    }
}
