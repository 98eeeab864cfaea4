//! Where each view's readers are sent: a snapshot, replaced as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use materializer_migrations::{Catalog, Reports};
use materializer_model::definition::{RedisShape, Target};
use materializer_model::{Offset, Unit, VersionId, ViewName};
use tokio::sync::watch;

use super::ReadError;
use super::servable::servable_copies;

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

#[cfg(test)]
mod tests {
    use super::super::fixtures::{World, to_redis};
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
