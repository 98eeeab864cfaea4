//! Clients of HTTP that ask for odd things, for too much, or never to an end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::http::{get, post};
use super::*;

/// Sends a request as it stands, and returns the status line of its answer and what comes behind it.
fn send(bed: &Bed, request: &str) -> String {
    let mut stream = TcpStream::connect(bed.gateway.http_address()).unwrap();
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn odd_requests_are_told_what_they_are() {
    let bed = Bed::start(Limits::default()).with_rows();
    let check = |method: &str, path: &str, headers: usize, expected: u16, kind: &str| {
        let headers = "x: y\r\n".repeat(headers);
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n");
        let answer = send(&bed, &request);
        let shown = &request[..request.len().min(100)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{shown}: {answer}"
        );
        assert!(answer.contains(kind), "{shown}: {answer}");
    };
    let document = "/v1/views/products/documents/";
    check("GET", &format!("{document}42"), 90, 200, "shoe");
    check("GET", &format!("{document}%00%ff"), 0, 404, "no_document");
    check(
        "GET",
        &format!("{document}{}", "k".repeat(60_000)),
        0,
        404,
        "no_document",
    );
    check(
        "GET",
        &format!("{document}{}", "k".repeat(70_000)),
        0,
        414,
        "",
    );
    check("GET", &format!("{document}42"), 101, 431, "");
    for view in ["..", "%2e%2e", "a%2fb", "products@v7", "%00"] {
        check(
            "GET",
            &format!("/v1/views/{view}/documents/42"),
            0,
            404,
            "not_found",
        );
        check(
            "GET",
            &format!("/v1/views/{view}/search?q=x"),
            0,
            404,
            "not_found",
        );
    }
    check("GET", "/v1/views//documents/42", 0, 404, "not_found");
    check("GET", "/", 0, 404, "not_found");
    for method in ["PUT", "DELETE", "OPTIONS", "POST"] {
        check(method, &format!("{document}42"), 0, 405, "invalid");
    }
    let head = send(
        &bed,
        &format!("HEAD {document}42 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"),
    );
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn a_connection_without_an_answer_for_long_ends_and_makes_room() {
    let bed = Bed::start(Limits {
        connections: 1,
        idle_time: Duration::from_millis(200),
        ..Limits::default()
    });
    let mut slow = TcpStream::connect(bed.gateway.http_address()).unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: ").unwrap();
    assert_eq!(get(&bed, "/livez").status().as_u16(), 200);
    let limit = Some(Duration::from_secs(5));
    slow.set_read_timeout(limit).unwrap();
    assert_eq!(slow.read(&mut [0]).unwrap(), 0, "the end");
}

#[test]
fn a_body_is_bounded() {
    let bed = Bed::start(Limits {
        request_bytes: 100,
        ..Limits::default()
    });
    let response = post(&bed, "/v1/views/products/search", &[b' '; 101]);
    assert_eq!(response.status().as_u16(), 413);
}
