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
