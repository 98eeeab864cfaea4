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

impl Args {
    /// Says whether no more is waited for after a time.
    fn is_over(&self, waited: Duration) -> bool {
        self.once || self.timeout.is_some_and(|timeout| waited >= timeout)
    }
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
/// How often a line is printed at first where nothing but numbers changes.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How long a version is seen failed or damaged in a row before it is given up. One that `apply` or
/// `skip` has just mended is reported as it was until its worker has opened it anew, a second or two.
const HOPE_FOR: Duration = Duration::from_secs(5);

/// Returns how long after the last line the next one is due: whoever waits for a day is not told
/// every 5 s.
fn line_every(waited: Duration) -> Duration {
    LINE_EVERY.max(waited / 20)
}

/// For how long a version has been seen failed or damaged in a row.
#[derive(Default)]
struct Ill {
    since: Option<Monotonic>,
}

impl Ill {
    /// Takes a look in and says whether there is no hope left.
    fn is_hopeless(&mut self, is_ill: bool, now: Monotonic) -> bool {
        if !is_ill {
            self.since = None;
            return false;
        }
        now.since(*self.since.get_or_insert(now)) >= HOPE_FOR
    }
}

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
    let mut ill = Ill::default();
    loop {
        let asked = context.clock.monotonic().since(began);
        let now = match client.now() {
            Err(error) if error.may_pass() && !args.is_over(asked) => {
                context.output.note(format!("still waiting: {error}"))?;
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            answer => answer.map_err(explain)?,
        };
        let status = Status::at(client.state(), now);
        let seen = status.version(&version);
        let ails = seen.and_then(|seen| ails(seen, args.goal));
        let reached = is_reached(&client, &version, seen, args.goal)? && ails.is_none();
        let look = Look {
            version: &version,
            reached,
            waits_for: seen.and_then(|seen| seen.waits_for.as_deref()),
            status: seen,
        };
        let monotonic = context.clock.monotonic();
        let waited = monotonic.since(began);
        let phase = seen.map_or("retired", |seen| seen.state).to_owned();
        let due = printed
            .as_ref()
            .is_none_or(|(last, at)| *last != phase || monotonic.since(*at) >= line_every(waited));
        let over = args.is_over(waited);
        if reached || due || over || context.output.format() == Format::Json {
            context.output.show(&look)?;
            printed = Some((phase, monotonic));
        }
        if reached {
            return Ok(Exit::Done);
        }
        let is_hopeless = ill.is_hopeless(ails.is_some(), monotonic);
        if let Some(ails) = ails.filter(|_| is_hopeless || over) {
            return Err(ails);
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

/// Says what keeps a version from getting there without somebody doing something, if it is failed or
/// damaged. One that is to be retired goes as it is.
fn ails(seen: &VersionStatus, goal: Goal) -> Option<Failure> {
    let is_ill = matches!(seen.health.is, "failed" | "damaged") && goal != Goal::Retired;
    is_ill.then(|| Failure {
        exit: Exit::Failed,
        error: anyhow::anyhow!(
            "`{}` is {}: {}",
            seen.version,
            seen.health.is,
            seen.health.why.as_deref().unwrap_or_default()
        ),
        hint: seen.health.hint.clone(),
    })
}

/// Says whether the goal is reached.
///
/// # Errors
/// Where it never will be.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_less_often_the_longer_it_takes() {
        for (waited, expected) in [(0, 5), (100, 5), (200, 10), (86_400, 4_320)] {
            let every = line_every(Duration::from_secs(waited));
            assert_eq!(every, Duration::from_secs(expected), "after {waited} s");
        }
    }

    #[test]
    fn a_version_is_given_up_when_it_was_ill_for_5_s_in_a_row() {
        let mut ill = Ill::default();
        for (at_ms, is_ill, expected) in [
            (0, true, false),
            (4_999, true, false),
            (5_500, false, false), // it was mended
            (6_000, true, false),
            (10_999, true, false),
            (11_000, true, true),
        ] {
            let now = Monotonic::default().plus(Duration::from_millis(at_ms));
            assert_eq!(ill.is_hopeless(is_ill, now), expected, "at {at_ms} ms");
        }
    }
}
