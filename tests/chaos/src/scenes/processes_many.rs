//! Several processes of which one is hurt: coordinators, workers that crash again and again, and a memory
//! limit.

use std::thread;
use std::time::Duration;

use chaos::installation::wait_until;
use chaos::memory::Memory;
use chaos::stage::{Setting, Stage, V1, V2};
use chaos::{Moments, Process, now};

use super::Scene;
use super::processes::{PROMOTE, ROLL_BACK};

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "process-coordinators",
        fault: "two coordinators, of which one is killed while an alias moves, six times",
        short: false,
        play: coordinators,
    },
    Scene {
        name: "process-coordinator-zombie",
        fault: "SIGSTOP of a coordinator while it promotes; it wakes when another one has rolled back",
        short: false,
        play: coordinator_zombie,
    },
    Scene {
        name: "process-crash-loop",
        fault: "a worker that dies 10 times right after its start, beside another one",
        short: false,
        play: crash_loop,
    },
    Scene {
        name: "process-memory",
        fault: "a memory limit that kills the process in a build, until it is raised",
        short: false,
        play: memory,
    },
];

const MIB: u64 = 1 << 20;

/// A stage of which every role is a process of its own, with two coordinators; a second version is ready.
struct Apart {
    stage: Stage,
    /// Ended with the scene.
    _worker: Process,
    coordinators: [Process; 2],
}

fn begin_apart(name: &str) -> Apart {
    let mut stage = Stage::set(name, &Setting::default());
    stage.installation.run = stage.installation.process("gateway", "gateway");
    let mut worker = stage.installation.process("worker", "worker");
    let mut coordinators = ["one", "two"].map(|it| stage.installation.process(it, "coordinator"));
    for coordinator in &mut coordinators {
        coordinator.start();
    }
    worker.start();
    stage.installation.run.start_ready();
    stage.apply_first();
    stage.write();
    stage.read();
    stage.apply_version("v2.yaml", V2);
    stage.await_version("products@v2", "ready");
    Apart {
        stage,
        _worker: worker,
        coordinators,
    }
}

fn coordinators(name: &str) -> Stage {
    let mut apart = begin_apart(name);
    let mut moments = Moments::new(7);
    for round in 0..6 {
        let (verb, version) = [(PROMOTE, 2), (ROLL_BACK, 1)][round % 2];
        let began = now();
        let mut asked = apart.stage.installation.begin(verb);
        moments.pass(400);
        let hurt = &mut apart.coordinators[(round / 2) % 2];
        hurt.kill();
        asked.wait().expect("our child");
        apart.stage.insist(verb, version);
        apart.stage.measure("until the alias has moved", began);
        hurt.start();
    }
    apart.stage.end(1, V1);
    apart.stage
}

fn coordinator_zombie(name: &str) -> Stage {
    let mut apart = begin_apart(name);
    let mut moments = Moments::new(11);
    let promotions = |process: &Process| process.logged().matches("products@v2: promoted").count();
    let mut asleep = 0;
    for round in 0..4 {
        let known = promotions(&apart.coordinators[round % 2]);
        let mut asked = apart.stage.installation.begin(PROMOTE);
        moments.pass(250);
        apart.coordinators[round % 2].pause();
        asleep += usize::from(promotions(&apart.coordinators[round % 2]) == known);
        let paused = now();
        asked.wait().expect("our child");
        apart.stage.insist(PROMOTE, 2);
        apart.stage.insist(ROLL_BACK, 1);
        apart
            .stage
            .measure("until the other one has promoted and rolled back", paused);
        let epoch = apart.stage.installation.view("products")["alias"]["epoch"].clone();
        apart.coordinators[round % 2].resume();
        wait_until("the one that slept is heard again", || {
            let status = apart.stage.installation.status();
            status["coordinators"].as_array().map(Vec::len) == Some(2)
        });
        // What it had decided has arrived by now, if it ever does.
        thread::sleep(Duration::from_secs(3));
        let alias = &apart.stage.installation.view("products")["alias"];
        assert!(
            alias["version"] == 1 && alias["epoch"] == epoch,
            "an old decision counted: {alias}, was at {epoch}"
        );
    }
    assert!(asleep > 0, "it was never stopped before the decision");
    apart.stage.end(1, V1);
    apart.stage
}

/// Starts a worker and kills it, ten times.
fn crash(process: &mut Process) {
    for _ in 0..10 {
        process.start();
        thread::sleep(Duration::from_millis(1_200));
        process.kill();
    }
}

fn crash_loop(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let claims = format!("{}.materializer.claims", stage.installation.name);
    let claimed = |stage: &Stage| stage.kafka.ends(&claims)[0].1;
    let before = claimed(&stage);
    let mut other = stage.installation.process("other", "worker");
    crash(&mut other);
    assert_eq!(claimed(&stage), before, "it took what another one feeds");
    stage.compare(1, V1);
    stage.write();

    // The owner itself: another one takes over the cache once, and keeps it; the index stays where it is.
    other.start_ready();
    stage.installation.run.kill();
    let killed = now();
    let was = stage.checkpoint(1);
    stage.await_commit(
        "until another one has taken over",
        1,
        was.as_deref(),
        killed,
    );
    let taken = claimed(&stage);
    crash(&mut stage.installation.run);
    let more = claimed(&stage) - taken;
    assert!(more <= 10, "{more} claims of one index in 10 lives");
    stage.installation.run.start_ready();
    stage.end(1, V1);
    stage
}

fn memory(name: &str) -> Stage {
    use std::os::unix::process::ExitStatusExt;

    let mut stage = Stage::begin(name, &Setting::default());
    let Some(memory) = Memory::group(&stage.installation.name) else {
        let loudly =
            "SKIPPED: no group of processes with a memory limit (cgroup v1) can be made here";
        stage.measure(loudly, now());
        stage.end(1, V1);
        return stage;
    };
    stage.apply_version("v2.yaml", V2);
    stage.installation.run.kill();
    memory.limit(12 * MIB);
    for _ in 0..3 {
        stage.installation.run.start();
        memory.admit(stage.installation.run.id());
        let ended = stage.installation.run.wait_for_end();
        assert_eq!(ended.signal(), Some(9), "{ended}");
    }
    assert!(memory.kills() >= 3, "the limit killed {}", memory.kills());
    memory.limit(512 * MIB);
    let raised = now();
    let before = stage.checkpoint(1);
    stage.installation.run.start();
    memory.admit(stage.installation.run.id());
    stage.await_commit("to the first new commit", 1, before.as_deref(), raised);
    stage.installation.run.wait_until_ready();
    stage.await_version("products@v2", "ready");
    stage.installation.done(&["promote", "products@v2"]);
    stage.end(2, V2);
    assert_eq!(memory.kills(), 3, "it is killed no more");
    stage
}
