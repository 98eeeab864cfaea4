//! A Redis that answers, and does not take what it is given: full, read-only, loading, silent, locked.

use std::fs;
use std::thread;
use std::time::Duration;

use chaos::installation::wait_until;
use chaos::now;
use chaos::redis::Persistence;
use chaos::stage::{Setting, Stage, V1};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "redis-maxmemory",
        fault: "maxmemory is reached, and raised later",
        short: true,
        play: maxmemory,
    },
    Scene {
        name: "redis-readonly",
        fault: "the server becomes a replica while the worker is connected, and a master again",
        short: false,
        play: readonly,
    },
    Scene {
        name: "redis-loading",
        fault: "a server that reads its data for a while after its start",
        short: false,
        play: loading,
    },
    Scene {
        name: "redis-stopped",
        fault: "SIGSTOP past every timeout; what was sent is applied late, when another worker owns the unit",
        short: false,
        play: stopped,
    },
    Scene {
        name: "redis-password",
        fault: "the password is changed while the worker is connected, in the server and then in the settings",
        short: false,
        play: password,
    },
];

/// Lets the fault last, waits for the first new commit after it, and ends: readers saw nothing of it.
fn mend_and_end(mut stage: Stage, mend: impl FnOnce(&Stage)) -> Stage {
    thread::sleep(Duration::from_secs(3));
    assert_eq!(stage.role("products", 1), "live");
    let before = stage.checkpoint(1);
    mend(&stage);
    let mended = now();
    let first = "to the first new commit, from the mend";
    stage.await_commit(first, 1, before.as_deref(), mended);
    stage.await_shown("products", 1, "ok", "");
    stage.end(1, V1);
    stage
}

fn maxmemory(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    stage
        .redis
        .ask::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    stage.await_shown("products", 1, "waiting", "OOM");
    assert!(stage.redis.refusals("OOM") > 0, "it refused writes");
    mend_and_end(stage, |stage| {
        stage.redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    })
}

fn readonly(name: &str) -> Stage {
    let stage = Stage::begin(name, &Setting::default());
    // Of a master that nobody can reach: it keeps what it has.
    stage.redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    stage.await_shown("products", 1, "waiting", "replica");
    assert!(stage.redis.refusals("READONLY") > 0, "it refused writes");
    mend_and_end(stage, |stage| {
        stage.redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    })
}

fn loading(name: &str) -> Stage {
    let setting = Setting {
        persistence: Persistence::Rdb,
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    stage.redis.save();
    let had = stage.position(1);
    stage.installation.run.presence.set(false);
    stage.redis.kill();
    stage.redis.load_slowly(3_000);
    stage.redis.launch();
    wait_until("Redis is loading", || {
        let told = stage.redis.try_ask::<String>(&["INFO", "persistence"]);
        told.is_ok_and(|told| told.contains("loading:1"))
    });
    let began = now();
    stage.await_shown("products", 1, "waiting", "loading its data");
    stage.redis.wait_until_loaded();
    stage.measure("Redis was loading", began);
    let loaded = now();
    let before = stage.checkpoint(1);
    let first = "to the first new commit, from the end of the loading";
    stage.await_commit(first, 1, before.as_deref(), loaded);
    stage.await_passed(1, had);
    stage.installation.run.presence.set(true);
    stage.end_rewound(1, V1);
    stage
}

fn stopped(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let mut other = stage.installation.process("other", "worker");
    other.start_ready();
    stage.installation.run.presence.set(false);
    stage.redis.pause();
    // A commit is on its way: it waits in the server's socket for as long as the server sleeps.
    thread::sleep(Duration::from_secs(1));
    stage.installation.run.pause();
    let log = other.log().to_owned();
    wait_until("another worker has claimed the unit", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains("unit is claimed") && log.contains("products/v1")
    });
    thread::sleep(Duration::from_secs(6));
    stage.redis.resume();
    let woke = now();
    let before = stage.checkpoint(1);
    let first = "to the other's first commit, from the server's waking";
    stage.await_commit(first, 1, before.as_deref(), woke);
    stage.installation.run.resume();
    stage.await_logged("taken over by another worker");
    stage.installation.run.wait_until_ready();
    stage.end(1, V1);
    other.end();
    stage
}

/// Makes `shop` a user of the server with this password alone, and ends its connections.
fn set_password(stage: &Stage, password: &str) {
    let password = format!(">{password}");
    let rights = ["~*", "&*", "+@all"];
    let set = [
        &[
            "ACL",
            "SETUSER",
            "shop",
            "on",
            "resetpass",
            password.as_str(),
        ],
        &rights[..],
    ];
    stage.redis.ask::<()>(&set.concat());
    stage.redis.ask::<u64>(&["CLIENT", "KILL", "USER", "shop"]);
}

fn password(name: &str) -> Stage {
    let mut stage = Stage::set(name, &Setting::default());
    let folder = stage.installation.folder().to_owned();
    let file = folder.join("password");
    fs::write(&file, "one").expect("a password");
    let settings = folder.join("materializer.yaml");
    let text = fs::read_to_string(&settings).expect("settings");
    let url = stage.redis.url();
    let login = format!(
        "{{url: '{url}', username: shop, password_file: '{}'}}",
        file.display()
    );
    let text = text.replace(&format!("'{url}'"), &login);
    assert!(text.contains("password_file"), "{text}");
    fs::write(&settings, text).expect("settings");
    set_password(&stage, "one");
    stage.go_on();

    stage.installation.run.presence.set(false);
    set_password(&stage, "two");
    stage.await_shown("products", 1, "failed", "redis at");
    let shown = stage.shown("products", 1);
    let hint = shown["health"]["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("materializer doctor"), "{shown}");
    stage.assert_nothing_is_shown_as_empty("products");

    fs::write(&file, "two").expect("a password");
    let before = stage.checkpoint(1);
    let mended = now();
    let first = "to the first new commit, from the new password in its file";
    stage.await_commit(first, 1, before.as_deref(), mended);
    stage.await_shown("products", 1, "ok", "");
    stage.installation.run.presence.set(true);
    stage.end(1, V1);
    stage
}
