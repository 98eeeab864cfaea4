//! Carrying a verb out: plan, show, ask, wait for the answer.

use std::fmt;

use materializer_migrations::{CatalogClient, Outcome, Plan, Verb};
use materializer_model::progress::GateReading;
use materializer_model::{Clock, EventId};
use serde::Serialize;

use super::context::{Context, GLANCE, explain};
use crate::output::{Exit, Failure};

/// The plan as it is shown before it is carried out.
#[derive(Serialize)]
struct Shown<'a> {
    plan: &'a Plan,
    steps: Vec<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plan.is_nothing() {
            write!(f, "{}", self.plan)
        } else {
            write!(f, "plan  {}", self.plan)
        }
    }
}

/// The gates as the coordinator read them.
#[derive(Serialize)]
struct Gates<'a> {
    gates: &'a [GateReading],
}

impl fmt::Display for Gates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gates")?;
        for gate in self.gates {
            let mark = if gate.holds { '✓' } else { '✗' };
            write!(f, " {} {} {mark}  ", gate.gate, gate.reading)?;
        }
        Ok(())
    }
}

/// Asks for a verb and waits for what becomes of it. Returns whether something was done.
///
/// With `dry_run` it stops after showing the plan: the value that would be carried out.
pub(super) fn carry_out(
    context: &Context,
    client: &mut CatalogClient,
    verb: Verb,
    reason: &str,
    dry_run: bool,
) -> Result<bool, Failure> {
    let plan = client.plan(&verb).map_err(explain)?;
    let steps = plan.steps();
    context.output.show(&Shown { plan: &plan, steps })?;
    if dry_run || plan.is_nothing() {
        return Ok(false);
    }
    let what = format!("`{}` of view `{}`", verb.word(), verb.view());
    let view = verb.view().clone();
    let request = client.ask(verb, plan, reason).map_err(explain)?;
    match wait(context, client, &request)? {
        Outcome::Done => Ok(true),
        Outcome::Nothing(why) => {
            context.output.note(format!("nothing to do: {why}"))?;
            Ok(false)
        }
        Outcome::Refused { why, hint } => Err(Failure {
            exit: Exit::Failed,
            error: anyhow::anyhow!(why),
            hint,
        }),
        Outcome::GateFailed { why, hint, gates } => {
            context.output.show(&Gates { gates: &gates })?;
            Err(Failure {
                exit: Exit::NotYet,
                error: anyhow::anyhow!(why),
                hint,
            })
        }
        Outcome::NoCoordinator => Err(Failure::new(
            Exit::Unknown,
            anyhow::anyhow!("{what} was asked for and no coordinator answers"),
            "start `materializer run` (or `coordinator`); the request expires after 60 s",
        )),
        Outcome::Unknown => Err(Failure::new(
            Exit::Unknown,
            anyhow::anyhow!("the outcome of {what} is unknown"),
            format!("look with `materializer status {view}`"),
        )),
    }
}

fn wait(
    context: &Context,
    client: &mut CatalogClient,
    request: &EventId,
) -> Result<Outcome, Failure> {
    let asked = context.clock.monotonic();
    loop {
        // The request may have been carried out although Kafka does not answer us: keep looking.
        let read = client.refresh();
        let waited = context.clock.monotonic().since(asked);
        if let Some(outcome) = client.outcome(request, waited) {
            return Ok(outcome);
        }
        read.map_err(explain).or_else(|failure| {
            context
                .output
                .note(format!("still waiting: {:#}", failure.error))
        })?;
        std::thread::sleep(GLANCE);
    }
}
