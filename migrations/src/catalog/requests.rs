//! The requests that the catalog's events hold, and what was answered.

use std::collections::BTreeMap;
use std::time::Duration;

use materializer_model::progress::GateReading;
use materializer_model::{EventId, Offset, Timestamp, ViewName};

use crate::event::{Body, Verb};
use crate::plan::Plan;
use crate::versions::Mark;

/// How long after its append time a request may be carried out.
pub const REQUEST_EXPIRES: Duration = Duration::from_secs(60);

/// How many answered requests are remembered, the newest ones.
const ANSWERED_KEPT: usize = 256;

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Where it stands.
    pub at: Mark,
    /// Who asks.
    pub who: String,
    /// Why.
    pub why: String,
    /// What for.
    pub verb: Verb,
    /// The plan that was shown.
    pub plan: Plan,
    /// The digest of the declaration that asks for it.
    pub declaration: Option<String>,
    /// Whether a coordinator works on it.
    pub taken: bool,
    /// What was answered, and where.
    pub answer: Option<(Mark, Answer)>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It was done by the fact at the answer's offset.
    Done {
        /// The gates as they were read, where the fact rests on gates.
        gates: Vec<GateReading>,
    },
    /// It was so already.
    Nothing(String),
    /// It was refused.
    Refused {
        /// Why.
        why: String,
        /// What to type instead.
        hint: Option<String>,
        /// The gates as they were read, where one of them is the reason.
        gates: Vec<GateReading>,
    },
}

impl Asked {
    /// Returns the last broker time at which it may be carried out.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.at.appended.plus(REQUEST_EXPIRES)
    }
}

/// Every request that is remembered: all that are open, and the answered ones of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(BTreeMap<EventId, Asked>);

impl Requests {
    pub(super) fn get(&self, id: &EventId) -> Option<&Asked> {
        self.0.get(id)
    }

    /// Returns those without an answer, in the order of the log.
    pub(super) fn outstanding(&self) -> Vec<(&EventId, &Asked)> {
        let open = self.0.iter().filter(|(_, r)| r.answer.is_none());
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|(_, asked)| asked.at.offset);
        open
    }

    /// Takes a request in; the same one a second time changes nothing.
    pub(super) fn ask(&mut self, id: EventId, asked: Asked) {
        self.0.entry(id).or_insert(asked);
    }

    /// Takes in that an event answers a request. Returns the declaration behind it, with its view, where that
    /// is settled by this event: done, or so already.
    pub(super) fn answer(
        &mut self,
        id: &EventId,
        body: &Body,
        at: Mark,
    ) -> Option<(ViewName, String)> {
        let asked = self.0.get_mut(id)?;
        let Some(answer) = answer_in(body) else {
            asked.taken = true;
            return None;
        };
        if asked.answer.is_some() {
            return None;
        }
        let done = match &answer {
            Answer::Done { .. } | Answer::Nothing(_) => true,
            Answer::Refused { .. } => false,
        };
        let digest = asked.declaration.clone().filter(|_| done);
        let settled = digest.map(|digest| (asked.verb.view().clone(), digest));
        asked.answer = Some((at, answer));
        self.forget_answered();
        settled
    }

    /// Keeps the requests that are remembered few: the oldest answered ones go.
    fn forget_answered(&mut self) {
        let answered = |asked: &Asked| asked.answer.is_some().then_some(asked.at.offset);
        let mut offsets: Vec<Offset> = self.0.values().filter_map(answered).collect();
        if offsets.len() <= ANSWERED_KEPT {
            return;
        }
        offsets.sort_unstable();
        let oldest_kept = offsets[offsets.len() - ANSWERED_KEPT];
        self.0
            .retain(|_, asked| answered(asked).is_none_or(|at| at >= oldest_kept));
    }
}

/// Returns the answer that a body gives to the request that it names; nothing where it says that one
/// will follow.
fn answer_in(body: &Body) -> Option<Answer> {
    let answer = match body {
        Body::Taken {} => return None,
        Body::Nothing { why } => Answer::Nothing(why.clone()),
        Body::Refused { why, hint, gates } => Answer::Refused {
            why: why.clone(),
            hint: hint.clone(),
            gates: gates.clone(),
        },
        Body::Promoted { evidence, .. } | Body::RolledBack { evidence, .. } => Answer::Done {
            gates: evidence.clone(),
        },
        Body::Request { .. }
        | Body::CatalogCreated { .. }
        | Body::Adopted { .. }
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
        | Body::Declared { .. } => Answer::Done { gates: Vec::new() },
    };
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answered_requests_that_are_remembered_are_bounded() {
        let mut requests = Requests::default();
        let id = |number: usize| EventId::new(number.to_string());
        for number in 0..ANSWERED_KEPT + 10 {
            let at = Mark {
                offset: Offset(u64::try_from(number).expect("small")),
                appended: Timestamp(0),
            };
            let asked = Asked {
                at,
                who: String::new(),
                why: String::new(),
                verb: Verb::Abort {
                    version: "products@v1".parse().expect("a version"),
                },
                plan: Plan::Nothing { why: String::new() },
                declaration: None,
                taken: false,
                answer: None,
            };
            requests.ask(id(number), asked);
            requests.answer(&id(number), &Body::Nothing { why: String::new() }, at);
        }
        assert_eq!(requests.0.len(), ANSWERED_KEPT);
        assert!(requests.get(&id(9)).is_none());
        assert!(requests.get(&id(10)).is_some());
    }
}
