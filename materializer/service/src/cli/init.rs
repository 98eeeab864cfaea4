//! `init`: a draft of a view from a topic's records, and of the settings where there are none.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use materializer_model::ports::ControlTopic;
use materializer_model::{LogRow, Record, Topic};
use materializer_view::{draft, parse, view_name};
use serde::Serialize;

use super::context::Context;
use crate::config::{Config, FILE};
use crate::connect;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The topic that the view is derived from.
    topic: String,
    /// Where Kafka is; written into the settings where there are none.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// Where Redis is; written into the settings where there are none.
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379")]
    redis: String,
}

/// How many records of each partition a draft is made from.
const SAMPLE: u64 = 100;

#[derive(Serialize)]
struct Written {
    view: String,
    file: PathBuf,
    records: usize,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(
            f,
            "{file}: a draft of view `{}` from {} records; look at it, then `materializer try {file}`",
            self.view, self.records
        )
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let config = settings(args, context)?;
    let topic = Topic::new(&args.topic);
    let view = view_name(&args.topic);
    let file = PathBuf::from("views").join(format!("{view}.yaml"));
    if file.exists() {
        return Err(exists(&file));
    }
    let kafka = connect::kafka(&config)?;
    let sample = materializer_kafka::sample(&kafka, &topic, SAMPLE).map_err(|error| {
        let hint = match materializer_kafka::list_topics(&kafka) {
            Ok(known) => {
                let known = known.keys().filter(|topic| !is_ours(topic));
                let known: Vec<String> = known.map(|topic| format!("`{topic}`")).collect();
                format!("the topics are {}", known.join(", "))
            }
            Err(_) => unreachable_brokers(&config),
        };
        Failure::new(Exit::Failed, error, hint)
    })?;
    let samples: Vec<Record<'_>> = sample
        .rows
        .rows()
        .filter_map(|row| match row {
            LogRow::Record(record) => Some(record),
            LogRow::End { .. } => None,
        })
        .collect();
    if samples.is_empty() {
        return Err(Failure::refused(
            format!("topic `{topic}` is empty: there is nothing to make a draft from"),
            "produce some records first, or write the definition as docs/views.md says",
        ));
    }
    let text = draft(&args.topic, &samples);
    parse("draft", &text)?;
    write_new(&file, &text)?;
    context.output.show(&Written {
        view,
        file,
        records: samples.len(),
    })?;
    Ok(Exit::Done)
}

/// Says whether a topic is an installation's own: nobody derives a view from it.
fn is_ours(topic: &Topic) -> bool {
    ControlTopic::ALL.iter().any(|which| {
        let end = format!(".materializer.{}", which.as_str());
        topic.as_str().ends_with(&end)
    })
}

fn exists(file: &Path) -> Failure {
    Failure::refused(
        format!("`{}` exists already", file.display()),
        "move it away to have a new draft",
    )
}

/// Reads the settings, or writes them where there are none.
fn settings(args: &Args, context: &Context) -> Result<Config, Failure> {
    let path = context.path();
    if path.exists() {
        if args.brokers.is_some() {
            context.output.note(format!(
                "`{}` exists and is left as it is; `--brokers` is not used",
                path.display()
            ))?;
        }
        return context.config();
    }
    let Some(brokers) = &args.brokers else {
        // The environment may say it all.
        return context.config();
    };
    let draft = |dev| settings_draft(brokers, &args.redis, dev);
    let name = path.display().to_string();
    let config = Config::from_text(&name, &draft(false), context.environment())?;
    let count = materializer_kafka::broker_count(&connect::kafka(&config)?)
        .map_err(|error| Failure::new(Exit::Failed, error, unreachable_brokers(&config)))?;
    let dev = count < 3;
    write_new(path, &draft(dev))?;
    context.output.note(format!(
        "{name}: written{}",
        if dev {
            ", with `dev: true`, since the cluster has fewer than three brokers"
        } else {
            ""
        }
    ))?;
    context.config()
}

fn unreachable_brokers(config: &Config) -> String {
    let brokers = &config.kafka.brokers;
    format!("see whether Kafka listens at `{brokers}` and takes this login, then run `init` again")
}

fn settings_draft(brokers: &str, redis: &str, dev: bool) -> String {
    let dev = if dev {
        "dev: true                       # fewer than three brokers: topics with one replica\n"
    } else {
        ""
    };
    format!(
        "# The settings of materializer. Every key is in docs/operations.md; MATERIALIZER__* lies over them.
installation: main              # the prefix of everything that is stored
kafka:
  brokers: {brokers}
  properties: {{}}                # librdkafka's, as security.protocol: SASL_SSL; secrets as sasl.password_file
connections:
  cache: {redis}
data_dir: data                  # the worker's id and its indices; a local disk
http: 127.0.0.1:8080            # an address that others reach needs `access.token_file` or TLS
redis: 127.0.0.1:6380           # the gateway's Redis protocol
{dev}"
    )
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;

    let place = path.display();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let opened = fs::File::options().write(true).create_new(true).open(path);
    let mut file = opened.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            exists(path)
        } else {
            Failure::refused(
                format!("cannot write `{place}`: {error}"),
                format!("write {FILE} by hand"),
            )
        }
    })?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_topics_of_an_installation_are_not_offered() {
        for (topic, ours) in [
            ("main.materializer.progress", true),
            ("eu.materializer.catalog", true),
            ("shop.products", false),
            ("materializer.catalog.copy", false),
        ] {
            assert_eq!(is_ours(&Topic::new(topic)), ours, "{topic}");
        }
    }

    #[test]
    fn the_drafted_settings_have_no_fault() {
        for dev in [false, true] {
            let text = settings_draft("localhost:9092", "redis://127.0.0.1:6379", dev);
            let config = Config::from_text(FILE, &text, &BTreeMap::new()).expect("no fault");
            assert_eq!(config.dev, dev);
            assert_eq!(config.connections["cache"].url, "redis://127.0.0.1:6379");
        }
    }
}
