//! Whatever a record's key is, its row stays behind its version's prefix, and a retirement deletes that version's
//! rows and nothing that looks like them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::ports::{Expect, Sink as _, SinkAdmin as _};
use materializer_model::{Change, Key, Mutation, Offset, Origin, Partition, Row, Topic, Unit};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::Connection;

use crate::faults::{apply, commit, token};
use crate::place::{admin, sink};
use crate::server::Server;

/// Keys of others, each a character away from ours.
const NEIGHBOURS: [&[u8]; 9] = [
    b"main:products:v1",
    b"main:products:v10",
    b"main:products:v1x:product:k",
    b"main:products-x:v1:product:k",
    b"main-x:products:v1:product:k",
    b"main:productsXv1:product:k",
    b"main:products:v1\0:product:k",
    b"Main:products:v1:product:k",
    b" main:products:v1:product:k",
];

/// Keys that a pattern, a prefix or the protocol could take for something else.
fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let spiteful = prop::sample::select(vec![
        "*",
        "?",
        "[a-z]",
        "\\",
        "\0",
        "\r\n",
        "../..",
        "v10:",
        ":",
        "main:products:v10:product:k",
        "main::products:alias",
        "{tag}",
        "{}",
        "}{",
        "𝕂",
        "$0\r\n",
    ]);
    let key = prop_oneof![
        20 => prop::collection::vec(any::<u8>(), 0..20),
        20 => prop::collection::vec(spiteful, 1..4).prop_map(|parts| parts.concat().into_bytes()),
        1 => any::<u8>().prop_map(|byte| vec![byte; 1_000_000]),
    ];
    prop::collection::vec(key, 0..20)
}

/// Returns every key with its stored form.
fn stored(client: &mut Connection) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(client).expect("keys");
    let dump = |key: Vec<u8>| {
        let dump = redis::cmd("DUMP").arg(&key).query(client).expect("a dump");
        (key, dump)
    };
    keys.into_iter().map(dump).collect()
}

fn write(server: &Server, unit: &str, keys: &[Vec<u8>]) {
    let unit: Unit = unit.parse().expect("a unit");
    let mut writer = sink(server.settings(), &unit);
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    let mut first = Arc::unwrap_or_clone(commit(1, 0, ""));
    for key in keys {
        first.batch.put(Mutation {
            key: Key::new(key),
            change: Change::Upsert {
                row: Row::new(b"{}"),
                expires_at: None,
            },
            origin: Origin {
                topic: Topic::new("shop.products"),
                partition: Partition(0),
                offset: Offset(0),
            },
        });
    }
    apply(&mut writer, &Arc::new(first)).expect("written");
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn any_key_stays_behind_its_prefix_and_is_deleted_with_its_version_only() {
    let server = Server::start();
    let config = Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let held = TestRunner::new(config).run(&(keys(), keys()), |(first, tenth)| {
        let mut client = server.client();
        server.command::<()>("FLUSHALL");
        for key in NEIGHBOURS {
            let set = redis::cmd("SET").arg(key).arg("theirs").exec(&mut client);
            set.expect("another's key");
        }
        write(&server, "products/v1/c0/s0", &first);
        write(&server, "products/v10/c0/s0", &tenth);
        let before = stored(&mut client);
        let ours = |key: &[u8]| key.starts_with(b"main:products:v1:product:");
        let of_tenth = |key: &[u8]| key.starts_with(b"main:products:v10:product:");
        for key in before.keys() {
            let known = ours(key) || of_tenth(key) || key.starts_with(b"main::");
            prop_assert!(known || NEIGHBOURS.contains(&key.as_slice()), "{key:?}");
        }
        for key in &first {
            let whole = [b"main:products:v1:product:", key.as_slice()].concat();
            prop_assert!(before.contains_key(&whole), "{whole:?}");
        }
        let version = "products@v1".parse().expect("a version");
        let retired = admin(server.settings()).retire(&version, Offset(9), Duration::MAX);
        prop_assert!(retired.is_ok_and(|retired| retired.finished));
        let expected: BTreeMap<_, _> = before
            .into_iter()
            .filter(|(key, _)| !ours(key) && key != b"main::products:v1:s0:checkpoint")
            .collect();
        let mut after = stored(&mut client);
        // The token is a mark by now, which says that the version is retired.
        let token = b"main::products:v1:s0:token".to_vec();
        prop_assert!(after.contains_key(&token));
        after.insert(token.clone(), expected[&token].clone());
        prop_assert_eq!(after, expected);
        Ok(())
    });
    if let Err(fault) = held {
        panic!("{fault}");
    }
}
