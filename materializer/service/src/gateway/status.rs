//! `GET /v1/views` and `GET /v1/views/{view}`: the JSON of `materializer status`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use materializer_model::ViewName;
use serde_json::Value;

use super::ReadError;
use super::server::Shared;
use crate::metrics::Op;

/// Where the status comes from. Computed from what the process knows already: never blocks.
pub trait StatusSource: Send + Sync {
    /// Returns the status of all views; `None` until the catalog has been read.
    fn views(&self) -> Option<Value>;

    /// Returns the status of one view, `None` if the catalog does not know it.
    fn view(&self, view: &ViewName) -> Option<Value>;
}

/// Returns the routes of the status.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/views", get(views))
        .route("/v1/views/{view}", get(view))
}

async fn views(State(shared): State<Arc<Shared>>) -> Response {
    let answer = async {
        let unread = || ReadError::Unavailable("the catalog has not been read yet".into());
        let status = shared.status.views().ok_or_else(unread)?;
        Ok(Json(status).into_response())
    };
    shared.track(Op::Status, answer).await
}

async fn view(State(shared): State<Arc<Shared>>, Path(view): Path<String>) -> Response {
    let answer = async {
        let name: ViewName = view
            .parse()
            .map_err(|fault| ReadError::Invalid(format!("{fault}")))?;
        let unknown = || ReadError::NotFound(format!("the catalog has no view `{view}`"));
        let status = shared.status.view(&name).ok_or_else(unknown)?;
        Ok(Json(status).into_response())
    };
    shared.track(Op::Status, answer).await
}
