//! `apply`: the desired thing is the definition; its fingerprint picks the version.

use std::fmt;
use std::path::PathBuf;

use materializer_migrations::{CatalogClient, Plan, Verb};
use materializer_model::{VersionId, ViewDefinition};
use serde::Serialize;

use super::context::{Context, explain};
use super::definitions::{Defined, read};
use super::request::carry_out;
use super::verbs::Common;
use crate::difference;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The files of the definitions.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Start a new version without asking a coordinator. For a worker that runs alone.
    #[arg(long)]
    without_coordinator: bool,
    #[command(flatten)]
    common: Common,
}

/// What else an apply may do than what the definition alone asks for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct How {
    /// Abort another candidate that is being built.
    #[arg(long)]
    replace: bool,
    /// Build a new version even if one is this definition already: the way out when a sink lost data.
    #[arg(long)]
    rebuild: bool,
}

/// Returns the verb that applies a definition.
pub(super) fn verb(client: &CatalogClient, defined: &Defined, how: How) -> Verb {
    Verb::Apply {
        definition: Box::new(defined.definition.clone()),
        fingerprint: defined.fingerprint.clone(),
        because: because(client, defined, how),
        replace: how.replace,
        rebuild: how.rebuild,
    }
}

/// Says why a definition needs another version than there are.
pub(super) fn because(client: &CatalogClient, defined: &Defined, how: How) -> Vec<String> {
    let mut reasons = difference::because(
        client.state().catalog(),
        &defined.definition,
        &defined.fingerprint,
    );
    reasons.extend(how.rebuild.then(|| "`--rebuild` asks for it".to_owned()));
    reasons
}

#[derive(Serialize)]
struct Applied {
    version: VersionId,
    done: String,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.done)
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let all = read(context, &args.files)?;
    let mut client = context.catalog(&context.config()?)?;
    for defined in &all {
        let verb = verb(&client, defined, args.how);
        let plan = client.plan(&verb).map_err(explain)?;
        let done = if args.without_coordinator && !args.common.dry_run {
            start(context, &mut client, &verb, &plan, &args.common.reason)?
        } else {
            let Common { reason, dry_run } = &args.common;
            carry_out(context, &mut client, verb, reason, *dry_run)?.is_some()
        };
        if let (true, Some(applied)) = (done, applied(&plan, &defined.definition)) {
            context.output.show(&applied)?;
        }
    }
    Ok(Exit::Done)
}

fn start(
    context: &Context,
    client: &mut CatalogClient,
    verb: &Verb,
    plan: &Plan,
    reason: &str,
) -> Result<bool, Failure> {
    if !plan.is_nothing() && !matches!(plan, Plan::Start { .. }) {
        return Err(Failure::refused(
            "only a coordinator can do this",
            "start `materializer coordinator`, and leave `--without-coordinator` out",
        ));
    }
    client.start(verb, reason).map_err(explain)?;
    context.output.note(format!("plan  {plan}"))?;
    Ok(!plan.is_nothing())
}

/// Says what an apply has done; `None` where its plan is not one of an apply.
fn applied(plan: &Plan, definition: &ViewDefinition) -> Option<Applied> {
    let (version, done) = match plan {
        Plan::Start { version, .. } => match definition.to.copies() {
            1 => (version, "created; replaying".to_owned()),
            copies => (version, format!("created; replaying on {copies} copies")),
        },
        Plan::RollBack { version, .. } => (version, "is live again".to_owned()),
        Plan::ChangeSettings { version, .. } => (version, "changed in place".to_owned()),
        Plan::Nothing { .. }
        | Plan::Promote { .. }
        | Plan::EndSoak { .. }
        | Plan::RetireView { .. }
        | Plan::Abort { .. }
        | Plan::Pause { .. }
        | Plan::Resume { .. }
        | Plan::Skip { .. } => return None,
    };
    Some(Applied {
        version: version.clone(),
        done,
    })
}
