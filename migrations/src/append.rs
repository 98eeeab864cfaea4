//! Appending to the catalog so that the outcome is known.

use std::collections::BTreeMap;

use materializer_model::ports::{ControlError, ControlLog, ControlTopic};
use materializer_model::{EventId, ViewName};

use crate::catalog::Verdict;
use crate::event::{Body, Envelope, NEVER, SCHEMA};
use crate::reports::Follower;

/// Appends an event, reads on, and returns whether it counts.
///
/// When the broker does not say whether it has the event, a no-op at the same revisions is appended:
/// whichever stands first uses them up, and after reading past the no-op the outcome is final.
///
/// # Errors
/// [`ControlError`]: nothing is known to count. `Unknown` where the no-op met the same fate, or the
/// event names no view, so that nothing can settle it.
pub(crate) fn append(
    log: &mut dyn ControlLog,
    state: &mut Follower,
    event: &Envelope,
    new_id: &mut dyn FnMut() -> EventId,
) -> Result<Verdict, ControlError> {
    let appended = log.append(ControlTopic::Catalog, None, Some(&event.encode()));
    match appended {
        Ok(_) => {}
        Err(ControlError::Unknown(_)) if !event.views.is_empty() => {
            let settle = no_op(event, new_id());
            log.append(ControlTopic::Catalog, None, Some(&settle.encode()))?;
        }
        Err(fault) => return Err(fault),
    }
    let verdicts = state.follow(log)?;
    let ours = verdicts.into_iter().filter(|(id, _)| *id == event.id);
    // The producer may have sent it twice: the first one counts, the second is stale.
    let first = ours.map(|(_, verdict)| verdict).next();
    Ok(first.unwrap_or_else(|| overtaken(&event.views)))
}

fn no_op(event: &Envelope, id: EventId) -> Envelope {
    Envelope {
        schema: SCHEMA,
        id,
        views: event.views.clone(),
        not_before: None,
        not_after: NEVER,
        who: event.who.clone(),
        why: "the outcome of an event was unknown".to_owned(),
        answers: None,
        body: Body::NoOp {},
    }
}

/// An event that is not in the log, and would be stale if it came now.
fn overtaken(views: &BTreeMap<ViewName, u64>) -> Verdict {
    let view = views
        .keys()
        .next()
        .expect("an event without views is not settled");
    Verdict::Stale(view.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use materializer_model::Timestamp;
    use materializer_model::memory::{
        ManualClock, MeddledControlLog, MemoryControl, MemoryControlLog,
    };

    #[test]
    fn an_event_that_was_given_up_does_not_count_when_it_arrives_late() {
        let control = MemoryControl::new("main", ManualClock::new(Timestamp(0)));
        let mut last = 0;
        let mut new_id = || {
            last += 1;
            EventId::new(last.to_string())
        };
        let mut state = Follower::default();
        state
            .create(&mut control.log(), "ada", &mut new_id)
            .expect("created");
        let view: ViewName = "products".parse().expect("a name");
        let event = Envelope {
            views: BTreeMap::from([(view.clone(), 0)]),
            ..no_op_of_nothing(new_id())
        };
        // The first append is withheld and arrives after the second one.
        let withheld = Mutex::new(None);
        let mut appends = 0;
        let mut log = MeddledControlLog {
            log: control.log(),
            append: |log: &mut MemoryControlLog, topic, key: Option<&str>, value: Option<&[u8]>| {
                appends += 1;
                if appends == 1 {
                    *withheld.lock().unwrap() = value.map(<[u8]>::to_vec);
                    return Err(ControlError::Unknown("timed out".into()));
                }
                log.append(topic, key, value)
            },
        };
        let verdict = append(&mut log, &mut state, &event, &mut new_id);
        assert_eq!(verdict, Ok(Verdict::Stale(view.clone())));
        let late = withheld.lock().unwrap().take();
        log.append(ControlTopic::Catalog, None, late.as_deref())
            .expect("it arrives");
        let folded = state.follow(&mut log).expect("read");
        assert_eq!(folded, [(event.id, Verdict::Stale(view))]);
    }

    fn no_op_of_nothing(id: EventId) -> Envelope {
        Envelope {
            schema: SCHEMA,
            id,
            views: BTreeMap::new(),
            not_before: None,
            not_after: NEVER,
            who: "ada".into(),
            why: "a test".into(),
            answers: None,
            body: Body::NoOp {},
        }
    }
}
