//! Clients of HTTP that ask for odd things, for too much, or never to an end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::RwLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use materializer_sinks::tantivy::search::{SearchRequest, SearchResponse};
use tokio::net::TcpSocket;

use super::http::{get, post};
use super::*;

/// Who sends the requests of most tests.
const ONE: [u8; 4] = [127, 0, 0, 1];
/// Another one, at another address.
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// Connects a client that has an address of its own.
fn connect(bed: &Bed, from: [u8; 4]) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let connected = runtime.unwrap().block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(bed.gateway.http_address()).await?.into_std()
    });
    let stream = connected.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
}

/// Sends a request as it stands, and returns the status line of its answer and what comes behind it.
fn send(bed: &Bed, request: &str) -> String {
    send_from(ONE, bed, request)
}

fn send_from(client: [u8; 4], bed: &Bed, request: &str) -> String {
    let mut stream = connect(bed, client);
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

/// A copy whose worst searches go on for as long as the test holds the lock.
struct Stuck {
    begun: SyncSender<()>,
    held: Arc<RwLock<()>>,
}

impl ServedCopy for Stuck {
    fn document(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(Some(b"{}".to_vec()))
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ReadError> {
        if request.q.as_deref() == Some("worst") {
            self.begun.send(()).unwrap();
            drop(self.held.read().unwrap());
        }
        Ok(serde_json::from_str(r#"{"total":0,"hits":[]}"#).unwrap())
    }
}

/// Has one client ask the worst of a copy, and another something simple meanwhile.
fn check_starving(front: &Bed, holder: &Bed) {
    let limits = Limits::default();
    let (begun, has_begun) = sync_channel(limits.connections);
    let held = Arc::new(RwLock::new(()));
    let unit = "products/v7/c0/s0";
    let copy = Stuck {
        begun,
        held: Arc::clone(&held),
    };
    holder.copies.serve(unit.parse().unwrap(), Arc::new(copy));
    let at = holder.gateway.http_address();
    front.route([tantivy_route("products@v7", 1, &[(unit, at)])]);
    let ask = |client, path: &str| {
        let request = format!(
            "GET /v1/views/products/{path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
        );
        let answer = send_from(client, front, &request);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    };
    let share = limits.copy_threads / 2;
    thread::scope(|scope| {
        let stuck = held.write().unwrap();
        let worst: Vec<_> = (0..3 * limits.copy_threads)
            .map(|_| scope.spawn(|| ask(ONE, "search?q=worst")))
            .collect();
        for _ in 0..share {
            has_begun.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        ask(OTHER, "search?q=simple");
        ask(OTHER, "documents/42");
        assert!(
            has_begun.try_recv().is_err(),
            "one client has half of the threads"
        );
        drop(stuck);
        worst.into_iter().for_each(|asked| asked.join().unwrap());
    });
}

#[test]
fn who_asks_the_worst_leaves_half_of_the_threads_to_others() {
    let bed = Bed::start(Limits::default());
    check_starving(&bed, &bed);
    // Where another process holds the copy, it is the client that has a share there, not the gateway.
    let (front, holder) = (Bed::start(Limits::default()), Bed::start(Limits::default()));
    check_starving(&front, &holder);
}

#[test]
fn who_takes_all_connections_leaves_places_to_probes() {
    let bed = Bed::start(Limits {
        connections: 4,
        ..Limits::default()
    });
    let mut taken: Vec<_> = (0..6).map(|_| connect(&bed, ONE)).collect();
    let probe = "GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = send_from(OTHER, &bed, probe);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Who has its share is closed on, and is let in again when it has let one go.
    let closed = taken.split_off(2);
    for mut stream in closed {
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "it is closed");
    }
    drop(taken);
    assert_eq!(get(&bed, "/livez").status().as_u16(), 200);
}
