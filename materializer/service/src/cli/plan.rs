//! `plan`: what `apply` would do and why, with an estimate before hours are spent.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use materializer_migrations::{CatalogClient, Plan};
use materializer_model::definition::Target;
use materializer_model::ports::LogObserver;
use materializer_model::{CatalogId, Clock, ViewName};
use materializer_sinks::redis::probe;
use materializer_view::compile;
use serde::Serialize;

use super::apply::{How, because, verb};
use super::context::{Context, explain};
use super::definitions::{Defined, read};
use crate::config::Config;
use crate::connect;
use crate::doctor::space_free;
use crate::estimate::{Estimate, Sample, Source};
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The files of the definitions.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many records of each partition the estimate is made from.
    #[arg(long, default_value_t = 1_000)]
    sample: u64,
    #[command(flatten)]
    how: How,
}

#[derive(Serialize)]
struct Planned<'a> {
    view: &'a ViewName,
    plan: &'a Plan,
    because: String,
    live: Option<String>,
    estimate: Option<Estimate>,
}

impl fmt::Display for Planned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view;
        if let Plan::Start { version, .. } = self.plan {
            let number = version.number;
            write!(f, "{view}: new version {number}, {}", self.because)?;
        } else {
            write!(f, "{view}: {}", self.plan)?;
        }
        if let Some(live) = &self.live {
            write!(f, "       (live: {live})")?;
        }
        match &self.estimate {
            Some(estimate) => write!(f, "\n{estimate}"),
            None => Ok(()),
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let all = read(context, &args.files)?;
    let config = context.config()?;
    let client = context.catalog(&config)?;
    for defined in &all {
        let catalog = client.state().catalog();
        let plan = client
            .plan(&verb(&client, defined, args.how))
            .map_err(explain)?;
        let starts = matches!(plan, Plan::Start { .. });
        let estimate = starts
            .then(|| estimate(context, &config, &client, defined, args.sample))
            .transpose()?;
        let view = &defined.definition.view;
        let live = catalog.view(view).and_then(|view| view.live());
        context.output.show(&Planned {
            view,
            plan: &plan,
            because: reasons(
                catalog.view(view).is_none(),
                &because(&client, defined, args.how),
            ),
            live: live.map(|live| live.id.number.to_string()),
            estimate,
        })?;
    }
    Ok(Exit::Done)
}

fn reasons(first: bool, reasons: &[String]) -> String {
    if first {
        return "because there is none yet".to_owned();
    }
    if reasons.is_empty() {
        return "because no version of it is left".to_owned();
    }
    format!("because {}", reasons.join(", "))
}

fn estimate(
    context: &Context,
    config: &Config,
    client: &CatalogClient,
    defined: &Defined,
    take: u64,
) -> Result<Estimate, Failure> {
    let definition = &defined.definition;
    let topics = &definition.from.topics;
    let clock: Arc<dyn Clock> = Arc::new(context.clock.clone());
    let observer = connect::observer(config, clock)?;
    let source = Source {
        facts: observer.fresh_facts(topics)?,
        ends: observer.fresh_ends(topics)?,
    };
    let kafka = connect::kafka(config)?;
    let view = compile(definition)?;
    let mut sample = Sample::default();
    let mut failure = None;
    for topic in topics {
        let taken = materializer_kafka::sample(&kafka, topic, take)?;
        let first = sample.add(&view, &taken, &context.clock);
        failure = failure.or(first);
    }
    let state = client.state();
    let free = free(config, state.catalog().id(), &definition.to, &context.clock)?;
    let now = state.reports().newest();
    Ok(Estimate::of(
        definition, &source, sample, failure, free, now,
    ))
}

/// Returns the bytes that are free where the version will be stored, as far as that can be asked here.
fn free(
    config: &Config,
    catalog: Option<&CatalogId>,
    target: &Target,
    clock: &dyn Clock,
) -> Result<Option<u64>, Failure> {
    match (target, catalog) {
        (Target::Redis(target), Some(catalog)) => {
            let place = connect::redis_place(config, &target.connection, catalog)?;
            let facts = probe(&place, clock)?.facts;
            Ok(facts
                .memory_max
                .map(|max| max.saturating_sub(facts.memory_used)))
        }
        (Target::Tantivy(_), _) => {
            // The folder of this machine: the workers' own is shown by `status` as they run.
            let nearest = config.data_dir.ancestors().find(|path| path.is_dir());
            Ok(space_free(nearest.unwrap_or(Path::new("."))).ok())
        }
        (Target::Redis(_) | Target::Memory {}, _) => Ok(None),
    }
}
