//! Faults of definitions, fingerprints and differences.

use materializer_model::ViewDefinition;
use materializer_model::definition::{
    CleanupPolicy, Expression, Field, Gates, OnError, Order, Partitioner, Promotion, RedisShape,
    Target,
};
use materializer_model::offset::Topic;
use proptest::prelude::*;

use crate::{Difference, declared, diff, digest, fingerprint, parse};

const GOOD: &str = "view: v\nfrom: {topics: [t]}\ndocument: {x: event.x}\nto: {redis: {connection: c, ttl: 30d}}\n";
const INDEX: &str = "view: v\nfrom: {topics: [t]}\ndocument: {x: {value: event.x, type: text}}\nto: {tantivy: {copies: 2}}\n";

fn good() -> ViewDefinition {
    parse("v.yaml", GOOD).unwrap().remove(0)
}

/// Returns the faults of a text as `line:column message | expected | help`.
fn faults(text: &str) -> Vec<String> {
    let Err(faults) = parse("v.yaml", text) else {
        return Vec::new();
    };
    let shown = |fault: &crate::Fault| {
        let expected = fault.expected.as_deref().unwrap_or("-");
        let help = fault.help.as_deref().unwrap_or("-");
        let (line, column, message) = (fault.line, fault.column, &fault.message);
        format!("{line}:{column} {message} | {expected} | {help}")
    };
    faults.all().iter().map(shown).collect()
}

/// Checks that the only fault of a text begins so.
fn check(text: &str, expected: &str) {
    let found = faults(text);
    assert!(
        found.len() == 1 && found[0].starts_with(expected),
        "{text}\nexpected {expected}\nfound    {found:#?}"
    );
}

#[test]
fn defaults_are_written_out() {
    let text = serde_json::to_string(&good()).unwrap();
    let expected = r#"{"view":"v","from":{"topics":["t"],"policy":null,"partitioner":null,"order":"partition"},"format":"json","only":null,"where":null,"key":"record.key","document":[{"name":"x","value":"event.x","index":null}],"to":{"redis":{"connection":"c","key":"v:{key}","as":"json","ttl":2592000000,"shards":1}},"gates":{"lag_seconds":10.0,"lag_records":1000,"stable_for":120000,"documents_ratio":[0.9,1.1],"queries":[],"keys":[]},"soak":86400000,"on_error":"fail","promotion":"manual"}"#;
    assert_eq!(text, expected);
    let again: ViewDefinition = serde_json::from_str(&text).unwrap();
    assert_eq!(again, good());
}

#[test]
fn every_fault_is_told_at_once_in_the_order_of_the_text() {
    let text = "view: Bad Name\nfrom: {topic: [t]}\nonli: event.a\nwhere: event.a ==\ndocument: {x: evnt.x}\nto: {redis: {connection: c, ttl: 30}}\ngates: {lag_seconds: soon, documents_ratio: 1.1..0.9}\n";
    let expected = [
        "1:7 `Bad Name` is no name for a view | lower-case letters, digits and `-`, at most 63 | -",
        "2:7 `from.topics` is missing | - | -",
        "2:8 unknown key `topic` | `topics`, `policy`, `partitioner` or `order` | did you mean `topics`?",
        "3:1 unknown key `onli` | `view`, `from`, `format`, `only`, `where`, `key`, `document`, `to`, `gates`, `soak`, `on_error`, `promotion` or `retire` | did you mean `only`?",
        "4:18 the expression ends too early | - | -",
        "5:15 unknown name `evnt` | - | did you mean `event`?",
        "6:34 `30` does not fit here | a duration: `500ms`, `10s`, `2m`, `24h` or `30d` | -",
        "7:22 `soon` does not fit here | a number of seconds, without a unit | -",
        "7:45 `1.1..0.9` does not fit here | a range from low to high, as `0.9..1.1` | -",
    ];
    assert_eq!(faults(text), expected);
}

#[test]
fn a_fault_stands_where_it_is_in_the_text() {
    let with = |line: &str| format!("{GOOD}{line}\n");
    for (line, expected) in [
        ("view: w", "5:1 `view` is given twice"),
        ("only: 'event.kind = 1'", "5:19 `=` is no operator"),
        (
            "only: (event.a",
            "5:15 missing `)` at the end of the expression",
        ),
        ("only: event.a b", "5:15 extraneous input `b`"),
        ("only: recrod.key == 'a'", "5:7 unknown name `recrod`"),
        ("only: record.kye == 'a'", "5:13 `record` has no `kye`"),
        (
            "only: record == 1",
            "5:7 `record` is not a value of its own",
        ),
        (
            "only: record.headers == 1",
            "5:13 `record.headers` is not a value of its own",
        ),
        (
            "only: record.offset.x == 1",
            "5:20 `record.offset` has no parts",
        ),
        (
            "only: event.a.startWith('a')",
            "5:24 unknown function `startWith`",
        ),
        (
            "only: matches(event.a, 'a')",
            "5:14 unknown function `matches`",
        ),
        ("only: event.?a == 1", "5:12 unsupported syntax"),
        ("only: 'Thing{a: 1} == 1'", "5:13 unknown type `Thing`"),
        (
            "only: '[1].map(a, [a].map(b, [b].map(c, [c].map(d, [d].map(e, e)))))'",
            "5:59 more than 4 macros within macros",
        ),
        ("only: event.a.all(event, event)", "5:18 `event` is taken"),
        ("only: [1]", "5:7 a list does not fit here"),
        ("only:", "5:5 an empty value does not fit here"),
        ("only: &a event.a", ""),
        ("only: *a", "5:"),
        (
            "where: !event.a",
            "5:8 a tag has no meaning here | - | put quotes around an expression that begins with `!`",
        ),
        (
            "where: event.a ? true : false",
            "5:23 not YAML: mapping values are not allowed in this context | - | put quotes around",
        ),
        ("gates: {keys: [event.a[0]}", "5:"),
        ("soak: 1 day", "5:7 `1 day` does not fit here"),
        (
            "format: jsn",
            "5:9 unknown format `jsn` | `json` or `raw` | did you mean `json`?",
        ),
        (
            "ttl: 30d",
            "5:1 unknown key `ttl` | - | it belongs into `to.redis`",
        ),
        ("promotion: [auto]", "5:12 a list does not fit here"),
        ("gates: {lag_records: -1}", "5:22 `-1` does not fit here"),
        ("gates: {lag_records: 1.5}", "5:22 `1.5` does not fit here"),
        (
            "gates: {queries: [{q: a}]}",
            "5:8 `queries` are for tantivy",
        ),
        ("gates: {keys: [[a]]}", "5:16 a list does not fit here"),
        ("on_error: dead_letter", "5:11 `dead_letter` needs a topic"),
        ("on_error: stop", "5:11 unknown way with poison `stop`"),
        (
            "on_error: {dead_letter: {limit: 1}}",
            "5:25 `on_error.dead_letter.topic` is missing",
        ),
        (
            "on_error: {dead_letter: {topic: t}}",
            "5:11 `t` is read by this view",
        ),
        ("on_error: {}", "5:11 a mapping does not fit here"),
        ("{", "6:1 not YAML"),
    ] {
        match expected {
            "" => assert_eq!(faults(&with(line)), Vec::<String>::new(), "{line}"),
            _ => check(&with(line), expected),
        }
    }
}

/// Checks that a view of topic `t`, with these lines, has one fault that says so.
fn check_lines(lines: &str, expected: &str) {
    let text = format!("view: v\nfrom: {{topics: [t]}}\n{lines}\n");
    let found = faults(&text);
    assert!(
        found.len() == 1 && found[0].contains(expected),
        "{text}\nexpected {expected}\nfound    {found:#?}"
    );
}

#[test]
fn the_commonest_mistakes_in_an_expression_are_told_in_plain_words() {
    let equals = "`=` is no operator | - | write `==` to compare";
    let name = "a name is missing after the dot | - | name a field, as in `event.name`";
    for (expression, at, expected) in [
        ("event.kind = 'x'", 19, equals),
        ("event.kind=1", 18, equals),
        ("event.", 14, name),
        ("size(event.)", 19, name),
        ("event.a && event. == 1", 26, name),
    ] {
        check(
            &format!("{GOOD}where: {expression}\n"),
            &format!("5:{at} {expected}"),
        );
    }
}

#[test]
fn a_redis_target_must_fit_the_rest() {
    for (options, expected) in [
        ("key: 'a{id}'", "the text `a{id}` does not fit here"),
        ("key: '{key}'", "the text `{key}` does not fit here"),
        ("key: 'a{key}b'", "the text `a{key}b` does not fit here"),
        ("ttl: 0s", "`0s` does not fit here"),
        ("shards: 0", "`0` does not fit here"),
        ("copies: 1", "it belongs into `to.tantivy`"),
        ("as: byte", "did you mean `bytes`?"),
    ] {
        let to = format!("to: {{redis: {{connection: c, {options}}}}}");
        check_lines(&format!("document: {{x: event.x}}\n{to}"), expected);
    }
    let bytes = "to: {redis: {connection: c, as: bytes}}";
    check_lines(bytes, "`as: bytes` stores the record's value as it is");
    let documented = format!("format: raw\ndocument: {{x: record.key}}\n{bytes}");
    check_lines(&documented, "`as: bytes` has no document");
    let sharded = "document: {x: event.x}\nto: {redis: {connection: c, shards: 2}}";
    let keyed = format!("key: event.id\n{sharded}");
    check_lines(&keyed, "with `shards` above 1 the key must be `record.key`");
}

#[test]
fn a_field_of_an_index_must_fit_its_type() {
    for (field, expected) in [
        ("x: event.x", "`x` has no `type`, which tantivy needs"),
        ("x: {type: text}", "`document.value` is missing"),
        ("x: {value: event.x, type: txt}", "did you mean `text`?"),
        ("_x: {value: event.x, type: text}", "`_x`: names that begin"),
        (
            "a.b: {value: event.x, type: text}",
            "`a.b` cannot be written",
        ),
        (
            "x: {value: event.x, type: text, language: klingon}",
            "unknown language",
        ),
        (
            "x: {value: event.x, type: text, tokenizer: defualt}",
            "did you mean `default`?",
        ),
        (
            "x: {value: event.x, type: text, language: english, tokenizer: raw}",
            "a language brings its own tokenizer",
        ),
        (
            "x: {value: event.x, type: i64, language: english}",
            "`language` belongs to `type: text`",
        ),
        (
            "x: {value: event.x, type: i64, missing: 1.5}",
            "a whole number",
        ),
        (
            "x: {value: event.x, type: u64, missing: -1}",
            "a whole number from 0",
        ),
        (
            "x: {value: event.x, type: bool, missing: 'true'}",
            "the text `true`",
        ),
        (
            "x: {value: event.x, type: json, missing: a}",
            "has no `missing`",
        ),
        (
            "x: {value: event.x, type: json, sort: true}",
            "`sort` has no meaning",
        ),
        (
            "x: {value: event.x, type: bytes, facet: true}",
            "`facet` has no meaning",
        ),
        (
            "x: {value: event.x, type: text, sort: yes}",
            "`yes` does not fit here",
        ),
    ] {
        check_lines(
            &format!("document: {{{field}}}\nto: {{tantivy: {{}}}}"),
            expected,
        );
    }
    let elsewhere = "document: {x: {value: event.x, type: text}}\nto: {memory: {}}";
    check_lines(elsewhere, "`type` has no meaning outside tantivy");
    let index = INDEX.split_once("]}\n").unwrap().1;
    check_lines(
        &format!("{index}gates: {{keys: [a]}}"),
        "`keys` are for Redis",
    );
}

#[test]
fn a_definition_must_be_whole() {
    for (lines, expected) in [
        ("to: {memory: {}}", "`document` is missing"),
        ("document: {x: event.x}", "`to` is missing"),
        ("document: {}\nto: {memory: {}}", "no field"),
        ("document: {x: event.x}\nto: {}", "no target"),
        (
            "document: {x: event.x}\nto: {memory: {}, tantivy: {}}",
            "a view has one target",
        ),
        (
            "format: raw\ndocument: {x: event.x}\nto: {memory: {}}",
            "`event` has no meaning with `format: raw`",
        ),
    ] {
        check_lines(lines, expected);
    }
    let sharded = "document: {x: event.x}\nto: {redis: {connection: c, shards: 2}}\n";
    for (from, expected) in [
        ("topics: [t, t]", "`t` is given twice"),
        (
            "topics: [t, u]",
            "with `shards` above 1 a view reads one topic",
        ),
        ("topics: [t], order: none", "`order: none` needs one shard"),
        ("topics: []", "no topic"),
        ("topics: ['a b']", "`a b` is no name for a topic"),
    ] {
        let found = faults(&format!("view: v\nfrom: {{{from}}}\n{sharded}"));
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{from}: {found:?}"
        );
    }
    let compacted = "view: v\nfrom: {topics: [t], policy: compact}\nkey: event.id\ndocument: {x: event.x}\nto: {memory: {}}\n";
    check(
        compacted,
        "3:6 on a compacted topic the key must be `record.key`",
    );
    check(
        &format!("{GOOD}---\n{GOOD}"),
        "6:1 a view named `v` stands above",
    );
    check("", "1:1 there is no view in this file");
    check("- a\n", "1:1 a list does not fit here");
}

#[test]
fn what_could_overflow_the_stack_is_refused_and_the_rest_fits() {
    let within = |expression: String| {
        let text = format!(
            "view: v\nfrom: {{topics: [t]}}\ndocument: {{x: \"{expression}\"}}\nto: {{memory: {{}}}}\n"
        );
        // Half of what the threads of tests and of workers have.
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let parsed = thread.spawn(move || {
            parse("v.yaml", &text).map(|mut definitions| {
                let view = crate::compile(&definitions.remove(0)).unwrap();
                super::row(&view, "{}");
            })
        });
        parsed.unwrap().join().unwrap()
    };
    type Shape = (&'static str, fn(usize) -> String);
    let shapes: [Shape; 6] = [
        ("parentheses", |n| "(".repeat(n) + "1" + &")".repeat(n)),
        ("lists", |n| "[".repeat(n) + &"]".repeat(n)),
        ("calls", |n| "size(".repeat(n) + "'a'" + &")".repeat(n)),
        ("sums", |n| vec!["1"; n].join("+")),
        ("choices", |n| "true?1:".repeat(n) + "1"),
        ("members", |n| "event".to_owned() + &".a".repeat(n)),
    ];
    for (shape, make) in shapes {
        assert!(within(make(24)).is_ok(), "{shape}");
        assert!(within(make(300)).is_err(), "{shape}");
    }
    for most in [
        vec!["1"; 256].join("+"),
        "!".repeat(256) + "true",
        "true?1:".repeat(40) + "1",
    ] {
        assert!(within(most.clone()).is_ok(), "{most}");
    }
}

#[test]
fn a_fingerprint_is_the_same_in_every_release_until_a_revision_rises() {
    let index = parse("v.yaml", INDEX).unwrap().remove(0);
    let found = [good(), index].map(|definition| fingerprint(&definition).short().to_owned());
    assert_eq!(found, ["e91f7239a8f8", "fadaa11d3ff9"]);
}

#[test]
fn a_difference_names_its_reasons() {
    let new = |edit: &dyn Fn(&mut ViewDefinition)| {
        let mut definition = good();
        edit(&mut definition);
        diff(&good(), &definition).to_string()
    };
    let brand = Field {
        name: "brand".to_owned(),
        value: Expression("event.brand".to_owned()),
        index: None,
    };
    assert_eq!(new(&|_| {}), "nothing to do");
    assert_eq!(
        new(&|new| new.document.push(brand.clone())),
        "new version, because `document.brand` was added"
    );
    assert_eq!(
        new(&|new| new.document = vec![brand.clone()]),
        "new version, because `document.brand` was added, `document.x` was removed"
    );
    assert_eq!(
        new(&|new| new.condition = Some(Expression("event.a".to_owned()))),
        "new version, because `where` was added"
    );
    assert_eq!(
        new(&|new| new.key = Expression("event.id".to_owned())),
        "new version, because `key` changed"
    );
    assert_eq!(
        new(&|new| {
            new.gates.lag_seconds = 5.0;
            new.soak = std::time::Duration::from_secs(60);
        }),
        "in place, because `gates.lag_seconds` 10.0 → 5.0, `soak` 1d → 1m"
    );
    let index = parse("v.yaml", INDEX).unwrap().remove(0);
    assert_eq!(
        diff(&good(), &index).to_string(),
        "new version, because `document.x` changed, `to` redis → tantivy"
    );
    let mut reordered = good();
    reordered.document.push(brand.clone());
    let mut other = good();
    other.document.insert(0, brand);
    assert_eq!(
        diff(&reordered, &other).to_string(),
        "new version, because the order of `document` changed"
    );
}

#[test]
fn a_release_that_computes_differently_needs_a_new_version() {
    let (old, new) = (
        fingerprint(&good()),
        materializer_model::Fingerprint("f".to_owned()),
    );
    let same = diff(&good(), &good());
    assert_eq!(same.clone().given(&old, &old), Difference::Same);
    assert_eq!(
        same.given(&new, &old).to_string(),
        "new version, because this release computes it differently"
    );
}

type Edit = fn(&mut ViewDefinition);

/// Each edit changes one part of [`good`].
const EDITS: &[Edit] = &[
    |d| d.from.topics.push(Topic::new("u")),
    |d| d.from.policy = Some(CleanupPolicy::Delete),
    |d| d.from.partitioner = Some(Partitioner::Crc32),
    |d| d.from.order = Order::None,
    |d| d.only = Some(Expression("event.a".to_owned())),
    |d| d.condition = Some(Expression("event.a == 1".to_owned())),
    |d| d.key = Expression("event.id".to_owned()),
    |d| d.document[0].name.push('y'),
    |d| d.document[0].value.0.push('y'),
    |d| {
        d.document.insert(
            0,
            Field {
                name: "z".to_owned(),
                ..d.document[0].clone()
            },
        )
    },
    |d| redis(d).connection.push('d'),
    |d| redis(d).key.insert(0, 'd'),
    |d| redis(d).shape = RedisShape::Hash,
    |d| redis(d).ttl = None,
    |d| redis(d).shards = 3,
    |d| {
        d.gates = Gates {
            lag_records: 1,
            ..d.gates.clone()
        }
    },
    |d| d.gates.documents_ratio = None,
    |d| d.gates.keys.push("a".to_owned()),
    |d| d.soak *= 2,
    |d| d.on_error = OnError::Skip,
    |d| d.promotion = Promotion::Auto,
];

fn redis(definition: &mut ViewDefinition) -> &mut materializer_model::definition::RedisTarget {
    match &mut definition.to {
        Target::Redis(redis) => redis,
        Target::Memory {} | Target::Tantivy(_) => panic!("the good one is a Redis view"),
    }
}

proptest! {
    #[test]
    fn a_new_version_is_needed_exactly_where_the_fingerprint_differs(
        old in prop::collection::hash_set(0..EDITS.len(), 0..4),
        new in prop::collection::hash_set(0..EDITS.len(), 0..4),
    ) {
        let edited = |edits: &std::collections::HashSet<usize>| {
            let mut definition = good();
            let mut edits: Vec<_> = edits.iter().collect();
            edits.sort();
            edits.into_iter().for_each(|edit| EDITS[*edit](&mut definition));
            definition
        };
        let (old, new) = (edited(&old), edited(&new));
        let difference = diff(&old, &new);
        prop_assert_eq!(difference == Difference::Same, old == new);
        let same_data = fingerprint(&old) == fingerprint(&new);
        prop_assert_eq!(matches!(difference, Difference::NewVersion(_)), !same_data);
    }
}

#[test]
fn a_view_is_retired_by_a_declaration_and_by_nothing_else() {
    let retire = |truth: &str| {
        let read = declared("v.yaml", &format!("{GOOD}retire: {truth}\n"));
        read.map(|all| all[0].1)
            .map_err(|faults| faults.to_string())
    };
    assert_eq!(retire("true"), Ok(true));
    assert_eq!(retire("false"), Ok(false));
    assert!(retire("yes").is_err());
    let told = faults(&format!("{GOOD}retire: true\n"));
    assert_eq!(
        told,
        [
            "5:9 `retire` stands in a folder of definitions, and does nothing here | - | `materializer retire v` retires it"
        ]
    );
}

#[test]
fn a_digest_is_of_what_a_definition_says_and_not_of_how_it_is_written() {
    let read = |text: &str| parse("v.yaml", text).expect("a definition").remove(0);
    let one = read(GOOD);
    let other = read(&format!("# a comment\nsoak: 24h\n{GOOD}"));
    assert_eq!(digest(&one, false), digest(&other, false));
    assert_ne!(digest(&one, false), digest(&one, true));
    let slower = read(&format!("{GOOD}soak: 48h\n"));
    assert_ne!(digest(&one, false), digest(&slower, false));
}
