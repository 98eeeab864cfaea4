//! The process's metrics: registries of its own, one struct for each area.
//!
//! Counters and histograms are told what happens as it happens, once a batch; those of a unit go with it.
//! Gauges are computed at the scrape from what the process knows then ([`ScrapeSource`]), so that nothing
//! of a unit that has left, or of a version that is retired, stays behind. `docs/metrics.md` lists all of them; a test compares
//! it with the registry.

mod gateway;
mod units;
mod versions;
mod work;

use std::sync::{Mutex, PoisonError};

use materializer_model::Unit;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntGauge, Opts, Registry, TextEncoder};

pub use gateway::{ConnectionGuard, GatewayMetrics, Op, Outcome, Port};
pub use units::UnitGauges;
pub use versions::VersionGauges;
pub use work::{UnitWork, WorkMetrics};

/// What every metric of ours begins with.
const PREFIX: &str = "materializer";
/// The labels that name a unit.
const UNIT: [&str; 4] = ["view", "version", "copy", "shard"];

/// Returns the values of the labels that name a unit.
fn names(unit: &Unit) -> [String; 4] {
    [
        unit.version.view.to_string(),
        unit.version.number.to_string(),
        unit.copy.to_string(),
        unit.shard.to_string(),
    ]
}

/// The metrics of a process.
pub struct Metrics {
    ours: Registry,
    /// Metrics of the operating system's process, which have no prefix: dashboards expect it so.
    process: Registry,
    /// What readers ask.
    pub gateway: GatewayMetrics,
    /// What the workers of this process do.
    pub work: WorkMetrics,
    /// Held through a scrape: two at once would fill the gauges twice.
    gauges: Mutex<Gauges>,
}

/// The gauges that a scrape fills.
pub struct Gauges {
    /// Of the units that this process feeds.
    pub units: UnitGauges,
    /// Of the catalog's versions.
    pub versions: VersionGauges,
}

/// Knows at a scrape what the gauges show.
pub trait ScrapeSource: Send + Sync {
    /// Fills the gauges, which are empty. Never blocks.
    fn fill(&self, gauges: &Gauges);
}

impl Metrics {
    /// Makes the metrics of a process.
    ///
    /// # Errors
    /// Where two metrics have one name, or a name is none.
    pub fn new() -> Result<Self, prometheus::Error> {
        let ours = Registry::new_custom(Some(PREFIX.into()), None)?;
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let build = Opts::new("build_info", "Always 1; the label is the release.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        ours.register(Box::new(build))?;
        Ok(Self {
            gateway: GatewayMetrics::register(&ours)?,
            work: WorkMetrics::register(&ours)?,
            gauges: Mutex::new(Gauges {
                units: UnitGauges::register(&ours)?,
                versions: VersionGauges::register(&ours)?,
            }),
            ours,
            process,
        })
    }

    /// Returns what a scraper reads, in the text format 0.0.4.
    ///
    /// # Errors
    /// Where a metric cannot be written.
    pub fn render(&self, source: &dyn ScrapeSource) -> anyhow::Result<String> {
        let mut families = self.gather(source);
        families.extend(self.process.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8(text)?)
    }

    /// Returns our metrics as they are now.
    fn gather(&self, source: &dyn ScrapeSource) -> Vec<MetricFamily> {
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.units.reset();
        gauges.versions.reset();
        source.fill(&gauges);
        self.ours.gather()
    }
}

/// Registers a vector of metrics and returns it.
fn registered<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> Result<M, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Makes a struct of vectors that a scrape fills: for each field its kind, its labels, the metric's name
/// and what it means.
macro_rules! scraped {
    ($(#[$doc:meta])* $name:ident {
        $($field:ident: $kind:ident[$labels:expr] $metric:literal $help:literal;)+
    }) => {
        $(#[$doc])*
        pub struct $name {
            $($field: prometheus::$kind,)+
        }

        impl $name {
            pub(super) fn register(
                registry: &prometheus::Registry,
            ) -> Result<Self, prometheus::Error> {
                Ok(Self {
                    $($field: super::registered(
                        registry,
                        prometheus::$kind::new(prometheus::Opts::new($metric, $help), &$labels),
                    )?,)+
                })
            }

            /// Forgets every series.
            pub(super) fn reset(&self) {
                $(self.$field.reset();)+
            }
        }
    };
}
use scraped;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use materializer_model::progress::{Phase, Progress, StoredCheckpoint};
    use materializer_model::{
        Bar, Checkpoint, Counts, End, Ends, Monotonic, Offset, Partition, Position, Timestamp,
        Topic, TopicCheckpoint, TopicId,
    };
    use materializer_replay::Work;

    use super::*;
    use crate::gateway::fixtures::{World, servable, to_redis};

    /// A process that feeds one unit of a view's live version.
    struct Fed {
        world: World,
        unit: Option<Progress>,
        ends: Ends,
    }

    impl ScrapeSource for Fed {
        fn fill(&self, gauges: &Gauges) {
            if let Some(unit) = &self.unit {
                gauges.units.set(unit, &self.ends);
            }
            gauges.versions.set(self.world.catalog());
        }
    }

    /// Returns a process whose unit has committed up to offset 98 of 100 in each of its partitions, of
    /// which 99 are the bar.
    fn fed(partitions: i32) -> Fed {
        let mut world = World::new();
        world.start("products@v1", to_redis("product:{key}"));
        world.promote("products@v1");
        let token = world.claim("products/v1/c0/s0", "a:1");
        let mut unit = servable("products/v1/c0/s0", token, "a:1");
        unit.phase = Phase::Replaying;
        let topic = Topic::new("shop.products");
        let each = |value: Offset| (0..partitions).map(move |at| (Partition(at), value));
        let position = |next| Position {
            next,
            epoch: None,
            anchor: Timestamp(0),
        };
        let at = TopicCheckpoint::new(
            TopicId("id".into()),
            each(Offset(98))
                .map(|(at, next)| (at, position(next)))
                .collect(),
        );
        unit.checkpoint = Some(StoredCheckpoint(Checkpoint {
            seq: 3,
            topics: BTreeMap::from([(topic.clone(), at)]),
            bar: Bar(BTreeMap::from([(
                topic.clone(),
                each(Offset(99)).collect(),
            )])),
            counts: Counts {
                skipped: 1,
                failed: 0,
                dead: 2,
            },
        }));
        let end = |stable| End {
            start: Offset(0),
            stable,
            high: Offset(101),
            epoch: None,
            asked: Monotonic(Duration::ZERO),
        };
        let ends = each(Offset(100))
            .map(|(at, stable)| (at, end(stable)))
            .collect();
        Fed {
            world,
            unit: Some(unit),
            ends: Ends {
                partitions: BTreeMap::from([(topic, ends)]),
                fault: None,
            },
        }
    }

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let page = include_str!("../../../docs/metrics.md");
        let metrics = Metrics::new().unwrap();
        let elapsed = Duration::from_millis(3);
        metrics.gateway.answered(Op::Row, Outcome::Ok, elapsed);
        let _work = metrics.work.begin(&unit());
        let families = metrics.gather(&fed(1));
        let rows: Vec<String> = families.iter().map(row).collect();
        let listed: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `materializer_"))
            .collect();
        let expected = rows.join("\n");
        assert!(listed == rows, "the table should be:\n{expected}");

        let names: BTreeSet<&str> = families.iter().map(MetricFamily::name).collect();
        let is_part = |c: char| !c.is_ascii_lowercase() && c != '_';
        for word in page
            .split(is_part)
            .filter(|word| word.starts_with("materializer_"))
        {
            let name = word.trim_end_matches("_bucket");
            assert!(
                names.contains(name),
                "`{word}` is mentioned and does not exist"
            );
        }
    }

    fn unit() -> Unit {
        "products/v1/c0/s0".parse().unwrap()
    }

    /// Returns a metric's line in the documentation.
    fn row(family: &MetricFamily) -> String {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let labels = family.get_metric()[0].get_label().iter();
        let labels: Vec<&str> = labels.map(|label| label.name()).collect();
        let (name, labels, help) = (family.name(), labels.join(" "), family.help());
        format!("| `{name}` | {kind} | {labels} | {help} |")
    }

    /// Checks the value of a series of ours, `None` for a series that is not there.
    fn check(text: &str, series: &str, expected: Option<&str>) {
        let line = text.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.split(' ').next_back());
        assert_eq!(value, expected, "{series} in\n{text}");
    }

    #[test]
    fn a_unit_is_shown_as_its_last_report_says() {
        let metrics = Metrics::new().unwrap();
        let mut fed = fed(2);
        let text = metrics.render(&fed).unwrap();
        let unit = r#"copy="0",shard="0",version="v1",view="products""#;
        let of_unit = |name: &str| format!("materializer_{name}{{{unit}}}");
        check(&text, &of_unit("lag_records"), Some("2"));
        check(&text, &of_unit("committed_offsets_total"), Some("196"));
        check(&text, &of_unit("replay_target_offsets"), Some("198"));
        check(&text, &of_unit("replay_done_offsets"), Some("196"));
        check(&text, &of_unit("catchup_eta_seconds"), Some("0.5"));
        check(&text, &of_unit("gates_held_seconds"), Some("120"));
        let partition = r#"{copy="0",partition="1",shard="0",topic="shop.products","#;
        check(
            &text,
            &format!("materializer_partition_lag_records{partition}"),
            Some("2"),
        );
        check(
            &text,
            r#"materializer_version_role{role="live","#,
            Some("1"),
        );
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");

        // Asked again with what has changed since.
        let progress = fed.unit.as_mut().unwrap();
        progress.lag = None;
        let text = metrics.render(&fed).unwrap();
        check(&text, &of_unit("lag_records"), None);
        check(&text, &of_unit("committed_offsets_total"), Some("196"));
        fed.unit = None;
        let text = metrics.render(&fed).unwrap();
        check(&text, &of_unit("committed_offsets_total"), None);
    }

    #[test]
    fn the_work_of_a_unit_is_shown_as_far_as_it_has_grown_and_goes_with_the_unit() {
        let metrics = Metrics::new().unwrap();
        let nothing = Fed {
            unit: None,
            ..fed(1)
        };
        let expect = |series: &str, value| {
            let series = format!("materializer_{series},version=\"v1\",view=\"products\"}}");
            check(&metrics.render(&nothing).unwrap(), &series, value);
        };
        let upserts = r#"records_consumed_total{copy="0",outcome="upsert",shard="0""#;
        let fetching = r#"stage_seconds_total{copy="0",shard="0",stage="fetch""#;
        let bytes = r#"bytes_consumed_total{copy="0",shard="0""#;
        let commits = r#"commit_duration_seconds_count{copy="0",shard="0""#;
        let committing = r#"commit_duration_seconds_sum{copy="0",shard="0""#;
        let each = [upserts, fetching, bytes, commits, committing];

        let mut series = metrics.work.begin(&unit());
        for series in each {
            expect(series, Some("0"));
        }
        let mut work = Work::default();
        for _ in 0..2 {
            work.upserts += 3;
            work.fetching += Duration::from_millis(1500);
            work.bytes += 50;
            work.commits += 1;
            work.committing += Duration::from_millis(250);
            series.show(&work);
            series.show(&work);
        }
        expect(upserts, Some("6"));
        expect(fetching, Some("3"));
        expect(bytes, Some("100"));
        expect(commits, Some("2"));
        expect(committing, Some("0.5"));
        drop(series);
        let text = metrics.render(&nothing).unwrap();
        assert!(!text.contains("copy="), "{text}");
    }

    #[test]
    fn many_partitions_are_shown_as_sums_alone() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render(&fed(257)).unwrap();
        check(&text, "materializer_partition_committed_offset", None);
        let expected = (257 * 98).to_string();
        check(
            &text,
            "materializer_committed_offsets_total{",
            Some(&expected),
        );
    }
}
