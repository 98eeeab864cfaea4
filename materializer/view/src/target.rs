//! Where rows go, how a field is indexed there, and the rules between parts of a definition.

use materializer_model::ViewName;
use materializer_model::definition::{
    Expression, Field, FieldIndex, FieldType, Format, LANGUAGES, OnError, Order, RedisShape,
    RedisTarget, TOKENIZERS, TantivyTarget, Target, ViewDefinition,
};
use serde_json::Value;

use crate::faults::Place;
use crate::parse::{Parser, RECORD_KEY};
use crate::reader::Entries;
use crate::yaml::{Content, Node};

/// Longer names would be words of another language.
const FIELD_NAME_MAX: usize = 255;

impl Parser<'_> {
    /// Reads the target of a view.
    pub(crate) fn target(&mut self, node: &Node<'_>, view: &ViewName) -> Option<Target> {
        let keys = self.sheet.mapping(node, "to")?;
        let named: Vec<_> = keys.iter().collect();
        let (kind, node) = match named.as_slice() {
            [one] => *one,
            [] => {
                let what = "`redis`, `tantivy` or `memory`";
                self.sheet.expected(node.at, "no target", what);
                return None;
            }
            [_, second, ..] => {
                let help = "give each target a view of its own";
                self.sheet
                    .helped(second.1.at, "a view has one target", help);
                return None;
            }
        };
        match kind {
            "redis" => self.redis(node, view),
            "tantivy" => {
                let keys = self.sheet.mapping(node, "to.tantivy")?;
                let copies = keys
                    .get("copies")
                    .and_then(|node| self.sheet.number(node, 1, 64));
                Some(Target::Tantivy(TantivyTarget {
                    copies: copies.unwrap_or(1),
                }))
            }
            _ => {
                self.sheet.mapping(node, "to.memory")?;
                Some(Target::Memory {})
            }
        }
    }

    /// Reads a Redis target; `None` where the shape of a row is unknown, on which much depends.
    fn redis(&mut self, node: &Node<'_>, view: &ViewName) -> Option<Target> {
        let keys = self.sheet.mapping(node, "to.redis")?;
        let shapes = [
            ("json", RedisShape::Json),
            ("hash", RedisShape::Hash),
            ("bytes", RedisShape::Bytes),
        ];
        let shape = match keys.get("as") {
            Some(node) => self.sheet.word(node, "shape", &shapes),
            None => Some(RedisShape::Json),
        };
        let connection = keys
            .get("connection")
            .and_then(|node| self.sheet.text(node, "the name of a connection"));
        let key = match keys.get("key") {
            Some(node) => self.template(node).unwrap_or_default(),
            None => format!("{view}:{{key}}"),
        };
        let ttl = keys.get("ttl").and_then(|node| {
            let ttl = self.sheet.duration(node)?;
            if ttl.is_zero() {
                self.sheet.wrong(node, "a duration above zero");
            }
            Some(ttl)
        });
        let shards = keys
            .get("shards")
            .and_then(|node| self.sheet.number(node, 1, 1_024));
        Some(Target::Redis(RedisTarget {
            connection: connection.unwrap_or_default().to_owned(),
            key,
            shape: shape?,
            ttl,
            shards: shards.unwrap_or(1),
        }))
    }

    /// Reads the template of a row's key in Redis. Gateways tell views apart by what stands before
    /// `{key}`, so there must be something, and nothing behind it.
    fn template(&mut self, node: &Node<'_>) -> Option<String> {
        const WHAT: &str = "a literal and then `{key}`, as `product:{key}`";
        let text = self.sheet.text(node, WHAT)?;
        let literal = text.strip_suffix("{key}");
        let good =
            literal.is_some_and(|literal| !literal.is_empty() && !literal.contains(['{', '}']));
        if !good {
            self.sheet.wrong(node, WHAT);
            return None;
        }
        Some(text.to_owned())
    }

    /// Checks a field's name.
    pub(crate) fn field_name(&mut self, name: &str, at: Place, tantivy: bool) {
        if name.is_empty() || name.len() > FIELD_NAME_MAX {
            let message = format!("a field's name has 1 to {FIELD_NAME_MAX} bytes");
            self.sheet.push(self.sheet.fault(at, message));
        }
        if tantivy && name.starts_with('_') {
            let message = format!("`{name}`: names that begin with `_` are the index's own");
            self.sheet
                .helped(at, message, "give it a name without the `_`");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if tantivy && !name.chars().all(plain) {
            let message = format!("`{name}` cannot be written in a query");
            self.sheet
                .expected(at, message, "letters, digits, `_` and `-`");
        }
    }

    /// Reads `EXPR` or `{value: EXPR, type: …}`.
    pub(crate) fn field(
        &mut self,
        name: &str,
        node: &Node<'_>,
        to: Option<&Target>,
    ) -> Option<Field> {
        let keys = match &node.content {
            Content::Map(_) => Some(self.sheet.mapping(node, "document.*")?),
            Content::Null
            | Content::Plain(_)
            | Content::Quoted(_)
            | Content::List(_)
            | Content::Faulty => None,
        };
        let value = match &keys {
            Some(keys) => keys.get("value"),
            None => Some(node),
        };
        let value = value.and_then(|node| self.expression(node));
        let index = match to {
            Some(Target::Tantivy(_)) => self.index(name, node, keys.as_ref()),
            Some(Target::Redis(_) | Target::Memory {}) => {
                let options = keys.iter().flat_map(|keys| keys.iter());
                for (option, node) in options.filter(|(option, _)| *option != "value") {
                    let message = format!("`{option}` has no meaning outside tantivy");
                    self.sheet.helped(node.at, message, "remove it");
                }
                None
            }
            // The fault is told already; what else is wrong cannot be known.
            None => None,
        };
        Some(Field {
            name: name.to_owned(),
            value: value?,
            index,
        })
    }

    fn index(
        &mut self,
        name: &str,
        node: &Node<'_>,
        keys: Option<&Entries<'_, '_>>,
    ) -> Option<FieldIndex> {
        const TYPES: [(&str, FieldType); 9] = [
            ("text", FieldType::Text),
            ("string", FieldType::String),
            ("i64", FieldType::I64),
            ("u64", FieldType::U64),
            ("f64", FieldType::F64),
            ("bool", FieldType::Bool),
            ("date", FieldType::Date),
            ("bytes", FieldType::Bytes),
            ("json", FieldType::Json),
        ];
        let Some(kind) = keys.and_then(|keys| keys.get("type")) else {
            let message = format!("`{name}` has no `type`, which tantivy needs");
            let value = node.text().unwrap_or("EXPR");
            let help = format!("write `{{value: {value}, type: text}}`");
            self.sheet.helped(node.at, message, help);
            return None;
        };
        let kind = self.sheet.word(kind, "type", &TYPES)?;
        let language = self.analysis(keys, "language", kind, LANGUAGES);
        let tokenizer = self.analysis(keys, "tokenizer", kind, TOKENIZERS);
        if language.is_some() && tokenizer.is_some() {
            let message = "a language brings its own tokenizer";
            self.sheet.helped(node.at, message, "keep one of the two");
        }
        let mut flag = |key: &str, otherwise: bool| {
            let node = keys.and_then(|keys| keys.get(key));
            let set = node.and_then(|node| self.sheet.flag(node));
            set.unwrap_or(otherwise)
        };
        let stored = flag("stored", true);
        let sort = flag("sort", false);
        let facet = flag("facet", false);
        for (key, set, unfit) in [
            ("sort", sort, FieldType::Json),
            ("facet", facet, FieldType::Bytes),
        ] {
            if set && kind == unfit {
                let message = format!("`{key}` has no meaning for this type");
                self.sheet.helped(node.at, message, "remove it");
            }
        }
        let missing = keys
            .and_then(|keys| keys.get("missing"))
            .and_then(|node| self.missing(node, kind));
        Some(FieldIndex {
            kind,
            language,
            tokenizer,
            stored,
            sort,
            facet,
            missing,
        })
    }

    /// Reads a key that says how a text becomes words.
    fn analysis(
        &mut self,
        keys: Option<&Entries<'_, '_>>,
        key: &str,
        kind: FieldType,
        known: &[&str],
    ) -> Option<String> {
        let node = keys.and_then(|keys| keys.get(key))?;
        if kind != FieldType::Text {
            let message = format!("`{key}` belongs to `type: text`");
            self.sheet.helped(node.at, message, "remove it");
            return None;
        }
        let text = self.sheet.text(node, &format!("a {key}"))?;
        if !known.contains(&text) {
            self.sheet.unknown(node.at, key, text, known);
        }
        Some(text.to_owned())
    }

    /// Reads the value of a document that has none.
    fn missing(&mut self, node: &Node<'_>, kind: FieldType) -> Option<Value> {
        let plain = match &node.content {
            Content::Plain(text) => Some(text.as_ref()),
            Content::Null
            | Content::Quoted(_)
            | Content::List(_)
            | Content::Map(_)
            | Content::Faulty => None,
        };
        let (what, value) = match kind {
            FieldType::Text | FieldType::String | FieldType::Bytes => {
                ("a text", node.text().map(Value::from))
            }
            FieldType::I64 => (
                "a whole number",
                plain
                    .and_then(|text| text.parse::<i64>().ok())
                    .map(Value::from),
            ),
            FieldType::U64 => (
                "a whole number from 0",
                plain
                    .and_then(|text| text.parse::<u64>().ok())
                    .map(Value::from),
            ),
            FieldType::F64 => (
                "a number",
                plain
                    .and_then(|text| text.parse::<f64>().ok())
                    .and_then(serde_json::Number::from_f64)
                    .map(Value::Number),
            ),
            FieldType::Bool => (
                "`true` or `false`",
                plain
                    .and_then(|text| text.parse::<bool>().ok())
                    .map(Value::from),
            ),
            FieldType::Date => (
                "RFC 3339 text, or milliseconds since 1970",
                match plain.and_then(|text| text.parse::<i64>().ok()) {
                    Some(millis) => Some(Value::from(millis)),
                    None => node.text().map(Value::from),
                },
            ),
            FieldType::Json => ("nothing: a `json` field has no `missing`", None),
        };
        if value.is_none() {
            self.sheet.wrong(node, what);
        }
        value
    }

    /// Checks what one part of a definition demands of another.
    pub(crate) fn rules(&mut self, definition: &ViewDefinition, keys: &Entries<'_, '_>) {
        let at = |name: &str| keys.get(name).map_or(keys.at, |node| node.at);
        let Expression(key) = &definition.key;
        let bytes = match &definition.to {
            Target::Redis(redis) => redis.shape == RedisShape::Bytes,
            Target::Memory {} | Target::Tantivy(_) => false,
        };
        if bytes && definition.format != Format::Raw {
            let message = "`as: bytes` stores the record's value as it is";
            self.sheet.helped(at("to"), message, "add `format: raw`");
        }
        if bytes && keys.get("document").is_some() {
            let message = "`as: bytes` has no document";
            self.sheet.helped(at("document"), message, "remove it");
        }
        if !bytes && keys.get("document").is_none() {
            let help = "write `document: {title: event.title}`";
            self.sheet.helped(keys.at, "`document` is missing", help);
        }
        let shards = definition.to.shards();
        if shards > 1 && definition.from.topics.len() > 1 {
            let message = "with `shards` above 1 a view reads one topic";
            self.sheet.push(self.sheet.fault(at("from"), message));
        }
        if shards > 1 && key != RECORD_KEY {
            let message = "with `shards` above 1 the key must be `record.key`";
            let help = "a row has one owner: the shard of its records' partition";
            self.sheet.helped(at("key"), message, help);
        }
        if shards > 1 && definition.from.order == Order::None {
            let message = "`order: none` needs one shard";
            self.sheet.helped(at("from"), message, "remove `shards`");
        }
        let compacts = definition
            .from
            .policy
            .is_some_and(|policy| policy.compacts());
        if compacts && key != RECORD_KEY {
            let message = "on a compacted topic the key must be `record.key`";
            let help = "compaction keeps the last record of each record key, and of nothing else";
            self.sheet.helped(at("key"), message, help);
        }
        self.gate_rules(definition, at("gates"));
        if let OnError::DeadLetter { topic, .. } = &definition.on_error
            && definition.from.topics.contains(topic)
        {
            let message = format!("`{topic}` is read by this view");
            let help = "send dead letters to another topic";
            self.sheet.helped(at("on_error"), message, help);
        }
    }

    fn gate_rules(&mut self, definition: &ViewDefinition, at: Place) {
        let gates = &definition.gates;
        let tantivy = matches!(definition.to, Target::Tantivy(_));
        if !gates.queries.is_empty() && !tantivy {
            let message = "`queries` are for tantivy";
            self.sheet
                .helped(at, message, "use `keys`: rows that must exist");
        }
        if !gates.keys.is_empty() && tantivy {
            let message = "`keys` are for Redis";
            self.sheet.helped(
                at,
                message,
                "use `queries`: searches that must find something",
            );
        }
    }
}
