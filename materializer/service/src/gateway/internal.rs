//! What workers serve to gateways, and how gateways ask for it:
//! `/internal/v1/catalogs/{catalog}/units/{unit}/…`.
//!
//! An address may be another installation's by now, where a unit of the same name is another one: a
//! worker answers for its own catalog alone.
//!
//! `POST …/document` has the key's bytes as its body, and answers the row, or 204 where there is none.
//! `POST …/search` has the JSON of a search request and answers that of its response. A fault's status
//! is what the gateway does about it: 400 the request is at fault, 410 this worker does not serve the
//! copy (any more), 503 it may later. A gateway names the client for whom it asks, so that here, too, one
//! client has its share and not the gateway's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use materializer_model::{CatalogId, Unit};
use materializer_sinks::tantivy::search::{SearchRequest, SearchResponse};
use rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::ReadError;
use super::copies::{DocumentOf, ServedCopy};
use super::http::{FaultBody, from_json};
use super::routes::CopyAt;
use super::server::Shared;
use super::shares::Client;
use crate::access::{Access, Demands};
use crate::metrics::Op;

/// Returns the routes of a worker. A unit's text has slashes, so it takes four segments.
pub(super) fn router() -> Router<Arc<Shared>> {
    let unit = "/internal/v1/catalogs/{catalog}/units/{view}/{version}/{copy}/{shard}";
    Router::new()
        .route(&format!("{unit}/document"), post(document))
        .route(&format!("{unit}/search"), post(search))
}

/// The address of the client for whom a gateway asks.
const CLIENT: &str = "materializer-client";

/// Returns for whom is asked: whom the gateway names, or who asks.
fn asker(headers: &HeaderMap, peer: Client) -> Client {
    let named = headers.get(CLIENT).and_then(|name| name.to_str().ok());
    let named = named.and_then(|name| name.parse().ok());
    named.map_or(peer, Client::at)
}

type UnitPath = Path<(String, String, String, String, String)>;

/// Finds a copy that this process serves.
fn held(shared: &Shared, Path(unit): UnitPath) -> Result<Arc<dyn ServedCopy>, ReadError> {
    let (catalog, view, version, copy, shard) = unit;
    if catalog != shared.catalog.as_str() {
        return Err(ReadError::Gone("this worker is of another catalog".into()));
    }
    let text = format!("{view}/{version}/{copy}/{shard}");
    let unit: Unit = text
        .parse()
        .map_err(|fault| ReadError::Invalid(format!("{fault}")))?;
    let found = shared.local.find(&unit);
    found.ok_or_else(|| ReadError::Gone(format!("`{unit}` is not served here")))
}

async fn document(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Client>,
    unit: UnitPath,
    headers: HeaderMap,
    key: Bytes,
) -> Response {
    let answer = async {
        let copy = held(&shared, unit)?;
        let client = asker(&headers, peer);
        let row = shared
            .copies
            .ask_held(copy, client, DocumentOf(key.to_vec()))
            .await?;
        Ok(match row {
            Some(row) => row.into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        })
    };
    shared.track(Op::HeldDocument, answer).await
}

async fn search(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Client>,
    unit: UnitPath,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = async {
        let copy = held(&shared, unit)?;
        let request: SearchRequest = from_json(&body)?;
        let client = asker(&headers, peer);
        let found = shared.copies.ask_held(copy, client, request).await?;
        Ok(Json(found).into_response())
    };
    shared.track(Op::HeldSearch, answer).await
}

/// Asks other workers. Blocks.
#[derive(Debug)]
pub(crate) struct Workers {
    catalog: CatalogId,
    access: Arc<Access>,
    answer_time: Duration,
    /// What asks, and the demands whose authorities it verifies by.
    agent: Mutex<Option<(Arc<Demands>, Agent)>>,
}

/// The longest answer of a worker that is taken.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Workers {
    /// Makes an asker of a catalog's workers that waits at most `answer_time` for each answer.
    pub(crate) fn new(catalog: &CatalogId, access: &Arc<Access>, answer_time: Duration) -> Self {
        Self {
            catalog: catalog.clone(),
            access: Arc::clone(access),
            answer_time,
            agent: Mutex::default(),
        }
    }

    /// Returns what asks, made anew where the files have changed since.
    fn agent(&self) -> (Arc<Demands>, Agent) {
        let demands = self.access.demands();
        let mut held = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((of, agent)) if Arc::ptr_eq(of, &demands) => (demands, agent.clone()),
            _ => {
                let agent = agent(&demands, self.answer_time);
                *held = Some((Arc::clone(&demands), agent.clone()));
                (demands, agent)
            }
        }
    }

    /// Asks a worker for the row of a key, for a client.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) fn document(
        &self,
        copy: &CopyAt,
        client: Client,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let (status, body) = self.post(copy, "document", Some(client), key)?;
        Ok((status != StatusCode::NO_CONTENT).then_some(body))
    }

    /// Asks a worker to search, for a client or for this process itself.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(crate) fn search(
        &self,
        copy: &CopyAt,
        client: Option<Client>,
        request: &SearchRequest,
    ) -> Result<SearchResponse, ReadError> {
        let request = serde_json::to_vec(request).expect("a request that was read can be written");
        let (_, body) = self.post(copy, "search", client, &request)?;
        serde_json::from_slice(&body).map_err(|fault| {
            let CopyAt { unit, address } = copy;
            ReadError::Broken(format!("the answer of `{unit}` at `{address}`: {fault}"))
        })
    }

    fn post(
        &self,
        copy: &CopyAt,
        what: &str,
        client: Option<Client>,
        body: &[u8],
    ) -> Result<(StatusCode, Vec<u8>), ReadError> {
        let CopyAt { unit, address } = copy;
        let unreachable = |fault: ureq::Error| {
            ReadError::Unavailable(format!("`{unit}` at `{address}`: {fault}"))
        };
        let scheme = if address.contains("://") {
            ""
        } else {
            "http://"
        };
        let catalog = &self.catalog;
        let url = format!("{scheme}{address}/internal/v1/catalogs/{catalog}/units/{unit}/{what}");
        let (demands, agent) = self.agent();
        if url.starts_with("https:") && demands.authorities().is_empty() {
            return Err(ReadError::Unavailable(format!(
                "`{unit}` at `{address}`: it speaks TLS, and nothing here can vouch for it: set `access.tls_ca`"
            )));
        }
        let mut tokens = demands.shown();
        let mut response = loop {
            let mut request = agent.post(&url);
            if let Some(client) = client {
                request = request.header(CLIENT, client.address().to_string());
            }
            if let Some(token) = tokens.next() {
                request = request.header("authorization", format!("Bearer {}", token.expose()));
            }
            let response = request.send(body).map_err(unreachable)?;
            if response.status() != StatusCode::UNAUTHORIZED || tokens.len() == 0 {
                break response;
            }
        };
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let body = body.read_to_vec().map_err(unreachable)?;
        if status.is_success() {
            return Ok((status, body));
        }
        let why = serde_json::from_slice(&body).map_or_else(
            |_| format!("status {status}"),
            |fault: FaultBody| fault.error,
        );
        let why = format!("`{unit}` at `{address}`: {why}");
        Err(match status {
            StatusCode::BAD_REQUEST => ReadError::Invalid(why),
            StatusCode::GONE => ReadError::Gone(why),
            // Another copy may be of a process with the settings of this one.
            StatusCode::UNAUTHORIZED => ReadError::Unavailable(format!(
                "{why}; the tokens of this process are not accepted there: all processes need one in common"
            )),
            StatusCode::SERVICE_UNAVAILABLE => ReadError::Unavailable(why),
            _ => ReadError::Broken(why),
        })
    }
}

fn agent(demands: &Demands, answer_time: Duration) -> Agent {
    let authorities = demands.authorities().iter();
    let authorities = authorities.map(|der| Certificate::from_der(der).to_owned());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(authorities.collect())))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(answer_time))
        .timeout_connect(Some(answer_time / 4))
        .max_redirects(0)
        .tls_config(tls.build())
        // Workers are in our own network; what the environment says of proxies is not about them.
        .proxy(None)
        .build();
    config.into()
}
