//! `doctor`: looks at everything that a replay, a promotion and a rollback will need, and says of each
//! fault what to type or change. Nothing is repaired; all that is written is one record of progress, to
//! learn the broker's time.

mod clock;
mod disk;
mod letters;
mod log;
mod ports;
mod redis;

pub(crate) use disk::space_free;

use std::fmt;
use std::sync::Arc;

use materializer_migrations::Follower;
use materializer_model::definition::Target;
use materializer_model::ports::{ControlLog, LogObserver};
use materializer_model::{Clock, ViewDefinition};
use serde::Serialize;

use crate::config::Config;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not always.
    Warning,
    /// Something cannot work.
    Fault,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `settings`, `ports`, `brokers`, `topics`, `clocks`, `redis`, `disk`, `leftovers`.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, with the name of the thing.
    pub what: String,
    /// What to type or change.
    pub hint: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            what: what.into(),
            hint: None,
        }
    }

    fn warning(check: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Warning,
            what: what.into(),
            hint: Some(hint.into()),
        }
    }

    fn fault(check: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Fault,
            what: what.into(),
            hint: Some(hint.into()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Fault => "fault  ",
        };
        write!(f, "{level}  {:<9} {}", self.check, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n         hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What a check-up looks at.
pub struct Patient<'a> {
    /// The settings, which have no fault of their own.
    pub config: &'a Config,
    /// The control topics.
    pub control: &'a mut dyn ControlLog,
    /// Asks the brokers.
    pub observer: &'a dyn LogObserver,
    /// Measures.
    pub clock: Arc<dyn Clock>,
    /// Definitions that are not applied yet.
    pub definitions: Vec<ViewDefinition>,
}

/// Looks at everything and returns what was found, in the order of the checks.
pub fn examine(mut patient: Patient<'_>) -> Vec<Finding> {
    let config = patient.config;
    let mut findings = vec![Finding::ok(
        "settings",
        format!("installation `{}`", config.installation),
    )];
    findings.extend(ports::examine(config));
    let (mut follower, of_control) = log::control(patient.control, config);
    findings.extend(of_control);
    if follower.catalog().id().is_some() {
        findings.push(clock::examine(patient.control, &mut follower));
    }
    patient.definitions.extend(applied(&follower));
    let mut topics: Vec<_> = patient
        .definitions
        .iter()
        .flat_map(|definition| definition.from.topics.clone())
        .collect();
    topics.sort();
    topics.dedup();
    for topic in &topics {
        findings.extend(log::topic(patient.observer, topic));
    }
    findings.extend(letters::examine(patient.observer, &patient.definitions));
    findings.extend(redis::examine(
        config,
        follower.catalog().id(),
        &patient.definitions,
        &patient.clock,
    ));
    let holds_indices = patient
        .definitions
        .iter()
        .any(|definition| matches!(definition.to, Target::Tantivy(_)));
    findings.extend(disk::examine(config, &follower, holds_indices));
    findings
}

/// Returns the definitions of all versions that there is something of.
fn applied(follower: &Follower) -> Vec<ViewDefinition> {
    let views = follower.catalog().views().values();
    views
        .flat_map(|view| view.versions.values())
        .filter(|version| version.role.is_fed())
        .map(|version| (*version.definition).clone())
        .collect()
}
