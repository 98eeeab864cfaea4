//! Holds the shape of the workspace: a star of crates around `model`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const MIDDLE: [&str; 5] = [
    "materializer-kafka",
    "materializer-migrations",
    "materializer-replay",
    "materializer-sinks",
    "materializer-view",
];

/// Heavy crates, each with the only package that may name it. `chaos` and `it` talk to the servers directly.
const RIM: [(&str, &str); 6] = [
    ("rdkafka", "materializer-kafka"),
    ("rdkafka-sys", "materializer-kafka"),
    ("tantivy", "materializer-sinks"),
    ("redis", "materializer-sinks"),
    ("cel", "materializer-view"),
    ("axum", "materializer"),
];

/// Returns the direct dependencies of each package of the workspace, those of tests included, with
/// whether each is one of tests only.
fn dependencies() -> BTreeMap<String, BTreeMap<String, bool>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo metadata");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let direct = package["dependencies"].as_array().expect("dependencies");
            (
                name(package),
                direct
                    .iter()
                    .map(|d| (name(d), d["kind"] == "dev"))
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn the_crates_in_the_middle_know_the_model_and_never_each_other() {
    let all = dependencies();
    let ours: BTreeSet<&String> = all.keys().collect();
    for package in MIDDLE {
        let inside: Vec<&str> = all[package]
            .keys()
            .filter(|dependency| ours.contains(dependency))
            .map(String::as_str)
            .collect();
        assert_eq!(inside, ["materializer-model"], "{package}");
    }
    let of_model = &all["materializer-model"];
    assert!(
        of_model.keys().all(|dependency| !ours.contains(dependency)),
        "{of_model:?}"
    );
}

#[test]
fn heavy_crates_stand_at_the_rim() {
    let all = dependencies();
    for (heavy, place) in RIM {
        for (package, direct) in &all {
            let named = direct.get(heavy).is_some_and(|only_tests| !only_tests);
            assert!(
                !named || package == place || ["chaos", "it"].contains(&package.as_str()),
                "{package} names {heavy}"
            );
        }
    }
}
