//! Where each view's readers are sent: a snapshot, replaced as a whole.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_migrations::{Catalog, Reports, Version};
use materializer_model::definition::{Gates, RedisShape, Target};
use materializer_model::progress::Progress;
use materializer_model::{Offset, Unit, VersionId, ViewName};
use tokio::sync::watch;

use super::ReadError;

/// Every live view, as the catalog and the workers' progress said it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    views: BTreeMap<ViewName, Route>,
}

/// The newest routes; `None` until the catalog has been read for the first time.
pub type RoutesReceiver = watch::Receiver<Option<Arc<Routes>>>;

/// Where one view's readers are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To Redis.
    Redis(Arc<RedisRoute>),
    /// To tantivy copies that workers hold.
    Tantivy(Arc<TantivyRoute>),
}

/// How a live version's rows are found in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisRoute {
    /// The live version.
    pub version: VersionId,
    /// The catalog offset of the event that made it live.
    pub epoch: Offset,
    /// The name of the connection.
    pub connection: String,
    /// What stands before the key in the view's key template.
    pub literal: String,
    /// The shape of a row.
    pub shape: RedisShape,
}

/// Which copies of a live version answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TantivyRoute {
    /// The live version.
    pub version: VersionId,
    /// The catalog offset of the event that made it live.
    pub epoch: Offset,
    /// The copies that readers are sent to now; perhaps none.
    pub copies: Vec<CopyAt>,
    /// Those that answer only where none of `copies` does, the furthest first: one that was just started
    /// again has to read what it missed.
    pub behind: Vec<CopyAt>,
}

/// A copy, and where the worker that holds it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyAt {
    /// The copy.
    pub unit: Unit,
    /// `host:port` of its worker.
    pub address: String,
}

impl Route {
    /// Returns the live version.
    pub fn version(&self) -> &VersionId {
        match self {
            Self::Redis(route) => &route.version,
            Self::Tantivy(route) => &route.version,
        }
    }

    /// Returns the catalog offset of the event that made it live.
    pub fn epoch(&self) -> Offset {
        match self {
            Self::Redis(route) => route.epoch,
            Self::Tantivy(route) => route.epoch,
        }
    }
}

/// How old a copy's progress may be, compared with the newest that anybody reported.
const PROGRESS_AGE_MAX: Duration = Duration::from_secs(10);

impl Routes {
    /// Returns the routes of what is live now. Ages are told by the broker's times of the progress
    /// records alone, so that while nobody's progress can be read every copy stays where it is.
    #[must_use]
    pub fn of(catalog: &Catalog, reports: &Reports) -> Self {
        Self::new(catalog.views().values().filter_map(|view| {
            let (pointer, live) = (view.pointer()?, view.live()?);
            let (version, epoch) = (live.id.clone(), pointer.epoch);
            match &live.definition.to {
                // Rows of another process's memory can be read by nobody.
                Target::Memory {} => None,
                Target::Redis(target) => Some(Route::Redis(Arc::new(RedisRoute {
                    version,
                    epoch,
                    connection: target.connection.clone(),
                    literal: target.key.split("{key}").next().unwrap_or_default().into(),
                    shape: target.shape,
                }))),
                Target::Tantivy(_) => {
                    let (copies, behind) = servable_copies(live, reports);
                    Some(Route::Tantivy(Arc::new(TantivyRoute {
                        version,
                        epoch,
                        copies,
                        behind,
                    })))
                }
            }
        }))
    }

    /// Makes a snapshot of routes, each under its version's view.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let by_view = |route: Route| (route.version().view.clone(), route);
        Self {
            views: routes.into_iter().map(by_view).collect(),
        }
    }

    /// Returns the route of a view by its name.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where no version of it is live.
    pub fn view(&self, view: &str) -> Result<&Route, ReadError> {
        let name = view.parse().ok();
        let found = name.and_then(|name: ViewName| self.views.get(&name));
        found.ok_or_else(|| ReadError::NotFound(format!("no version of view `{view}` is live")))
    }

    /// Returns the Redis view that a key belongs to: the one with the longest literal that the key
    /// begins with.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where there is none. That is not answered as "no such row": an empty
    /// answer would pass for a fact.
    pub fn redis_view(&self, key: &[u8]) -> Result<&Arc<RedisRoute>, ReadError> {
        let redis = self.views.values().filter_map(|route| match route {
            Route::Redis(route) => Some(route),
            Route::Tantivy(_) => None,
        });
        redis
            .filter(|route| key.starts_with(route.literal.as_bytes()))
            .max_by_key(|route| route.literal.len())
            .ok_or_else(|| {
                let shown = key[..key.len().min(100)].escape_ascii();
                ReadError::NotFound(format!("no live view has keys like `{shown}`"))
            })
    }

    /// Iterates over the routes in order of the views' names.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.views.values()
    }
}

/// Returns the copies that say themselves that readers may be sent to them, recently and under the newest
/// claim of their unit: first those that are up to date, then the others. Where none is up to date, those
/// that are furthest count as such: readers are never refused for it.
fn servable_copies(version: &Version, reports: &Reports) -> (Vec<CopyAt>, Vec<CopyAt>) {
    let gates = &version.definition.gates;
    let copy = |unit: Unit| {
        let heard = reports.unit(&unit)?;
        let is_recent = reports.newest()?.since(heard.appended) <= PROGRESS_AGE_MAX;
        let is_owned = reports.holds(&unit, &heard.report.token);
        let address = heard.report.address.clone()?;
        let is_servable = heard.report.servable && is_recent && is_owned;
        is_servable.then_some((&heard.report, CopyAt { unit, address }))
    };
    let mut copies: Vec<_> = version.units().filter_map(copy).collect();
    copies.sort_by_key(|(report, _)| Reverse(read(report)));
    let any_current = copies.iter().any(|(report, _)| is_current(report, gates));
    let furthest = copies.first().map(|(report, _)| read(report));
    let (current, behind): (Vec<_>, Vec<_>) = copies.into_iter().partition(|(report, _)| {
        if any_current {
            is_current(report, gates)
        } else {
            Some(read(report)) == furthest
        }
    });
    let place = |(_, copy)| copy;
    (
        current.into_iter().map(place).collect(),
        behind.into_iter().map(place).collect(),
    )
}

/// Says whether a copy is as fresh as its view's gates ask of a version that is promoted. An estimated lag
/// is that of a copy below the end that it found when it was opened.
fn is_current(report: &Progress, gates: &Gates) -> bool {
    report.lag.is_some_and(|lag| {
        !lag.estimated && lag.records <= gates.lag_records && lag.seconds <= gates.lag_seconds
    })
}

/// Returns how much of the log a copy has read, to be compared with other copies of its version.
fn read(report: &Progress) -> u64 {
    let positions = report
        .checkpoint
        .iter()
        .flat_map(|stored| stored.0.positions());
    positions.map(|(_, _, position)| position.next.0).sum()
}

#[cfg(test)]
mod tests {
    use materializer_model::progress::{Lag, StoredCheckpoint};
    use materializer_model::{
        Bar, Checkpoint, Counts, Partition, Position, Timestamp, Topic, TopicCheckpoint, TopicId,
    };

    use super::super::fixtures::{World, servable, to_redis, to_tantivy};
    use super::*;

    #[test]
    fn readers_are_sent_to_the_version_that_the_catalog_says_is_live() {
        let mut world = World::new();
        world.start("products@v1", to_redis("product:{key}"));
        let routes = |world: &World| Routes::of(world.catalog(), world.reports());
        assert_eq!(routes(&world).iter().count(), 0, "nothing is live");

        let epoch = world.promote("products@v1");
        let Route::Redis(route) = routes(&world).view("products").unwrap().clone() else {
            panic!("it is a Redis view");
        };
        let expected = RedisRoute {
            version: "products@v1".parse().unwrap(),
            epoch,
            connection: "cache".into(),
            literal: "product:".into(),
            shape: RedisShape::Json,
        };
        assert_eq!(*route, expected);

        world.start("products@v2", to_redis("product:{key}"));
        let version = |world: &World| {
            routes(world)
                .view("products")
                .unwrap()
                .version()
                .to_string()
        };
        assert_eq!(version(&world), "products@v1", "v2 is being built");
        let later = world.promote("products@v2");
        assert_eq!(version(&world), "products@v2");
        assert!(later > epoch);
        assert_eq!(routes(&world).view("products").unwrap().epoch(), later);
    }

    #[test]
    fn readers_are_sent_to_copies_whose_owner_says_of_late_that_they_are_servable() {
        let mut world = World::new();
        world.start("search@v1", to_tantivy(4));
        world.promote("search@v1");
        let units: Vec<String> = (0..4).map(|copy| format!("search/v1/c{copy}/s0")).collect();
        let copies = |world: &World| {
            let routes = Routes::of(world.catalog(), world.reports());
            let Route::Tantivy(route) = routes.view("search").unwrap().clone() else {
                panic!("it is a tantivy view");
            };
            let shown = |copy: &CopyAt| format!("{} at {}", copy.unit, copy.address);
            route.copies.iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(copies(&world), [""; 0], "nobody has reported");

        let token = world.claim(&units[0], "a:1");
        world.report(&servable(&units[0], token.clone(), "a:1"));
        let mut rebuilding = servable(&units[1], world.claim(&units[1], "b:1"), "b:1");
        rebuilding.servable = false;
        world.report(&rebuilding);
        let fenced = world.claim(&units[2], "c:1");
        world.claim(&units[2], "d:1");
        world.report(&servable(&units[2], fenced, "c:1"));
        assert_eq!(copies(&world), ["search/v1/c0/s0 at a:1"]);

        world.clock.advance(Duration::from_secs(60));
        assert_eq!(copies(&world).len(), 1, "nobody's progress could be read");
        let other = world.claim(&units[3], "e:1");
        world.report(&servable(&units[3], other, "e:1"));
        assert_eq!(
            copies(&world),
            ["search/v1/c3/s0 at e:1"],
            "c0 has fallen silent"
        );
    }

    /// Has a copy report that it has read so far, with this lag.
    fn report(world: &mut World, unit: &str, next: u64, lag: Option<Lag>) {
        let token = world.claim(unit, unit);
        let mut progress = servable(unit, token, unit);
        progress.sequence = progress.token.claim_offset;
        progress.checkpoint = Some(stored(next));
        progress.lag = lag;
        world.report(&progress);
    }

    fn stored(next: u64) -> StoredCheckpoint {
        let position = Position::from((Offset(next), 1, Timestamp(0)));
        let topic = TopicCheckpoint {
            id: TopicId("topic".into()),
            partitioner: None,
            partitions: BTreeMap::from([(Partition(0), position)]),
        };
        StoredCheckpoint(Checkpoint {
            seq: next,
            topics: BTreeMap::from([(Topic::new("shop.products"), topic)]),
            bar: Bar::default(),
            counts: Counts::default(),
        })
    }

    #[test]
    fn readers_are_sent_to_copies_that_are_up_to_date_or_else_to_the_furthest() {
        let mut world = World::new();
        world.start("search@v1", to_tantivy(3));
        world.promote("search@v1");
        let lag = |records, seconds, estimated| {
            Some(Lag {
                records,
                seconds,
                estimated,
            })
        };
        let fresh = lag(1000, 10.0, false);
        let mut check = |reports: [(u64, Option<Lag>); 3], copies: &str, behind: &str| {
            for (at, (next, lag)) in reports.into_iter().enumerate() {
                report(&mut world, &format!("search/v1/c{at}/s0"), next, lag);
            }
            let routes = Routes::of(world.catalog(), world.reports());
            let Route::Tantivy(route) = routes.view("search").unwrap().clone() else {
                panic!("it is a tantivy view");
            };
            let shown = |copies: &[CopyAt]| {
                let names = copies.iter().map(|copy| copy.unit.copy.to_string());
                names.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(
                (&*shown(&route.copies), &*shown(&route.behind)),
                (copies, behind)
            );
        };
        check([(7, fresh), (8, fresh), (9, fresh)], "2 1 0", "");
        // Just opened, below the end that it found; too many records; too long ago; unknown.
        check([(9, fresh), (7, lag(9, 0.0, true)), (8, fresh)], "0 2", "1");
        check(
            [(7, lag(1001, 1.0, false)), (8, fresh), (9, fresh)],
            "2 1",
            "0",
        );
        check(
            [(7, lag(9, 10.1, false)), (8, None), (9, fresh)],
            "2",
            "1 0",
        );
        // None is up to date.
        check([(7, None), (9, None), (9, None)], "1 2", "0");
        check(
            [
                (8, lag(5000, 30.0, true)),
                (9, lag(4999, 40.0, true)),
                (7, None),
            ],
            "1",
            "0 2",
        );
    }

    fn redis_route(version: &str, literal: &str) -> Route {
        Route::Redis(Arc::new(RedisRoute {
            version: version.parse().unwrap(),
            epoch: Offset(1),
            connection: "cache".into(),
            literal: literal.into(),
            shape: RedisShape::Json,
        }))
    }

    #[test]
    fn a_key_belongs_to_the_view_with_the_longest_literal() {
        let routes = Routes::new([
            redis_route("products@v2", "product:"),
            redis_route("prices@v1", "product:price:"),
            redis_route("users@v1", "u"),
        ]);
        let check = |key: &str, expected: Option<&str>| {
            let found = routes.redis_view(key.as_bytes()).ok();
            let found = found.map(|route| route.version.to_string());
            assert_eq!(found.as_deref(), expected, "{key}");
        };
        check("product:42", Some("products@v2"));
        check("product:", Some("products@v2"));
        check("product:price:42", Some("prices@v1"));
        check("user:7", Some("users@v1"));
        check("product", None);
        check("", None);
    }

    #[test]
    fn a_view_without_a_live_version_is_not_found() {
        let routes = Routes::new([redis_route("products@v2", "product:")]);
        assert!(routes.view("products").is_ok());
        for unknown in ["users", "", "Products", "products@v2"] {
            assert!(
                matches!(routes.view(unknown), Err(ReadError::NotFound(_))),
                "{unknown}"
            );
        }
    }
}
