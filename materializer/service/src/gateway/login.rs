//! The token that HTTP may demand: `Authorization: Bearer …` (RFC 6750).
//!
//! It is looked at before anything else of a request, its body above all. Who shows none, or a wrong one, is
//! told so and closed on. Open to all are the two probes: an orchestrator has no token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::http::FaultBody;
use super::probes;
use super::server::Shared;
use crate::access::Demands;
use crate::metrics::Port;

const MISSING: &str = "a token is demanded: send `Authorization: Bearer TOKEN`, with what \
    `access.token` or `access.token_file` says in the settings of this process";
const WRONG: &str = "the token is none that this process accepts: see `access.token` or \
    `access.token_file` in its settings";

/// Passes on the requests of those who may ask.
pub(super) async fn demand_token(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let verdict = if probes::OPEN.contains(&request.uri().path()) {
        Ok(())
    } else {
        judge(&shared.access.demands(), request.headers())
    };
    match verdict {
        Ok(()) => next.run(request).await,
        Err(why) => {
            shared.metrics.gateway.refused(Port::Http);
            refusal(why)
        }
    }
}

fn judge(demands: &Demands, headers: &HeaderMap) -> Result<(), &'static str> {
    if !demands.token() {
        return Ok(());
    }
    match headers.get(header::AUTHORIZATION).map(bearer) {
        None => Err(MISSING),
        Some(Some(token)) if demands.accepts(token) => Ok(()),
        Some(_) => Err(WRONG),
    }
}

/// Returns the token of a header, where it has one.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn refusal(why: &str) -> Response {
    let mut response =
        FaultBody::response(StatusCode::UNAUTHORIZED, "unauthorized", why.to_owned());
    let headers = response.headers_mut();
    let scheme = HeaderValue::from_static("Bearer realm=\"materializer\"");
    headers.insert(header::WWW_AUTHENTICATE, scheme);
    // One try for each connection.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
