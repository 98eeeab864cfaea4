//! Tokens and TLS between real processes: each port demands the token and speaks TLS, and the processes find
//! their way to each other's copies all the same.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chaos::Process;
use chaos::installation::{Installation, wait_until};
use it::services::Services;
use rdkafka::producer::Producer as _;
use rustls::crypto::ring;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::kafka_scene::{LIMIT, Scene};

const TOKEN: &str = "between-processes-0123456789";

/// Returns a file of the services' own authority, as `server.crt`.
pub(crate) fn tls_file(services: &Services, name: &str) -> PathBuf {
    PathBuf::from(services.get("KAFKA_CA")).with_file_name(name)
}

/// Returns a client of HTTP that trusts the services' authority.
pub(crate) fn agent(services: &Services) -> Agent {
    let pem = fs::read(tls_file(services, "ca.crt")).expect("the authority");
    let authority = Certificate::from_pem(&pem).expect("a certificate");
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(vec![authority])))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .tls_config(tls.build())
        .proxy(None);
    config.build().into()
}

/// Asks a process, and returns the status and the text of its answer; 0 where there is none.
pub(crate) fn ask(agent: &Agent, http: u16, path: &str, token: Option<&str>) -> (u16, String) {
    let mut request = agent.get(format!("https://localhost:{http}{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.call().map_or((0, String::new()), |mut answer| {
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        (answer.status().as_u16(), text)
    })
}

#[test]
#[ignore = "needs Kafka and Redis: ./dev test"]
fn two_processes_hold_a_copy_each_and_a_gateway_asks_both_with_the_token_under_tls() {
    let services = Services::find();
    let scene = Scene::new("access", 1, &[("cleanup.policy", "compact")]);
    let producer = scene.producer(false);
    for key in 0..20 {
        scene.send(
            &producer,
            &format!("k{key}"),
            Some(r#"{"title":"red shoe"}"#),
        );
    }
    producer.flush(LIMIT).expect("acknowledged");
    let file = |name| tls_file(&services, name).display().to_string();
    let further = format!(
        "worker: {{slots: 1}}\naccess:\n  token: {TOKEN}\n  tls_cert: {}\n  tls_key: {}\n  tls_ca: {}\n",
        file("server.crt"),
        file("server.key"),
        file("ca.crt"),
    );
    let (brokers, redis) = (services.get("KAFKA_BROKERS"), services.get("REDIS_URL"));
    let mut installation = Installation::new(brokers, redis, "access", &further);
    let agent = agent(&services);
    let mut worker = installation.process("worker", "worker");
    let mut gateway = installation.process("gateway", "gateway");
    let start = |process: &mut Process| {
        process.start();
        let http = process.http;
        wait_until("the process is ready", || {
            ask(&agent, http, "/readyz", None).0 == 200
        });
    };
    start(&mut installation.run);
    start(&mut worker);
    let view = installation.define(
        "products.yaml",
        &format!(
            "view: products\nfrom: {{topics: ['{}']}}\nkey: record.key\n\
             document: {{title: {{value: event.title, type: text}}}}\nto: {{tantivy: {{copies: 2}}}}\n\
             gates: {{stable_for: 1s, queries: [{{q: 'title:shoe', hits_min: 20}}]}}\n",
            scene.topic
        ),
    );
    installation.done(&["apply", &view]);
    // The gate's query has been asked of a copy over HTTP when this is so.
    installation.done(&["wait", "products@v1", "--for", "live"]);
    start(&mut gateway);

    let search = "/v1/views/products/search?q=title:shoe";
    assert_eq!(ask(&agent, gateway.http, search, None).0, 401);
    let held = |process: &Process| {
        let (_, metrics) = ask(&agent, process.http, "/metrics", Some(TOKEN));
        let searches = r#"materializer_gateway_requests_total{op="held_search",outcome="ok"} "#;
        let line = metrics.lines().find_map(|line| line.strip_prefix(searches));
        line.and_then(|count| count.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let before = (held(&installation.run), held(&worker));
    wait_until("both copies are asked", || {
        let (status, body) = ask(&agent, gateway.http, search, Some(TOKEN));
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["total"], 20);
        held(&installation.run) > before.0 && held(&worker) > before.1
    });
    assert!(worker.end().success() && gateway.end().success());
    assert!(installation.run.end().success());
}
