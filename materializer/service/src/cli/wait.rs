//! `wait`: until a version is caught up, ready, live or retired.

use std::fmt;
use std::time::Duration;

use materializer_migrations::status::VersionStatus;
use materializer_migrations::versions::Soak;
use materializer_migrations::{CatalogClient, Role, Status};
use materializer_model::progress::Phase;
use materializer_model::{Clock, Monotonic, VersionId};
use serde::Serialize;

use super::context::{Context, explain};
use super::status::Line;
use super::verbs::ViewOrVersion;
use crate::output::{Exit, Failure, Format, span};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The version; of a view alone, the candidate, else the live one.
    #[arg(value_name = "VIEW[@vN]")]
    target: ViewOrVersion,
    /// What to wait for.
    #[arg(long = "for", value_enum, default_value = "ready")]
    goal: Goal,
    /// How long to wait, as `30s` or `10m`; without it, for as long as it takes.
    #[arg(long, value_parser = crate::config::duration)]
    timeout: Option<Duration>,
    /// Look once: exit code 0 if it is so, 3 if not.
    #[arg(long, conflicts_with = "timeout")]
    once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Goal {
    /// It has passed its bar.
    CaughtUp,
    /// Every gate holds.
    Ready,
    /// The alias names it, in the sink and in every gateway.
    Live,
    /// Nothing of it is left.
    Retired,
}

/// How often a version is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a line is printed where nothing but numbers changes.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is printed while waiting.
#[derive(Serialize)]
struct Look<'a> {
    version: &'a VersionId,
    reached: bool,
    waits_for: Option<&'a str>,
    status: Option<&'a VersionStatus>,
}

impl fmt::Display for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(status) = self.status else {
            return f.write_str("retired");
        };
        write!(f, "{}", Line(status))?;
        if self.reached {
            return Ok(());
        }
        if let Some(why) = &status.health.why {
            write!(f, "   {}: {why}", status.health.is)?;
        } else if let Some(waits) = self.waits_for {
            write!(f, "   waiting: {waits}")?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut client = context.catalog(&context.config()?)?;
    let version = choose(&client, &args.target)?;
    let began = context.clock.monotonic();
    let mut printed: Option<(String, Monotonic)> = None;
    loop {
        let now = client.now().map_err(explain)?;
        let status = Status::at(client.state(), now);
        let seen = status.version(&version);
        let reached = is_reached(&client, &version, seen, args.goal)?;
        let look = Look {
            version: &version,
            reached,
            waits_for: seen.and_then(|seen| seen.waits_for.as_deref()),
            status: seen,
        };
        let monotonic = context.clock.monotonic();
        let phase = seen.map_or("retired", |seen| seen.state).to_owned();
        let due = printed
            .as_ref()
            .is_none_or(|(last, at)| *last != phase || monotonic.since(*at) >= LINE_EVERY);
        let waited = monotonic.since(began);
        let over = args.once || args.timeout.is_some_and(|timeout| waited >= timeout);
        if reached || due || over || context.output.format() == Format::Json {
            context.output.show(&look)?;
            printed = Some((phase, monotonic));
        }
        if reached {
            return Ok(Exit::Done);
        }
        if over {
            return Err(timed_out(&version, args, seen, waited));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn choose(client: &CatalogClient, target: &ViewOrVersion) -> Result<VersionId, Failure> {
    let name = target.view();
    let catalog = client.state().catalog();
    let view = catalog.view(name);
    let found = match target.number() {
        Some(number) => view.and_then(|view| view.versions.get(&number)),
        None => view.and_then(|view| view.candidate().or(view.live())),
    };
    found.map(|version| version.id.clone()).ok_or_else(|| {
        let what = match target.number() {
            Some(number) => format!("there is no version `{name}@{number}`"),
            None => format!("view `{name}` has no version to wait for"),
        };
        Failure::refused(what, "`materializer status` lists the versions")
    })
}

/// Says whether the goal is reached.
///
/// # Errors
/// Where it never will be without somebody doing something.
fn is_reached(
    client: &CatalogClient,
    id: &VersionId,
    seen: Option<&VersionStatus>,
    goal: Goal,
) -> Result<bool, Failure> {
    let role = client
        .state()
        .catalog()
        .version(id)
        .map(|version| version.role);
    let past = matches!(role, Some(Role::Draining | Role::Retiring | Role::Retired));
    if past && goal != Goal::Retired {
        return Err(Failure::refused(
            format!("`{id}` is on its way out and never gets there"),
            format!("`materializer history {}` says why", id.view),
        ));
    }
    if let Some(seen) = seen
        && matches!(seen.health.is, "failed" | "damaged")
        && goal != Goal::Retired
    {
        let why = seen.health.why.as_deref().unwrap_or_default();
        return Err(Failure {
            exit: Exit::Failed,
            error: anyhow::anyhow!("`{id}` is {}: {why}", seen.health.is),
            hint: seen.health.hint.clone(),
        });
    }
    Ok(match goal {
        Goal::CaughtUp => {
            let mut phases = client.state().reports().units().filter_map(|heard| {
                (heard.report.unit.version == *id).then_some(heard.report.phase)
            });
            let first = phases.next();
            first == Some(Phase::Tailing) && phases.all(|phase| phase == Phase::Tailing)
        }
        Goal::Ready => seen.is_some_and(|seen| seen.ready || seen.role == Role::Live),
        Goal::Live => role == Some(Role::Live) && is_confirmed(client, id),
        Goal::Retired => role == Some(Role::Retired),
    })
}

/// Says whether the view's alias was read back everywhere: who waits for a version reads it next.
fn is_confirmed(client: &CatalogClient, id: &VersionId) -> bool {
    let view = client.state().catalog().view(&id.view);
    let alias = view.and_then(|view| view.alias.as_ref());
    alias.is_some_and(|alias| alias.soak != Soak::Unconfirmed)
}

fn timed_out(
    version: &VersionId,
    args: &Args,
    seen: Option<&VersionStatus>,
    waited: Duration,
) -> Failure {
    let goal = match args.goal {
        Goal::CaughtUp => "caught up",
        Goal::Ready => "ready",
        Goal::Live => "live",
        Goal::Retired => "retired",
    };
    let why = seen.and_then(|seen| seen.waits_for.as_deref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let is_ready = seen.is_some_and(|seen| seen.ready && seen.role == Role::Building);
    let hint = if args.goal == Goal::Live && is_ready {
        format!("it is ready: `materializer promote {version} --reason '…'`")
    } else {
        format!("see every gate with `materializer status {}`", version.view)
    };
    Failure::new(
        Exit::NotYet,
        anyhow::anyhow!("`{version}` is not {goal} after {}{why}", span(waited)),
        hint,
    )
}
