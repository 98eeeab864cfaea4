//! A Redis that is killed, emptied, or replaced by a replica that lagged.

use std::thread;
use std::time::Duration;

use chaos::now;
use chaos::proxy::{Network, Proxy};
use chaos::redis::{Persistence, Redis};
use chaos::stage::repair::products;
use chaos::stage::{Setting, Stage, V1, V2};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "redis-kill-aof",
        fault: "kill -9 of a Redis with an AOF, started again after 2 s",
        short: false,
        play: kill_aof,
    },
    Scene {
        name: "redis-kill-rdb",
        fault: "kill -9 of a Redis that saves now and then: it comes back far behind",
        short: false,
        play: kill_rdb,
    },
    Scene {
        name: "redis-kill-nothing",
        fault: "kill -9 of a Redis that saves nothing: it comes back empty",
        short: false,
        play: kill_nothing,
    },
    Scene {
        name: "redis-failover",
        fault: "a master dies, and 6 s later a replica that had lagged by 2 s takes its place",
        short: true,
        play: failover,
    },
    Scene {
        name: "redis-flushall",
        fault: "FLUSHALL while the worker is connected",
        short: true,
        play: flushall,
    },
];

/// The most that may pass between a replica's first answer and the first new commit.
const FAILOVER: Duration = Duration::from_secs(3);
/// Records that come after a save, so that the way back takes a while.
const BURST: u64 = 20_000;

fn with(persistence: Persistence) -> Setting {
    Setting {
        persistence,
        ..Setting::default()
    }
}

fn kill_aof(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &with(Persistence::Aof));
    stage.installation.run.presence.set(false);
    stage.redis.kill();
    thread::sleep(Duration::from_secs(2));
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

fn kill_rdb(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &with(Persistence::Rdb));
    stage.redis.save();
    stage.write_at_once(BURST);
    let had = stage.position(1);
    stage.installation.run.presence.set(false);
    stage.redis.kill();
    stage.redis.restart();
    let back = now();
    assert!(stage.position(1) < had, "it came back behind record {had}");
    stage.await_logged("the sink's checkpoint went back");
    stage.await_passed(1, had);
    stage.measure("until all that was lost is there again", back);
    stage.installation.run.presence.set(true);
    stage.end_rewound(1, V1);
    stage
}

fn kill_nothing(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &with(Persistence::Nothing));
    stage.installation.run.presence.set(false);
    stage.redis.kill();
    stage.redis.restart();
    rebuild_emptied(&mut stage);
    stage
}

fn flushall(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &with(Persistence::Aof));
    stage.installation.run.presence.set(false);
    stage.redis.ask::<()>(&["FLUSHALL"]);
    rebuild_emptied(&mut stage);
    stage
}

/// Everything is gone: nobody is told that rows are not there, nothing is filled up in place, and the
/// way out that is offered leads to a whole version.
fn rebuild_emptied(stage: &mut Stage) {
    let emptied = now();
    let rows = format!("{}:products:v1:*", stage.installation.name);
    stage.await_shown("products", 1, "damaged", "emptied");
    stage.measure("until the status says `damaged`", emptied);
    assert_eq!(stage.redis.count(&rows), 0, "nothing is filled up in place");
    stage.assert_nothing_is_shown_as_empty("products");
    let answer = products(&mut stage.connected().expect("the gateway listens"));
    assert!(answer.is_err(), "an emptied version answers: {answer:?}");
    assert_eq!(stage.role("products", 1), "live");
    stage.define_version("v2.yaml", V2);
    assert_eq!(stage.rebuild_as_told("products", 1, "v2.yaml"), 2);
    stage.measure("until a whole version is live in its place", emptied);
    assert_eq!(stage.redis.count(&rows), 0, "nothing came back");
    stage.installation.run.presence.set(true);
    stage.end_rewound(2, V2);
}

fn failover(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &with(Persistence::Rdb));
    let link = Proxy::before(stage.redis.port);
    let mut replica = Redis::start(&stage.folder, Persistence::Rdb);
    replica.follow_by(link.port);
    // What the replica has not got when the network stalls, it never gets.
    link.set(Network::Stalled);
    thread::sleep(Duration::from_secs(2));
    let had = stage.position(1);
    stage.installation.run.presence.set(false);
    stage.redis.kill();
    link.set(Network::Cut);
    // As long as it takes until a replica is chosen.
    thread::sleep(Duration::from_secs(6));
    replica.take_port_of(&stage.redis);
    std::mem::swap(&mut stage.redis, &mut replica);
    let serves = now();
    let before = stage.checkpoint(1);
    assert!(stage.position(1) < had, "it lagged behind record {had}");
    let first = "to the first new commit, from the replica's first answer";
    stage.await_commit(first, 1, before.as_deref(), serves);
    let took = serves.elapsed();
    assert!(took < FAILOVER, "the first new commit took {took:?}");
    stage.await_logged("the sink's checkpoint went back");
    stage.await_passed(1, had);
    stage.installation.run.presence.set(true);
    stage.end_rewound(1, V1);
    stage
}
