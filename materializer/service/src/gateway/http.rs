//! What the HTTP handlers share: faults as responses, the answering version in headers, the snapshot
//! that a request is answered by.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use materializer_model::Offset;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::routes::Route;
use super::server::Shared;
use super::{Answered, ReadError};
use crate::metrics::Outcome;

/// The version that answered, as `products@v7`.
const VERSION: HeaderName = HeaderName::from_static("materializer-version");

/// The alias epoch under which it answered: what a later request names as `min_alias_epoch`.
const ALIAS_EPOCH: HeaderName = HeaderName::from_static("materializer-alias-epoch");

/// The body of every response that is a fault.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FaultBody {
    /// What to do about it, one of a closed set.
    pub(super) kind: String,
    /// What is wrong.
    pub(super) error: String,
}

impl FaultBody {
    pub(super) fn response(status: StatusCode, kind: &str, error: String) -> Response {
        let kind = kind.to_owned();
        (status, Json(Self { kind, error })).into_response()
    }
}

impl ReadError {
    /// Returns what became of the request, for the metrics.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Invalid(_) | Self::WrongType | Self::NotFound(_) => Outcome::Refused,
            Self::Gone(_) | Self::Unavailable(_) => Outcome::Unavailable,
            Self::Broken(_) => Outcome::Broken,
        }
    }

    /// Returns the fault's kind, one of a closed set, for the body.
    fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::WrongType => "invalid",
            Self::NotFound(_) => "not_found",
            Self::Gone(_) => "gone",
            Self::Unavailable(_) => "unavailable",
            Self::Broken(_) => "broken",
        }
    }
}

impl IntoResponse for ReadError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid(_) | Self::WrongType => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Gone(_) => StatusCode::GONE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = FaultBody::response(status, self.kind(), self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

impl<T> Answered<T> {
    /// Returns the headers that name the answering version.
    pub(super) fn headers(&self) -> HeaderMap {
        let text = |text: String| HeaderValue::try_from(text).expect("names and digits are ASCII");
        HeaderMap::from_iter([
            (VERSION, text(self.version.to_string())),
            (ALIAS_EPOCH, text(self.epoch.to_string())),
        ])
    }
}

/// Reads a request's JSON.
///
/// # Errors
/// [`ReadError::Invalid`] with the place of the fault.
pub(super) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(body).map_err(|fault| ReadError::Invalid(format!("the body: {fault}")))
}

/// Returns the route of a view whose alias is at `min_epoch` or later, waiting a moment for it.
///
/// # Errors
/// [`ReadError::Unavailable`] where this gateway has not come that far, [`ReadError::NotFound`] where
/// the view has no live version.
pub(super) async fn route(
    shared: &Shared,
    view: &str,
    min_epoch: Option<u64>,
) -> Result<Route, ReadError> {
    let min_epoch = Offset(min_epoch.unwrap_or(0));
    let mut newest = shared.routes.clone();
    let reached = newest.wait_for(
        |routes| match routes.as_ref().map(|routes| routes.view(view)) {
            Some(Ok(route)) => route.epoch() >= min_epoch,
            // A view that this gateway has not heard of may have been promoted a moment ago.
            Some(Err(_)) => min_epoch == Offset(0),
            None => false,
        },
    );
    if let Ok(Ok(routes)) = timeout(shared.limits.epoch_wait, reached).await {
        let routes = routes.as_ref().expect("waited for");
        return routes.view(view).cloned();
    }
    let known = shared.routes.borrow();
    Err(ReadError::Unavailable(match known.as_ref() {
        None => "this gateway has not read the catalog yet".to_owned(),
        Some(routes) => {
            let at = routes.view(view)?.epoch();
            format!("the alias epoch of `{view}` is {at} here, below {min_epoch}")
        }
    }))
}
