//! A Redis that is killed, emptied, full, replaced, read-only or silent.

use chaos::now;
use chaos::redis::Persistence;
use chaos::stage::{Setting, Stage, V1};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[Scene {
    name: "redis-kill-aof",
    fault: "kill -9 of a Redis with an AOF, started again after 2 s",
    short: true,
    play: kill_aof,
}];

fn kill_aof(name: &str) -> Stage {
    let mut stage = Stage::begin(
        name,
        &Setting {
            persistence: Persistence::Aof,
            ..Setting::default()
        },
    );
    stage.installation.run.presence.set(false);
    stage.redis.kill();
    std::thread::sleep(std::time::Duration::from_secs(2));
    stage.redis.restart();
    let before = stage.checkpoint(1);
    stage.await_commit(
        "to the first new commit, from Redis' start",
        1,
        before.as_deref(),
        now(),
    );
    stage.installation.run.presence.set(true);
    stage.end_rewound(1, V1);
    stage
}
