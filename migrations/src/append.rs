//! Appending to the catalog so that the outcome is known.

use materializer_model::EventId;
use materializer_model::ports::{ControlError, ControlLog, ControlRecord, ControlTopic};

use crate::catalog::Verdict;
use crate::event::{Body, Envelope, NEVER, SCHEMA};
use crate::reports::Follower;

/// What became of an event.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Whether it counts.
    pub(crate) verdict: Verdict,
    /// What was read to learn it: the event itself, and what others appended.
    pub(crate) read: Vec<(ControlRecord, Verdict)>,
}

/// Appends an event, reads on, and returns whether it counts.
///
/// When the broker does not say whether it has the event, a no-op at the same revisions is appended:
/// whichever stands first uses them up, and after reading past the no-op the outcome is final.
///
/// # Errors
/// [`ControlError`]: nothing is known to count. `Unknown` where the no-op met the same fate, or where
/// the event names no view, so that nothing can settle it.
pub(crate) fn append(
    log: &mut dyn ControlLog,
    state: &mut Follower,
    event: &Envelope,
    new_id: &mut dyn FnMut() -> EventId,
) -> Result<Appended, ControlError> {
    let appended = log.append(ControlTopic::Catalog, None, Some(&event.encode()));
    match appended {
        Ok(_) => {}
        Err(ControlError::Unknown(_)) if !event.views.is_empty() => {
            let settle = no_op(event, new_id());
            log.append(ControlTopic::Catalog, None, Some(&settle.encode()))?;
        }
        Err(fault) => return Err(fault),
    }
    let read = state.follow(log)?;
    // The producer may have sent it twice: the first one counts, the second is stale.
    let id = |record: &ControlRecord| Envelope::of(record).id().cloned();
    let ours = read
        .iter()
        .find(|(record, _)| id(record).as_ref() == Some(&event.id));
    let verdict = match (ours, event.views.keys().next()) {
        (Some((_, verdict)), _) => verdict.clone(),
        // It is not in the log, and would be stale if it came now.
        (None, Some(view)) => Verdict::Stale(view.clone()),
        (None, None) => {
            let why = "an event was acknowledged and is not in the log";
            return Err(ControlError::Unknown(why.into()));
        }
    };
    Ok(Appended { verdict, read })
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use materializer_model::memory::{
        ManualClock, MeddledControlLog, MemoryControl, MemoryControlLog,
    };
    use materializer_model::{Offset, Timestamp, ViewName};

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
        let appended = append(&mut log, &mut state, &event, &mut new_id).expect("settled");
        assert_eq!(appended.verdict, Verdict::Stale(view.clone()));
        let late = withheld.lock().unwrap().take();
        log.append(ControlTopic::Catalog, None, late.as_deref())
            .expect("it arrives");
        let read = state.follow(&mut log).expect("read");
        let [(record, verdict)] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!(Envelope::of(record).id(), Some(&event.id));
        assert_eq!(*verdict, Verdict::Stale(view));
    }

    #[test]
    fn an_event_without_views_that_is_not_read_back_has_an_unknown_outcome() {
        let control = MemoryControl::new("main", ManualClock::new(Timestamp(0)));
        let mut new_id = || EventId::new("1");
        let mut state = Follower::default();
        state
            .create(&mut control.log(), "ada", &mut new_id)
            .expect("created");
        let event = no_op_of_nothing(EventId::new("2"));
        let mut log = MeddledControlLog {
            log: control.log(),
            append: |_: &mut MemoryControlLog, _, _: Option<&str>, _: Option<&[u8]>| Ok(Offset(1)),
        };
        let appended = append(&mut log, &mut state, &event, &mut new_id);
        assert!(
            matches!(appended, Err(ControlError::Unknown(_))),
            "{appended:?}"
        );
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
