//! `GET /v1/views` and `GET /v1/views/{view}`: the JSON of `materializer status`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use materializer_migrations::status::Status;
use materializer_model::ViewName;

use super::ReadError;
use super::server::Shared;
use crate::metrics::Op;

/// Returns the routes of the status.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/views", get(views))
        .route("/v1/views/{view}", get(view))
}

fn status(shared: &Shared) -> Result<Status, ReadError> {
    let unread = || ReadError::Unavailable("the catalog has not been read yet".into());
    shared.process.status().ok_or_else(unread)
}

async fn views(State(shared): State<Arc<Shared>>) -> Response {
    let answer = async { Ok(Json(status(&shared)?).into_response()) };
    shared.track(Op::Status, answer).await
}

async fn view(State(shared): State<Arc<Shared>>, Path(view): Path<String>) -> Response {
    let answer = async {
        let name: ViewName = view
            .parse()
            .map_err(|fault| ReadError::Invalid(format!("{fault}")))?;
        let status = status(&shared)?;
        let unknown = || ReadError::NotFound(format!("the catalog has no view `{name}`"));
        Ok(Json(status.view(&name).ok_or_else(unknown)?).into_response())
    };
    shared.track(Op::Status, answer).await
}
