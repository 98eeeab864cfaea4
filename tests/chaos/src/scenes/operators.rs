//! Operators who ask for things at once.

use std::process::Child;

use chaos::installation::wait_until;
use chaos::now;
use chaos::stage::{Setting, Stage, V1, V2};
use serde_json::Value;

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "operators-two-promotes",
        fault: "two promotions of one version at once, before two coordinators",
        short: true,
        play: two_promotes,
    },
    Scene {
        name: "operators-promote-retiring",
        fault: "the standby is retired and promoted at once",
        short: false,
        play: promote_retiring,
    },
    Scene {
        name: "operators-rollback-promoting",
        fault: "a candidate is promoted and the view rolled back at once",
        short: false,
        play: rollback_promoting,
    },
    Scene {
        name: "operators-edit-in-swap",
        fault: "the view is edited, which gives the candidate up, while that is promoted",
        short: false,
        play: edit_in_swap,
    },
];

/// Begins verbs at once, and returns their exit codes.
fn at_once(stage: &Stage, verbs: &[&[&str]]) -> Vec<Option<i32>> {
    let begun: Vec<Child> = verbs
        .iter()
        .map(|verb| stage.installation.begin(verb))
        .collect();
    let code = |mut child: Child| child.wait().expect("our child").code();
    begun.into_iter().map(code).collect()
}

/// Returns the facts that count of `products`, in order, as `history` tells them.
fn facts(stage: &Stage) -> Vec<String> {
    let (code, told) = stage
        .installation
        .answer(&["history", "products", "--output", "json"]);
    assert_eq!(code, Some(0), "{told}");
    let fact = |line: &str| {
        let fact: Value = serde_json::from_str(line).ok()?;
        Some(format!(
            "{} {}",
            fact["subject"].as_str()?,
            fact["what"].as_str()?
        ))
    };
    told.lines().filter_map(fact).collect()
}

/// Builds the version that readers tell from the first one, until it is ready.
fn build_second(stage: &Stage) {
    stage.apply_version("v2.yaml", V2);
    stage.await_version("products@v2", "ready");
}

/// Waits until one version is live and the alias leads to it, and returns its number.
fn await_settled(stage: &Stage) -> u64 {
    let key = format!("{}::products:alias", stage.installation.name);
    let mut live = Vec::new();
    wait_until("one version is live, and the alias leads to it", || {
        let role = |number: &u64| stage.role("products", *number) == "live";
        live = (1..=4).filter(role).collect();
        assert!(live.len() < 2, "two versions are live: {live:?}");
        let alias = stage.redis.try_ask::<Option<String>>(&["GET", &key]);
        let alias = alias.ok().flatten().unwrap_or_default();
        live.len() == 1 && alias.starts_with(&format!("v{} ", live[0]))
    });
    live[0]
}

/// Ends a scene with a certain version live.
fn end(mut stage: Stage, live: u64) -> Stage {
    let fields = if live == 2 { V2 } else { V1 };
    stage.end(u32::try_from(live).expect("a small number"), fields);
    stage
}

fn two_promotes(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let mut other = stage.installation.process("other", "coordinator");
    other.start_ready();
    build_second(&stage);
    let began = now();
    let promote = ["promote", "products@v2"];
    let codes = at_once(&stage, &[&promote, &promote]);
    assert_eq!(codes, [Some(0), Some(0)], "it is so, whoever did it");
    assert_eq!(await_settled(&stage), 2);
    stage.measure("until readers were sent to the next version", began);
    let facts = facts(&stage);
    let promoted = facts
        .iter()
        .filter(|fact| fact.starts_with("products@v2 promoted"));
    assert_eq!(promoted.count(), 1, "{facts:?}");
    other.end();
    end(stage, 2)
}

fn promote_retiring(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    build_second(&stage);
    stage.installation.done(&["promote", "products@v2"]);
    stage.await_version("products@v2", "live");
    let codes = at_once(
        &stage,
        &[&["retire", "products@v1"], &["promote", "products@v1"]],
    );
    let live = await_settled(&stage);
    match codes.as_slice() {
        [Some(0), Some(1 | 3)] => {
            assert_eq!(live, 2, "the standby was let go");
            let _it_is_going = stage.refused(&["promote", "products@v1"]);
            let _nobody_stands_by = stage.refused(&["rollback", "products"]);
            stage.await_version("products@v1", "retired");
        }
        [Some(1 | 3), Some(0)] => assert_eq!(live, 1, "the standby was promoted first"),
        codes => panic!(
            "one of the two is carried out: {codes:?}: {:?}",
            facts(&stage)
        ),
    }
    end(stage, live)
}

fn rollback_promoting(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    build_second(&stage);
    stage.installation.done(&["promote", "products@v2"]);
    stage.await_version("products@v2", "live");
    stage.installation.done(&["apply", "v1.yaml", "--rebuild"]);
    stage.await_version("products@v3", "ready");
    let before = facts(&stage).len();
    let codes = at_once(
        &stage,
        &[&["promote", "products@v3"], &["rollback", "products"]],
    );
    let live = await_settled(&stage);
    let facts = facts(&stage).split_off(before);
    let is_move = |fact: &&String| fact.contains("promoted") || fact.contains("live again");
    let last = facts.iter().rfind(is_move);
    let last = last.unwrap_or_else(|| panic!("neither is carried out: {codes:?}: {facts:?}"));
    assert!(
        last.starts_with(&format!("products@v{live} ")),
        "v{live} is live: {facts:?}"
    );
    for (code, done) in codes.iter().zip(["products@v3 promoted", "live again"]) {
        let is_done = has(&facts, done);
        assert!(
            *code != Some(0) || is_done,
            "{codes:?}, not {done}: {facts:?}"
        );
    }
    end(stage, live)
}

fn has(facts: &[String], words: &str) -> bool {
    facts.iter().any(|fact| fact.contains(words))
}

fn edit_in_swap(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    build_second(&stage);
    let codes = at_once(
        &stage,
        &[
            &["promote", "products@v2"],
            &["apply", "v1.yaml", "--replace", "--rebuild"],
        ],
    );
    let live = await_settled(&stage);
    let facts = facts(&stage);
    match codes.as_slice() {
        [Some(0), _] => assert_eq!(live, 2, "{facts:?}"),
        [Some(1 | 3), Some(0)] => {
            assert_eq!(live, 1, "{facts:?}");
            assert!(!has(&facts, "products@v2 promoted"), "{facts:?}");
            stage.await_version("products@v2", "retired");
        }
        codes => panic!("one of the two is carried out: {codes:?}: {facts:?}"),
    }
    if codes[1] != Some(0) {
        stage.installation.done(&["apply", "v1.yaml", "--rebuild"]);
    }
    stage.await_version("products@v3", "ready");
    stage.installation.done(&["promote", "products@v3"]);
    assert_eq!(await_settled(&stage), 3);
    end(stage, 3)
}
