//! The text of definitions → definitions with their defaults written out.
//!
//! A text holds one definition or several. Everything is read before anything is told: a fault costs
//! a default and never hides another. Expressions are compiled here only to find their faults.

use std::sync::Arc;
use std::time::Duration;

use cel::Env;
use materializer_model::ViewName;
use materializer_model::definition::{
    CleanupPolicy, Expression, Field, Format, Gates, OnError, Order, Partitioner, Promotion,
    QueryGate, Ratio, Source, Target, ViewDefinition,
};
use materializer_model::offset::Topic;

use crate::expression;
use crate::faults::{Faults, Place, Sheet};
use crate::functions::environment;
use crate::yaml::{Content, Node, documents};

/// The key that is the record's own, byte for byte.
pub(crate) const RECORD_KEY: &str = "record.key";

/// Reads definitions. `file` is only named in faults.
///
/// # Errors
/// All [`Faults`] of the text.
pub fn parse(file: &str, text: &str) -> Result<Vec<ViewDefinition>, Faults> {
    let (mut sheet, declared) = read(file, text);
    for one in &declared {
        let Some(at) = one.retire else { continue };
        let message = "`retire` stands in a folder of definitions, and does nothing here";
        let help = format!("`materializer retire {}` retires it", one.definition.view);
        sheet.helped(at, message, help);
    }
    sheet.finish(declared.into_iter().map(|one| one.definition).collect())
}

/// Reads definitions of a folder, each with whether its view shall be retired.
///
/// # Errors
/// All [`Faults`] of the text.
pub fn declared(file: &str, text: &str) -> Result<Vec<(ViewDefinition, bool)>, Faults> {
    let (sheet, declared) = read(file, text);
    let declared = declared.into_iter();
    sheet.finish(
        declared
            .map(|one| (one.definition, one.retire.is_some()))
            .collect(),
    )
}

/// A definition, and where it says that its view shall be retired.
struct Declared {
    definition: ViewDefinition,
    retire: Option<Place>,
}

fn read<'t>(file: &'t str, text: &'t str) -> (Sheet<'t>, Vec<Declared>) {
    let mut sheet = Sheet::new(file, text);
    let nodes = documents(text, &mut sheet);
    let mut parser = Parser {
        sheet,
        env: environment(),
        format: Format::Json,
    };
    let mut definitions: Vec<Declared> = Vec::new();
    for node in &nodes {
        if matches!(node.content, Content::Null) {
            continue;
        }
        let Some(declared) = parser.definition(node) else {
            continue;
        };
        let view = &declared.definition.view;
        if definitions
            .iter()
            .any(|other| other.definition.view == *view)
        {
            let message = format!("a view named `{view}` stands above");
            parser
                .sheet
                .helped(node.at, message, "give it another name");
        }
        definitions.push(declared);
    }
    if definitions.is_empty() && parser.sheet.is_clean() {
        let message = "there is no view in this file";
        let help = "`materializer init TOPIC` writes a first one";
        parser.sheet.helped(Place::default(), message, help);
    }
    (parser.sheet, definitions)
}

/// Reads one definition at a time. What is missing or wrong is a fault, and a default goes on.
pub(crate) struct Parser<'t> {
    pub(crate) sheet: Sheet<'t>,
    env: Arc<Env>,
    format: Format,
}

impl Parser<'_> {
    /// Reads a definition; `None` where a part could not be read on which others depend.
    fn definition(&mut self, node: &Node<'_>) -> Option<Declared> {
        let keys = self.sheet.mapping(node, "")?;
        let named = keys.get("view").and_then(|node| self.view_name(node));
        let view = named.clone().unwrap_or_else(unnamed);
        let from = keys.get("from").and_then(|node| self.source(node));
        let formats = [("json", Format::Json), ("raw", Format::Raw)];
        let format = keys.get("format");
        self.format = format
            .and_then(|node| self.sheet.word(node, "format", &formats))
            .unwrap_or(Format::Json);
        let only = keys.get("only").and_then(|node| self.expression(node));
        let condition = keys.get("where").and_then(|node| self.expression(node));
        let key = keys
            .get("key")
            .and_then(|node| self.expression(node))
            .unwrap_or_else(|| Expression(RECORD_KEY.to_owned()));
        let to = keys.get("to").and_then(|node| self.target(node, &view));
        let document = keys
            .get("document")
            .map(|node| self.document(node, to.as_ref()))
            .unwrap_or_default();
        let gates = match keys.get("gates") {
            Some(node) => self.gates(node),
            None => default_gates(),
        };
        let soak = keys
            .get("soak")
            .and_then(|node| self.sheet.duration(node))
            .unwrap_or(Duration::from_secs(24 * 3_600));
        let on_error = keys
            .get("on_error")
            .and_then(|node| self.on_error(node))
            .unwrap_or(OnError::Fail);
        let promotions = [("manual", Promotion::Manual), ("auto", Promotion::Auto)];
        let promotion = keys
            .get("promotion")
            .and_then(|node| self.sheet.word(node, "promotion", &promotions))
            .unwrap_or(Promotion::Manual);
        let retire = keys
            .get("retire")
            .filter(|node| self.sheet.flag(node) == Some(true))
            .map(|node| node.at);
        let definition = ViewDefinition {
            view,
            from: from?,
            format: self.format,
            only,
            condition,
            key,
            document,
            to: to?,
            gates,
            soak,
            on_error,
            promotion,
        };
        self.rules(&definition, &keys);
        named.map(|_| Declared { definition, retire })
    }

    fn view_name(&mut self, node: &Node<'_>) -> Option<ViewName> {
        let text = self.sheet.text(node, "a name")?;
        let name = text.parse().ok();
        if name.is_none() {
            let message = format!("`{text}` is no name for a view");
            let what = "lower-case letters, digits and `-`, at most 63";
            self.sheet.expected(node.at, message, what);
        }
        name
    }

    fn source(&mut self, node: &Node<'_>) -> Option<Source> {
        let keys = self.sheet.mapping(node, "from")?;
        let mut topics: Vec<Topic> = Vec::new();
        if let Some(node) = keys.get("topics") {
            let items = self
                .sheet
                .list(node, "a list of topics, as `[shop.products]`");
            if items.is_empty() && matches!(node.content, Content::List(_)) {
                self.sheet
                    .expected(node.at, "no topic", "at least one topic");
            }
            for item in items {
                let Some(topic) = self.topic(item) else {
                    continue;
                };
                if topics.contains(&topic) {
                    let message = format!("`{topic}` is given twice");
                    self.sheet.helped(item.at, message, "remove one of them");
                }
                topics.push(topic);
            }
        }
        let policies = [
            ("delete", CleanupPolicy::Delete),
            ("compact", CleanupPolicy::Compact),
            ("compact,delete", CleanupPolicy::CompactDelete),
        ];
        let partitioners = [
            ("murmur2", Partitioner::Murmur2),
            ("crc32", Partitioner::Crc32),
            ("fnv1a", Partitioner::Fnv1a),
        ];
        let orders = [("partition", Order::Partition), ("none", Order::None)];
        let policy = keys.get("policy");
        let partitioner = keys.get("partitioner");
        let order = keys.get("order");
        Some(Source {
            topics,
            policy: policy.and_then(|node| self.sheet.word(node, "policy", &policies)),
            partitioner: partitioner
                .and_then(|node| self.sheet.word(node, "partitioner", &partitioners)),
            order: order
                .and_then(|node| self.sheet.word(node, "order", &orders))
                .unwrap_or(Order::Partition),
        })
    }

    /// Reads a topic's name, by Kafka's own rule.
    fn topic(&mut self, node: &Node<'_>) -> Option<Topic> {
        let text = self.sheet.text(node, "a topic")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let legal = (1..=249).contains(&text.len()) && text.chars().all(plain);
        if legal && text != "." && text != ".." {
            return Some(Topic::new(text));
        }
        let message = format!("`{text}` is no name for a topic");
        let what = "letters, digits, `.`, `_` and `-`, at most 249";
        self.sheet.expected(node.at, message, what);
        None
    }

    /// Reads an expression and tells its fault where it stands.
    pub(crate) fn expression(&mut self, node: &Node<'_>) -> Option<Expression> {
        const WHAT: &str = "an expression, as `event.price` or `event.hidden != true`";
        let text = self.sheet.text(node, WHAT)?;
        match expression::compile(text, self.format, &self.env) {
            Ok(_) => Some(Expression(text.trim().to_owned())),
            Err(error) => {
                let at = self.within(node, text, error.from);
                let mut fault = self.sheet.fault(at, error.message);
                fault.help = error.help;
                self.sheet.push(fault);
                None
            }
        }
    }

    /// Returns the place of an expression's character, where the line shows the text as it is.
    fn within(&self, node: &Node<'_>, text: &str, from: usize) -> Place {
        let quotes = match &node.content {
            Content::Quoted(_) => 1,
            Content::Null
            | Content::Plain(_)
            | Content::List(_)
            | Content::Map(_)
            | Content::Faulty => 0,
        };
        let length = text.chars().count();
        let inside = Place {
            line: node.at.line,
            column: node.at.column + quotes,
            length,
        };
        if self.sheet.text_at(inside) != text {
            return node.at;
        }
        Place {
            column: inside.column + from.min(length),
            length: 1,
            ..inside
        }
    }

    fn document(&mut self, node: &Node<'_>, to: Option<&Target>) -> Vec<Field> {
        let what = "a mapping of fields, as `{title: event.title}`";
        let Some(entries) = self.sheet.free_mapping(node, what) else {
            return Vec::new();
        };
        if entries.iter().next().is_none() {
            self.sheet
                .expected(node.at, "no field", "at least one field");
        }
        let tantivy = matches!(to, Some(Target::Tantivy(_)));
        let mut fields = Vec::new();
        for (name, node) in entries.iter() {
            self.field_name(name, node.at, tantivy);
            fields.extend(self.field(name, node, to));
        }
        fields
    }

    fn gates(&mut self, node: &Node<'_>) -> Gates {
        let mut gates = default_gates();
        let Some(keys) = self.sheet.mapping(node, "gates") else {
            return gates;
        };
        if let Some(seconds) = keys.get("lag_seconds") {
            gates.lag_seconds = self.sheet.seconds(seconds).unwrap_or_default();
        }
        if let Some(records) = keys.get("lag_records") {
            gates.lag_records = self.sheet.number(records, 0, u64::MAX).unwrap_or_default();
        }
        if let Some(stable_for) = keys.get("stable_for") {
            gates.stable_for = self.sheet.duration(stable_for).unwrap_or_default();
        }
        if let Some(ratio) = keys.get("documents_ratio") {
            gates.documents_ratio = match ratio.content {
                Content::Null => None,
                Content::Plain(_)
                | Content::Quoted(_)
                | Content::List(_)
                | Content::Map(_)
                | Content::Faulty => self.sheet.ratio(ratio),
            };
        }
        if let Some(queries) = keys.get("queries") {
            let items = self.sheet.list(queries, "a list of queries");
            gates.queries = items.iter().filter_map(|item| self.query(item)).collect();
        }
        if let Some(canaries) = keys.get("keys") {
            for item in self.sheet.list(canaries, "a list of keys") {
                let key = self.sheet.text(item, "a row's key");
                gates.keys.extend(key.map(str::to_owned));
            }
        }
        gates
    }

    fn query(&mut self, node: &Node<'_>) -> Option<QueryGate> {
        let keys = self.sheet.mapping(node, "gates.queries.*")?;
        let q = keys
            .get("q")
            .and_then(|node| self.sheet.text(node, "a query, as `title:shoe`"))?;
        let hits_min = match keys.get("hits_min") {
            Some(node) => self.sheet.number(node, 0, u64::MAX)?,
            None => 1,
        };
        Some(QueryGate {
            q: q.to_owned(),
            hits_min,
        })
    }

    fn on_error(&mut self, node: &Node<'_>) -> Option<OnError> {
        if node.text().is_some() {
            // `dead_letter` by itself would not say where to.
            return match self.sheet.word(
                node,
                "way with poison",
                &[("fail", 0), ("skip", 1), ("dead_letter", 2)],
            )? {
                0 => Some(OnError::Fail),
                1 => Some(OnError::Skip),
                _ => {
                    let help = "write `{dead_letter: {topic: TOPIC, limit: 1000}}`";
                    self.sheet
                        .helped(node.at, "`dead_letter` needs a topic", help);
                    None
                }
            };
        }
        let keys = self.sheet.mapping(node, "on_error")?;
        let Some(letters) = keys.get("dead_letter") else {
            self.sheet
                .wrong(node, "`fail`, `skip` or `{dead_letter: …}`");
            return None;
        };
        let keys = self.sheet.mapping(letters, "on_error.dead_letter")?;
        let limit = match keys.get("limit") {
            Some(node) => self.sheet.number(node, 0, u64::MAX)?,
            None => 1_000,
        };
        let topic = keys.get("topic").and_then(|node| self.topic(node))?;
        Some(OnError::DeadLetter { topic, limit })
    }
}

/// Stands for a name that is missing or wrong, so that the rest can be judged.
fn unnamed() -> ViewName {
    "unnamed".parse().expect("it is a name")
}

/// The gates of a definition that names none.
fn default_gates() -> Gates {
    Gates {
        lag_seconds: 10.0,
        lag_records: 1_000,
        stable_for: Duration::from_secs(120),
        documents_ratio: Some(Ratio { min: 0.9, max: 1.1 }),
        queries: Vec::new(),
        keys: Vec::new(),
    }
}
