//! Processes that are killed, stopped for a while, told to end, and come back as zombies.

use std::thread;
use std::time::Duration;

use chaos::installation::wait_until;
use chaos::stage::{Setting, Stage, V1, V2};
use chaos::{Moments, now};
use serde_json::Value;

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "process-kill",
        fault: "kill -9 of the only process, and a start right after it",
        short: true,
        play: kill,
    },
    Scene {
        name: "process-kill-50",
        fault: "kill -9 of the only process at 50 random moments of a build",
        short: false,
        play: kill_50,
    },
    Scene {
        name: "process-kill-steps",
        fault: "kill -9 at every step of a migration: building, catching up, asked, alias, soak, rollback, deletion",
        short: false,
        play: kill_steps,
    },
    Scene {
        name: "process-zombie",
        fault: "SIGSTOP of the worker until another one owns its unit, then SIGCONT",
        short: true,
        play: zombie,
    },
    Scene {
        name: "process-term",
        fault: "SIGTERM in the middle of a build, three times",
        short: false,
        play: term,
    },
];

pub(super) const PROMOTE: &[&str] = &["promote", "products@v2"];
pub(super) const ROLL_BACK: &[&str] = &["rollback", "products"];
/// The most that a resume may take, from the start to the first new commit.
const RESUME: Duration = Duration::from_secs(2);
/// The most that a takeover may take, from the silence to the first new commit.
const TAKEOVER: Duration = Duration::from_secs(15);
/// The most that an end in order may take.
const END: Duration = Duration::from_secs(10);

fn kill(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    for _ in 0..3 {
        stage.installation.run.kill();
        let before = stage.checkpoint(1);
        let killed = now();
        stage.installation.run.start();
        stage.await_commit("to the first new commit", 1, before.as_deref(), killed);
        stage.installation.run.wait_until_ready();
    }
    // One slow start is the machine's; a rule that is broken is broken each time.
    let quickest = stage.measured.iter().map(|(_, took)| *took).min();
    assert!(quickest < Some(RESUME), "a resume took {quickest:?}");
    stage.end(1, V1);
    stage
}

fn kill_50(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let mut moments = Moments::new(1);
    stage.apply_version("v2.yaml", V2);
    for life in 0..50 {
        moments.pass(1_000);
        stage.installation.run.kill();
        stage.installation.run.start();
        // Every other one dies at a moment of its start.
        if life % 2 == 0 {
            stage.installation.run.wait_until_ready();
        }
    }
    stage.installation.run.wait_until_ready();
    let started = now();
    stage.await_version("products@v2", "ready");
    stage.measure("until the candidate is ready", started);
    stage.installation.done(&["promote", "products@v2"]);
    stage.end(2, V2);
    stage
}

/// Kills the process in a step that `status` shows, and starts it again.
fn kill_in(stage: &mut Stage, step: &str, is_so: impl Fn(&Value) -> bool) {
    wait_until(step, || is_so(&stage.installation.view("products")));
    stage.installation.run.kill();
    let killed = now();
    stage.redis.hold_writes(false);
    stage.installation.run.start_ready();
    stage.measure(&format!("until it is ready again after: {step}"), killed);
}

fn kill_steps(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let role = |view: &Value, number| chaos::stage::version_of(view, number)["role"].clone();
    let state = |view: &Value, number| chaos::stage::version_of(view, number)["state"].clone();
    // What would pass too quickly to be hit is held by a Redis that takes no writes.
    stage.redis.hold_writes(true);
    let text = stage.redis_definition(V2);
    let text = text.replace("stable_for: 1s", "stable_for: 5s");
    let file = stage.installation.define("v2.yaml", &text);
    stage.installation.done(&["apply", &file]);
    kill_in(&mut stage, "building", |view| role(view, 2) == "building");
    kill_in(&mut stage, "catching up", |view| {
        state(view, 2) == "catching up"
    });
    stage.await_version("products@v2", "ready");
    kill_asked(&mut stage, PROMOTE, 2);
    kill_decided(&mut stage, ROLL_BACK, 1);
    kill_decided(&mut stage, PROMOTE, 2);
    let left = |view: &Value| view["alias"]["soak_left_ms"].as_u64();
    wait_until("the soak counts", || {
        left(&stage.installation.view("products")).is_some()
    });
    let before = left(&stage.installation.view("products"));
    kill_in(&mut stage, "soak", |view| left(view).is_some());
    let after = left(&stage.installation.view("products"));
    assert!(after.is_some() && after < before, "{before:?} {after:?}");

    stage.installation.done(&["retire", "products@v1"]);
    kill_in(&mut stage, "draining", |view| role(view, 1) == "draining");
    stage.redis.hold_writes(true);
    kill_in(&mut stage, "retiring", |view| role(view, 1) == "retiring");
    stage.await_version("products@v1", "retired");
    let left = format!("{}:products:v1:*", stage.installation.name);
    assert_eq!(stage.redis.count(&left), 0, "rows of a retired version");
    stage.end(2, V2);
    stage
}

/// Asks for the alias to move and kills the process before it has answered. Whether the request still
/// counts is the program's to say: gates that must have held for a while begin anew.
fn kill_asked(stage: &mut Stage, verb: &[&str], version: u64) {
    stage.installation.run.pause();
    let mut asked = stage.installation.begin(verb);
    let step = format!("{}: asked", verb[0]);
    kill_in(stage, &step, |view| {
        view["requests"].as_array().is_some_and(|it| !it.is_empty())
    });
    asked.wait().expect("our child");
    stage.insist(verb, version);
}

/// Asks for the alias to move and kills the process between the decision and the move, which a Redis
/// without writes holds up. It must decide before it notices that.
fn kill_decided(stage: &mut Stage, verb: &[&str], version: u64) {
    let is_there = |view: &Value| view["alias"]["version"] == version;
    wait_until(&format!("{verb:?} is decided"), || {
        stage.redis.hold_writes(true);
        let mut asked = stage.installation.begin(verb);
        let mut refused = false;
        wait_until("an answer", || {
            refused = asked.try_wait().expect("our child").is_some();
            refused || is_there(&stage.installation.view("products"))
        });
        if refused {
            stage.redis.hold_writes(false);
        }
        !refused
    });
    let step = format!("{}: decided, not moved", verb[0]);
    kill_in(stage, &step, |view| {
        assert_eq!(view["alias"]["confirmed"], false, "{view}");
        is_there(view)
    });
    stage.await_alias(version);
}

fn zombie(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let mut other = stage.installation.process("other", "worker");
    other.start_ready();
    stage.installation.run.pause();
    let paused = now();
    let before = stage.checkpoint(1);
    stage.await_commit(
        "until another one has taken over and committed",
        1,
        before.as_deref(),
        paused,
    );
    assert!(paused.elapsed() < TAKEOVER, "{:?}", stage.measured);
    // It wakes in the middle of what it was doing, with a token that is no longer the newest.
    thread::sleep(Duration::from_secs(5));
    stage.installation.run.resume();
    let log = stage.installation.run.log().to_owned();
    wait_until("the one that slept gives the unit up", || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("taken over by another worker"))
    });
    stage.installation.run.wait_until_ready();
    stage.end(1, V1);
    other.end();
    stage
}

fn term(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.apply_version("v2.yaml", V2);
    for after in [100, 700, 1_500] {
        thread::sleep(Duration::from_millis(after));
        let told = now();
        let ended = stage.installation.run.end();
        let took = stage.measure("until it has ended in order", told);
        assert!(ended.success() && took < END, "{ended} after {took:?}");
        let before = stage.checkpoint(1);
        let started = now();
        stage.installation.run.start();
        stage.await_commit("to the first new commit", 1, before.as_deref(), started);
        stage.installation.run.wait_until_ready();
    }
    stage.await_version("products@v2", "ready");
    stage.installation.done(&["promote", "products@v2"]);
    stage.end(2, V2);
    stage
}
