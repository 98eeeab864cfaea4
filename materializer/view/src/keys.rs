//! The table of the language's keys: the parser knows no key that is not here, suggests from here,
//! and a test holds `docs/views.md` to it.

/// One key of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Where it stands, as `to.redis.ttl`; `*` stands for a field's name.
    pub path: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What it is when it is left out; `None` if it must be there.
    pub default: Option<&'static str>,
}

const fn required(path: &'static str, takes: &'static str) -> KeySpec {
    KeySpec {
        path,
        takes,
        default: None,
    }
}

const fn optional(path: &'static str, takes: &'static str, default: &'static str) -> KeySpec {
    KeySpec {
        path,
        takes,
        default: Some(default),
    }
}

/// Every key, in the order of the documentation.
pub const KEYS: &[KeySpec] = &[
    required("view", "name"),
    required("from", "mapping"),
    required("from.topics", "list of topics"),
    optional(
        "from.policy",
        "`delete`, `compact` or `compact,delete`",
        "the broker's",
    ),
    optional(
        "from.partitioner",
        "`murmur2`, `crc32` or `fnv1a`",
        "the one that fits",
    ),
    optional("from.order", "`partition` or `none`", "`partition`"),
    optional("format", "`json` or `raw`", "`json`"),
    optional("only", "expression", "every record"),
    optional("where", "expression", "always"),
    optional("key", "expression", "`record.key`"),
    optional("document", "mapping of fields", "none, with `as: bytes`"),
    required("document.*.value", "expression"),
    optional(
        "document.*.type",
        "`text`, `string`, `i64`, `u64`, `f64`, `bool`, `date`, `bytes` or `json`",
        "none, outside tantivy",
    ),
    optional("document.*.language", "language", "none"),
    optional("document.*.tokenizer", "tokenizer", "`default`"),
    optional("document.*.stored", "`true` or `false`", "`true`"),
    optional("document.*.sort", "`true` or `false`", "`false`"),
    optional("document.*.facet", "`true` or `false`", "`false`"),
    optional("document.*.missing", "value of the field's type", "none"),
    required("to", "one of `redis`, `tantivy`, `memory`"),
    optional("to.redis", "mapping", "none"),
    required("to.redis.connection", "connection"),
    optional("to.redis.key", "text ending in `{key}`", "`VIEW:{key}`"),
    optional("to.redis.as", "`json`, `hash` or `bytes`", "`json`"),
    optional("to.redis.ttl", "duration", "none"),
    optional("to.redis.shards", "number from 1 to 1024", "1"),
    optional("to.tantivy", "mapping", "none"),
    optional("to.tantivy.copies", "number from 1 to 64", "1"),
    optional("to.memory", "empty mapping", "none"),
    optional("gates", "mapping", "the defaults below"),
    optional("gates.lag_seconds", "number of seconds", "10"),
    optional("gates.lag_records", "number", "1000"),
    optional("gates.stable_for", "duration", "2m"),
    optional("gates.documents_ratio", "range or `null`", "0.9..1.1"),
    optional("gates.queries", "list of queries", "none"),
    required("gates.queries.*.q", "query"),
    optional("gates.queries.*.hits_min", "number", "1"),
    optional("gates.keys", "list of keys", "none"),
    optional("soak", "duration", "24h"),
    optional(
        "on_error",
        "`fail`, `skip` or mapping with `dead_letter`",
        "`fail`",
    ),
    optional("on_error.dead_letter", "mapping", "none"),
    required("on_error.dead_letter.topic", "topic"),
    optional("on_error.dead_letter.limit", "number", "1000"),
    optional("promotion", "`manual` or `auto`", "`manual`"),
    optional("retire", "`true` or `false`", "`false`"),
];

/// Returns the names that a mapping takes, `prefix` being its path ("" is the whole definition).
pub(crate) fn names(prefix: &str) -> Vec<&'static str> {
    children(prefix).map(|(name, _)| name).collect()
}

/// Returns the names that a mapping must have.
pub(crate) fn required_names(prefix: &str) -> Vec<&'static str> {
    children(prefix)
        .filter(|(_, key)| key.default.is_none())
        .map(|(name, _)| name)
        .collect()
}

/// Returns the mapping that takes a name which another one does not.
pub(crate) fn home(name: &str) -> Option<&'static str> {
    KEYS.iter().find_map(|key| {
        let (mapping, last) = key.path.rsplit_once('.')?;
        (last == name).then_some(mapping)
    })
}

fn children(prefix: &str) -> impl Iterator<Item = (&'static str, &'static KeySpec)> {
    KEYS.iter().filter_map(move |key| {
        let name = match prefix {
            "" => key.path,
            _ => key.path.strip_prefix(prefix)?.strip_prefix('.')?,
        };
        (!name.contains('.')).then_some((name, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_takes_the_keys_right_below_it() {
        assert_eq!(names("from"), ["topics", "policy", "partitioner", "order"]);
        assert_eq!(required_names(""), ["view", "from", "to"]);
        assert_eq!(names("gates.queries.*"), ["q", "hits_min"]);
    }

    /// `docs/views.md` has a table row `| key | takes | default | … |` for every key, in this order.
    #[test]
    fn the_documentation_has_every_key_and_no_other() {
        let page = include_str!("../../../docs/views.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                line.split(" | ")
                    .map(|cell| cell.trim_matches(['|', ' ']))
                    .collect()
            })
            .collect();
        let documented: Vec<(&str, &str, &str)> =
            rows.iter().map(|row| (row[0], row[1], row[2])).collect();
        let paths: Vec<String> = KEYS.iter().map(|key| format!("`{}`", key.path)).collect();
        let expected: Vec<(&str, &str, &str)> = KEYS
            .iter()
            .zip(&paths)
            .map(|(key, path)| (path.as_str(), key.takes, key.default.unwrap_or("required")))
            .collect();
        assert_eq!(documented, expected);
    }
}
