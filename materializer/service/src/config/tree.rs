//! The settings as a tree of texts, each with where it was said: the file's line or the variable's name.
//!
//! Later sources lie over earlier ones key by key. Nothing is interpreted here: `0123` stays `0123`, so
//! that a password of digits is not read as a number.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

use super::Fault;

/// What begins the name of every environment variable that is a setting.
const PREFIX: &str = "MATERIALIZER__";

/// More than any setting needs; bounds the recursion.
const DEPTH_MAX: usize = 8;

/// Where a setting was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the file, at this line (from 1).
    Line(usize),
    /// In this environment variable.
    Variable(String),
}

/// A setting, or a group of them.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What a key holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A value as it was written.
    Text(String),
    /// A list of values.
    List(Vec<Node>),
    /// Keys below this one.
    Map(BTreeMap<String, Node>),
}

impl Node {
    /// Returns the settings of a YAML file as a tree.
    pub(super) fn from_yaml(file: &str, text: &str) -> Result<Self, Fault> {
        let mut yaml = Yaml {
            parser: Parser::new_from_str(text),
        };
        yaml.root().map_err(|Misplaced { line, why }| Fault {
            key: String::new(),
            place: format!("{file}:{line}"),
            why,
        })
    }

    /// Returns a tree without any setting.
    pub(super) fn empty() -> Self {
        Self {
            origin: Origin::Line(1),
            value: Value::Map(BTreeMap::new()),
        }
    }

    /// Lays every `MATERIALIZER__*` variable over this tree. `__` goes one key down.
    pub(super) fn overlay<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a str)>) {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let mut path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
            if let [area, group, property] = path.as_mut_slice()
                && area == "kafka"
                && group == "properties"
            {
                *property = property_name(property);
            } else if let [area, connection, ..] = path.as_mut_slice()
                && area == "connections"
            {
                // A connection's name holds `-` but never `_`, a variable's the other way round.
                *connection = connection.replace('_', "-");
            }
            let leaf = Self {
                origin: Origin::Variable(name.to_owned()),
                value: Value::Text(text.to_owned()),
            };
            self.put(&path, leaf);
        }
    }

    fn put(&mut self, path: &[String], leaf: Self) {
        let Some((key, below)) = path.split_first() else {
            *self = leaf;
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            // `cache: redis://…` and a variable for `cache.password` are one connection.
            let url = self.clone();
            self.value = Value::Map(BTreeMap::from([("url".to_owned(), url)]));
        }
        if let Value::Map(map) = &mut self.value {
            map.entry(key.clone())
                .or_insert_with(|| Self {
                    origin: leaf.origin.clone(),
                    value: Value::Map(BTreeMap::new()),
                })
                .put(below, leaf);
        }
    }
}

/// Returns the librdkafka property that a variable's last part means: `SASL_USERNAME` is
/// `sasl.username`, `SASL_PASSWORD_FILE` is `sasl.password_file`.
fn property_name(lower: &str) -> String {
    match lower.strip_suffix("_file") {
        Some(secret) => format!("{}_file", secret.replace('_', ".")),
        None => lower.replace('_', "."),
    }
}

/// A fault of the file's form, and its line.
struct Misplaced {
    line: usize,
    why: String,
}

/// Builds nodes out of the parser's events, in which every scalar is still the text that was written.
struct Yaml<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Yaml<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Misplaced> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(Misplaced {
                line: error.marker().line(),
                why: format!("not YAML: {}", error.info()),
            }),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    /// Reads the one document there may be.
    fn root(&mut self) -> Result<Node, Misplaced> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root.unwrap_or_else(Node::empty)),
                (Event::DocumentStart(_), line) => {
                    let Some(node) = self.node(0)? else { continue };
                    if root.replace(node).is_some() {
                        let why = "a second document: the settings are one".to_owned();
                        return Err(Misplaced { line, why });
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads the next node; `None` at the end of what holds it.
    fn node(&mut self, depth: usize) -> Result<Option<Node>, Misplaced> {
        let (event, line) = self.next()?;
        let fault = |why: &str| Misplaced {
            line,
            why: why.to_owned(),
        };
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..)
                if matches!(text.as_ref(), "~" | "null") =>
            {
                Value::Text(String::new())
            }
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) | Event::MappingStart(..) if depth == DEPTH_MAX => {
                return Err(fault("nested deeper than any setting"));
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some(item) = self.node(depth + 1)? {
                    items.push(item);
                }
                Value::List(items)
            }
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            Event::Alias(_) => return Err(fault("an alias has no meaning here")),
            Event::SequenceEnd
            | Event::MappingEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => return Ok(None),
        };
        Ok(Some(Node {
            origin: Origin::Line(line),
            value,
        }))
    }

    fn map(&mut self, depth: usize) -> Result<BTreeMap<String, Node>, Misplaced> {
        let mut map = BTreeMap::new();
        while let Some(key) = self.node(depth + 1)? {
            let Origin::Line(line) = key.origin else {
                unreachable!("the file has lines")
            };
            let Value::Text(name) = key.value else {
                let why = "a key must be text".to_owned();
                return Err(Misplaced { line, why });
            };
            let Some(below) = self.node(depth + 1)? else {
                break;
            };
            if map.contains_key(&name) {
                let why = format!("`{name}` is set twice");
                return Err(Misplaced { line, why });
            }
            map.insert(name, below);
        }
        Ok(map)
    }
}
