//! A catalog that is away or lost while everything goes on: made anew, cut back, restored from a backup; and
//! two of them beside each other.

use std::fs;
use std::thread;
use std::time::Duration;

use chaos::installation::{Installation, wait_until};
use chaos::now;
use chaos::oracle::Oracle;
use chaos::stage::{Setting, Stage, V1, V2};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "catalog-away",
        fault: "the only broker that has the catalog is down for a minute, and a promotion is asked for meanwhile",
        short: false,
        play: away,
    },
    Scene {
        name: "catalog-two",
        fault: "two installations on one Redis and one Kafka, of which one migrates and deletes",
        short: false,
        play: two,
    },
    Scene {
        name: "catalog-deleted",
        fault: "the control topics are deleted on three brokers, and restored at the same state",
        short: false,
        play: deleted,
    },
    Scene {
        name: "catalog-older",
        fault: "the control topics are deleted, and restored from before the last promotion",
        short: false,
        play: older,
    },
    Scene {
        name: "catalog-cut",
        fault: "the first records of the catalog are deleted",
        short: false,
        play: cut,
    },
];

/// Prints a backup into a file, and returns the file's name and its events.
fn back_up(stage: &Stage, file: &str) -> (String, String) {
    let (code, backup) = stage.installation.answer(&["catalog", "export"]);
    assert_eq!(code, Some(0), "{backup}");
    let events = backup.lines().filter(|line| line.contains("\"event\":"));
    let events = events.map(|line| format!("{line}\n")).collect();
    (stage.installation.define(file, &backup), events)
}

fn delete_topics(stage: &Stage) {
    for topic in ["catalog", "claims", "progress"] {
        let installation = &stage.installation.name;
        stage
            .kafka
            .delete(&format!("{installation}.materializer.{topic}"));
    }
}

/// Waits until the process says that its catalog is lost; it goes on serving and feeding.
fn await_loss(stage: &Stage) {
    let run = &stage.installation.run;
    wait_until("the loss is told", || {
        run.logged().contains("the catalog is not the one it was")
    });
    let before = stage.checkpoint(1);
    wait_until("a unit commits", || stage.checkpoint(1) != before);
}

/// Brings a backup back, in two goes, and lets the program begin anew on it.
fn restore(stage: &mut Stage, backup: &str, adopt: &[&str]) {
    let installation = &mut stage.installation;
    installation.done(&["catalog", "import", backup]);
    let (code, again) = installation.answer(&["catalog", "import", backup]);
    assert!(
        code == Some(0) && again.contains("0 were appended"),
        "{again}"
    );
    let (code, unbound) = installation.answer(&["status"]);
    assert!(
        code == Some(1) && unbound.contains("`materializer catalog adopt"),
        "{unbound}"
    );
    let adoption = [&["catalog", "adopt", "--reason", "a scene"], adopt].concat();
    installation.done(&adoption);
    installation.run.end();
    installation.run.start_ready();
}

fn promote_second(stage: &Stage) {
    stage.apply_version("v2.yaml", V2);
    stage.await_version("products@v2", "ready");
    let promote = ["promote", "products@v2", "--reason", "a scene"];
    stage.installation.done(&promote);
}

fn away(name: &str) -> Stage {
    let setting = Setting {
        brokers: 3,
        topic: vec!["--replicas", "3"],
        ..Setting::default()
    };
    let mut stage = Stage::set(name, &setting);
    // Control topics with one replica each: the catalog is away with its broker, the log is not.
    let settings = stage.installation.folder().join("materializer.yaml");
    let text = fs::read_to_string(&settings).expect("settings");
    fs::write(&settings, text.replace("dev: false", "dev: true")).expect("settings");
    stage.go_on();
    stage.apply_version("v2.yaml", V2);
    stage.await_version("products@v2", "ready");

    let catalog = format!("{}.materializer.catalog", stage.installation.name);
    let broker = stage.kafka.leader(&catalog, 0).expect("a leader");
    assert_eq!(stage.kafka.replicas(&catalog, 0), [broker]);
    stage.kafka.kill(broker);
    let killed = now();
    let (code, told) = stage.installation.answer(&["status"]);
    assert!(code == Some(1) && told.contains("is Kafka up?"), "{told}");
    let asked = stage.installation.begin(&["promote", "products@v2"]);
    while killed.elapsed() < Duration::from_secs(60) {
        let before = stage.checkpoint(1);
        let what = "to a commit while the catalog is away";
        stage.await_commit(what, 1, before.as_deref(), now());
        thread::sleep(Duration::from_secs(10));
    }
    let code = asked.wait_with_output().expect("our child").status.code();
    assert_ne!(code, Some(0), "nobody answered");
    stage.kafka.restart(broker);
    let back = now();
    wait_until("the catalog is read again", || {
        stage.installation.view("products")["alias"]["version"] == 1
    });
    stage.measure("until `status` is told again", back);
    stage.insist(&["promote", "products@v2"], 2);
    stage.measure("until a promotion is carried out again", back);
    stage.end(2, V2);
    stage
}

fn two(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let (brokers, redis) = (stage.kafka.brokers(), stage.redis.url());
    let mut other = Installation::new(&brokers, &redis, name, "");
    other.topic.clone_from(&stage.installation.topic);
    other.run.start_ready();
    let oracle = Oracle::new(&brokers, &redis, &other);
    for (number, fields) in [(1, V1), (2, V2)] {
        let file = other.define("products.yaml", &stage.redis_definition(fields));
        let version = format!("products@v{number}");
        other.done(&["apply", &file]);
        if number > 1 {
            other.done(&["wait", &version, "--for", "ready", "--timeout", "2m"]);
            other.done(&["promote", &version]);
        }
        other.done(&["wait", &version, "--for", "live", "--timeout", "2m"]);
    }
    other.done(&["retire", "products@v1"]);
    other.done(&["wait", "products@v1", "--for", "retired", "--timeout", "2m"]);
    let rows = |installation: &Installation, number: u32| {
        let pattern = format!("{}:products:v{number}:*", installation.name);
        stage.redis.count(&pattern)
    };
    assert_eq!(rows(&other, 1), 0, "what was deleted");
    assert!(rows(&stage.installation, 1) > 0, "what is not its own");
    // Both are killed and come back, each to its own.
    stage.installation.run.kill();
    other.run.kill();
    other.run.start_ready();
    stage.installation.run.start_ready();
    stage.end(1, V1);
    let end = stage.kafka.ends(&stage.installation.topic);
    let end: i64 = end.iter().map(|(_, end)| end).sum();
    wait_until("the other one has committed the whole log", || {
        let version = chaos::stage::version_of(&other.view("products"), 2);
        version["records"]["done"] == end
    });
    let _same = oracle.check(2, "title,price,brand,rev", None);
    other.run.end();
    stage
}

fn deleted(name: &str) -> Stage {
    let setting = Setting {
        brokers: 3,
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    let (backup, events) = back_up(&stage, "backup.jsonl");
    delete_topics(&stage);
    wait_until("the loss is told", || {
        let logged = stage.installation.run.logged();
        logged.contains("the control topics cannot be read")
    });
    restore(&mut stage, &backup, &[]);
    let (_, restored) = back_up(&stage, "restored.jsonl");
    assert!(
        restored.starts_with(&events),
        "offsets and append times: {restored}"
    );
    promote_second(&stage);
    stage.end(2, V2);
    stage
}

fn older(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let (backup, _) = back_up(&stage, "backup.jsonl");
    promote_second(&stage);
    delete_topics(&stage);
    stage.installation.done(&["catalog", "import", &backup]);
    let refused = ["catalog", "adopt", "--reason", "a scene"];
    let (code, refused) = stage.installation.answer(&refused);
    assert!(
        code == Some(1) && refused.contains("its readers go back to"),
        "{refused}"
    );
    restore(&mut stage, &backup, &["--older"]);
    stage.await_version("products@v1", "live");
    // The number of the version that the catalog has forgotten is not given again.
    stage.apply_version("v3.yaml", V2);
    stage.await_version("products@v3", "ready");
    stage.end_rewound(1, V1);
    stage
}

fn cut(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let (backup, _) = back_up(&stage, "backup.jsonl");
    let catalog = format!("{}.materializer.catalog", stage.installation.name);
    stage.kafka.delete_records(&catalog, Some(2));
    await_loss(&stage);
    let (code, refused) = stage.installation.answer(&["catalog", "import", &backup]);
    assert!(
        code == Some(1) && refused.contains("starts at offset 2"),
        "{refused}"
    );
    delete_topics(&stage);
    restore(&mut stage, &backup, &[]);
    stage.end(1, V1);
    stage
}
