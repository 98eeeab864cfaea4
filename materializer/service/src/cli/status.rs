//! `status`: versions, lag, health, gates, and what each version waits for.

use std::fmt::{self, Write};
use std::time::Duration;

use materializer_migrations::Status;
use materializer_migrations::status::{HealthStatus, VersionStatus, ViewStatus};
use materializer_model::ViewName;
use serde::Serialize;

use super::context::{Context, explain};
use crate::output::{Bytes, Count, Exit, Failure, span};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this view.
    view: Option<ViewName>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut client = context.catalog(&context.config()?)?;
    let now = client.now().map_err(explain)?;
    let status = Status::at(client.state(), now);
    match &args.view {
        None => context.output.show(&Whole(&status))?,
        Some(name) => {
            let view = status.view(name).ok_or_else(|| {
                Failure::refused(
                    format!("there is no view `{name}`"),
                    "`materializer status` lists the views",
                )
            })?;
            context.output.show(&One(view))?;
        }
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Whole<'a>(&'a Status);

impl fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        if let Some(stopped) = &status.stopped {
            writeln!(f, "stopped: {stopped}")?;
        }
        if status.coordinators.is_empty() {
            writeln!(
                f,
                "no coordinator is alive: nothing is decided (start `materializer run`)"
            )?;
        }
        for fault in &status.faults {
            writeln!(f, "coordinator: {fault}")?;
        }
        if status.views.is_empty() {
            return f.write_str("no views yet: `materializer apply FILE` makes one");
        }
        for view in &status.views {
            write!(f, "{}", One(view))?;
        }
        Ok(())
    }
}

/// One view, with all its versions.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct One<'a>(pub(super) &'a ViewStatus);

impl fmt::Display for One<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0;
        write!(f, "{}", view.view)?;
        match &view.alias {
            None if view.versions.is_empty() => f.write_str("  nothing is left of it")?,
            None => f.write_str("  serves nothing yet")?,
            Some(alias) => {
                write!(f, "  → {}", alias.version)?;
                if !alias.confirmed {
                    f.write_str("  not confirmed by every gateway yet")?;
                }
                if let (Some(left), Some(standby)) = (alias.soak_left_ms, view.standby) {
                    let left = span(Duration::from_millis(left));
                    write!(f, "  rollback to {standby} for {left}")?;
                }
                if let Some(why) = &alias.soak_interrupted {
                    write!(f, "  soak interrupted: {why}")?;
                }
            }
        }
        f.write_char('\n')?;
        for version in &view.versions {
            write_version(f, version)?;
        }
        for request in &view.requests {
            writeln!(f, "  asked: {request}")?;
        }
        Ok(())
    }
}

fn write_version(f: &mut fmt::Formatter<'_>, version: &VersionStatus) -> fmt::Result {
    let mark = if version.rolled_back {
        " (rolled back)"
    } else {
        ""
    };
    write!(
        f,
        "  {:<5} {}{mark}  {}",
        version.version.number.to_string(),
        version.role,
        Line(version)
    )?;
    if let Some(documents) = version.documents {
        write!(f, "  {} documents", Count(documents))?;
    }
    if let Some(bytes) = version.bytes {
        write!(f, "  {}", Bytes(bytes))?;
    }
    f.write_char('\n')?;
    write_health(f, &version.health)?;
    // Why it is not well says more than what it waits for meanwhile.
    if let (None, Some(waits)) = (&version.health.why, &version.waits_for) {
        writeln!(f, "        waiting: {waits}")?;
    }
    for gate in &version.gates {
        let mark = if gate.holds { "✓" } else { "✗" };
        writeln!(f, "        {mark} {:<16} {}", gate.gate, gate.reading)?;
    }
    for unit in &version.units {
        if let Some(left) = unit.tombstones_left_ms.filter(|left| *left < 86_400_000) {
            let left = span(Duration::from_millis(left));
            writeln!(f, "        {}: tombstones may be gone in {left}", unit.unit)?;
        }
    }
    Ok(())
}

fn write_health(f: &mut fmt::Formatter<'_>, health: &HealthStatus) -> fmt::Result {
    if let Some(why) = &health.why {
        writeln!(f, "        {}: {why}", health.is)?;
    }
    if let Some(hint) = &health.hint {
        writeln!(f, "        hint: {hint}")?;
    }
    Ok(())
}

/// Where a version is, on one line: what `wait` prints as it goes.
pub(super) struct Line<'a>(pub(super) &'a VersionStatus);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.0;
        write!(f, "{:<12}", version.state)?;
        if version.state == "replaying"
            && let Some(records) = version.records
        {
            let (done, end) = (Count(records.done), Count(records.end));
            write!(f, " {:>5.1} %  {done}/{end}", records.percent())?;
            write!(f, "   {}", Rate(version.rate))?;
            if let Some(eta) = version.eta_ms {
                write!(f, "   eta {}", span(Duration::from_millis(eta)))?;
            }
        } else if let Some(lag) = version.lag {
            let about = if lag.estimated { "about " } else { "" };
            write!(
                f,
                " lag {} records, {about}{:.1} s",
                Count(lag.records),
                lag.seconds
            )?;
        }
        if !version.gates.is_empty() && version.state != "replaying" {
            let held = version.gates.iter().filter(|gate| gate.holds).count();
            write!(f, "   gates {held}/{}", version.gates.len())?;
        }
        Ok(())
    }
}

/// Records a second, for people.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1000.0 {
            write!(f, "{:.1} k/s", self.0 / 1000.0)
        } else {
            write!(f, "{:.0}/s", self.0)
        }
    }
}
