//! `try`: what a view makes of records, without any sink: the document, or the fault under its
//! expression.

use std::fmt;
use std::io::{BufRead, Read};
use std::path::PathBuf;

use materializer_model::record::Headers;
use materializer_model::{
    LogRow, Offset, Partition, Poison, Record, RowBatch, Timestamp, Topic, ViewName,
};
use materializer_view::{Fault, Outcome, compile, point_at};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::context::Context;
use super::definitions::{Defined, read};
use crate::connect;
use crate::output::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file of the definitions.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only this view of the file.
    #[arg(long)]
    view: Option<ViewName>,
    /// How many records to show.
    #[arg(long, default_value_t = 5)]
    take: usize,
    /// Records from a file, `-` for standard input, in place of the topic: a value a line, or
    /// `{"key": …, "value": …, "timestamp": …}`.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// The longest line of an input, and what a record may hold at most.
const LINE_MAX: u64 = 16 << 20;

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let all = read(context, std::slice::from_ref(&args.file))?;
    let wanted = |defined: &&Defined| {
        let view = &defined.definition.view;
        args.view.as_ref().is_none_or(|only| only == view)
    };
    let mut exit = Exit::Done;
    for defined in all.iter().filter(wanted) {
        let batch = match &args.input {
            Some(path) => from_lines(path, args.take, &defined.definition.from.topics)?,
            None => sample(context, defined, args.take)?,
        };
        if batch.is_empty() {
            context.output.note(format!(
                "`{}`: there are no records",
                defined.definition.view
            ))?;
        }
        if show(context, defined, &batch, args.take)? {
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

/// Takes records from the view's first topic, some of each partition.
fn sample(context: &Context, defined: &Defined, take: usize) -> Result<RowBatch, Failure> {
    let kafka = connect::kafka(&context.config()?)?;
    let Some(topic) = defined.definition.from.topics.first() else {
        return Ok(RowBatch::default());
    };
    let take = u64::try_from(take).unwrap_or(u64::MAX);
    Ok(materializer_kafka::sample(&kafka, topic, take)?.rows)
}

/// Shows what becomes of each record; returns whether one is poison.
fn show(
    context: &Context,
    defined: &Defined,
    batch: &RowBatch,
    take: usize,
) -> Result<bool, Failure> {
    let definition = &defined.definition;
    let view = compile(definition)?;
    let mut poisoned = false;
    let records = batch.rows().filter_map(|row| match row {
        LogRow::Record(record) => Some(record),
        LogRow::End { .. } => None,
    });
    for record in records.take(take) {
        let outcome = view.explain(&record).outcome;
        poisoned |= matches!(outcome, Outcome::Poison(_));
        context.output.show(&Tried {
            view: &definition.view,
            record: record.origin().to_string(),
            became: became(defined, outcome),
        })?;
    }
    Ok(poisoned)
}

#[derive(Serialize)]
struct Tried<'a> {
    view: &'a ViewName,
    record: String,
    #[serde(flatten)]
    became: Became,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Became {
    Excluded,
    Deleted {
        key: String,
    },
    Document {
        key: String,
        /// Canonical JSON, or text where the view's rows are bytes.
        row: Shown,
        expires_at: Option<Timestamp>,
    },
    Poison {
        #[serde(flatten)]
        poison: Poison,
        #[serde(skip)]
        fault: Option<Box<Fault>>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Json(Box<RawValue>),
    Text(String),
}

fn became(defined: &Defined, outcome: Outcome) -> Became {
    match outcome {
        Outcome::Excluded => Became::Excluded,
        Outcome::Deleted { key } => Became::Deleted {
            key: key.to_string(),
        },
        Outcome::Document {
            key,
            row,
            expires_at,
        } => {
            let text = String::from_utf8_lossy(&row.0).into_owned();
            let row = RawValue::from_string(text.clone()).map_or(Shown::Text(text), Shown::Json);
            Became::Document {
                key: key.to_string(),
                row,
                expires_at,
            }
        }
        Outcome::Poison(poison) => {
            let file = defined.file.display().to_string();
            let view = &defined.definition.view;
            Became::Poison {
                fault: point_at(&file, &defined.text, view, &poison).map(Box::new),
                poison,
            }
        }
    }
}

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.record;
        match &self.became {
            Became::Excluded => write!(f, "{record}  excluded by `only`"),
            Became::Deleted { key } => write!(f, "{record}  {key}  deleted"),
            Became::Document { key, row, .. } => match row {
                Shown::Json(json) => write!(f, "{record}  {key}  {json}"),
                Shown::Text(text) => write!(f, "{record}  {key}  {text}"),
            },
            Became::Poison { poison, fault } => {
                write!(f, "{record}  cannot be taken in: {poison}")?;
                match fault {
                    Some(fault) => write!(f, "\n{fault}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A line that is more than a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    timestamp: Option<i64>,
}

/// Reads records from lines, as if they stood in the view's first topic one after the other.
fn from_lines(path: &PathBuf, take: usize, topics: &[Topic]) -> Result<RowBatch, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::usage(
            format!("cannot read `{}`: {error}", path.display()),
            "name a file with a record a line, or `-`",
        )
    };
    let mut input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        Box::new(std::io::BufReader::new(file))
    };
    let topic = topics
        .first()
        .cloned()
        .unwrap_or_else(|| Topic::new("stdin"));
    let mut batch = RowBatch::default();
    let mut offset = Offset(0);
    while batch.len() < take {
        let mut line = Vec::new();
        let read = (&mut input).take(LINE_MAX).read_until(b'\n', &mut line);
        if read.map_err(unreadable)? == 0 {
            break;
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let parsed = serde_json::from_slice::<Line<'_>>(line).ok();
        let (key, value, timestamp) = match &parsed {
            Some(line) => (
                line.key.as_deref().map(str::as_bytes),
                line.value.map(|value| value.get().as_bytes()),
                line.timestamp.map(Timestamp),
            ),
            None => (None, Some(line), None),
        };
        let record = Record {
            topic: &topic,
            partition: Partition(0),
            offset,
            epoch: None,
            timestamp,
            key,
            value,
            headers: Headers::default(),
        };
        batch.push_record(&record, []);
        offset = offset.next();
    }
    Ok(batch)
}
