//! An index whose process is killed in the middle, and whose files are damaged.

use std::fs;
use std::time::Duration;

use chaos::stage::index::{SEARCH, alter, entries};
use chaos::stage::{Setting, Stage, V1};
use chaos::{Moments, now};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "tantivy-kill",
        fault: "kill -9 at 20 random moments around commits of the index",
        short: false,
        play: kill,
    },
    Scene {
        name: "tantivy-damaged-start",
        fault: "bytes in the middle of a file are altered while nobody has it open",
        short: false,
        play: damaged_at_the_start,
    },
    Scene {
        name: "tantivy-damaged-live",
        fault: "bytes in the middle of a file of the live index are altered under its process",
        short: true,
        play: damaged_while_live,
    },
    Scene {
        name: "tantivy-damaged-candidate",
        fault: "bytes in the middle of a file of an index that is ready are altered before its promotion",
        short: false,
        play: damaged_before_promotion,
    },
    Scene {
        name: "tantivy-format",
        fault: "the files of an index say that another release of tantivy wrote them",
        short: false,
        play: format,
    },
];

fn kill(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    let mut moments = Moments::new(3);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        stage.await_index_commit(1);
        moments.pass(30);
        stage.installation.run.kill();
        let killed = now();
        stage.installation.run.start();
        stage.await_index_commit(1);
        slowest = slowest.max(killed.elapsed());
        stage.installation.run.wait_until_ready();
    }
    let what = "the slowest way from a start to the index's first new commit";
    stage.measured.push((what.to_owned(), slowest));
    stage.end(1, V1);
    stage
}

/// Looks often for damage that nobody has run into.
fn watchful() -> Setting {
    Setting {
        settings: "worker: {check_every: 1s}\n".to_owned(),
        ..Setting::default()
    }
}

/// Nobody is answered from a damaged live index, and the way out that is offered leads to a whole one.
pub(super) fn rebuild(mut stage: Stage) -> Stage {
    stage.assert_nothing_is_shown_as_empty(SEARCH);
    assert_eq!(stage.role(SEARCH, 1), "live");
    let began = now();
    let next = stage.rebuild_as_told(SEARCH, 1, "search.yaml");
    assert_eq!(next, 2);
    stage.measure("until a whole index is live in its place", began);
    assert!(stage.found() > 0, "the next one answers");
    stage.end(1, V1);
    stage
}

fn damaged_at_the_start(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &Setting::default());
    assert!(stage.found() > 0, "there are documents");
    stage.installation.run.kill();
    let file = alter(&stage.index(1));
    stage.installation.run.start_ready();
    let began = now();
    stage.await_shown(SEARCH, 1, "damaged", &file);
    stage.measure("until the status says `damaged`", began);
    rebuild(stage)
}

fn damaged_while_live(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &watchful());
    assert!(stage.found() > 0, "there are documents");
    let file = alter(&stage.index(1));
    let began = now();
    stage.await_shown(SEARCH, 1, "damaged", &file);
    stage.measure("until the status says `damaged`", began);
    rebuild(stage)
}

fn damaged_before_promotion(name: &str) -> Stage {
    let mut stage = Stage::begin(name, &watchful());
    stage
        .installation
        .done(&["apply", "search.yaml", "--rebuild"]);
    stage.await_version("product-search@v2", "ready");
    let file = alter(&stage.index(2));
    let began = now();
    stage.await_shown(SEARCH, 2, "damaged", &file);
    stage.measure("until the status says `damaged`", began);
    assert!(stage.found() > 0, "the live one answers");
    assert_eq!(stage.replace_as_told(SEARCH, 2, "search.yaml"), 3);
    stage.end(1, V1);
    stage
}

fn format(name: &str) -> Stage {
    /// What stands at the end of each file of a segment.
    const SAID: &[u8] = br#""index_format_version":"#;
    let mut stage = Stage::begin(name, &Setting::default());
    stage.installation.run.kill();
    let mut altered = 0;
    for file in entries(&stage.index(1)) {
        let mut bytes = fs::read(&file).expect("read");
        let found = bytes.windows(SAID.len()).rposition(|text| text == SAID);
        let Some(at) = found else {
            continue;
        };
        bytes[at + SAID.len()] = b'1';
        fs::write(&file, bytes).expect("written");
        altered += 1;
    }
    assert!(altered > 5, "files of segments say their format");
    stage.installation.run.start_ready();
    stage.await_shown(SEARCH, 1, "damaged", "index format");
    rebuild(stage)
}
