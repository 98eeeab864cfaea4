//! The gateway as its clients see it, over real sockets, with rows and copies in memory behind it.

mod access;
mod bounds;
mod http;
mod redis;
mod swap;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use materializer_migrations::status::Status;
use materializer_model::definition::RedisShape;
use materializer_model::ports::{AliasPointer, SinkError};
use materializer_model::{CatalogId, Monotonic, Offset, VersionId, VersionNumber, ViewName};
use materializer_sinks::redis::{Answer, Read, ReadRequest, Reply};
use tokio::sync::watch;

use super::*;
use crate::access::Access;
use crate::clock::SystemClock;
use crate::config::AccessSection;
use crate::metrics::{Gauges, Metrics, ScrapeSource};

/// A Redis in memory: the alias of each view, and the rows of each version.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    aliases: BTreeMap<ViewName, AliasPointer>,
    rows: BTreeMap<(VersionId, Vec<u8>), Reply>,
    /// Why nothing can be read, if so.
    fault: Option<SinkError>,
}

impl Store {
    fn put(&self, version: &str, key: &str, row: Reply) {
        let key = (version.parse().unwrap(), key.as_bytes().to_vec());
        self.0.lock().unwrap().rows.insert(key, row);
    }

    fn put_text(&self, version: &str, key: &str, row: &str) {
        self.put(version, key, Reply::Bytes(row.as_bytes().to_vec()));
    }

    fn point(&self, version: &str, epoch: u64) {
        let version: VersionId = version.parse().unwrap();
        let pointer = AliasPointer {
            version: version.number,
            epoch: Offset(epoch),
        };
        self.0.lock().unwrap().aliases.insert(version.view, pointer);
    }

    fn fail(&self, fault: Option<SinkError>) {
        self.0.lock().unwrap().fault = fault;
    }
}

impl RowReader for Store {
    fn answer(&mut self, requests: &[ReadRequest]) -> Vec<Result<Answer, SinkError>> {
        let answer = |request: &ReadRequest| {
            // Each request in one instant, and another one between any two.
            let stored = self.0.lock().unwrap();
            if let Some(fault) = &stored.fault {
                return Err(fault.clone());
            }
            let pointer = stored.aliases.get(&request.view).cloned();
            let pointer = pointer.ok_or_else(|| SinkError::Unavailable("no alias".into()))?;
            let reads = request.reads.iter();
            let replies = reads.map(|read| stored.read(&request.view, pointer.version, read));
            Ok(Answer {
                replies: replies.collect(),
                pointer,
            })
        };
        requests.iter().map(answer).collect()
    }
}

impl Stored {
    fn read(&self, view: &ViewName, number: VersionNumber, read: &Read) -> Reply {
        let row = |key: &[u8]| {
            let view = view.clone();
            self.rows.get(&(VersionId { view, number }, key.to_vec()))
        };
        match read {
            Read::Get(key) | Read::HashAll(key) => row(key).cloned().unwrap_or(Reply::Nil),
            Read::Length(key) => match row(key) {
                Some(Reply::Bytes(row)) => Reply::Number(row.len().try_into().unwrap()),
                _ => Reply::Number(0),
            },
            Read::Exists(key) => Reply::Number(row(key).is_some().into()),
            Read::HashGet(key, field) => match row(key) {
                Some(Reply::Fields(fields)) => {
                    let found = fields.iter().find(|(name, _)| name == field);
                    found.map_or(Reply::Nil, |(_, value)| Reply::Bytes(value.clone()))
                }
                _ => Reply::Nil,
            },
            Read::TimeToLive(key) => Reply::Number(if row(key).is_some() { -1 } else { -2 }),
        }
    }
}

/// A process that has nothing to say but whether it is ready.
#[derive(Default)]
struct Silent;

impl ScrapeSource for Silent {
    fn fill(&self, _gauges: &Gauges) {}
}

impl Process for Silent {
    fn status(&self) -> Option<Status> {
        None
    }

    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Err("the catalog has not been read".into())
    }
}

/// Everything that a test moves while a gateway serves.
struct Bed {
    store: Store,
    access: Arc<Access>,
    copies: Arc<LocalCopies>,
    routes: watch::Sender<Option<Arc<Routes>>>,
    metrics: Arc<Metrics>,
    gateway: Gateway,
}

impl Bed {
    /// Starts a gateway that knows no routes yet.
    fn start(limits: Limits) -> Self {
        Self::start_demanding(AccessSection::default(), limits)
    }

    /// Starts a gateway that demands something of its clients.
    fn start_demanding(access: AccessSection, limits: Limits) -> Self {
        Self::start_with(access, limits, 2, |store| Box::new(store))
    }

    /// Starts a gateway with so many readers of rows.
    fn start_reading(
        limits: Limits,
        readers: usize,
        reader: impl Fn(Store) -> Box<dyn RowReader>,
    ) -> Self {
        Self::start_with(AccessSection::default(), limits, readers, reader)
    }

    fn start_with(
        access: AccessSection,
        limits: Limits,
        readers: usize,
        reader: impl Fn(Store) -> Box<dyn RowReader>,
    ) -> Self {
        let access = Arc::new(Access::open(access).unwrap());
        let store = Store::default();
        let metrics = Arc::new(Metrics::new().unwrap());
        let copies = Arc::new(LocalCopies::default());
        let (routes, receiver) = watch::channel(None);
        let readers = (0..readers).map(|_| reader(store.clone())).collect();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            http: any,
            redis: Some(any),
            limits,
        };
        let parts = Parts {
            catalog: CatalogId::new("ours"),
            access: Arc::clone(&access),
            routes: receiver,
            rows: BTreeMap::from([("cache".to_owned(), readers)]),
            copies: Arc::clone(&copies),
            process: Arc::new(Silent),
            metrics: Arc::clone(&metrics),
            clock: Arc::new(SystemClock::start()),
            seed: 7,
        };
        Self {
            store,
            access,
            copies,
            routes,
            metrics,
            gateway: Gateway::start(settings, parts).unwrap(),
        }
    }

    fn route(&self, routes: impl IntoIterator<Item = Route>) {
        self.routes
            .send_replace(Some(Arc::new(Routes::new(routes))));
    }

    /// Puts one row each in a view of strings and one of hashes, and routes to them.
    fn with_rows(self) -> Self {
        self.store
            .put_text("products@v7", "product:42", r#"{"title":"shoe"}"#);
        let fields = vec![(b"name".to_vec(), b"Ann".to_vec())];
        self.store.put("users@v1", "user:1", Reply::Fields(fields));
        self.store.point("products@v7", 12);
        self.store.point("users@v1", 3);
        self.route([
            redis_route("products@v7", 12, "product:", RedisShape::Json),
            redis_route("users@v1", 3, "user:", RedisShape::Hash),
        ]);
        self
    }
}

fn redis_route(version: &str, epoch: u64, literal: &str, shape: RedisShape) -> Route {
    Route::Redis(Arc::new(RedisRoute {
        version: version.parse().unwrap(),
        epoch: Offset(epoch),
        connection: "cache".into(),
        literal: literal.into(),
        shape,
    }))
}

/// Returns a route to copies that are up to date: of each its unit and its worker's address.
fn tantivy_route<At: ToString>(version: &str, epoch: u64, copies: &[(&str, At)]) -> Route {
    let copy = |(unit, address): &(&str, At)| CopyAt {
        unit: unit.parse().unwrap(),
        address: address.to_string(),
    };
    Route::Tantivy(Arc::new(TantivyRoute {
        version: version.parse().unwrap(),
        epoch: Offset(epoch),
        copies: copies.iter().map(copy).collect(),
        behind: Vec::new(),
    }))
}

/// Connects to the Redis port, without a client library.
fn raw(bed: &Bed) -> TcpStream {
    let stream = TcpStream::connect(bed.gateway.redis_address().unwrap()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
}
