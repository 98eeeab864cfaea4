//! `history`: the catalog's events, as they were done.

use std::fmt;

use materializer_migrations::event::{Body, Envelope, Read};
use materializer_migrations::history::{describe, details, subject};
use materializer_migrations::{Catalog, Verdict};
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
    /// Show requests, receipts and what came too late as well, with plans and gates.
    #[arg(long)]
    all: bool,
}

/// One event.
#[derive(Serialize)]
struct Line {
    offset: Offset,
    at: Timestamp,
    view: Option<ViewName>,
    subject: String,
    what: String,
    who: String,
    why: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<String>,
}

/// Says a time of the broker as people write it, in UTC.
pub(super) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.to_string(), |at| format!("{at:.0}"))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = time(self.at);
        let Self { subject, what, .. } = self;
        write!(f, "{at}  {subject:<20}  {what}  by {}", self.who)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        for detail in &self.details {
            write!(f, "\n{:22}{detail}", "")?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    // Opened first for its checks and its hints; the events are then read as they stand.
    drop(context.catalog(&config)?);
    let mut log = connect::control_log(&config)?;
    let mut records = Vec::new();
    log.read(ControlTopic::Catalog, Offset(0), &mut records)?;
    let mut catalog = Catalog::default();
    for record in &records {
        let verdict = catalog.fold(record);
        let Some(line) = line(record, &verdict, args.all) else {
            continue;
        };
        if args.view.is_none() || args.view == line.view {
            context.output.show(&line)?;
        }
    }
    Ok(Exit::Done)
}

/// Says an event; what changed nothing only if `all` are asked for.
fn line(record: &ControlRecord, verdict: &Verdict, all: bool) -> Option<Line> {
    let mut line = Line {
        offset: record.offset,
        at: record.appended,
        view: None,
        subject: String::new(),
        what: String::new(),
        who: String::new(),
        why: String::new(),
        details: Vec::new(),
    };
    match Envelope::of(record) {
        Read::Known(event) => {
            let by_the_way = matches!(
                event.body,
                Body::Request { .. } | Body::Taken {} | Body::NoOp {}
            );
            if !all && (by_the_way || *verdict != Verdict::Accepted) {
                return None;
            }
            // A request's envelope names no view, its verb does.
            let asked = if let Body::Request { verb, .. } = &event.body {
                Some(verb.view().clone())
            } else {
                None
            };
            line.view = asked.or_else(|| event.views.keys().next().cloned());
            line.subject = subject(&event.body)
                .or_else(|| line.view.as_ref().map(ToString::to_string))
                .unwrap_or_default();
            line.what = describe(&event.body);
            (line.who, line.why) = (event.who, event.why);
            if all {
                line.details = details(&event.body);
            }
        }
        Read::NewerBody(event) => {
            line.view = event.views.keys().next().cloned();
            line.what = "an event of a newer release".to_owned();
            (line.who, line.why) = (event.who, event.why);
        }
        Read::Unreadable(why) => {
            line.what = "an unreadable event".to_owned();
            line.why = why;
        }
    }
    match verdict {
        Verdict::Accepted | Verdict::Newer => {}
        Verdict::Stale(_) | Verdict::TooEarly | Verdict::TooLate | Verdict::Misplaced => {
            line.what = format!("{} (does not count: {verdict})", line.what);
        }
    }
    Some(line)
}
