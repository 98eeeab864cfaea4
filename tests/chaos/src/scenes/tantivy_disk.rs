//! A disk that an index cannot use: full, read-only, held by another process, or not its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use chaos::installation::{Installation, wait_until};
use chaos::now;
use chaos::stage::index::SEARCH;
use chaos::stage::{Setting, Stage, V1};

use super::Scene;
use super::tantivy::rebuild;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "tantivy-full",
        fault: "the disk of the index is full, and has room again later",
        short: false,
        play: full,
    },
    Scene {
        name: "tantivy-lock",
        fault: "another process holds the lock of the index at a start",
        short: true,
        play: lock,
    },
    Scene {
        name: "tantivy-readonly",
        fault: "the folder of the index becomes read-only",
        short: false,
        play: readonly,
    },
    Scene {
        name: "tantivy-swapped-copies",
        fault: "two processes come back with each other's folder of indices",
        short: false,
        play: swapped_copies,
    },
    Scene {
        name: "tantivy-swapped-installation",
        fault: "a process comes back with another installation's index in the place of its own",
        short: false,
        play: swapped_installation,
    },
];

/// A filesystem that lasts as long as this does.
struct Mount(PathBuf);

impl Mount {
    /// Mounts something at a folder; `None` where that is not allowed here.
    fn at(folder: &Path, arguments: &[&str]) -> Option<Self> {
        let mount = Self(folder.to_owned());
        mount.mount(arguments).then_some(mount)
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mut mount = Command::new("mount");
        let done = mount.args(arguments).arg(&self.0).output();
        done.is_ok_and(|done| done.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The process may still be there: the folder goes with its last file.
        let gone = Command::new("umount").arg("-l").arg(&self.0).status();
        drop(gone);
    }
}

/// Ends a scene that this account may not play.
fn not_played(mut stage: Stage) -> Stage {
    let why = "NOT PLAYED: to mount a filesystem one must be root";
    stage.measured.push((why.to_owned(), Duration::ZERO));
    stage
}

/// Waits until the index is written again, and is shown to be well.
fn await_recovery(stage: &mut Stage, since: &str) {
    let mended = now();
    stage.await_index_commit(1);
    stage.measure(&format!("to the first new commit, from {since}"), mended);
    stage.await_shown(SEARCH, 1, "ok", "");
}

fn full(name: &str) -> Stage {
    let mut stage = Stage::set(name, &Setting::default());
    let data = stage.installation.run.data().to_owned();
    fs::create_dir_all(&data).expect("a folder");
    let Some(disk) = Mount::at(&data, &["-t", "tmpfs", "-o", "size=600m", "none"]) else {
        return not_played(stage);
    };
    stage.go_on();
    let documents = stage.found();
    assert!(documents > 0, "there are documents");
    assert!(disk.mount(&["-o", "remount,size=100m"]), "less room");
    stage.await_shown(SEARCH, 1, "waiting", "make room");
    thread::sleep(Duration::from_secs(3));
    assert!(stage.found() > 0, "it serves what it has");
    assert_eq!(stage.role(SEARCH, 1), "live");
    assert!(disk.mount(&["-o", "remount,size=600m"]), "room again");
    await_recovery(&mut stage, "there being room");
    stage.end(1, V1);
    stage
}

fn lock(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    stage.installation.run.kill();
    let path = stage.search_folder().join("v1-c0.lock");
    let held = File::options().write(true).open(&path).expect("a lock");
    held.lock().expect("nobody else has it");
    stage.installation.run.start_ready();
    stage.await_shown(SEARCH, 1, "waiting", "v1-c0.lock");
    stage.assert_nothing_is_shown_as_empty(SEARCH);
    drop(held);
    await_recovery(&mut stage, "the lock's end");
    assert!(stage.found() > 0, "it answers again");
    stage.end(1, V1);
    stage
}

fn readonly(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let folder = stage.search_folder();
    let source = folder.display().to_string();
    let Some(disk) = Mount::at(&folder, &["--bind", &source]) else {
        return not_played(stage);
    };
    // Not while a file is being written.
    wait_until("it can be made read-only", || {
        disk.mount(&["-o", "remount,bind,ro"])
    });
    assert!(fs::write(folder.join("x"), "").is_err(), "it is read-only");
    stage.await_shown(SEARCH, 1, "failed", "Read-only");
    assert!(stage.found() > 0, "it serves what it has");
    assert_eq!(stage.role(SEARCH, 1), "live");
    drop(disk);
    await_recovery(&mut stage, "the mend");
    stage.end(1, V1);
    stage
}

/// Puts one folder in the place of another one, and that in the place of the first.
fn swap(stage: &Stage, one: &Path, other: &Path) {
    let aside = stage.folder.join("aside");
    for (from, to) in [(one, &*aside), (other, one), (&*aside, other)] {
        fs::rename(from, to).expect("moved");
    }
}

fn swapped_copies(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let copies = stage.search_definition("tantivy: {copies: 2}");
    stage.installation.define("search.yaml", &copies);
    stage.installation.done(&["apply", "search.yaml"]);
    let mut other = stage.installation.process("other", "worker");
    other.start_ready();
    wait_until("both copies are there", || {
        let shown = stage.shown(SEARCH, 1);
        let units = shown["units"].as_array().map_or(&[][..], Vec::as_slice);
        units.len() == 2 && units.iter().all(|unit| unit["servable"] == true)
    });
    stage.installation.run.kill();
    other.kill();
    let theirs = other.data().join(&stage.installation.name).join(SEARCH);
    swap(&stage, &stage.search_folder(), &theirs);
    stage.installation.run.start_ready();
    other.start_ready();
    let shown = stage.await_shown(SEARCH, 1, "damaged", "there is no index");
    assert_eq!(shown["role"], "live", "{shown}");
    let stage = rebuild(stage);
    other.end();
    stage
}

fn swapped_installation(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let (brokers, redis) = (stage.kafka.brokers(), stage.redis.url());
    let mut foreign = Installation::new(&brokers, &redis, "foreign", "");
    foreign.topic.clone_from(&stage.installation.topic);
    foreign.run.start_ready();
    let search = stage.search_definition("tantivy: {}");
    let file = foreign.define("search.yaml", &search);
    foreign.done(&["apply", &file]);
    let live = ["wait", "product-search@v1", "--for", "live"];
    foreign.done(&live);
    foreign.run.kill();
    stage.installation.run.kill();
    let theirs = foreign.run.data().join(&foreign.name).join(SEARCH);
    swap(&stage, &stage.search_folder(), &theirs);
    stage.installation.run.start_ready();
    stage.await_shown(SEARCH, 1, "damaged", "the catalog");
    rebuild(stage)
}
