//! `promote rollback pause resume skip retire abort`: the verbs that are a request and its answer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use materializer_migrations::{CatalogClient, Verb, gates};
use materializer_model::ids::IdError;
use materializer_model::ports::LogObserver as _;
use materializer_model::progress::GateReading;
use materializer_model::{Offset, Origin, Partition, Topic, VersionId, VersionNumber, ViewName};
use serde::Serialize;

use super::context::Context;
use super::moved::Moved;
use super::request::carry_out;
use crate::connect;
use crate::output::{Exit, Failure};

/// A view, or one of its versions.
#[derive(Clone, Debug)]
pub(super) enum ViewOrVersion {
    View(ViewName),
    Version(VersionId),
}

impl FromStr for ViewOrVersion {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.contains('@') {
            text.parse().map(Self::Version)
        } else {
            text.parse().map(Self::View)
        }
    }
}

impl ViewOrVersion {
    pub(super) fn view(&self) -> &ViewName {
        match self {
            Self::View(view) => view,
            Self::Version(version) => &version.view,
        }
    }

    pub(super) fn number(&self) -> Option<VersionNumber> {
        match self {
            Self::View(_) => None,
            Self::Version(version) => Some(version.number),
        }
    }
}

/// What every verb that changes something takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Why; kept in the history.
    #[arg(long, short, default_value = "")]
    pub(super) reason: String,
    /// Show the plan and stop.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `promote VIEW@vN`.
#[derive(Debug, clap::Args)]
pub(super) struct Promote {
    /// The version that readers shall see.
    version: VersionId,
    /// A gate to do without; recorded, with `--reason`. May be given several times.
    #[arg(long, value_name = "GATE", requires = "reason", value_parser = gate_names())]
    waive: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// `rollback VIEW`.
#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    /// The view.
    view: ViewName,
    /// A gate to do without; recorded, with `--reason`. May be given several times.
    #[arg(long, value_name = "GATE", requires = "reason", value_parser = gate_names())]
    waive: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// `pause`, `resume` or `abort` of `VIEW@vN`.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// The version.
    version: VersionId,
    #[command(flatten)]
    common: Common,
}

/// `skip VIEW@vN --at TOPIC/PARTITION/OFFSET`.
#[derive(Debug, clap::Args)]
pub(super) struct Skip {
    /// The version that stands before the record.
    version: VersionId,
    /// The record, as `status` names it.
    #[arg(long, value_name = "TOPIC/PARTITION/OFFSET", value_parser = origin)]
    at: Origin,
    #[command(flatten)]
    common: Common,
}

/// `retire VIEW@vN` or `retire VIEW`.
#[derive(Debug, clap::Args)]
pub(super) struct Retire {
    /// The standby whose soak ends, or the view that goes as a whole.
    #[arg(value_name = "VIEW[@vN]")]
    target: ViewOrVersion,
    #[command(flatten)]
    common: Common,
}

fn gate_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(
        gates::names()
            .into_iter()
            .filter(|name| !gates::UNWAIVABLE.contains(name)),
    )
}

fn origin(text: &str) -> Result<Origin, String> {
    let mut parts = text.rsplitn(3, '/');
    let offset = parts.next().and_then(|part| part.parse().ok());
    let partition = parts.next().and_then(|part| part.parse().ok());
    match (parts.next(), partition, offset) {
        (Some(topic), Some(partition), Some(offset)) if !topic.is_empty() => Ok(Origin {
            topic: Topic::new(topic),
            partition: Partition(partition),
            offset: Offset(offset),
        }),
        _ => Err("write TOPIC/PARTITION/OFFSET, as in shop.products/3/1200".to_owned()),
    }
}

impl Promote {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut client = context.catalog(&context.config()?)?;
        let verb = Verb::Promote {
            version: self.version.clone(),
            waive: self.waive.into_iter().collect(),
        };
        if self.common.carry_out(context, &mut client, verb)?.is_some() {
            let moved = Moved::follow(context, &mut client, "promoted", &self.version.view)?;
            context.output.show(&moved)?;
        }
        Ok(Exit::Done)
    }
}

impl Rollback {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut client = context.catalog(&context.config()?)?;
        let verb = Verb::Rollback {
            view: self.view.clone(),
            waive: self.waive.into_iter().collect(),
        };
        if let Some(gates) = self.common.carry_out(context, &mut client, verb)? {
            let moved = Moved::follow(context, &mut client, "rolled back", &self.view)?;
            let moved = moved.fresh_by(&gates);
            context.output.show(&moved)?;
            if let Some(standby) = moved.standby {
                context.output.note(format!(
                    "{standby} is marked rolled back: it is never promoted by itself, and is still fed"
                ))?;
            }
        }
        Ok(Exit::Done)
    }
}

impl One {
    pub(super) fn pause(self, context: &Context) -> Result<Exit, Failure> {
        let version = self.version.clone();
        self.run(context, Verb::Pause { version }, "paused")
    }

    pub(super) fn resume(self, context: &Context) -> Result<Exit, Failure> {
        let version = self.version.clone();
        self.run(context, Verb::Resume { version }, "is fed again")
    }

    pub(super) fn abort(self, context: &Context) -> Result<Exit, Failure> {
        let version = self.version.clone();
        self.run(
            context,
            Verb::Abort { version },
            "is given up and being deleted",
        )
    }

    fn run(self, context: &Context, verb: Verb, done: &str) -> Result<Exit, Failure> {
        let said = format!("`{}` {done}", self.version);
        self.common.run(context, verb, &said)
    }
}

impl Skip {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        self.check_that_it_exists(context)?;
        let said = format!("`{}` skips {}", self.version.view, self.at);
        let mut client = context.catalog(&context.config()?)?;
        let verb = client.skip(self.version, self.at);
        self.common.run_by(context, &mut client, verb, &said)
    }

    /// Refuses a place that holds no record yet: the one that will stand there is not meant.
    fn check_that_it_exists(&self, context: &Context) -> Result<(), Failure> {
        let Origin {
            topic,
            partition,
            offset,
        } = &self.at;
        let clock = Arc::new(context.clock.clone());
        let observer = connect::observer(&context.config()?, clock)?;
        let ends = observer.fresh_ends(std::slice::from_ref(topic))?;
        let hint = format!(
            "`materializer status {}` names the record",
            self.version.view
        );
        match ends.get(topic, *partition) {
            None => Err(Failure::refused(
                format!("topic `{topic}` has no partition {partition}"),
                hint,
            )),
            Some(end) if *offset >= end.high => Err(Failure::refused(
                format!(
                    "there is no record at {} yet: the partition ends before offset {}",
                    self.at, end.high
                ),
                hint,
            )),
            Some(_) => Ok(()),
        }
    }
}

impl Retire {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let view = self.target.view().clone();
        let (said, version) = match self.target.number() {
            Some(number) => (
                format!("`{view}@{number}` is deleted as soon as no reader uses it"),
                Some(number),
            ),
            None => (
                format!(
                    "`{view}` serves nothing any more, and is deleted as soon as no reader uses it"
                ),
                None,
            ),
        };
        self.common
            .run(context, Verb::Retire { view, version }, &said)
    }
}

impl Common {
    fn carry_out(
        &self,
        context: &Context,
        client: &mut CatalogClient,
        verb: Verb,
    ) -> Result<Option<Vec<GateReading>>, Failure> {
        carry_out(context, client, verb, &self.reason, self.dry_run)
    }

    fn run(&self, context: &Context, verb: Verb, said: &str) -> Result<Exit, Failure> {
        let mut client = context.catalog(&context.config()?)?;
        self.run_by(context, &mut client, verb, said)
    }

    fn run_by(
        &self,
        context: &Context,
        client: &mut CatalogClient,
        verb: Verb,
        said: &str,
    ) -> Result<Exit, Failure> {
        let view = verb.view().clone();
        if self.carry_out(context, client, verb)?.is_some() {
            let view = &view;
            context.output.show(&Done { view, done: said })?;
        }
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Done<'a> {
    view: &'a ViewName,
    done: &'a str,
}

impl fmt::Display for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.done)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_record_is_named_as_topic_partition_offset() {
        for (text, expected) in [
            ("shop.products/3/1200", Some("shop.products/3/1200")),
            ("a/b/0/1", Some("a/b/0/1")),
            ("shop.products/3", None),
            ("/3/1", None),
            ("t/x/1", None),
        ] {
            let read = origin(text).map(|origin| origin.to_string()).ok();
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_gates_that_a_waiver_covers_can_be_waived() {
        use clap::builder::TypedValueParser;
        let values: BTreeSet<String> = gate_names()
            .possible_values()
            .into_iter()
            .flatten()
            .map(|value| value.get_name().to_owned())
            .collect();
        assert!(values.contains("documents_ratio") && !values.contains("servable"));
    }
}
