//! What every verb has at hand: settings, output, clock, and the way to Kafka.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use materializer_migrations::reports::FollowError;
use materializer_migrations::{CatalogClient, ClientError};
use materializer_model::ports::ControlError;

use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::connect;
use crate::output::{Exit, Failure, Output};
use crate::run::new_event_id;

/// What every verb has at hand.
#[derive(Debug)]
pub(super) struct Context {
    path: PathBuf,
    environment: BTreeMap<String, String>,
    pub(super) output: Output,
    pub(super) clock: SystemClock,
}

impl Context {
    pub(super) fn new(
        path: PathBuf,
        output: Output,
        environment: BTreeMap<String, String>,
    ) -> Self {
        Self {
            path,
            environment,
            output,
            clock: SystemClock::start(),
        }
    }

    /// Returns the file that holds the settings.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Returns the variables that the process was started with.
    pub(super) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Reads the settings.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let named = self.path != *config::FILE;
        Config::load(&self.path, named, &self.environment).map_err(|faults| {
            Failure::new(
                Exit::Usage,
                faults,
                format!(
                    "`materializer init TOPIC --brokers HOST:PORT` writes {}; every key is in docs/operations.md",
                    config::FILE
                ),
            )
        })
    }

    /// Opens the catalog of the installation.
    pub(super) fn catalog(&self, config: &Config) -> Result<CatalogClient, Failure> {
        let log = connect::control_log(config)?;
        CatalogClient::open(log, &config.who, Box::new(new_event_id)).map_err(explain)
    }
}

/// Says what to do about a fault of the catalog.
pub(super) fn explain(error: ClientError) -> Failure {
    let (exit, hint) = match &error {
        ClientError::Follow(FollowError::Missing) => (
            Exit::Failed,
            "`materializer run` (or `coordinator`) creates it; `materializer catalog import FILE` restores a backup".to_owned(),
        ),
        ClientError::Follow(
            FollowError::Foreign { .. } | FollowError::Log(ControlError::Lost(_)),
        ) => (
            Exit::Failed,
            "were they made anew? `materializer catalog import FILE` brings a backup back, and `materializer catalog adopt --reason …` binds it".to_owned(),
        ),
        ClientError::Follow(FollowError::Log(ControlError::Unavailable(_) | ControlError::Unknown(_))) => {
            (Exit::Failed, "is Kafka up? `materializer doctor` looks".to_owned())
        }
        ClientError::Follow(FollowError::Log(ControlError::Refused(_))) => {
            (Exit::Failed, "`materializer doctor` checks the topics one by one".to_owned())
        }
        ClientError::Newer(_) => (Exit::Failed, "use the release that wrote it".to_owned()),
        ClientError::Overtaken(view) => (
            Exit::Failed,
            format!("look at `materializer history {view}`, then type it again"),
        ),
        ClientError::Refused(refusal) => {
            return Failure {
                exit: Exit::Failed,
                hint: refusal.hint.clone(),
                error: error.into(),
            };
        }
    };
    Failure::new(exit, error, hint)
}

/// How long a verb sleeps between two looks at the catalog.
pub(super) const GLANCE: Duration = Duration::from_millis(100);
