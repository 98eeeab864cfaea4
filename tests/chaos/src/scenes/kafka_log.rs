//! Logs that are no longer what they were: records that are gone, topics made anew, leaders that knew less,
//! clients that place keys elsewhere. What was read is served on, nothing else is read, `status` says why,
//! and what it offers to type works.

use std::thread;
use std::time::Duration;

use chaos::installation::wait_until;
use chaos::kafka::send;
use chaos::now;
use chaos::oracle::Oracle;
use chaos::stage::{Setting, Stage, V1, V2};
use rdkafka::producer::BaseProducer;

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "kafka-delete-records",
        fault: "DeleteRecords overtakes a live version that is down",
        short: false,
        play: delete_records,
    },
    Scene {
        name: "kafka-retention",
        fault: "retention overtakes a live version that is down",
        short: false,
        play: retention,
    },
    Scene {
        name: "kafka-horizon",
        fault: "a compacted topic drops tombstones before a version that was down resumes",
        short: false,
        play: horizon,
    },
    Scene {
        name: "kafka-anew-shorter",
        fault: "the topic is deleted and made anew, shorter than what was read",
        short: false,
        play: anew_shorter,
    },
    Scene {
        name: "kafka-anew-longer",
        fault: "the topic is deleted and made anew, longer than what was read",
        short: false,
        play: anew_longer,
    },
    Scene {
        name: "kafka-unclean",
        fault: "an unclean election cuts the log back below the checkpoint",
        short: false,
        play: unclean,
    },
    Scene {
        name: "kafka-partitioner",
        fault: "another kind of client writes records whose keys belong to other partitions",
        short: true,
        play: partitioner,
    },
];

const VIEWS: [(&str, &str); 2] = [("products", "v1.yaml"), ("product-search", "search.yaml")];

/// Waits until the live versions of both views cannot go on, and returns what `status` says of `products`.
fn await_end(stage: &Stage, health: &str, why: &str) -> String {
    let mut told = String::new();
    for (view, _) in VIEWS {
        wait_until(&format!("{view} is {health}: {why}"), || {
            let view = stage.installation.view(view);
            let version = chaos::stage::version_of(&view, 1);
            let is = &version["health"];
            told = format!("{} | {}", is["why"], is["hint"]);
            version["role"] == "live" && is["is"] == health && told.contains(why)
        });
    }
    told
}

/// Nothing of a version that lost something can be made live: there is no standby, and nothing else.
fn assert_no_way_back(stage: &Stage) {
    let (code, told) = stage.installation.answer(&["rollback", "products"]);
    assert!(code != Some(0), "a rollback to nothing: {told}");
    assert_eq!(stage.installation.view("products")["alias"]["version"], 1);
}

/// Does what `status` offers: builds each view anew and promotes it. `products` gets other fields on the
/// way, by which readers tell its versions apart.
fn rebuild(stage: &mut Stage, waived: &[&str]) {
    let began = now();
    let text = stage.redis_definition(V2);
    let file = stage.installation.define("v2.yaml", &text);
    for (view, file) in [
        ("products", file.as_str()),
        ("product-search", "search.yaml"),
    ] {
        stage.installation.done(&["apply", file, "--rebuild"]);
        promote(stage, &format!("{view}@v2"), waived);
    }
    stage.await_alias(2);
    stage.measure(
        "until both views were built anew and readers see them",
        began,
    );
}

/// Waits until a version has caught up, and promotes it as soon as its gates hold.
fn promote(stage: &Stage, version: &str, waived: &[&str]) {
    let wait = ["wait", version, "--for", "caught-up", "--timeout", "2m"];
    stage.installation.done(&wait);
    let verb = [&["promote", version, "--reason", "the way out"][..], waived].concat();
    wait_until(&format!("{version} is promoted"), || {
        stage.installation.answer(&verb).0 == Some(0)
    });
}

/// Lets records go that a version has not read, while it is down.
fn overtake(name: &str, lose: fn(&mut Stage)) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.installation.run.kill();
    let end = stage.kafka.ends(&stage.installation.topic);
    wait_until("the log has gone on in each partition", || {
        let now = stage.kafka.ends(&stage.installation.topic);
        now.iter().zip(&end).all(|(now, then)| now.1 > then.1 + 50)
    });
    lose(&mut stage);
    let before = stage.checkpoint(1);
    stage.installation.run.start_ready();
    let told = await_end(&stage, "failed", "records that were not read are gone");
    assert!(told.contains("complete from 0"), "{told}");
    assert_no_way_back(&stage);
    // A rebuild from what is left would be wrong, and is refused.
    stage.installation.done(&["apply", "v1.yaml", "--rebuild"]);
    let version = stage.await_health(2, "failed");
    let why = version["health"]["why"].to_string();
    assert!(why.contains("begins at"), "{version}");
    let (code, told) = stage.installation.answer(&["promote", "products@v2"]);
    assert_eq!(code, Some(3), "{told}");
    assert_eq!(stage.checkpoint(1), before, "nothing is read over the gap");
    stage.installation.done(&["abort", "products@v2"]);
    stage
}

/// Goes on with a topic that is complete from 0, as `status` says.
fn another_topic(stage: &mut Stage) {
    stage.stop_writing();
    stage.installation.topic.push_str("-again");
    stage.oracle = Oracle::new(
        &stage.kafka.brokers(),
        &stage.redis.url(),
        &stage.installation,
    );
    stage.oracle.create(&[]);
    let first = stage.events;
    stage.events += stage.oracle.produce(20_000, 2_000, 9, first, None).finish();
    stage.write();
    let waived = ["--waive", "fresh_as_live"];
    let began = now();
    let text = stage.redis_definition(V1);
    let products = stage.installation.define("v1.yaml", &text);
    let search = stage.define_search();
    for (version, file) in [("products@v3", products), ("product-search@v2", search)] {
        stage.installation.done(&["apply", &file]);
        promote(stage, version, &waived);
    }
    stage.await_alias(3);
    stage.measure("until both views were built from another topic", began);
}

fn delete_records(name: &str) -> Stage {
    let mut stage = overtake(name, |stage| {
        stage.kafka.delete_records(&stage.installation.topic, None);
    });
    another_topic(&mut stage);
    stage.end(3, V1);
    stage
}

fn retention(name: &str) -> Stage {
    let mut stage = overtake(name, |stage| {
        let topic = stage.installation.topic.clone();
        let short = [
            ("retention.ms", "1000"),
            ("segment.ms", "200"),
            ("file.delete.delay.ms", "100"),
        ];
        stage.kafka.alter(&topic, &short);
        let end = stage.kafka.ends(&topic);
        wait_until("retention has passed every partition's position", || {
            let starts = stage.kafka.starts(&topic);
            starts.iter().zip(&end).all(|(start, end)| start.1 >= end.1)
        });
    });
    another_topic(&mut stage);
    stage.end(3, V1);
    stage
}

fn horizon(name: &str) -> Stage {
    // Tombstones count as gone ten minutes early: here 20 s after they were last read.
    let setting = Setting {
        topic: vec![
            "--config",
            "cleanup.policy=compact",
            "--config",
            "delete.retention.ms=620000",
        ],
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    stage.installation.run.kill();
    thread::sleep(Duration::from_secs(25));
    let before = stage.checkpoint(1);
    stage.installation.run.start_ready();
    let told = await_end(&stage, "failed", "tombstones may be gone");
    assert!(told.contains("build a new version"), "{told}");
    assert_eq!(
        stage.checkpoint(1),
        before,
        "nothing is read past the horizon"
    );
    assert_no_way_back(&stage);
    rebuild(&mut stage, &["--waive", "fresh_as_live"]);
    stage.end(2, V2);
    stage
}

fn anew(name: &str, events: u64) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.stop_writing();
    stage.kafka.delete(&stage.installation.topic);
    stage.oracle.create(&[]);
    let first = stage.events;
    stage.events += stage.oracle.produce(events, 2_000, 9, first, None).finish();
    let told = await_end(&stage, "damaged", "made anew under the same name");
    assert!(told.contains("apply FILE --rebuild"), "{told}");
    assert_no_way_back(&stage);
    stage.write();
    rebuild(&mut stage, &[]);
    stage.end(2, V2);
    stage
}

fn anew_shorter(name: &str) -> Stage {
    anew(name, 3_000)
}

fn anew_longer(name: &str) -> Stage {
    anew(name, 40_000)
}

fn unclean(name: &str) -> Stage {
    let setting = Setting {
        brokers: 3,
        topic: vec![
            "--partitions",
            "1",
            "--replicas",
            "2",
            "--config",
            "min.insync.replicas=1",
            "--config",
            "unclean.leader.election.enable=true",
        ],
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    stage.stop_writing();
    let topic = stage.installation.topic.clone();
    let leader = stage.kafka.leader(&topic, 0).expect("a leader");
    let replicas = stage.kafka.replicas(&topic, 0);
    let follower = replicas.into_iter().find(|it| *it != leader).expect("two");
    stage.kafka.kill(follower);
    wait_until("the leader is alone", || {
        stage.kafka.in_step(&topic, 0) == 1
    });
    stage.write();
    thread::sleep(Duration::from_secs(3));
    stage.compare(1, V1);
    let read = stage.kafka.ends(&topic)[0].1;
    stage.kafka.kill(leader);
    stage.kafka.restart(follower);
    let elected = now();
    wait_until("the one that knew less leads", || {
        stage.kafka.leader(&topic, 0) == Some(follower)
    });
    let end = stage.kafka.ends(&topic)[0].1;
    assert!(end < read, "the log is cut back: {end} < {read}");
    stage.write();
    let told = await_end(&stage, "failed", "truncated below offset");
    stage.measure("until it is told that the log was cut back", elected);
    assert!(told.contains("rebuild"), "{told}");
    assert_no_way_back(&stage);
    stage.kafka.restart(leader);
    rebuild(&mut stage, &["--waive", "fresh_as_live"]);
    stage.end(2, V2);
    stage
}

fn partitioner(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let mut config = stage.kafka.config();
    config.set("partitioner", "consistent");
    let other: BaseProducer = config.create().expect("a producer");
    let keys: Vec<String> = (0..20).map(|n| format!("other-{n}")).collect();
    let value = r#"{"kind":"product","title":"a hat","price":1.5,"rev":1}"#;
    let records: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(value))).collect();
    send(&other, &stage.installation.topic, &records);
    let told = await_end(&stage, "failed", "the order of its key is not proved");
    assert!(told.contains("from: {order: none}"), "{told}");
    // Changed in place: nothing is built anew.
    let was = format!("from: {{topics: ['{}']}}", stage.installation.topic);
    let is = was.replace('}', ", order: none}");
    for (_, file) in VIEWS {
        let path = stage.installation.folder().join(file);
        let text = std::fs::read_to_string(path)
            .expect("a definition")
            .replace(&was, &is);
        let file = stage.installation.define(file, &text);
        stage.installation.done(&["apply", &file]);
    }
    let (before, changed) = (stage.checkpoint(1), now());
    stage.await_commit("to the first new commit", 1, before.as_deref(), changed);
    stage.end(1, V1);
    stage
}
