//! A catalog that is lost while everything goes on: made anew, cut back, restored from a backup.

use std::fs;

use chaos::installation::wait_until;
use chaos::stage::{Setting, Stage, V1, V2};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
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
        code == Some(1) && unbound.contains("bound to other topics"),
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

fn deleted(name: &str) -> Stage {
    let setting = Setting {
        brokers: 3,
        ..Setting::default()
    };
    let mut stage = Stage::set(name, &setting);
    let settings = stage.installation.folder().join("materializer.yaml");
    let text = fs::read_to_string(&settings).expect("settings");
    fs::write(&settings, text.replace("dev: true", "dev: false")).expect("settings");
    stage.installation.run.start_ready();
    stage.apply_first();
    stage.write();
    stage.read();
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
