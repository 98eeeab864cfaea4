//! `history`: the catalog's events, as they were asked and done.

use std::fmt;

use materializer_migrations::event::{Body, Envelope, Read};
use materializer_migrations::history::describe;
use materializer_model::ports::{ControlRecord, ControlTopic};
use materializer_model::{Offset, Timestamp, ViewName};
use serde::Serialize;

use super::context::Context;
use crate::connect;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only what is about this view.
    view: Option<ViewName>,
    /// Show coordinators' receipts and settled races as well.
    #[arg(long)]
    all: bool,
}

/// One event. Whether it counted is not shown: what did not count has no effect to explain.
#[derive(Serialize)]
struct Line {
    offset: Offset,
    at: Timestamp,
    view: Option<ViewName>,
    what: String,
    who: String,
    why: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            what,
            who,
            why,
            ..
        } = self;
        let at = jiff::Timestamp::from_millisecond(self.at.0)
            .map_or_else(|_| self.at.to_string(), |at| format!("{at:.0}"));
        write!(f, "{offset:>6}  {at}  {what}  by {who}")?;
        if why.is_empty() {
            Ok(())
        } else {
            write!(f, ": {why}")
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    // Opened first for its checks and its hints; the events are then read as they stand.
    drop(context.catalog(&config)?);
    let mut log = connect::control_log(&config)?;
    let mut records = Vec::new();
    log.read(ControlTopic::Catalog, Offset(0), &mut records)?;
    for record in &records {
        let Some(line) = line(record, args.all) else {
            continue;
        };
        if args.view.is_none() || args.view == line.view {
            context.output.show(&line)?;
        }
    }
    Ok(Exit::Done)
}

fn line(record: &ControlRecord, all: bool) -> Option<Line> {
    let (what, view, who, why) = match Envelope::read(record.value.as_deref().unwrap_or_default()) {
        Read::Known(event) => {
            let receipt = matches!(event.body, Body::Taken {} | Body::NoOp {});
            if receipt && !all {
                return None;
            }
            // A request's envelope names no view, its verb does.
            let asked = if let Body::Request { verb, .. } = &event.body {
                Some(verb.view().clone())
            } else {
                None
            };
            let view = asked.or_else(|| event.views.keys().next().cloned());
            (describe(&event.body), view, event.who, event.why)
        }
        Read::NewerBody(event) => {
            let view = event.views.keys().next().cloned();
            (
                "an event of a newer release".to_owned(),
                view,
                event.who,
                event.why,
            )
        }
        Read::Unreadable(why) => ("an unreadable event".to_owned(), None, String::new(), why),
    };
    Some(Line {
        offset: record.offset,
        at: record.appended,
        view,
        what,
        who,
        why,
    })
}
