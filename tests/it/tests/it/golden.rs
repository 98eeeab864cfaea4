//! Golden logs: fixed logs, and the exact contents that each version built from them must have, however
//! the log is read, whatever is written at once, and wherever a unit is stopped dead.
//!
//! `UPDATE_GOLDEN=1` rewrites `tests/golden/*/vN.txt`; the diff is reviewed. Contents that changed under
//! an unchanged fingerprint are a fault: raise the revision of the component that changed them.

mod case;
mod contents;
mod feeding;

use std::fs;

use chaos::installation::unique;
use it::services::Services;
use materializer_model::definition::{RedisTarget, Target};
use materializer_model::memory::MemoryStore;
use materializer_model::ports::{Sink, SinkReader};
use materializer_model::{CatalogId, SinkId, Timestamp, Unit};
use materializer_sinks::redis::{RedisPlace, RedisReader, RedisSettings, RedisSink};
use materializer_sinks::tantivy::{TantivyReader, TantivySettings, TantivySink};
use materializer_view::fingerprint;
use tempfile::TempDir;

use case::{Case, Version, cases};
use contents::Contents;
pub(crate) use feeding::Newest;
use feeding::{Pace, Place, Way, feed};

/// Views whose rows a map can hold as the real sink does.
const IN_MEMORY: [&str; 2] = ["memory", "redis"];

const PLAIN: Way = Way {
    sip: usize::MAX,
    pace: Pace::Default,
    grows: false,
    crash_after: None,
};

fn ways() -> impl Iterator<Item = Way> {
    let paces = [Pace::Default, Pace::EachRecord, Pace::Cramped];
    let sips = [1, 3, usize::MAX];
    let grows = [false, true];
    paces.into_iter().flat_map(move |pace| {
        sips.into_iter().flat_map(move |sip| {
            grows.into_iter().map(move |grows| Way {
                sip,
                pace,
                grows,
                ..PLAIN
            })
        })
    })
}

/// Hands over every version of a sink, with its case.
fn each_version(sinks: &[&str], mut check: impl FnMut(&Case, &Version)) {
    for case in &cases() {
        for version in &case.versions {
            if sinks.contains(&version.definition.to.kind()) {
                check(case, version);
            }
        }
    }
}

fn expected(version: &Version) -> String {
    let path = &version.contents;
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a switch for the one who runs the tests"
)]
fn is_updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Rewrites what a version must hold, if that was asked for.
fn update(case: &Case, version: &Version, place: &dyn Place) {
    if is_updating() {
        let contents = feed(case, version, place, PLAIN).contents;
        fs::write(&version.contents, contents.to_string()).expect("a writable golden file");
    }
}

fn assert_contents(case: &Case, version: &Version, found: &Contents, way: Way) {
    let expected = expected(version);
    let found = found.to_string();
    assert!(
        found == expected,
        "{}, {way:?}:\n{found}\n--- expected:\n{expected}",
        case.name
    );
}

#[test]
fn every_golden_log_gives_its_exact_contents_however_it_is_read() {
    each_version(&IN_MEMORY, |case, version| {
        update(case, version, &MemoryStore::default());
        for way in ways() {
            let fed = feed(case, version, &MemoryStore::default(), way);
            assert_contents(case, version, &fed.contents, way);
        }
    });
}

#[test]
fn units_that_are_stopped_dead_after_any_step_change_nothing_in_a_golden_log_s_contents() {
    each_version(&IN_MEMORY, |case, version| {
        for grows in [false, true] {
            let way = Way {
                sip: 3,
                pace: Pace::EachRecord,
                grows,
                ..PLAIN
            };
            let steps = feed(case, version, &MemoryStore::default(), way).steps;
            for step in 1..steps {
                let way = Way {
                    crash_after: Some(step),
                    ..way
                };
                let fed = feed(case, version, &MemoryStore::default(), way);
                assert_contents(case, version, &fed.contents, way);
            }
        }
    });
}

/// A folder of indices.
struct Indices(TempDir);

impl Indices {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn settings(&self) -> TantivySettings {
        let mut settings = TantivySettings::new(self.0.path(), "golden".parse().expect("a name"));
        settings.writer_memory_bytes = 15_000_000;
        settings
    }
}

impl Place for Indices {
    fn sink(&self, version: &Version, unit: &Unit) -> Box<dyn Sink> {
        let definition = &version.definition;
        let sink = TantivySink::new(self.settings(), unit, definition, &fingerprint(definition));
        Box::new(sink.expect("a definition that was parsed"))
    }

    fn reader(&self, version: &Version, unit: &Unit) -> Box<dyn SinkReader> {
        let reader = TantivyReader::open(&self.settings(), unit, &version.definition);
        Box::new(reader.expect("a definition that was parsed"))
    }
}

#[test]
fn every_golden_log_gives_its_exact_contents_in_a_tantivy_index() {
    each_version(&["tantivy"], |case, version| {
        update(case, version, &Indices::new());
        for pace in [Pace::Default, Pace::EachRecord] {
            for crash_after in [None, Some(5), Some(12)] {
                let way = Way {
                    sip: 3,
                    pace,
                    grows: true,
                    crash_after,
                };
                let fed = feed(case, version, &Indices::new(), way);
                assert_contents(case, version, &fed.contents, way);
            }
        }
    });
}

/// An installation of its own in the real Redis.
struct Redis(RedisPlace);

impl Redis {
    fn new(services: &Services) -> Self {
        Self(RedisPlace {
            server: RedisSettings::parse(services.get("REDIS_URL")).expect("an address"),
            installation: unique("golden").parse().expect("a name"),
            catalog: CatalogId::new("catalog"),
            sink: None,
        })
    }
}

fn redis_target(version: &Version) -> &RedisTarget {
    match &version.definition.to {
        Target::Redis(target) => target,
        Target::Memory {} | Target::Tantivy(_) => panic!("{} is not for Redis", version.id),
    }
}

impl Place for Redis {
    fn sink(&self, version: &Version, unit: &Unit) -> Box<dyn Sink> {
        let (place, target) = (self.0.clone(), redis_target(version).clone());
        let sink = RedisSink::new(place, target, unit.clone(), SinkId::new("sink"));
        Box::new(sink.expect("a target that was parsed"))
    }

    fn reader(&self, version: &Version, unit: &Unit) -> Box<dyn SinkReader> {
        let reader = RedisReader::new(self.0.clone(), redis_target(version), unit.clone());
        Box::new(reader.expect("a target that was parsed"))
    }
}

/// Rows of the logs end either before this time or after everybody who reads this.
const PAST: Timestamp = Timestamp(1_500_000_000_000);

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn every_golden_log_gives_the_same_contents_in_a_real_redis() {
    let services = Services::find();
    each_version(&["redis"], |case, version| {
        let mut expected = feed(case, version, &MemoryStore::default(), PLAIN).contents;
        let unit = Unit {
            version: version.id.clone(),
            copy: 0,
            shard: 0,
        };
        let shape = Redis::new(&services).reader(version, &unit);
        expected.rows.retain(|_, stored| {
            let form = shape.stored(&stored.row);
            stored.row = form.clone().unwrap_or_else(|| stored.row.clone());
            form.is_some() && stored.expires_at.is_none_or(|at| at > PAST)
        });
        for pace in [Pace::Default, Pace::EachRecord] {
            for crash_after in [None, Some(7), Some(20)] {
                let way = Way {
                    sip: 3,
                    pace,
                    grows: true,
                    crash_after,
                };
                let found = feed(case, version, &Redis::new(&services), way).contents;
                assert_eq!(found, expected, "{}, {way:?}", case.name);
            }
        }
    });
}
