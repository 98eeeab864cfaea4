//! Logs that are whole and yet not read straight on: transactions, compaction, and partitions that are added.

use std::thread;
use std::time::Duration;

use chaos::installation::{LIMIT, wait_until};
use chaos::kafka::send;
use chaos::now;
use chaos::stage::{Setting, Stage, V1, V2, version_of};
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::Value;

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "kafka-transactions",
        fault: "transactions that commit, abort, and stay open until the broker ends them, in a build",
        short: false,
        play: transactions,
    },
    Scene {
        name: "kafka-compaction",
        fault: "compaction that goes on all through a build that is killed twice",
        short: true,
        play: compaction,
    },
    Scene {
        name: "kafka-growth",
        fault: "the topic gets more partitions while its keys are written, so that some of them move",
        short: false,
        play: growth,
    },
];

fn product(title: &str) -> String {
    format!(
        r#"{{"kind":"product","title":"{title}","price":1.5,"rev":1,"brand":{{"name":"acme"}}}}"#
    )
}

/// Returns what a gate of a version of `products` reads, and whether it holds.
fn gate(version: &Value, gate: &str) -> Option<(bool, String)> {
    let gates = version["gates"].as_array()?;
    let found = gates.iter().find(|it| it["gate"] == gate)?;
    Some((
        found["holds"] == true,
        found["reading"].as_str()?.to_owned(),
    ))
}

fn transactions(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let topic = stage.installation.topic.clone();
    let producer = stage.kafka.producer(Some("ends"));
    for (key, committed) in [("tx-1", true), ("tx-2", false), ("tx-3", true)] {
        producer.begin_transaction().expect("begun");
        send(
            &producer,
            &topic,
            &[(key, Some(&product("of a transaction")))],
        );
        let ended = if committed {
            producer.commit_transaction(LIMIT)
        } else {
            producer.abort_transaction(LIMIT)
        };
        ended.expect("ended");
    }
    let mut config = stage.kafka.config();
    config.set("transactional.id", "open");
    config.set("transaction.timeout.ms", "90000");
    config.set("partitioner", "murmur2_random");
    let open: BaseProducer = config.create().expect("a producer");
    open.init_transactions(LIMIT).expect("init");
    open.begin_transaction().expect("begun");
    send(
        &open,
        &topic,
        &[("tx-4", Some(&product("never committed")))],
    );
    let opened = now();

    stage.apply_version("v2.yaml", V2);
    let mut reading = String::new();
    wait_until("a gate says that a transaction is open", || {
        let version = stage.version(2);
        assert_eq!(version["role"], "building");
        reading = gate(&version, "stable_offset").map_or(String::new(), |(_, words)| words);
        gate(&version, "stable_offset").is_some_and(|(holds, _)| !holds)
            && opened.elapsed() > Duration::from_secs(5)
    });
    stage.measure(&format!("until `stable_offset` says so: {reading}"), opened);
    let (code, told) = stage.installation.answer(&["promote", "products@v2"]);
    assert!(code == Some(3) && told.contains("stable_offset"), "{told}");
    // The other partitions go on meanwhile.
    let before = stage.checkpoint(1);
    stage.await_commit(
        "to a commit of other partitions",
        1,
        before.as_deref(),
        now(),
    );
    wait_until(
        "the broker has ended the transaction, and the gate holds again",
        || gate(&stage.version(2), "stable_offset").is_some_and(|(holds, _)| holds),
    );
    stage.measure("until the gate holds again", opened);
    stage.await_version("products@v2", "ready");
    stage.installation.done(&["promote", "products@v2"]);
    stage.end(2, V2);
    stage
}

fn compaction(name: &str) -> Stage {
    let setting = Setting {
        topic: vec![
            "--config",
            "cleanup.policy=compact",
            "--config",
            "segment.ms=100",
            "--config",
            "min.cleanable.dirty.ratio=0.0",
            "--config",
            "delete.retention.ms=86400000",
        ],
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    // A Redis that takes no writes keeps the build from its first commit, in each of its lives.
    stage.redis.hold_writes(true);
    stage.apply_version("v2.yaml", V2);
    for _ in 0..2 {
        wait_until("it is built", || {
            version_of(&stage.installation.view("products"), 2)["role"] == "building"
        });
        thread::sleep(Duration::from_secs(2));
        stage.installation.run.kill();
        stage.installation.run.start_ready();
    }
    stage.redis.hold_writes(false);
    let released = now();
    stage.await_version("products@v2", "ready");
    stage.measure("until the candidate is ready", released);
    stage.installation.done(&["promote", "products@v2"]);
    let told = stage.compare(2, V2);
    let ends = stage.kafka.ends(&stage.installation.topic);
    let ends: i64 = ends.iter().map(|(_, end)| end).sum();
    let records = told["records"].as_i64();
    assert!(
        records < Some(ends * 9 / 10),
        "compacted: {records:?} of {ends}"
    );
    stage.end(2, V2);
    stage
}

fn growth(name: &str) -> Stage {
    let setting = Setting {
        settings: "worker: {growth_settles: 5s}\n".to_owned(),
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    stage.oracle.grown = true;
    let topic = stage.installation.topic.clone();
    stage.kafka.grow(&topic, 9);
    let grown = now();
    stage.await_shown("products", 1, "waiting", "to be recorded");
    wait_until("the growth is recorded", || {
        let (_, history) = stage.installation.answer(&["history"]);
        history.contains("6 partitions became 9")
    });
    stage.measure("until the growth is recorded", grown);
    stage.await_shown("products", 1, "ok", "");
    stage.measure("until the version is well again", grown);
    let written = stage.kafka.ends(&topic);
    let added = written
        .iter()
        .filter(|(partition, end)| *partition > 5 && *end > 0);
    assert_eq!(added.count(), 3, "keys moved: {written:?}");
    stage.compare(1, V1);
    stage.write();
    // What is built now reads both eras.
    stage.apply_version("v2.yaml", V2);
    stage.await_version("products@v2", "ready");
    stage.installation.done(&["promote", "products@v2"]);
    stage.end(2, V2);
    stage
}
