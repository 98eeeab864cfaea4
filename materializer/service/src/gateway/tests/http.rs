//! Clients of HTTP.

use std::thread;
use std::time::Duration;

use materializer_sinks::tantivy::search::{SearchRequest, SearchResponse};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use super::*;

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .proxy(None);
    config.build().into()
}

pub(super) fn get(bed: &Bed, path: &str) -> Response<ureq::Body> {
    let url = format!("http://{}{path}", bed.gateway.http_address());
    agent().get(url).call().unwrap()
}

pub(super) fn post(bed: &Bed, path: &str, body: &[u8]) -> Response<ureq::Body> {
    let url = format!("http://{}{path}", bed.gateway.http_address());
    agent().post(url).send(body).unwrap()
}

pub(super) fn header<'a>(response: &'a Response<ureq::Body>, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

/// Checks a response's status, and the kind of its fault, where it is one.
fn check(mut response: Response<ureq::Body>, status: u16, kind: &str) {
    assert_eq!(response.status().as_u16(), status);
    let body: Value = response.body_mut().read_json().unwrap();
    assert_eq!(body["kind"], kind, "{body}");
}

#[test]
fn a_document_comes_with_the_version_that_answered() {
    let bed = Bed::start(Limits::default()).with_rows();
    let mut found = get(&bed, "/v1/views/products/documents/42");
    assert_eq!(found.status().as_u16(), 200);
    assert_eq!(header(&found, "content-type"), Some("application/json"));
    assert_eq!(header(&found, "materializer-version"), Some("products@v7"));
    assert_eq!(header(&found, "materializer-alias-epoch"), Some("12"));
    assert_eq!(
        found.body_mut().read_to_string().unwrap(),
        r#"{"title":"shoe"}"#
    );

    let mut hash = get(&bed, "/v1/views/users/documents/1");
    assert_eq!(
        hash.body_mut().read_to_string().unwrap(),
        r#"{"name":"Ann"}"#
    );

    let missing = get(&bed, "/v1/views/products/documents/43");
    assert_eq!(
        header(&missing, "materializer-version"),
        Some("products@v7")
    );
    check(missing, 404, "no_document");
    check(
        get(&bed, "/v1/views/products/documents/"),
        404,
        "no_document",
    );
    check(get(&bed, "/v1/views/orders/documents/1"), 404, "not_found");
    check(
        get(&bed, "/v1/views/products/documents/%zz"),
        400,
        "invalid",
    );
    check(
        get(&bed, "/v1/views/products/documents/42?min=3"),
        400,
        "invalid",
    );
    bed.store
        .fail(Some(SinkError::Unavailable("refused".into())));
    let unavailable = get(&bed, "/v1/views/products/documents/42");
    assert_eq!(header(&unavailable, "retry-after"), Some("1"));
    check(unavailable, 503, "unavailable");
}

#[test]
fn a_request_waits_a_moment_for_the_alias_epoch_that_it_names() {
    let limits = Limits {
        epoch_wait: Duration::from_millis(50),
        ..Limits::default()
    };
    let bed = Bed::start(limits);
    let path = "/v1/views/products/documents/42?min_alias_epoch=12";
    check(get(&bed, path), 503, "unavailable");

    let patient = Bed::start(Limits {
        epoch_wait: Duration::from_secs(30),
        ..Limits::default()
    });
    thread::scope(|scope| {
        let asked = scope.spawn(|| get(&patient, path));
        patient.store.put_text("products@v7", "product:42", "{}");
        patient.store.point("products@v7", 12);
        for epoch in [3, 12] {
            patient.route([redis_route(
                "products@v7",
                epoch,
                "product:",
                RedisShape::Json,
            )]);
        }
        let answer = asked.join().unwrap();
        assert_eq!(header(&answer, "materializer-alias-epoch"), Some("12"));
    });
    let bed = bed.with_rows();
    check(
        get(&bed, "/v1/views/products/documents/42?min_alias_epoch=13"),
        503,
        "unavailable",
    );
    assert_eq!(get(&bed, path).status().as_u16(), 200);
}

#[test]
fn an_alias_in_redis_that_is_behind_the_epoch_asked_for_does_not_answer() {
    let bed = Bed::start(Limits {
        epoch_wait: Duration::from_millis(50),
        ..Limits::default()
    })
    .with_rows();
    bed.route([redis_route("products@v8", 15, "product:", RedisShape::Json)]);
    let path = "/v1/views/products/documents/42?min_alias_epoch=15";
    check(get(&bed, path), 503, "unavailable");
    bed.store.put_text("products@v8", "product:42", "{}");
    bed.store.point("products@v8", 15);
    assert_eq!(get(&bed, path).status().as_u16(), 200);
}

/// A copy that tells which it is.
struct Telling {
    name: &'static str,
    fault: Option<ReadError>,
}

impl ServedCopy for Telling {
    fn document(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let row = format!("{}: {}", self.name, key.escape_ascii());
        let found = (key != b"missing").then(|| row.into_bytes());
        self.fault.clone().map_or(Ok(found), Err)
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ReadError> {
        let hit = json!({"key": self.name, "source": {}});
        let found = json!({"total": 1, "hits": [hit], "warnings": request.q.as_slice()});
        let found = serde_json::from_str(&found.to_string()).unwrap();
        self.fault.clone().map_or(Ok(found), Err)
    }
}

/// Returns which copy answered, and what it had been asked.
fn told(body: &Value) -> (&str, &str) {
    (
        body["hits"][0]["key"].as_str().unwrap(),
        body["warnings"][0].as_str().unwrap(),
    )
}

pub(super) fn serve(bed: &Bed, unit: &str, name: &'static str, fault: Option<ReadError>) {
    let copy = Arc::new(Telling { name, fault });
    bed.copies.serve(unit.parse().unwrap(), copy);
}

#[test]
fn documents_and_searches_are_answered_by_a_copy_here_or_at_another_worker() {
    let (here, other) = (Bed::start(Limits::default()), Bed::start(Limits::default()));
    let unit = "products/v1/c0/s0";
    let at_other = other.gateway.http_address();
    here.route([tantivy_route("products@v1", 5, &[(unit, at_other)])]);
    let document = |key: &str| get(&here, &format!("/v1/views/products/documents/{key}"));
    check(document("1"), 503, "unavailable");

    serve(&other, unit, "there", None);
    let mut found = document("a%ff");
    assert_eq!(header(&found, "materializer-version"), Some("products@v1"));
    assert_eq!(found.body_mut().read_to_string().unwrap(), r"there: a\xff");
    check(document("missing"), 404, "no_document");
    let mut found = post(&here, "/v1/views/products/search", br#"{"q":"shoe"}"#);
    assert_eq!(header(&found, "materializer-alias-epoch"), Some("5"));
    let body: Value = found.body_mut().read_json().unwrap();
    assert_eq!(told(&body), ("there", "shoe"));

    serve(&here, unit, "here", None);
    let mut found = get(&here, "/v1/views/products/search?q=shoe");
    let body: Value = found.body_mut().read_json().unwrap();
    assert_eq!(told(&body), ("here", "shoe"));

    check(
        post(&here, "/v1/views/products/search", b"{"),
        400,
        "invalid",
    );
    let invalid = ReadError::Invalid("`titel` is no field".into());
    serve(&here, unit, "here", Some(invalid));
    check(
        get(&here, "/v1/views/products/search?q=titel:x"),
        400,
        "invalid",
    );
    let here = here.with_rows();
    check(
        get(&here, "/v1/views/products/search?q=shoe"),
        400,
        "invalid",
    );
}

#[test]
fn a_copy_that_cannot_answer_is_passed_over() {
    let bed = Bed::start(Limits::default());
    let gone = Bed::start(Limits::default());
    let units = [
        "products/v1/c0/s0",
        "products/v1/c1/s0",
        "products/v1/c2/s0",
    ];
    // One is not held where it is said to be, one is not servable, one answers.
    bed.route([tantivy_route(
        "products@v1",
        5,
        &[
            (units[0], gone.gateway.http_address()),
            (units[2], gone.gateway.http_address()),
        ],
    )]);
    serve(&bed, units[2], "good", None);
    for _ in 0..20 {
        let mut found = get(&bed, "/v1/views/products/documents/1");
        assert_eq!(found.body_mut().read_to_string().unwrap(), "good: 1");
    }
    bed.copies.withdraw(&units[2].parse().unwrap());
    let unservable = ReadError::Unavailable("it is being rebuilt".into());
    serve(&bed, units[1], "rebuilding", Some(unservable));
    bed.route([tantivy_route(
        "products@v1",
        5,
        &[(units[1], gone.gateway.http_address())],
    )]);
    check(
        get(&bed, "/v1/views/products/documents/1"),
        503,
        "unavailable",
    );
}

#[test]
fn a_worker_answers_for_copies_that_it_holds_of_its_own_catalog() {
    let bed = Bed::start(Limits::default());
    serve(&bed, "products/v1/c0/s0", "held", None);
    let ask = |catalog: &str, copy: &str| {
        let unit = format!("/internal/v1/catalogs/{catalog}/units/products/v1/{copy}/s0");
        post(&bed, &format!("{unit}/document"), b"1")
    };
    let mut held = ask("ours", "c0");
    assert_eq!(held.body_mut().read_to_string().unwrap(), "held: 1");
    check(ask("ours", "c1"), 410, "gone");
    check(ask("another", "c0"), 410, "gone");
    check(ask("ours", "0"), 400, "invalid");
}

#[test]
fn a_copy_that_is_behind_answers_only_where_no_other_does() {
    let bed = Bed::start(Limits::default());
    let address = bed.gateway.http_address();
    let copies = [
        ("products/v1/c0/s0", address),
        ("products/v1/c1/s0", address),
    ];
    let Route::Tantivy(route) = tantivy_route("products@v1", 5, &copies) else {
        panic!("it is one to copies");
    };
    let mut route = Arc::unwrap_or_clone(route);
    route.behind = route.copies.split_off(1);
    bed.route([Route::Tantivy(Arc::new(route))]);
    serve(&bed, copies[0].0, "current", None);
    serve(&bed, copies[1].0, "behind", None);
    let document = || get(&bed, "/v1/views/products/documents/1");
    for _ in 0..20 {
        let answer = document().body_mut().read_to_string().unwrap();
        assert_eq!(answer, "current: 1");
    }
    bed.copies.withdraw(&copies[0].0.parse().unwrap());
    let answer = document().body_mut().read_to_string().unwrap();
    assert_eq!(answer, "behind: 1");
    bed.copies.withdraw(&copies[1].0.parse().unwrap());
    check(document(), 503, "unavailable");
}

#[test]
fn probes_tell_apart_what_is_alive_and_what_is_ready() {
    let bed = Bed::start(Limits::default());
    assert_eq!(get(&bed, "/livez").status().as_u16(), 200);
    let mut ready = get(&bed, "/readyz");
    assert_eq!(ready.status().as_u16(), 503);
    let why = ready.body_mut().read_to_string().unwrap();
    assert_eq!(why, "the catalog has not been read\n");
    check(get(&bed, "/v1/views"), 503, "unavailable");
    let mut metrics = get(&bed, "/metrics");
    assert_eq!(
        header(&metrics, "content-type"),
        Some("text/plain; version=0.0.4")
    );
    let text = metrics.body_mut().read_to_string().unwrap();
    let counted = r#"materializer_gateway_requests_total{op="status",outcome="unavailable"} 1"#;
    assert!(text.contains(counted), "{text}");
}
