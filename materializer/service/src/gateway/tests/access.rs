//! Who is let in: tokens and TLS on both ports, and between processes; and that HTTP changes nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use ::redis::{ClientTlsConfig, TlsCertificates};
use rustls::crypto::ring;
use ureq::Agent;
use ureq::http::Method;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::http::{header, serve};
use super::*;
use crate::access::tests::{Files, TOKEN, demanding};

/// Every route, and whether it takes a body by `POST`.
const ROUTES: [(&str, bool); 10] = [
    ("/livez", false),
    ("/readyz", false),
    ("/metrics", false),
    ("/v1/views", false),
    ("/v1/views/products", false),
    ("/v1/views/products/documents/42", false),
    ("/v1/views/products/documents/", false),
    ("/v1/views/products/search", true),
    (
        "/internal/v1/catalogs/ours/units/products/v1/c0/s0/document",
        true,
    ),
    (
        "/internal/v1/catalogs/ours/units/products/v1/c0/s0/search",
        true,
    ),
];

#[test]
fn the_table_of_routes_has_all_of_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let routes = files
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| fs::read_to_string(path).unwrap().matches(".route(").count());
    assert_eq!(routes.sum::<usize>(), ROUTES.len());
}

/// Asks over HTTP with a token, and returns the status and whether the answer says what is demanded.
fn ask(bed: &Bed, method: &Method, path: &str, token: Option<&str>) -> (u16, bool) {
    let url = format!("http://{}{path}", bed.gateway.http_address());
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("Authorization", token);
    }
    let agent = agent(None);
    let answer = agent.run(request.body("{}").unwrap()).unwrap();
    let says = header(&answer, "www-authenticate").is_some();
    (answer.status().as_u16(), says)
}

fn agent(authority: Option<&Path>) -> Agent {
    let roots = authority.map(|path| {
        let pem = fs::read(path).unwrap();
        Certificate::from_pem(&pem).unwrap()
    });
    let roots = RootCerts::Specific(Arc::new(roots.into_iter().collect()));
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .tls_config(tls.build())
        .allow_non_standard_methods(true)
        .proxy(None);
    config.build().into()
}

#[test]
fn http_is_read_only_on_every_route() {
    let bed = Bed::start(Limits::default()).with_rows();
    for (path, takes_post) in ROUTES {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PURGE"] {
            if method == "POST" && takes_post {
                continue;
            }
            let method = method.parse().unwrap();
            assert_eq!(ask(&bed, &method, path, None).0, 405, "{method} {path}");
        }
    }
}

#[test]
fn http_answers_nothing_but_the_probes_without_the_token() {
    let bed = Bed::start_demanding(demanding(TOKEN), Limits::default()).with_rows();
    let (get, post) = (Method::GET, Method::POST);
    let right = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    for (path, takes_post) in ROUTES {
        let is_open = matches!(path, "/livez" | "/readyz");
        let method = if takes_post { &post } else { &get };
        for shown in [
            None,
            Some(wrong.as_str()),
            Some(&basic),
            Some(TOKEN),
            Some("Bearer "),
        ] {
            let (status, says) = ask(&bed, method, path, shown);
            assert_eq!(status == 401, !is_open, "{path} with {shown:?}: {status}");
            assert_eq!(says, !is_open, "{path} with {shown:?}");
        }
        for scheme in ["Bearer", "bearer"] {
            let shown = format!("{scheme} {TOKEN}");
            let (status, _) = ask(&bed, method, path, Some(&shown));
            assert_ne!(status, 401, "{path} with the token");
        }
    }
    assert_eq!(ask(&bed, &get, "/no/such/path", None).0, 401);
    assert_eq!(
        ask(&bed, &get, "/v1/views/products/documents/42", Some(&right)).0,
        200
    );
}

#[test]
fn a_body_without_a_token_is_not_read_and_its_sender_is_closed_on() {
    let bed = Bed::start_demanding(demanding(TOKEN), Limits::default());
    let mut stream = TcpStream::connect(bed.gateway.http_address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let head =
        "POST /v1/views/products/search HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("access.token_file"), "{answer}");
}

/// Sends lines to a new connection and returns all that comes back until it is closed.
fn session(bed: &Bed, lines: &str) -> String {
    let mut stream = raw(bed);
    stream.write_all(lines.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn redis_answers_nothing_before_the_login() {
    let bed = Bed::start_demanding(demanding(TOKEN), Limits::default()).with_rows();
    let noauth = "-NOAUTH Authentication required.\r\n";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    let ok = "+OK\r\n";
    let row = "$16\r\n{\"title\":\"shoe\"}\r\n";
    let check = |lines: &str, expected: &[&str]| {
        let answer = session(&bed, &format!("{lines}QUIT\r\n"));
        assert_eq!(answer, expected.concat() + ok, "{lines}");
    };
    for closed in [
        "GET product:42",
        "PING",
        "INFO",
        "COMMAND",
        "CLIENT ID",
        "ECHO a",
        "SET a b",
        "GET",
    ] {
        check(&format!("{closed}\r\n"), &[noauth]);
    }
    check(
        "AUTH\r\n",
        &["-ERR wrong number of arguments for 'auth' command\r\n"],
    );
    check(
        &format!("AUTH {TOKEN}x\r\nGET product:42\r\n"),
        &[wrong, noauth],
    );
    check(&format!("AUTH ann {TOKEN}\r\nPING\r\n"), &[wrong, noauth]);
    check(&format!("AUTH {TOKEN}\r\nGET product:42\r\n"), &[ok, row]);
    check(
        &format!("auth default {TOKEN}\r\nGET product:42\r\n"),
        &[ok, row],
    );
    // Who is in stays in.
    check(
        &format!("AUTH {TOKEN}\r\nAUTH wrong\r\nPING\r\n"),
        &[ok, wrong, "+PONG\r\n"],
    );

    let hello = session(
        &bed,
        &format!(
            "HELLO 3\r\nHELLO 3 AUTH default wrong\r\nHELLO 3 AUTH default {TOKEN}\r\nPING\r\nQUIT\r\n"
        ),
    );
    let mut lines = hello.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("-NOAUTH HELLO must be called"),
        "{hello}"
    );
    assert_eq!(lines.next(), Some(wrong.trim_end()));
    assert_eq!(lines.next(), Some("%7"), "{hello}");
    assert!(hello.ends_with("+PONG\r\n+OK\r\n"), "{hello}");
}

#[test]
fn a_client_that_does_not_log_in_costs_little() {
    let bed = Bed::start_demanding(
        demanding(TOKEN),
        Limits {
            answer_time: Duration::from_millis(300),
            ..Limits::default()
        },
    );
    let told = session(&bed, "*11\r\n");
    assert_eq!(told, "-ERR Protocol error: invalid multibulk length\r\n");
    let told = session(&bed, "*1\r\n$4097\r\n");
    assert_eq!(told, "-ERR Protocol error: invalid bulk length\r\n");
    let told = session(
        &bed,
        &format!("*2\r\n$2000\r\n{}\r\n$4000\r\n", "a".repeat(2000)),
    );
    assert_eq!(told, "-ERR Protocol error: too big request\r\n");
    let tries = session(&bed, &"AUTH wrong\r\n".repeat(20));
    assert_eq!(
        tries.matches("-WRONGPASS").count(),
        5,
        "then the connection ends"
    );
    // Neither silence nor talk keeps a place beyond the time for the login.
    assert_eq!(session(&bed, ""), "");
    let mut talking = raw(&bed);
    let mut answer = [0; 64];
    while talking.write_all(b"PING\r\n").is_ok()
        && talking.read(&mut answer).is_ok_and(|read| read > 0)
    {}
    // Who has logged in sends what is allowed, and stays.
    let mut stream = raw(&bed);
    let echo = "a".repeat(5000);
    let sent = format!("AUTH {TOKEN}\r\n*2\r\n$4\r\nECHO\r\n$5000\r\n{echo}\r\n");
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = vec![0; 5 + 7 + 5002];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"+OK\r\n$5000\r\n"));
}

#[test]
fn both_ports_speak_tls_and_show_a_renewed_certificate() {
    let files = Files::new();
    let bed = Bed::start_demanding(
        AccessSection {
            token: demanding(TOKEN).token,
            ..files.tls()
        },
        Limits::default(),
    )
    .with_rows();
    let address = bed.gateway.http_address();
    let https = |host: &str, authority| {
        let url = format!(
            "https://{host}:{}/v1/views/products/documents/42",
            address.port()
        );
        let request = agent(authority).get(url);
        request
            .header("authorization", format!("Bearer {TOKEN}"))
            .call()
    };
    let ca = files.path("ca.pem");
    for host in ["localhost", "127.0.0.1"] {
        let mut found = https(host, Some(&ca)).unwrap();
        assert_eq!(
            found.body_mut().read_to_string().unwrap(),
            r#"{"title":"shoe"}"#
        );
    }
    assert!(https("localhost", None).is_err(), "nobody vouches for it");

    let port = bed.gateway.redis_address().unwrap().port();
    let client = ::redis::Client::build_with_tls(
        format!("rediss://default:{TOKEN}@localhost:{port}"),
        TlsCertificates {
            client_tls: None::<ClientTlsConfig>,
            root_cert: Some(fs::read(&ca).unwrap()),
        },
    );
    let read = || {
        let mut client = client.as_ref().unwrap().get_connection().unwrap();
        ::redis::cmd("GET")
            .arg("product:42")
            .query::<String>(&mut client)
    };
    assert_eq!(read().unwrap(), r#"{"title":"shoe"}"#);

    // In the clear there is nothing to be had, not even a probe.
    let mut plain = TcpStream::connect(address).unwrap();
    plain
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    plain
        .write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // Another authority altogether: the one before does not vouch for what is shown from now on.
    let others = Files::new();
    for name in ["cert.pem", "key.pem"] {
        files.write(name, &fs::read_to_string(others.path(name)).unwrap());
    }
    bed.access.step(Monotonic(Duration::ZERO));
    bed.access.step(Monotonic(Duration::from_secs(60)));
    assert!(https("localhost", Some(&ca)).is_err());
    assert!(https("localhost", Some(&others.path("ca.pem"))).is_ok());
}

#[test]
fn a_handshake_that_is_not_done_keeps_nobody_waiting_and_ends() {
    let bed = Bed::start_demanding(
        Files::new().tls(),
        Limits {
            connections: 1,
            answer_time: Duration::from_millis(300),
            ..Limits::default()
        },
    );
    for address in [
        bed.gateway.http_address(),
        bed.gateway.redis_address().unwrap(),
    ] {
        let mut silent = TcpStream::connect(address).unwrap();
        silent
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "the end");
    }
}

#[test]
fn processes_ask_each_other_with_their_tokens_under_tls() {
    let files = Files::new();
    let (old, new) = (format!("old-{TOKEN}"), format!("new-{TOKEN}"));
    let with = |tokens: &str| AccessSection {
        token: demanding(tokens).token,
        ..files.tls()
    };
    let unit = "products/v1/c0/s0";
    let check = |asks: AccessSection,
                 answers: AccessSection,
                 scheme: &str,
                 expected: Result<&str, &str>| {
        let token = asks
            .token
            .as_ref()
            .map(|token| token.expose().lines().next().unwrap().to_owned());
        let here = Bed::start_demanding(
            AccessSection {
                tls_cert: None,
                tls_key: None,
                ..asks
            },
            Limits::default(),
        );
        let other = Bed::start_demanding(answers, Limits::default());
        serve(&other, unit, "there", None);
        let address = format!("{scheme}{}", other.gateway.http_address());
        here.route([tantivy_route("products@v1", 5, &[(unit, address)])]);
        let url = format!(
            "http://{}/v1/views/products/documents/1",
            here.gateway.http_address()
        );
        let mut request = agent(None).get(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut found = request.call().unwrap();
        let body = found.body_mut().read_to_string().unwrap();
        match expected {
            Ok(row) => assert_eq!(body, row),
            Err(part) => assert!(
                found.status().as_u16() == 503 && body.contains(part),
                "{body}"
            ),
        }
    };
    let there = Ok("there: 1");
    let open = AccessSection::default;
    check(open(), open(), "", there);
    check(with(&old), demanding(&old), "http://", there);
    check(with(&old), with(&old), "https://", there);
    // While tokens are renewed, one process has heard of it and the other has not.
    check(
        with(&old),
        with(&format!("{old}\n{new}")),
        "https://",
        there,
    );
    check(
        with(&format!("{old}\n{new}")),
        with(&old),
        "https://",
        there,
    );
    check(
        with(&format!("{old}\n{new}")),
        with(&new),
        "https://",
        there,
    );
    check(
        with(&new),
        with(&old),
        "https://",
        Err("all processes need one in common"),
    );
    check(open(), with(&old), "https://", Err("set `access.tls_ca`"));
    check(with(&old), with(&old), "", Err("products/v1/c0/s0"));
}
