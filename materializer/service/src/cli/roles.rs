//! `run`, `worker`, `coordinator`, `gateway`: the verbs that go on until they are told to end.

use std::io;

use materializer_model::ViewName;
use tracing_subscriber::EnvFilter;

use super::context::Context;
use crate::config::{Config, LogSection};
use crate::output::{Exit, Failure};
use crate::run::{Roles, run};
use crate::stop::Stop;

/// `run` and `worker`.
#[derive(Debug, clap::Args)]
pub(super) struct Worker {
    /// The most units to feed at once.
    #[arg(long)]
    slots: Option<usize>,
    /// Only feed this view. May be given several times.
    #[arg(long, value_name = "VIEW")]
    only: Vec<ViewName>,
}

/// `coordinator` and `gateway`.
#[derive(Debug, clap::Args)]
pub(super) struct Nothing {}

pub(super) fn all(args: &Worker, context: &Context) -> Result<Exit, Failure> {
    let roles = Roles {
        coordinator: true,
        worker: true,
        gateway: true,
    };
    play(context, args.configure(context.config()?), roles)
}

pub(super) fn worker(args: &Worker, context: &Context) -> Result<Exit, Failure> {
    let roles = Roles {
        coordinator: false,
        worker: true,
        gateway: false,
    };
    play(context, args.configure(context.config()?), roles)
}

pub(super) fn coordinator(context: &Context) -> Result<Exit, Failure> {
    let roles = Roles {
        coordinator: true,
        worker: false,
        gateway: false,
    };
    play(context, context.config()?, roles)
}

pub(super) fn gateway(context: &Context) -> Result<Exit, Failure> {
    let roles = Roles {
        coordinator: false,
        worker: false,
        gateway: true,
    };
    play(context, context.config()?, roles)
}

impl Worker {
    fn configure(&self, mut config: Config) -> Config {
        if let Some(slots) = self.slots {
            config.worker.slots = slots;
        }
        if !self.only.is_empty() {
            config.worker.only.clone_from(&self.only);
        }
        config
    }
}

fn play(context: &Context, config: Config, roles: Roles) -> Result<Exit, Failure> {
    log_to_stderr(&config.log)?;
    run(config, roles, context.clock.clone(), &Stop::default())?;
    Ok(Exit::Done)
}

fn log_to_stderr(section: &LogSection) -> Result<(), Failure> {
    let filter: EnvFilter = section.filter.parse()?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(io::stderr);
    let set = if section.json {
        log.json().try_init()
    } else {
        log.with_ansi(false).try_init()
    };
    set.map_err(|error| anyhow::anyhow!("begin to log: {error}"))?;
    Ok(())
}
