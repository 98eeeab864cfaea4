//! Clients of the Redis protocol.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use ::redis::{Commands as _, Connection, ErrorKind};
use materializer_model::Clock as _;

use super::*;

fn client(bed: &Bed) -> Connection {
    let address = bed.gateway.redis_address().unwrap();
    let client = ::redis::Client::open(format!("redis://{address}")).unwrap();
    client
        .get_connection_with_timeout(Duration::from_secs(5))
        .unwrap()
}

/// Sends bytes and checks the bytes that come back.
fn check(stream: &mut TcpStream, sent: &str, expected: &str) {
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = vec![0; expected.len()];
    let read = stream.read_exact(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(answer, expected, "for {sent:?} ({read:?})");
}

#[test]
fn the_redis_crate_reads_rows_by_alias() {
    let bed = Bed::start(Limits::default()).with_rows();
    let mut client = client(&bed);
    let row: Option<String> = client.get("product:42").unwrap();
    assert_eq!(row.as_deref(), Some(r#"{"title":"shoe"}"#));
    let none: Option<String> = client.get("product:43").unwrap();
    assert_eq!(none, None);
    let rows: Vec<Option<String>> = client.mget(&["product:43", "product:42"]).unwrap();
    assert_eq!(rows, [None, row]);
    let count: i64 = client
        .exists(&["product:42", "product:43", "user:1"])
        .unwrap();
    assert_eq!(count, 2);
    let name: String = client.hget("user:1", "name").unwrap();
    assert_eq!(name, "Ann");
    let fields: BTreeMap<String, String> = client.hgetall("user:1").unwrap();
    assert_eq!(fields, BTreeMap::from([("name".into(), "Ann".into())]));
    let ttl: i64 = client.ttl("product:42").unwrap();
    assert_eq!(ttl, -1);

    let wrong = client.get::<_, String>("user:1").unwrap_err();
    assert_eq!(wrong.code(), Some("WRONGTYPE"));
    let refused = client.set::<_, _, ()>("product:42", "x").unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
    let unknown = client.get::<_, String>("order:1").unwrap_err();
    assert!(unknown.to_string().contains("no live view"), "{unknown}");
}

#[test]
fn a_pipeline_is_answered_in_order_however_it_arrives() {
    let limits = Limits {
        part_bytes: 100,
        ..Limits::default()
    };
    let bed = Bed::start(limits).with_rows();
    let mut stream = raw(&bed);
    let many = "GET product:42\r\nPING\r\n*2\r\n$3\r\nGET\r\n$10\r\nproduct:43\r\nECHO a\r\n";
    let answers = "$16\r\n{\"title\":\"shoe\"}\r\n+PONG\r\n$-1\r\n$1\r\na\r\n";
    check(&mut stream, &many.repeat(200), &answers.repeat(200));
    let of_two = "EXISTS product:42 user:1\r\nMGET product:43 product:42\r\n";
    let answers_of_two = ":2\r\n*2\r\n$-1\r\n$16\r\n{\"title\":\"shoe\"}\r\n";
    check(
        &mut stream,
        &of_two.repeat(100),
        &answers_of_two.repeat(100),
    );
    let (first, rest) = many.split_at(50);
    check(
        &mut stream,
        first,
        "$16\r\n{\"title\":\"shoe\"}\r\n+PONG\r\n",
    );
    check(&mut stream, rest, "$-1\r\n$1\r\na\r\n");
}

/// A reader that counts the bytes of the rows that it reads.
struct Counting {
    store: Store,
    bytes: Arc<AtomicUsize>,
}

impl RowReader for Counting {
    fn answer(&mut self, requests: &[ReadRequest]) -> Vec<Result<Answer, SinkError>> {
        let answers = self.store.answer(requests);
        let replies = answers.iter().flatten().flat_map(|answer| &answer.replies);
        let bytes = replies.map(|reply| match reply {
            Reply::Bytes(row) => row.len(),
            Reply::Nil | Reply::Number(_) | Reply::Fields(_) | Reply::WrongType => 0,
        });
        self.bytes.fetch_add(bytes.sum(), Ordering::Relaxed);
        answers
    }
}

/// Starts a gateway with the row `product:1` of so many bytes, and counts what it reads.
fn with_large_row(limits: Limits, bytes: usize) -> (Bed, Arc<AtomicUsize>) {
    let counted = Arc::new(AtomicUsize::new(0));
    let bed = Bed::start_reading(limits, 1, |store| {
        let bytes = Arc::clone(&counted);
        Box::new(Counting { store, bytes })
    })
    .with_rows();
    bed.store
        .put_text("products@v7", "product:1", &"x".repeat(bytes));
    (bed, counted)
}

#[test]
fn a_client_that_does_not_read_is_not_read_for_and_closed_on() {
    const ROW: usize = 1 << 20;
    let limits = Limits {
        answer_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let (bed, counted) = with_large_row(limits, ROW);
    let mut stream = raw(&bed);
    stream.write_all(&b"GET product:1\r\n".repeat(200)).unwrap();
    let clock = SystemClock::start();
    let closed = r#"gateway_connections{kind="redis"} 0"#;
    while counted.load(Ordering::Relaxed) == 0
        || !bed.metrics.render(&Silent).unwrap().contains(closed)
    {
        let waited = clock.monotonic().since(Monotonic::default());
        assert!(waited < Duration::from_secs(10), "the connection is open");
        std::thread::yield_now();
    }
    let read = counted.load(Ordering::Relaxed) / ROW;
    assert!(read <= 40, "{read} of 200 rows were read");
}

#[test]
fn a_reply_that_would_be_too_large_is_refused_and_a_long_one_before_it_is_read() {
    let limits = Limits {
        reply_bytes: 1000,
        ..Limits::default()
    };
    let (bed, counted) = with_large_row(limits, 100);
    let mut stream = raw(&bed);
    let keys = |count: usize| format!("MGET{}\r\n", " product:1".repeat(count));
    let row = format!("$100\r\n{}\r\n", "x".repeat(100));
    check(
        &mut stream,
        &keys(10),
        &format!("*10\r\n{}", row.repeat(10)),
    );
    let refused = |bytes| {
        format!("-ERR the reply has {bytes} bytes of rows, 1000 are sent (`gateway.reply_size`)")
    };
    let rest = ": ask for fewer keys\r\n";
    check(&mut stream, &keys(11), &(refused(1100) + rest));
    let before = counted.load(Ordering::Relaxed);
    check(&mut stream, &keys(100), &(refused(10_000) + rest));
    assert_eq!(counted.load(Ordering::Relaxed), before);
    check(&mut stream, "GET product:1\r\n", &row);
}

#[test]
fn hello_chooses_the_protocol_of_the_replies_from_its_own_on() {
    let bed = Bed::start(Limits::default()).with_rows();
    let mut stream = raw(&bed);
    let hello = "version\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n\
        $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    let expected = format!(
        "$-1\r\n%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\n{hello}_\r\n%1\r\n$4\r\nname\r\n$3\r\nAnn\r\n"
    );
    let sent = "GET product:1\r\nHELLO 3\r\nGET product:1\r\nHGETALL user:1\r\n";
    check(&mut stream, sent, &expected);
    check(
        &mut stream,
        "HELLO 4\r\n",
        "-NOPROTO unsupported protocol version\r\n",
    );
    check(&mut stream, "GET product:1\r\n", "_\r\n");

    let address = bed.gateway.redis_address().unwrap();
    let client = ::redis::Client::open(format!("redis://{address}/?protocol=resp3")).unwrap();
    let mut client = client.get_connection().unwrap();
    let fields: BTreeMap<String, String> = client.hgetall("user:1").unwrap();
    assert_eq!(fields, BTreeMap::from([("name".into(), "Ann".into())]));
}

#[test]
fn before_the_catalog_is_read_clients_are_told_to_wait() {
    let bed = Bed::start(Limits::default());
    let early = client(&bed).get::<_, String>("product:42").unwrap_err();
    assert_eq!(
        early.kind(),
        ErrorKind::Server(::redis::ServerErrorKind::BusyLoading)
    );
    let bed = bed.with_rows();
    let row: String = client(&bed).get("product:42").unwrap();
    assert_eq!(row, r#"{"title":"shoe"}"#);
}

#[test]
fn who_breaks_the_protocol_is_told_and_closed() {
    let bed = Bed::start(Limits::default());
    let mut stream = raw(&bed);
    let answer = "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n";
    check(&mut stream, "PING\r\n*1\r\n$-5\r\nPING\r\n", answer);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end");

    let mut stream = raw(&bed);
    check(&mut stream, "QUIT\r\nPING\r\n", "+OK\r\n");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end");
}

#[test]
fn any_bytes_may_be_a_key() {
    let bed = Bed::start(Limits::default()).with_rows();
    let mut stream = raw(&bed);
    let mut ask = |key: &str, expected: &str| {
        let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        check(&mut stream, &get, expected);
    };
    ask("", "-ERR no live view has keys like ``\r\n");
    ask("product:", "$-1\r\n");
    ask("product:\0\r\n*1\r\n\u{7f}", "$-1\r\n");
    ask(&format!("product:{}", "k".repeat(70_000)), "$-1\r\n");
    ask("product:42", "$16\r\n{\"title\":\"shoe\"}\r\n");
}

#[test]
fn a_command_that_does_not_arrive_whole_ends_its_connection_and_an_idle_one_stays() {
    let bed = Bed::start(Limits {
        answer_time: Duration::from_millis(200),
        ..Limits::default()
    });
    let mut idle = raw(&bed);
    check(&mut idle, "PING\r\n", "+PONG\r\n");
    let mut slow = raw(&bed);
    check(&mut slow, "PING\r\n*2\r\n$3\r\nGE", "+PONG\r\n");
    assert_eq!(slow.read(&mut [0]).unwrap(), 0, "the end");
    check(&mut idle, "PI", "");
    check(&mut idle, "NG\r\n", "+PONG\r\n");
}

#[test]
fn connections_are_limited() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let bed = Bed::start(limits);
    let mut first = raw(&bed);
    check(&mut first, "PING\r\n", "+PONG\r\n");
    let mut second = raw(&bed);
    check(&mut second, "", "-ERR max number of clients reached\r\n");
    check(&mut first, "PING\r\n", "+PONG\r\n");
}

#[test]
fn a_fault_behind_the_gateway_is_told_by_what_to_do() {
    let bed = Bed::start(Limits::default()).with_rows();
    let mut stream = raw(&bed);
    bed.store
        .fail(Some(SinkError::Unavailable("connection refused".into())));
    check(
        &mut stream,
        "GET product:42\r\n",
        "-TRYAGAIN connection refused\r\n",
    );
    bed.store
        .fail(Some(SinkError::Refused("no permission".into())));
    check(&mut stream, "GET product:42\r\n", "-ERR no permission\r\n");
    bed.store.fail(None);
    check(&mut stream, "GET product:43\r\n", "$-1\r\n");
}

/// A reader that says when it has begun and waits until it may go on.
struct Gated {
    store: Store,
    begun: std::sync::mpsc::SyncSender<()>,
    go: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
}

impl RowReader for Gated {
    fn answer(&mut self, requests: &[ReadRequest]) -> Vec<Result<Answer, SinkError>> {
        self.begun.send(()).ok();
        self.go.lock().unwrap().recv().ok();
        self.store.answer(requests)
    }
}

#[test]
fn more_than_the_queue_holds_is_refused_at_once_and_a_stop_waits_for_what_is_under_way() {
    let (begun, has_begun) = sync_channel(8);
    let (let_go, go) = sync_channel(8);
    let go = Arc::new(Mutex::new(go));
    let limits = Limits {
        queue_requests: 1,
        ..Limits::default()
    };
    let bed = Bed::start_reading(limits, 1, |store| {
        let (begun, go) = (begun.clone(), Arc::clone(&go));
        Box::new(Gated { store, begun, go })
    })
    .with_rows();

    let mut streams: Vec<TcpStream> = (0..2).map(|_| raw(&bed)).collect();
    streams[0].write_all(b"GET product:42\r\n").unwrap();
    has_begun.recv().unwrap();
    streams[1].write_all(b"GET product:43\r\n").unwrap();
    // One of the others waits in the queue; from then on every further one is refused.
    let refused = (0..3).any(|_| {
        let mut stream = raw(&bed);
        let limit = Some(Duration::from_millis(200));
        stream.set_read_timeout(limit).unwrap();
        stream.write_all(b"GET product:44\r\n").unwrap();
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).is_ok() && answer == *b"-TRYAGAIN"
    });
    assert!(refused);
    let stopped = std::thread::spawn(move || drop(bed));
    let_go.send(()).unwrap();
    let_go.send(()).unwrap();
    check(&mut streams[0], "", "$16\r\n{\"title\":\"shoe\"}\r\n");
    drop(let_go);
    stopped.join().unwrap();
}
