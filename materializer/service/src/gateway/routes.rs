//! Where each view's readers are sent: a snapshot, replaced as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use materializer_model::definition::RedisShape;
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
    /// The copies that readers may be sent to now; perhaps none.
    pub copies: Vec<CopyAt>,
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
    use super::*;

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
