//! Brokers that are killed, stopped, elected and cut off, and logs that are no longer what they were.

use chaos::now;
use chaos::stage::{Setting, Stage, V1};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[Scene {
    name: "kafka-kill",
    fault: "kill -9 of the only broker, and a start right after it",
    short: true,
    play: kill,
}];

fn kill(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.kafka.kill(0);
    stage.kafka.restart(0);
    let back = now();
    let before = stage.checkpoint(1);
    stage.await_commit(
        "to the first new commit, from the broker's start",
        1,
        before.as_deref(),
        back,
    );
    stage.end(1, V1);
    stage
}
