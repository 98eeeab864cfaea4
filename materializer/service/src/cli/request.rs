//! Carrying a verb out: plan, show, ask, wait for the answer.

use std::fmt;

use materializer_migrations::gates::CHOSEN;
use materializer_migrations::{CatalogClient, Outcome, Plan, Status, Verb};
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

/// Gates as they were read; in words those that the definition chose, and those that do
/// not hold.
#[derive(Serialize)]
struct Gates<'a> {
    gates: &'a [GateReading],
}

impl fmt::Display for Gates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.gates.iter().filter(|gate| gate.holds).count();
        write!(f, "gates {held}/{}", self.gates.len())?;
        let is_chosen = |gate: &&GateReading| CHOSEN.contains(&gate.gate.as_str());
        for gate in self
            .gates
            .iter()
            .filter(|gate| !gate.holds || is_chosen(gate))
        {
            let mark = if gate.holds { '✓' } else { '✗' };
            write!(f, "   {} {} {mark}", gate.gate, gate.reading)?;
        }
        Ok(())
    }
}

/// Asks for a verb and waits for what becomes of it. Returns the gates that it rests on, if something
/// was done.
///
/// With `dry_run` it stops after showing the plan, the value that would be carried out, and the gates
/// before it as they were reported last. Whether they hold is no matter of its exit code: they are read
/// anew for the request.
pub(super) fn carry_out(
    context: &Context,
    client: &mut CatalogClient,
    verb: Verb,
    reason: &str,
    dry_run: bool,
) -> Result<Option<Vec<GateReading>>, Failure> {
    let plan = client.plan(&verb).map_err(explain)?;
    let steps = plan.steps();
    context.output.show(&Shown { plan: &plan, steps })?;
    if dry_run {
        foresee(context, client, &plan)?;
    }
    if dry_run || plan.is_nothing() {
        return Ok(None);
    }
    let what = format!("`{}` of view `{}`", verb.word(), verb.view());
    let view = verb.view().clone();
    let request = client.ask(verb, plan, reason).map_err(explain)?;
    match wait(context, client, &request)? {
        Outcome::Done => {
            let gates = client.gates_of(&request);
            if !gates.is_empty() {
                context.output.show(&Gates { gates })?;
            }
            Ok(Some(gates.to_vec()))
        }
        Outcome::Nothing(why) => {
            context.output.note(format!("nothing to do: {why}"))?;
            Ok(None)
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

/// Shows the gates before a plan.
fn foresee(context: &Context, client: &mut CatalogClient, plan: &Plan) -> Result<(), Failure> {
    let now = client.now().map_err(explain)?;
    let status = Status::at(client.state(), now);
    let gates = status.gates_before(plan);
    if gates.is_empty() {
        return Ok(());
    }
    context.output.show(&Gates { gates })?;
    context
        .output
        .note("these gates were reported last; they are read anew when this is asked for")?;
    Ok(())
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
