//! `POST /v1/views/{view}/search`, and the short `GET …/search?q=`: searches by alias.
//!
//! What a search may ask and answers is tantivy's business (`materializer_sinks::tantivy::search`); here
//! it is sent to one copy, which gives all of the answer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use materializer_sinks::tantivy::search::SearchRequest;
use serde::Deserialize;

use super::ReadError;
use super::http::{from_json, route};
use super::routes::Route;
use super::server::Shared;
use super::shares::Client;
use crate::metrics::Op;

/// Returns the route of searches.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/v1/views/{view}/search", post(search).get(search_short))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The least alias epoch that may answer.
    min_alias_epoch: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortParameters {
    /// The query string.
    q: String,
    /// How many hits to pass over.
    from: Option<usize>,
    /// How many hits to return.
    size: Option<usize>,
    /// The least alias epoch that may answer.
    min_alias_epoch: Option<u64>,
}

async fn search(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<Client>,
    Path(view): Path<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    body: Bytes,
) -> Response {
    let answer = async {
        let Query(parameters) =
            parameters.map_err(|fault| ReadError::Invalid(fault.body_text()))?;
        ask(
            &shared,
            &view,
            client,
            from_json(&body)?,
            parameters.min_alias_epoch,
        )
        .await
    };
    shared.track(Op::Search, answer).await
}

async fn search_short(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<Client>,
    Path(view): Path<String>,
    parameters: Result<Query<ShortParameters>, QueryRejection>,
) -> Response {
    let answer = async {
        let Query(parameters) =
            parameters.map_err(|fault| ReadError::Invalid(fault.body_text()))?;
        let request = SearchRequest {
            q: Some(parameters.q),
            from: parameters.from,
            size: parameters.size,
            ..SearchRequest::default()
        };
        ask(&shared, &view, client, request, parameters.min_alias_epoch).await
    };
    shared.track(Op::Search, answer).await
}

async fn ask(
    shared: &Shared,
    view: &str,
    client: Client,
    request: SearchRequest,
    min_alias_epoch: Option<u64>,
) -> Result<Response, ReadError> {
    match route(shared, view, min_alias_epoch).await? {
        Route::Tantivy(route) => {
            let answered = shared.copies.ask(&route, client, request).await?;
            Ok((answered.headers(), Json(answered.answer)).into_response())
        }
        Route::Redis(route) => Err(ReadError::Invalid(format!(
            "`{}` is a Redis cache, which is read by key: GET /v1/views/{view}/documents/KEY",
            route.version
        ))),
    }
}
