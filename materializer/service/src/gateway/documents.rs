//! `GET /v1/views/{view}/documents/{key}`: one document, by alias.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use materializer_model::Offset;
use materializer_model::definition::RedisShape;
use materializer_sinks::redis::{Read, Reply};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::copies::DocumentOf;
use super::http::{FaultBody, route};
use super::routes::{RedisRoute, Route};
use super::rows::RowRead;
use super::server::Shared;
use super::shares::Client;
use super::{Answered, ReadError};
use crate::metrics::Op;

/// Returns the route of documents. The second path is that of the empty key.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/views/{view}/documents/{key}", get(document))
        .route("/v1/views/{view}/documents/", get(document))
}

/// How often an alias that is behind is looked at again.
const EPOCH_POLL: Duration = Duration::from_millis(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The least alias epoch that may answer.
    min_alias_epoch: Option<u64>,
}

async fn document(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<Client>,
    uri: Uri,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let answer = async {
        let Query(parameters) =
            parameters.map_err(|fault| ReadError::Invalid(fault.body_text()))?;
        let (view, key) = view_and_key(uri.path())?;
        let route = route(&shared, view, parameters.min_alias_epoch).await?;
        let (answered, content_type) = match &route {
            Route::Redis(route) => match parameters.min_alias_epoch {
                None => redis_document(&shared, route, &key).await?,
                Some(min) => redis_document_since(&shared, route, &key, Offset(min)).await?,
            },
            Route::Tantivy(route) => {
                let answered = shared.copies.ask(route, client, DocumentOf(key)).await?;
                (answered, "application/json")
            }
        };
        let headers = answered.headers();
        let body = match answered.answer {
            Some(row) => ([(header::CONTENT_TYPE, content_type)], row).into_response(),
            None => {
                let why = format!("`{}` has no document under this key", answered.version);
                FaultBody::response(StatusCode::NOT_FOUND, "no_document", why)
            }
        };
        Ok((headers, body).into_response())
    };
    shared.track(Op::Document, answer).await
}

/// Reads a document until it is answered under `min_epoch` or a later one: the alias in Redis follows the
/// catalog, and may be a moment behind our routes.
async fn redis_document_since(
    shared: &Shared,
    route: &Arc<RedisRoute>,
    key: &[u8],
    min_epoch: Offset,
) -> Result<(Answered<Option<Vec<u8>>>, &'static str), ReadError> {
    let asked_again = async {
        loop {
            match redis_document(shared, route, key).await {
                Ok((answered, _)) if answered.epoch < min_epoch => sleep(EPOCH_POLL).await,
                answer => return answer,
            }
        }
    };
    let behind = |_elapsed| {
        let view = &route.version.view;
        let why = format!("the alias of `{view}` in Redis is below epoch {min_epoch}");
        ReadError::Unavailable(why)
    };
    timeout(shared.limits.epoch_wait, asked_again)
        .await
        .map_err(behind)?
}

async fn redis_document(
    shared: &Shared,
    route: &Arc<RedisRoute>,
    key: &[u8],
) -> Result<(Answered<Option<Vec<u8>>>, &'static str), ReadError> {
    let key = [route.literal.as_bytes(), key].concat();
    let (read, content_type) = match route.shape {
        RedisShape::Json => (Read::Get(key), "application/json"),
        RedisShape::Bytes => (Read::Get(key), "application/octet-stream"),
        RedisShape::Hash => (Read::HashAll(key), "application/json"),
    };
    let (route, reads) = (Arc::clone(route), vec![read]);
    let part = shared.rows.read(&[&[RowRead { route, reads }]]).await;
    let mut answers = part.answers.into_iter().flatten();
    let answered = answers.next().expect("an answer for each read")?;
    let row = match answered.answer.into_iter().next() {
        None | Some(Reply::Nil) => None,
        Some(Reply::Bytes(value)) => Some(value),
        Some(Reply::Fields(fields)) => (!fields.is_empty()).then(|| json_object(fields)),
        // The alias has moved to a version of another shape, and our routes are about to follow.
        Some(Reply::WrongType | Reply::Number(_)) => {
            let why = "the shape of the view's rows has just changed".to_owned();
            return Err(ReadError::Unavailable(why));
        }
    };
    let answered = Answered {
        version: answered.version,
        epoch: answered.epoch,
        answer: row,
    };
    Ok((answered, content_type))
}

/// Returns a hash as a JSON object. Its values are text, as Redis has them.
fn json_object(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let object: serde_json::Map<_, _> = fields
        .into_iter()
        .map(|(name, value)| (text(name), text(value).into()))
        .collect();
    serde_json::Value::Object(object).to_string().into_bytes()
}

/// Takes the view's name and the key's bytes from a path. Keys are any bytes, so they are decoded here:
/// the framework's parameters are text.
fn view_and_key(path: &str) -> Result<(&str, Vec<u8>), ReadError> {
    let segments: Vec<&str> = path.split('/').collect();
    let ["", "v1", "views", view, "documents", key] = segments[..] else {
        return Err(ReadError::Invalid("the path is no document's".into()));
    };
    let key = percent_decode(key).ok_or_else(|| {
        ReadError::Invalid("a `%` in the key is not followed by two digits".into())
    })?;
    Ok((view, key))
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_path_is_any_bytes() {
        let check = |path: &str, expected: Option<(&str, &[u8])>| {
            let found = view_and_key(path).ok();
            let expected = expected.map(|(view, key)| (view, key.to_vec()));
            assert_eq!(found, expected, "{path}");
        };
        check("/v1/views/products/documents/42", Some(("products", b"42")));
        check("/v1/views/products/documents/", Some(("products", b"")));
        check(
            "/v1/views/p/documents/a%2Fb%20%C3%a9",
            Some(("p", "a/b é".as_bytes())),
        );
        check("/v1/views/p/documents/%ff%00+", Some(("p", b"\xff\x00+")));
        check("/v1/views/p/documents/%f", None);
        check("/v1/views/p/documents/%+1", None);
        check("/v1/views/p/documents/a/b", None);
    }
}
