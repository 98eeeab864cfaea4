//! Processes that are killed, stopped for a while, and come back as zombies.

use std::thread;
use std::time::Duration;

use chaos::installation::wait_until;
use chaos::now;
use chaos::stage::{Setting, Stage, V1};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "process-kill",
        fault: "kill -9 of the only process, and a start right after it",
        short: true,
        play: kill,
    },
    Scene {
        name: "process-zombie",
        fault: "SIGSTOP of the worker until another one owns its unit, then SIGCONT",
        short: true,
        play: zombie,
    },
];

/// The most that a resume may take, from the start to the first new commit.
const RESUME: Duration = Duration::from_secs(2);
/// The most that a takeover may take, from the silence to the first new commit.
const TAKEOVER: Duration = Duration::from_secs(15);

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
    let slowest = stage.measured.iter().map(|(_, took)| *took).max();
    assert!(slowest < Some(RESUME), "a resume took {slowest:?}");
    stage.end(1, V1);
    stage
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
