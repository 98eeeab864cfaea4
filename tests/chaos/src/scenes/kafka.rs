//! Brokers that are killed, stopped, elected and cut off, and logins that change.

use std::fs;
use std::thread;
use std::time::Duration;

use chaos::installation::{unique, wait_until};
use chaos::kafka::{Way, authority};
use chaos::now;
use chaos::proxy::Network;
use chaos::stage::{Setting, Stage, V1};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "kafka-kill",
        fault: "kill -9 of the only broker, and a start right after it",
        short: true,
        play: kill,
    },
    Scene {
        name: "kafka-failover",
        fault: "kill -9 of a leader in a cluster of three, with the topics of production",
        short: true,
        play: failover,
    },
    Scene {
        name: "kafka-stop",
        fault: "SIGSTOP of the only broker for 30 s",
        short: false,
        play: stop,
    },
    Scene {
        name: "kafka-network",
        fault: "connections to the broker are cut for 10 s, then stalled for 20 s",
        short: false,
        play: network,
    },
    Scene {
        name: "kafka-login",
        fault: "the password at the broker (SASL, TLS) is changed, then the broker is killed",
        short: false,
        play: login,
    },
];

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

/// A topic with three replicas, on a cluster of three.
fn three() -> Setting {
    Setting {
        brokers: 3,
        topic: vec!["--replicas", "3", "--config", "min.insync.replicas=2"],
        ..Setting::default()
    }
}

fn failover(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &three());
    let topic = stage.installation.topic.clone();
    let catalog = format!("{}.materializer.catalog", stage.installation.name);
    assert_eq!(
        stage.kafka.in_step(&catalog, 0),
        3,
        "a catalog of production"
    );
    let leader = stage.kafka.leader(&catalog, 0).expect("a leader");
    let reads = |stage: &Stage| {
        (0..6)
            .filter(|it| stage.kafka.leader(&topic, *it) == Some(leader))
            .count()
    };
    assert!(reads(&stage) > 0, "it leads something that is read");
    stage.kafka.kill(leader);
    let killed = now();
    wait_until("others lead", || reads(&stage) == 0);
    stage.measure("until others lead all partitions", killed);
    let ends = stage.kafka.ends(&topic);
    wait_until("every partition is read on", || {
        let now = stage.kafka.ends(&topic);
        now.iter().zip(&ends).all(|(now, then)| now.1 > then.1)
    });
    stage.compare(1, V1);
    stage.measure("until all that was written meanwhile is stored", killed);
    stage.write();
    stage.kafka.restart(leader);
    wait_until("all brokers are in step", || {
        (0..6).all(|it| stage.kafka.in_step(&topic, it) == 3)
    });
    stage.end(1, V1);
    stage
}

/// Waits until nothing is committed any more, and that is told: the fault has arrived.
fn await_silence(stage: &Stage) {
    let mut last = stage.checkpoint(1);
    wait_until("nothing is committed", || {
        thread::sleep(Duration::from_secs(2));
        let now = stage.checkpoint(1);
        let silent = now == last;
        last = now;
        silent
    });
    stage.await_shown("products", 1, "silent", "no longer reports");
}

fn stop(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.kafka.pause(0);
    let paused = now();
    await_silence(&stage);
    thread::sleep(Duration::from_secs(30).saturating_sub(paused.elapsed()));
    let before = stage.checkpoint(1);
    stage.kafka.resume(0);
    stage.await_commit("to the first new commit", 1, before.as_deref(), now());
    stage.end(1, V1);
    stage
}

fn network(name: &str) -> Stage {
    let setting = Setting {
        way: Way::Proxied,
        ..Setting::default()
    };
    let mut stage = Stage::begin(name, &setting);
    for (network, seconds) in [(Network::Cut, 10), (Network::Stalled, 20)] {
        stage.kafka.network(network);
        let began = now();
        await_silence(&stage);
        thread::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
        let before = stage.checkpoint(1);
        stage.kafka.network(Network::Well);
        let what = format!("to the first new commit after {network:?}");
        stage.await_commit(&what, 1, before.as_deref(), now());
    }
    stage.end(1, V1);
    stage
}

const USER: &str = "chaos";

fn login(name: &str) -> Stage {
    let password = unique("password");
    let password = authority().with_file_name(password);
    let properties = format!(
        "  properties:\n    security.protocol: SASL_SSL\n    sasl.mechanism: SCRAM-SHA-256\n    \
         sasl.username: {USER}\n    sasl.password_file: '{}'\n    ssl.ca.location: '{}'\n",
        password.display(),
        authority().display()
    );
    let setting = Setting {
        way: Way::Login,
        // Whoever is logged in may do everything: it is the login that is tested.
        broker_properties: "allow.everyone.if.no.acl.found=true\n".to_owned(),
        settings: properties,
        ..Setting::default()
    };
    let mut stage = Stage::set(name, &setting);
    fs::write(&password, "the-first-one").expect("a file");
    stage.kafka.set_password(USER, "the-first-one");
    stage.go_on();

    // Connections that stand are not asked again.
    stage.kafka.set_password(USER, "the-second-one");
    let (before, changed) = (stage.checkpoint(1), now());
    stage.await_commit(
        "to a commit by the old login",
        1,
        before.as_deref(),
        changed,
    );
    stage.kafka.kill(0);
    stage.kafka.restart(0);
    await_silence(&stage);
    let (code, told) = stage.installation.answer(&["status"]);
    assert!(
        code == Some(1) && told.to_lowercase().contains("authentication failed"),
        "{code:?}: {told}"
    );
    fs::write(&password, "the-second-one").expect("a file");
    let before = stage.checkpoint(1);
    let told = now();
    assert!(stage.installation.run.end().success(), "it ends in order");
    stage.measure(
        "until the process that had the old password has ended",
        told,
    );
    let started = now();
    stage.installation.run.start_ready();
    stage.await_commit("to the first new commit", 1, before.as_deref(), started);
    stage.end(1, V1);
    fs::remove_file(&password).expect("the file of above");
    stage
}
