//! `/livez`, `/readyz`, `/metrics`: what an orchestrator and a scraper ask.
//!
//! Liveness is this process alone: a restart would help. Readiness is that it can answer. Neither is
//! lag, nor whether Kafka or Redis can be reached: taking every gateway out, or restarting it, because
//! something behind it is late makes an outage of a delay.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::server::Shared;

/// What is answered without a token.
pub(super) const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// Returns the routes of the probes.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn live(State(shared): State<Arc<Shared>>) -> Response {
    let whole = shared.rows.is_whole() && shared.copies.is_whole();
    let own = whole.then_some(()).ok_or("a reader's thread has ended");
    told(
        own.map_err(str::to_owned)
            .and_then(|()| shared.process.alive()),
    )
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    told(shared.process.ready())
}

fn told(answer: Result<(), String>) -> Response {
    match answer {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.render(&*shared.process) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(fault) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{fault:#}\n")).into_response(),
    }
}
