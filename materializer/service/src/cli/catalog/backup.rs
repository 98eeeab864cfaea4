//! The backup: every event as it was appended, and at the end how many there are, so that one that was
//! cut off is told from a whole one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use materializer_kafka::KafkaControlLog;
use materializer_migrations::{Catalog, Verdict};
use materializer_model::ports::{ControlError, ControlRecord, ControlTopic};
use materializer_model::{CatalogId, Offset, Timestamp, VersionNumber, ViewName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cli::context::Context;
use crate::cli::history::time;
use crate::connect;
use crate::output::{Exit, Failure};

/// One event. Its text is kept as it stands in the log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    offset: Offset,
    appended: Timestamp,
    event: Box<RawValue>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    events: usize,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

pub(super) fn export(context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    drop(context.catalog(&config)?);
    let mut log = connect::control_log(&config)?;
    let mut records = Vec::new();
    log.read(ControlTopic::Catalog, Offset(0), &mut records)?;
    let events = records.len();
    for record in records {
        let ControlRecord {
            offset, appended, ..
        } = record;
        let event = String::from_utf8(record.value.unwrap_or_default())
            .map_err(anyhow::Error::new)
            .and_then(|text| Ok(RawValue::from_string(text)?))
            .with_context(|| format!("the event at offset {offset} of the catalog is no JSON"))?;
        context.output.show(&Exported {
            offset,
            appended,
            event,
        })?;
    }
    context.output.show(&End { events })?;
    Ok(Exit::Done)
}

/// What a backup holds.
#[derive(Serialize)]
struct Backup {
    catalog: CatalogId,
    events: usize,
    /// When the last of them was appended.
    until: Timestamp,
    /// The live version of each view that has one.
    live: BTreeMap<ViewName, VersionNumber>,
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plan  write   {} events of catalog {}",
            self.events, self.catalog
        )?;
        write!(f, "\n      until   {}", time(self.until))?;
        for (view, version) in &self.live {
            write!(f, "\n      live    {view}@{version}")?;
        }
        Ok(())
    }
}

impl Backup {
    /// Folds the events as every process will.
    fn of(events: &[ControlRecord]) -> anyhow::Result<Self> {
        let mut catalog = Catalog::default();
        for (number, event) in events.iter().enumerate() {
            if event.offset.0 != u64::try_from(number)? {
                bail!("event {number} of the backup has offset {}", event.offset);
            }
            let verdict = catalog.fold(event);
            if number == 0 && verdict != Verdict::Accepted {
                bail!("the first event of the backup does not begin a catalog");
            }
        }
        let (Some(id), Some(last)) = (catalog.id(), events.last()) else {
            bail!("the backup holds no event");
        };
        let live = |(name, view): (&ViewName, &materializer_migrations::View)| {
            Some((name.clone(), view.live()?.id.number))
        };
        Ok(Self {
            catalog: id.clone(),
            events: events.len(),
            until: last.appended,
            live: catalog.views().iter().filter_map(live).collect(),
        })
    }
}

/// Reads a backup whole.
fn read(from: impl Read) -> anyhow::Result<Vec<ControlRecord>> {
    let mut events: Vec<ControlRecord> = Vec::new();
    let lines = serde_json::Deserializer::from_reader(from).into_iter::<Box<RawValue>>();
    for line in lines {
        let line = line.with_context(|| format!("after {} events", events.len()))?;
        if let Ok(End { events: all }) = serde_json::from_str(line.get()) {
            if all != events.len() {
                bail!("it holds {} events and says {all}", events.len());
            }
            return Ok(events);
        }
        let Exported {
            offset,
            appended,
            event,
        } = serde_json::from_str(line.get())
            .with_context(|| format!("what follows {} events is none", events.len()))?;
        events.push(ControlRecord {
            offset,
            appended,
            key: None,
            value: Some(event.get().as_bytes().to_vec()),
        });
    }
    Err(anyhow!(
        "its last line is missing: it was cut off after {} events",
        events.len()
    ))
}

pub(super) fn import(context: &Context, file: &Path, dry_run: bool) -> Result<Exit, Failure> {
    let config = context.config()?;
    let opened: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).with_context(|| format!("open `{}`", file.display()))?)
    };
    let events = read(BufReader::new(opened));
    let events = events.with_context(|| format!("backup `{}`", file.display()))?;
    context.output.show(&Backup::of(&events)?)?;
    if dry_run {
        return Ok(Exit::Done);
    }
    let mut log = KafkaControlLog::open(&connect::kafka(&config)?, &config.installation)?;
    let restored = log.restore(&events).map_err(unrestored)?;
    context.output.note(format!(
        "{} events were there, {} were appended: `materializer catalog adopt --reason …` binds the catalog to its topics",
        restored.found, restored.appended
    ))?;
    Ok(Exit::Done)
}

fn unrestored(fault: ControlError) -> Failure {
    let again = "`materializer catalog import` again goes on where it was cut short";
    Failure {
        exit: Exit::Failed,
        hint: fault.may_pass().then(|| again.to_owned()),
        error: fault.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"offset":0,"appended":5,"event":{"schema":1, "b":[1.50]}}"#,
        "\n",
        r#"{"offset":1,"appended":7,"event":{"schema":2}}"#,
        "\n",
    );

    #[test]
    fn a_backup_is_read_as_it_was_written_and_only_whole() {
        let read = |text: &str| read(text.as_bytes()).map_err(|fault| format!("{fault:#}"));
        let events = read(&format!("{LINES}{{\"events\":2}}\n")).expect("whole");
        let first = &events[0];
        assert_eq!((first.offset, first.appended), (Offset(0), Timestamp(5)));
        let value = first.value.as_deref();
        assert_eq!(value, Some(br#"{"schema":1, "b":[1.50]}"#.as_slice()));

        let cut = &LINES[..LINES.len() - 5];
        for (text, why) in [
            (LINES.to_owned(), "cut off after 2 events"),
            (cut.to_owned(), "after 1 events"),
            (
                format!("{LINES}{{\"events\":3}}"),
                "holds 2 events and says 3",
            ),
            (
                format!("{LINES}{{\"hello\":1}}"),
                "what follows 2 events is none",
            ),
            (String::new(), "cut off after 0 events"),
        ] {
            let fault = read(&text).expect_err("not whole");
            assert!(fault.contains(why), "{text}: {fault}");
        }
    }

    #[test]
    fn a_backup_that_is_no_catalog_is_not_written() {
        let event = |offset| ControlRecord {
            offset: Offset(offset),
            appended: Timestamp(0),
            key: None,
            value: Some(b"{}".to_vec()),
        };
        for (events, why) in [
            (vec![], "holds no event"),
            (vec![event(0)], "does not begin a catalog"),
            (vec![event(1)], "event 0 of the backup has offset 1"),
        ] {
            let fault = Backup::of(&events).err().expect("refused").to_string();
            assert!(fault.contains(why), "{fault}");
        }
    }
}
