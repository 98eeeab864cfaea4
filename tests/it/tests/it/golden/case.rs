//! A golden case, a folder of `tests/golden`: what happened to a log, and the versions built from it.
//!
//! `log.ndjson` has an operation a line, in order; `vN.yaml` is a version's definition, `vN.skips` the
//! records that `skip --at` passes over, one a line; `vN.txt` is what the version must hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use materializer_model::definition::CleanupPolicy;
use materializer_model::memory::{MemoryLog, MemoryRecord, TopicSettings, Transaction};
use materializer_model::{
    Offset, Origin, Partition, Skip, Skips, Timestamp, Topic, VersionId, VersionNumber,
    ViewDefinition,
};
use materializer_view::parse;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a producer, or the broker's cleaner, does to the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Operation {
    Create {
        topic: Topic,
        partitions: i32,
        policy: CleanupPolicy,
    },
    Put(Put),
    Begin(String),
    Commit(String),
    Abort(String),
    Compact {
        #[serde(default)]
        p: Partition,
        below: Offset,
        /// Whether the tombstones below are due as well.
        #[serde(default)]
        tombstones: bool,
    },
}

/// A record. Without a key its key is null; without a value it is a tombstone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Put {
    #[serde(default)]
    p: Partition,
    key: Option<String>,
    key_hex: Option<String>,
    /// JSON, byte for byte as it stands in the line.
    value: Option<Box<RawValue>>,
    text: Option<String>,
    hex: Option<String>,
    at: Option<Timestamp>,
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// The transaction that it is part of.
    tx: Option<String>,
}

impl Put {
    fn record(&self) -> MemoryRecord {
        let json = self
            .value
            .as_ref()
            .map(|json| json.get().as_bytes().to_vec());
        let text = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
        let binary = |hex: &Option<String>| hex.as_deref().map(bytes_of_hex);
        let headers = self.headers.iter();
        MemoryRecord {
            key: text(&self.key).or_else(|| binary(&self.key_hex)),
            value: json
                .or_else(|| text(&self.text))
                .or_else(|| binary(&self.hex)),
            timestamp: self.at,
            headers: headers
                .map(|(name, value)| (name.clone().into_bytes(), text(value)))
                .collect(),
        }
    }
}

fn bytes_of_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let pairs = digits.chunks(2).map(String::from_iter);
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).expect("two hexadecimal digits"))
        .collect()
}

/// Does the operations of a case, one after the other, to one topic.
pub(crate) struct Story<'a> {
    pub(crate) log: MemoryLog,
    operations: std::slice::Iter<'a, Operation>,
    topic: Topic,
    open: BTreeMap<&'a str, Transaction>,
}

impl<'a> Story<'a> {
    /// Begins with the topic created and empty.
    pub(crate) fn begin(operations: &'a [Operation]) -> Self {
        let Some((
            Operation::Create {
                topic,
                partitions,
                policy,
            },
            operations,
        )) = operations.split_first()
        else {
            panic!("the first line of a log creates its topic");
        };
        let log = MemoryLog::default();
        let settings = TopicSettings {
            policy: *policy,
            ..TopicSettings::kept(*partitions)
        };
        log.create(topic, settings);
        Self {
            log,
            operations: operations.iter(),
            topic: topic.clone(),
            open: BTreeMap::new(),
        }
    }

    /// Says whether tombstones go next. No broker does that before `delete.retention.ms` has passed, in
    /// which a reader that is alive has read them.
    pub(crate) fn is_about_to_drop_tombstones(&self) -> bool {
        let next = self.operations.as_slice().first();
        matches!(
            next,
            Some(Operation::Compact {
                tombstones: true,
                ..
            })
        )
    }

    /// Does the next operation; says whether there was one.
    pub(crate) fn go_on(&mut self) -> bool {
        let Some(operation) = self.operations.next() else {
            return false;
        };
        let Self {
            log, topic, open, ..
        } = self;
        match operation {
            Operation::Create { .. } => panic!("a log has one topic"),
            Operation::Put(put) => {
                match &put.tx {
                    None => log.produce(topic, put.p, put.record()),
                    Some(tx) => log.produce_in(open[tx.as_str()], topic, put.p, put.record()),
                };
            }
            Operation::Begin(tx) => {
                open.insert(tx, log.begin());
            }
            Operation::Commit(tx) => log.commit(open[tx.as_str()]),
            Operation::Abort(tx) => log.abort(open[tx.as_str()]),
            Operation::Compact {
                p,
                below,
                tombstones,
            } => {
                log.compact(topic, *p, *below, *tombstones);
            }
        }
        true
    }
}

/// A version of a case.
pub(crate) struct Version {
    pub(crate) id: VersionId,
    pub(crate) definition: Arc<ViewDefinition>,
    pub(crate) skips: Skips,
    /// The file of its contents.
    pub(crate) contents: PathBuf,
}

/// A case.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) operations: Vec<Operation>,
    pub(crate) versions: Vec<Version>,
}

/// Returns every case, in the order of their names.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.expect("a folder's entry").path())
        .collect();
    folders.sort();
    folders.iter().map(|folder| read_case(folder)).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines<'de, T: Deserialize<'de>>(path: &Path, text: &'de str) -> Vec<T> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}:{number}: {error}", path.display()))
        })
        .collect()
}

fn read_case(folder: &Path) -> Case {
    let log = folder.join("log.ndjson");
    let name = folder.file_name().expect("a folder has a name");
    let versions = (1..)
        .map(|number| (number, folder.join(format!("v{number}.yaml"))))
        .take_while(|(_, path)| path.exists())
        .map(|(number, path)| read_version(VersionNumber(number), &path));
    Case {
        name: name.to_string_lossy().into_owned(),
        operations: lines(&log, &read(&log)),
        versions: versions.collect(),
    }
}

fn read_version(number: VersionNumber, path: &Path) -> Version {
    let file = path.display().to_string();
    let mut definitions = parse(&file, &read(path)).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(definitions.len(), 1, "{file}: one definition");
    let definition = definitions.remove(0);
    let skips = path.with_extension("skips");
    let skips = if skips.exists() {
        let skips = lines::<Origin>(&skips, &read(&skips)).into_iter();
        skips.map(|at| Skip { at, id: None }).collect()
    } else {
        Skips::default()
    };
    Version {
        id: VersionId {
            view: definition.view.clone(),
            number,
        },
        definition: Arc::new(definition),
        skips,
        contents: path.with_extension("txt"),
    }
}
