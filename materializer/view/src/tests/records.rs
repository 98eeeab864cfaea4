//! What becomes of records.

use materializer_model::clock::Timestamp;
use materializer_model::ports::Derive;
use materializer_model::{Change, LogRow, Record, RowBatch, Topic};

use super::{apply, field, row, view, with_record};
use crate::{Outcome, View, point_at};

#[test]
fn the_examples_compile() {
    for text in [
        include_str!("../../../../examples/products.yaml"),
        include_str!("../../../../examples/product-search.yaml"),
    ] {
        let view = view(text);
        let product =
            r#"{"kind":"product","title":"Red shoe","price":59.90,"brand":{"name":"Walk"}}"#;
        let row = row(&view, product);
        assert!(
            row.contains(r#""title":"Red shoe""#) && row.contains("59.90"),
            "{row}"
        );
    }
}

#[test]
fn a_path_copies_the_text_of_the_record() {
    for (path, value, expected) in [
        ("event.a", r#"{"a":1.50}"#, "1.50"),
        ("event.a", r#"{"a":-0.0e-7}"#, "-0.0e-7"),
        (
            "event.a",
            r#"{"a":123456789012345678901234567890}"#,
            "123456789012345678901234567890",
        ),
        ("event.a", r#"{"a":"é\u00e9\n"}"#, r#""é\u00e9\n""#),
        (
            "event.a",
            r#"{ "a" : { "b" : [ 1 , "x y" , { } ] } }"#,
            r#"{"b":[1,"x y",{}]}"#,
        ),
        ("event.a", r#"{"a":1,"a":2}"#, "2"),
        ("event.a", r#"{"\u0061":3}"#, "3"),
        ("event.a.b", r#"{"a":{"b":1},"a":{"c":2}}"#, "null"),
        ("event.a.b", r#"{"a":{"b":1},"a":null}"#, "null"),
        ("event.a.b", r#"{"a":"text"}"#, "null"),
        ("event.a", r#"{"b":1}"#, "null"),
        ("event.a", "[1]", "null"),
        ("event.a[1].b", r#"{"a":[0,{"b":true},2]}"#, "true"),
        ("event.a[3]", r#"{"a":[0]}"#, "null"),
        ("event[\"odd name\"]", r#"{"odd name":false}"#, "false"),
        ("event", r#" {"a": 1 } "#, r#"{"a":1}"#),
        ("record.key", "{}", r#""k""#),
        ("record.topic", "{}", r#""t""#),
        ("record.partition", "{}", "3"),
        ("record.offset", "{}", "7"),
        ("record.timestamp", "{}", "1000"),
        ("record.headers.trace", "{}", "null"),
    ] {
        let expected = format!("{{\"x\":{expected}}}");
        assert_eq!(row(&field(path), value), expected, "{path} of {value}");
    }
}

#[test]
fn a_path_below_another_is_found_as_well() {
    let view = view(
        "view: v\nfrom: {topics: [t]}\ndocument: {a: event.a, b: event.a.b, c: event.a.b.c}\nto: {memory: {}}\n",
    );
    assert_eq!(
        row(&view, r#"{"a":{"b":{"c":1}}}"#),
        r#"{"a":{"b":{"c":1}},"b":{"c":1},"c":1}"#
    );
}

#[test]
fn an_expression_takes_json_as_it_is() {
    let value = r#"{"n":2,"f":2.5,"s":"Shoe","t":["a","b"],"o":{"z":1,"a":2},"l":[{"p":1},{"q":2}],"u":"\u00e9","d":-4.7931741529932916e-48,"l2":[-4.7931741529932916e-48]}"#;
    for (expression, expected) in [
        ("event.n * 2 > 3", "true"),
        ("2 * event.n + 1", "5"),
        ("event.f * 2", "5"),
        ("event.f / 2", "1.25"),
        ("1 - event.f", "-1.5"),
        ("event.n == 2", "true"),
        ("event.n in [1, 2]", "true"),
        ("event.s + '!'", r#""Shoe!""#),
        ("event.u == 'é'", "true"),
        ("event.missing != true", "true"),
        ("event.o.missing.deeper == null", "true"),
        ("event.s.length == null", "true"),
        ("has(event.s)", "true"),
        ("has(event.missing)", "false"),
        ("has(event.o.z) && !has(event.o.y)", "true"),
        ("event.t.exists(x, x == 'b')", "true"),
        ("event.t.map(x, x + x)", r#"["aa","bb"]"#),
        ("event.l.filter(x, x.p == 1)", r#"[{"p":1}]"#),
        ("event.l.all(x, x.p != 3)", "true"),
        ("event.l.exists_one(x, has(x.q))", "true"),
        ("event.o.map(k, k)", r#"["a","z"]"#),
        ("event.t[event.n - 1]", r#""b""#),
        ("event.t[event.n + 7]", "null"),
        ("event.o['z']", "1"),
        ("event.t.exists(x, x.y == null)", "true"),
        ("event.o[event.s] == null", "true"),
        ("size(event.t) * event.f", "5"),
        ("event.n % 2 == 0", "true"),
        ("-7 % 3", "-1"),
        ("event.f % 2", "0.5"),
        ("event.s.lowerAscii().startsWith('sh')", "true"),
        ("event.n > 1 ? 'many' : 'one'", r#""many""#),
        (
            "{'b': event.n, 'a': [event.f, null]}",
            r#"{"a":[2.5,null],"b":2}"#,
        ),
        ("record.key + '/' + string(record.offset)", r#""k/7""#),
        ("string(event.n)", r#""2""#),
        ("type(event.n) == double", "true"),
        ("'literal'", r#""literal""#),
        ("[event.d]", "[-4.7931741529932916e-48]"),
        ("event.l2.map(x, x)", "[-4.7931741529932916e-48]"),
        ("-event.n", "-2"),
        ("0.0 * -1.0", "0"),
    ] {
        let expected = format!("{{\"x\":{expected}}}");
        assert_eq!(row(&field(expression), value), expected, "{expression}");
    }
}

#[test]
fn an_expression_that_fails_is_poison_at_its_place() {
    let value = r#"{"n":2,"s":"x","t":[1]}"#;
    for (expression, why) in [
        ("!event.missing", "`!` does not take null"),
        ("event.s * 2", "`*` does not take string and int"),
        ("event.s + 1", "`+` does not take string and int"),
        ("event.n % 0", "divided by zero"),
        ("event.s % 2", "`%` does not take string and int"),
        ("event.missing > 1", "`>` does not take null and int"),
        ("1 / 0", "divided by zero"),
        ("event.n / 0", "inf has no JSON form"),
        (
            "int(event.s)",
            "`int`: string parse error: invalid digit found in string",
        ),
        ("event.missing.size()", "`size` does not take null"),
        (
            "{1: event.n}",
            "a mapping whose names are not texts has no JSON form",
        ),
        ("bytes(event.s)", "bytes have no JSON form; use `string(…)`"),
        ("event.s.charAt(9)", "`charAt`: index out of range: 9"),
    ] {
        let expected = format!("expression at document.x: {why}");
        assert_eq!(row(&field(expression), value), expected, "{expression}");
    }
}

#[test]
fn of_the_headers_of_a_name_the_last_counts() {
    let topic = Topic::new("t");
    let mut batch = RowBatch::default();
    let headers: [(&[u8], Option<&[u8]>); 5] = [
        (b"a", Some(b"1")),
        (b"a", Some(b"2")),
        (b"gone", Some(b"1")),
        (b"gone", None),
        (b"binary", Some(b"\xff")),
    ];
    with_record(Some(b"k"), Some(b"{}"), |record| {
        batch.push_record(
            &Record {
                topic: &topic,
                ..*record
            },
            headers,
        );
    });
    for (expression, expected) in [
        ("record.headers.a", r#"{"x":"2"}"#),
        ("record.headers['a'] + '!'", r#"{"x":"2!"}"#),
        ("record.headers.gone", r#"{"x":null}"#),
        ("record.headers.other == null", r#"{"x":true}"#),
        ("record.headers.binary", "the header is not UTF-8"),
        ("record.headers.binary == b'\\xff'", r#"{"x":true}"#),
    ] {
        let view = field(expression);
        let mut out = Vec::new();
        for entry in batch.rows() {
            let LogRow::Record(record) = entry else {
                panic!("{entry:?}");
            };
            let gave = match view.apply(&record, &mut out) {
                Ok(()) => format!("{:?}", out.remove(0).change),
                Err(poison) => poison.why,
            };
            assert!(gave.contains(expected), "{expression}: {gave}");
        }
    }
}

#[test]
fn only_passes_over_and_where_deletes() {
    let view = view(
        "view: v\nfrom: {topics: [t]}\nonly: event.kind == 'product'\nwhere: event.hidden != true\ndocument: {x: event.x}\nto: {memory: {}}\n",
    );
    for (value, expected) in [
        (r#"{"kind":"product","x":1}"#, r#"{"x":1}"#),
        (r#"{"kind":"product","hidden":false}"#, r#"{"x":null}"#),
        (r#"{"kind":"product","hidden":true}"#, "deleted"),
        (r#"{"kind":"order"}"#, "passed over"),
        ("{}", "passed over"),
        ("null", "passed over"),
    ] {
        assert_eq!(row(&view, value), expected, "{value}");
    }
    let strict = super::view(
        "view: v\nfrom: {topics: [t]}\nwhere: event.shown\ndocument: {x: event.x}\nto: {memory: {}}\n",
    );
    for (value, expected) in [
        (r#"{"shown":true,"x":1}"#, r#"{"x":1}"#),
        (r#"{"shown":false}"#, "deleted"),
        ("{}", "expression at where: gives null, not a bool"),
        (
            r#"{"shown":1}"#,
            "expression at where: gives a number, not a bool",
        ),
    ] {
        assert_eq!(row(&strict, value), expected, "{value}");
    }
}

#[test]
fn a_key_is_text_or_a_number_as_it_is_written() {
    let view = view(
        "view: v\nfrom: {topics: [t]}\nkey: event.id\ndocument: {x: event.x}\nto: {memory: {}}\n",
    );
    let computed = super::view(
        "view: v\nfrom: {topics: [t]}\nkey: event.a + event.b\ndocument: {x: event.x}\nto: {memory: {}}\n",
    );
    for (view, value, expected) in [
        (&view, r#"{"id":"a b"}"#, "a b"),
        (&view, r#"{"id":""}"#, ""),
        (&view, r#"{"id":"\u00e9\""}"#, "é\""),
        (
            &view,
            r#"{"id":9007199254740993.10}"#,
            "9007199254740993.10",
        ),
        (&view, r#"{"id":null}"#, "key at key: null is no key"),
        (&view, "{}", "key at key: nothing stands at this path"),
        (&view, r#"{"id":true}"#, "key at key: a bool is no key"),
        (&view, r#"{"id":[1]}"#, "key at key: a list is no key"),
        (&view, r#"{"id":{}}"#, "key at key: an object is no key"),
        (&computed, r#"{"a":"x","b":"y"}"#, "xy"),
        (&computed, r#"{"a":1,"b":2}"#, "3"),
        (
            &computed,
            r#"{"a":[1],"b":[2]}"#,
            "key at key: a list is no key",
        ),
    ] {
        let key = match apply(view, value.as_bytes()) {
            Ok(mutations) => String::from_utf8(mutations[0].key.0.to_vec()).unwrap(),
            Err(poison) => format!("{} at {}: {poison}", poison.kind, poison.place),
        };
        assert_eq!(key, expected, "{value}");
    }
}

#[test]
fn a_null_value_deletes_before_any_expression_runs() {
    let by_record = view(
        "view: v\nfrom: {topics: [t]}\nonly: '!event.missing'\ndocument: {x: event.x}\nto: {memory: {}}\n",
    );
    let by_value = view(
        "view: v\nfrom: {topics: [t]}\nkey: event.id\ndocument: {x: event.x}\nto: {memory: {}}\n",
    );
    let apply = |view: &View, key| {
        with_record(key, None, |record| {
            let mut out = Vec::new();
            view.apply(record, &mut out).map(|()| out)
        })
    };
    let deleted = apply(&by_record, Some(b"\xff")).unwrap();
    assert_eq!(
        (deleted[0].key.0.as_ref(), &deleted[0].change),
        (&b"\xff"[..], &Change::Delete)
    );
    assert_eq!(
        apply(&by_record, None).unwrap_err().why,
        "the record's key is null"
    );
    assert_eq!(apply(&by_value, Some(b"k")).unwrap_err().place, "key");
    let excluded = |view: &View| with_record(Some(b"k"), Some(b"{"), |record| view.exclude(record));
    assert_eq!(excluded(&by_record).unwrap().change, Change::Delete);
    assert_eq!(excluded(&by_value), None);
}

#[test]
fn a_ttl_counts_from_the_time_of_the_record() {
    let view = view(
        "view: v\nfrom: {topics: [t]}\nformat: raw\nto: {redis: {connection: c, as: bytes, ttl: 2s}}\n",
    );
    let mut out = Vec::new();
    with_record(Some(b"k"), Some(b"\x00raw"), |record| {
        view.apply(record, &mut out)
    })
    .unwrap();
    let Change::Upsert { row, expires_at } = &out[0].change else {
        panic!("{out:?}");
    };
    assert_eq!(
        (row.0.as_ref(), *expires_at),
        (&b"\x00raw"[..], Some(Timestamp(3_000)))
    );
    let timeless = with_record(Some(b"k"), Some(b"x"), |record| {
        view.apply(
            &Record {
                timestamp: None,
                ..*record
            },
            &mut out,
        )
    });
    assert_eq!(
        timeless.unwrap_err().kind,
        materializer_model::PoisonKind::Timestamp
    );
}

#[test]
fn what_is_not_json_is_poison_and_never_a_crash() {
    let deep = |open: &str, close: &str| open.repeat(10_000) + "1" + &close.repeat(10_000);
    let view = field("event.a");
    for value in [
        "".to_owned(),
        "{".to_owned(),
        r#"{"a":1} tail"#.to_owned(),
        r#"{"a":1,}"#.to_owned(),
        r#"{"a":01}"#.to_owned(),
        r#"{"b":"\u12"}"#.to_owned(),
        r#"{"b":"\x"}"#.to_owned(),
        "{'a':1}".to_owned(),
        "{\"b\":\"\u{1}\"}".to_owned(),
        deep("[", ""),
        r#"{"a":1e999}"#.replace("999", "") + "x",
    ] {
        let gave = row(&view, &value);
        assert!(
            gave.starts_with("decode at : the value is not JSON"),
            "{gave}"
        );
    }
    let utf8 = apply(&view, b"{\"a\":\"\xff\"}").unwrap_err();
    assert!(utf8.why.contains("invalid utf-8"), "{utf8}");
    for (value, why) in [
        (
            format!(r#"{{"a":{}}}"#, deep("[", "]")),
            "nested deeper than 100 levels",
        ),
        (r#"{"a":"\ud800"}"#.to_owned(), "half of a surrogate pair"),
        (r#"{"a":["\udc00"]}"#.to_owned(), "half of a surrogate pair"),
    ] {
        let gave = row(&view, &value);
        assert!(
            gave.starts_with("expression at document.x") && gave.contains(why),
            "{gave}"
        );
    }
    // What no expression names may be as deep as it likes.
    let passed = format!(r#"{{"b":{},"a":1}}"#, deep("[", "]"));
    assert_eq!(row(&view, &passed), r#"{"x":1}"#);
    let computed = field("event.a == 1");
    let deep = format!(r#"{{"a":{}}}"#, deep("[", "]"));
    assert!(row(&computed, &deep).contains("nested deeper than 100 levels"));
    assert!(row(&computed, r#"{"a":1e999}"#).contains("1e999 is no number of 64 bits"));
}

#[test]
fn an_explanation_shows_what_each_expression_gives() {
    let text = "view: v\nfrom: {topics: [t]}\nonly: event.kind == 'a'\ndocument:\n  ok: event.ok\n  bad: {value: event.ok * 2}\nto: {memory: {}}\n";
    let view = view(text);
    let explained = with_record(Some(b"k"), Some(br#"{"kind":"a","ok":"x"}"#), |record| {
        view.explain(record)
    });
    let steps: Vec<_> = explained
        .steps
        .iter()
        .map(|step| (step.place.as_str(), step.gave.as_deref().ok()))
        .collect();
    let expected = [
        ("only", Some("true")),
        ("key", Some(r#""k""#)),
        ("document.ok", Some(r#""x""#)),
        ("document.bad", None),
    ];
    assert_eq!(steps, expected);
    let Outcome::Poison(poison) = explained.outcome else {
        panic!("{explained:?}");
    };
    let fault = point_at("v.yaml", text, &"v".parse().unwrap(), &poison).unwrap();
    let shown = "error: `*` does not take string and int\n --> v.yaml:6:16\n  |\n6 |   bad: {value: event.ok * 2}\n  |                ^^^^^^^^^^^^";
    assert_eq!(fault.to_string(), shown);
}

/// Prints what deriving a record takes; `cargo test --release` gives the figures of `docs/views.md`.
#[test]
#[ignore = "measures: run it by name, alone, with --nocapture"]
fn deriving_a_record_takes_this_long() {
    let value = br#"{"kind":"product","id":918273,"title":"Trail running shoe, red","price":129.90,"currency":"EUR","stock":17,"tags":["new","sport"],"brand":{"name":"Walkers & Sons","country":"IT"},"images":["https://cdn.example.com/p/918273-1.jpg"],"hidden":false,"updated_at":"2024-05-01T12:00:00Z"}"#;
    let document = "document: {title: event.title, price: event.price, brand: event.brand.name, stock: event.stock, tags: event.tags}";
    for (what, conditions) in [
        ("5 paths", ""),
        (
            "5 paths, only and where",
            "only: event.kind == 'product'\nwhere: event.hidden != true\n",
        ),
    ] {
        let view = view(&format!(
            "view: v\nfrom: {{topics: [t]}}\n{conditions}{document}\nto: {{memory: {{}}}}\n"
        ));
        let rounds = 200_000;
        let mut out = Vec::new();
        #[expect(clippy::disallowed_methods, reason = "a measurement")]
        let begun = std::time::Instant::now();
        with_record(Some(b"918273"), Some(value), |record| {
            for _ in 0..rounds {
                out.clear();
                view.apply(record, &mut out).unwrap();
            }
        });
        let nanos = begun.elapsed().as_nanos() / rounds;
        println!("{what}: {nanos} ns a record of {} bytes", value.len());
    }
}

#[test]
fn a_record_that_would_cost_too_much_is_poison_and_not_a_worker_that_hangs() {
    let list = |items: usize| format!("[{}]", vec!["1"; items].join(","));
    let poison = |expression: &str, value: &str| {
        let poison = apply(&field(expression), value.as_bytes()).expect_err(expression);
        let told = poison.to_string();
        assert!(told.contains("items in macros"), "{expression}: {told}");
    };
    let of = |items| format!("{{\"a\":{}}}", list(items));
    let each = |inner: &str| format!("event.a.map(x, event.a.map(y, event.a.map(z, {inner})))");
    poison(&each("1"), &of(2_000));
    poison(&each("event.a.map(w, 1)"), &of(100));
    poison(
        "event.a.exists(x, event.a.all(y, event.a.exists(z, z > 1)))",
        &of(2_000),
    );
    poison(
        "event.a.filter(x, event.a.filter(y, true) != [])",
        &of(2_000),
    );
    // Few items, and much of each.
    let big = format!(
        "{{\"a\":{},\"b\":\"{}\"}}",
        list(1_000),
        "b".repeat(100_000)
    );
    poison("event.a.map(x, event.b)", &big);
    poison("event.a.map(x, [[event.b]])", &big);
    let doubled = format!("{{\"a\":\"{}\"}}", "a".repeat(1_000_000));
    poison(&vec!["event.a"; 40].join(" + "), &doubled);
    // The product of two sizes of a record, before it is made.
    let grown = format!(
        "{{\"a\":\"{}\",\"b\":\"{}\"}}",
        "a".repeat(10_000),
        "b".repeat(10_000)
    );
    poison("event.a.replace('', event.b)", &grown);
    poison("event.a.replace('a', event.b, 9999)", &grown);
    poison("event.a.split('').join(event.b)", &grown);

    // What is asked of ordinary records stays far below, and each evaluation begins anew.
    let view = field("event.a.map(x, event.a.filter(y, y == x)).map(x, size(x))");
    for _ in 0..3 {
        assert!(apply(&view, of(500).as_bytes()).is_ok());
    }
    let whole = field("event.a.map(x, x)");
    assert!(apply(&whole, of(100_000).as_bytes()).is_ok());
}

#[test]
fn texts_are_replaced_and_joined_as_cel_does_it() {
    let check = |expression: &str, expected: &str| {
        let value = br#"{"s":"hello hello","l":["a","b"],"n":[1]}"#;
        let made = apply(&field(expression), value).map_err(|poison| poison.to_string());
        let made = made.map_or_else(|why| why, |made| format!("{made:?}"));
        assert!(made.contains(expected), "{expression}: {made}");
    };
    check("event.s.replace('he', 'we')", "wello wello");
    check("event.s.replace('he', 'we', -1)", "wello wello");
    check("event.s.replace('he', 'we', 1)", "wello hello");
    check("event.s.replace('he', 'we', 0)", "hello hello");
    check("event.l.join()", "ab");
    check("event.l.join(', ')", "a, b");
    check("event.n.join()", "double where string is needed");
    check("event.n.replace('a', 'b')", "`replace` does not take");
    // A large text is cleaned in many steps.
    let large = format!("{{\"a\":\"{}\"}}", "a".repeat(1_000_000));
    let steps = ".replace('a', 'b').replace('b', 'a')".repeat(20);
    assert!(apply(&field(&format!("event.a{steps}")), large.as_bytes()).is_ok());
}
