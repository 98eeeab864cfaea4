//! The server of a process: its ports, its threads, its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use materializer_migrations::status::Status;
use materializer_model::{CatalogId, Clock};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;

use super::copies::{Copies, LocalCopies};
use super::http::FaultBody;
use super::internal::Workers;
use super::listener::BoundedListener;
use super::rounds::RowReader;
use super::routes::RoutesReceiver;
use super::rows::Rows;
use super::shares::Client;
use super::{Limits, ReadError};
use super::{documents, internal, login, probes, redis_protocol, search, status};
use crate::access::Access;
use crate::metrics::{Metrics, Op, Outcome, ScrapeSource};

/// Where a process answers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The address of HTTP.
    pub http: SocketAddr,
    /// The address of the Redis protocol; `None` where the process is no gateway: then it serves no
    /// documents and searches over HTTP either.
    pub redis: Option<SocketAddr>,
    /// What readers may ask for.
    pub limits: Limits,
}

/// What a process has to serve.
pub struct Parts {
    /// The catalog of the installation.
    pub catalog: CatalogId,
    /// What is demanded of clients, and shown to other processes.
    pub access: Arc<Access>,
    /// Where readers are sent; kept up to date by whoever folds the catalog.
    pub routes: RoutesReceiver,
    /// Readers of Redis rows by the name of their connection, one for each thread.
    pub rows: BTreeMap<String, Vec<Box<dyn RowReader>>>,
    /// The tantivy copies that this process holds.
    pub copies: Arc<LocalCopies>,
    /// What the process says of itself.
    pub process: Arc<dyn Process>,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// The clock that requests are timed by.
    pub clock: Arc<dyn Clock>,
    /// Begins the sequence by which copies are chosen.
    pub seed: u64,
}

/// What a process says of itself: at `/v1/views`, to probes, and through [`ScrapeSource`] to scrapes.
/// Told from what it knows already; nothing here blocks.
pub trait Process: ScrapeSource {
    /// Returns the status of all views; `None` until the catalog has been read.
    fn status(&self) -> Option<Status>;

    /// Says whether its threads are all there.
    ///
    /// # Errors
    /// What is amiss, so that only a restart helps.
    fn alive(&self) -> Result<(), String>;

    /// Says whether it can do its work: it has read the catalog.
    ///
    /// # Errors
    /// What it waits for.
    fn ready(&self) -> Result<(), String>;
}

/// What the handlers share.
pub(super) struct Shared {
    pub(super) catalog: CatalogId,
    pub(super) access: Arc<Access>,
    pub(super) routes: RoutesReceiver,
    pub(super) rows: Rows,
    pub(super) copies: Copies,
    pub(super) local: Arc<LocalCopies>,
    pub(super) process: Arc<dyn Process>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
}

impl Shared {
    fn start(parts: Parts, limits: Limits) -> io::Result<Self> {
        let workers = Workers::new(&parts.catalog, &parts.access, limits.answer_time);
        Ok(Self {
            routes: parts.routes,
            rows: Rows::start(parts.rows, limits)?,
            copies: Copies::start(&parts.copies, workers, limits, parts.seed)?,
            catalog: parts.catalog,
            access: parts.access,
            local: parts.copies,
            process: parts.process,
            metrics: parts.metrics,
            clock: parts.clock,
            limits,
        })
    }

    /// Has an HTTP request answered in bounded time, and counts it.
    pub(super) async fn track(
        &self,
        op: Op,
        answer: impl Future<Output = Result<Response, ReadError>>,
    ) -> Response {
        let began = self.clock.monotonic();
        let answer = answer.await;
        let elapsed = self.clock.monotonic().since(began);
        let outcome = answer
            .as_ref()
            .map_or_else(ReadError::outcome, |_| Outcome::Ok);
        self.metrics.gateway.answered(op, outcome, elapsed);
        answer.unwrap_or_else(IntoResponse::into_response)
    }
}

/// Tells tasks to end. The sender's drop tells it too.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Says whether the stop was told.
    pub(super) fn is_told(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the stop is told. Cancel safe.
    pub(super) async fn told(&mut self) {
        self.0.wait_for(|stopped| *stopped).await.ok();
    }
}

/// The running server of a process. Dropping it stops it.
pub struct Gateway {
    http: SocketAddr,
    redis: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Binds the ports and begins to serve, on threads of its own.
    ///
    /// # Errors
    /// Where an address cannot be bound, or the system gives no thread.
    pub fn start(settings: Settings, parts: Parts) -> anyhow::Result<Self> {
        let http = bind(settings.http)?;
        let redis = settings.redis.map(bind).transpose()?;
        let addresses = (
            http.local_addr()?,
            redis.as_ref().map(StdTcpListener::local_addr).transpose()?,
        );
        let shared = Arc::new(Shared::start(parts, settings.limits).context("start readers")?);
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gateway-io")
            .enable_all()
            .build()
            .context("start the gateway")?;
        let serve = move || serve(&runtime, shared, http, redis, Stop(stopped));
        let thread = thread::Builder::new().name("gateway".into()).spawn(serve);
        Ok(Self {
            http: addresses.0,
            redis: addresses.1,
            stop,
            thread: Some(thread.context("start the gateway")?),
        })
    }

    /// Returns where HTTP is answered: the port that the system gave, if 0 was asked for.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Returns where the Redis protocol is answered.
    #[must_use]
    pub fn redis_address(&self) -> Option<SocketAddr> {
        self.redis
    }
}

impl Drop for Gateway {
    /// Takes no more requests, lets those under way end within the limit, joins the threads.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the gateway panicked");
        }
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<StdTcpListener> {
    let listener =
        StdTcpListener::bind(address).with_context(|| format!("listen on `{address}`"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until the stop; the body of the gateway's thread.
fn serve(
    runtime: &Runtime,
    shared: Arc<Shared>,
    http: StdTcpListener,
    redis: Option<StdTcpListener>,
    mut stop: Stop,
) {
    let drain_time = shared.limits.drain_time;
    runtime.block_on(async {
        let end = stop.clone();
        let work = async {
            tokio::join!(
                serve_http(http, redis.is_some(), &shared, end.clone()),
                serve_redis(redis, &shared, end),
            )
        };
        let overdue = async {
            stop.told().await;
            tokio::time::sleep(drain_time).await;
        };
        tokio::select! {
            (http, redis) = work => {
                for fault in [http, redis].into_iter().filter_map(Result::err) {
                    tracing::error!(error = %fault, "the gateway ended");
                }
            }
            () = overdue => tracing::warn!("requests were cut off at the stop"),
        }
    });
}

async fn serve_http(
    listener: StdTcpListener,
    is_gateway: bool,
    shared: &Arc<Shared>,
    mut stop: Stop,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let listener = BoundedListener::new(listener, &shared.access, &shared.limits, &shared.metrics);
    let mut router = Router::new()
        .merge(internal::router())
        .merge(probes::router())
        .merge(status::router());
    if is_gateway {
        router = router.merge(documents::router()).merge(search::router());
    }
    let router = router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(shared.limits.request_bytes))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(shared),
            bounded,
        ))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(shared),
            login::demand_token,
        ))
        .with_state(Arc::clone(shared));
    let router = router.into_make_service_with_connect_info::<Client>();
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.told().await })
        .await
}

async fn serve_redis(
    listener: Option<StdTcpListener>,
    shared: &Arc<Shared>,
    stop: Stop,
) -> io::Result<()> {
    if let Some(listener) = listener {
        redis_protocol::serve(TcpListener::from_std(listener)?, shared, stop).await;
    }
    Ok(())
}

async fn no_such_path() -> Response {
    ReadError::NotFound("there is no such path".into()).into_response()
}

async fn no_such_method() -> Response {
    let why = "the gateway is read-only: GET, and POST of searches".to_owned();
    FaultBody::response(StatusCode::METHOD_NOT_ALLOWED, "invalid", why)
}

/// Bounds a whole request in time: also one whose body does not arrive.
async fn bounded(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let most = 2 * shared.limits.answer_time;
    match timeout(most, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let why = format!("the request was not answered within {most:?}");
            ReadError::Unavailable(why).into_response()
        }
    }
}
