//! An index whose files are damaged.

use chaos::now;
use chaos::stage::index::{SEARCH, alter};
use chaos::stage::{Setting, Stage, V1};

use super::Scene;

pub(super) const SCENES: &[Scene] = &[
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
];

/// Looks often for damage that nobody has run into.
fn watchful() -> Setting {
    Setting {
        settings: "worker: {check_every: 1s}\n".to_owned(),
        ..Setting::default()
    }
}

/// Nobody is answered from a damaged live index, and the way out that is offered leads to a whole one.
fn rebuild(mut stage: Stage) -> Stage {
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
