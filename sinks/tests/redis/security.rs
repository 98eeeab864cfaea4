//! Logins, TLS and settings that would lose data.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use materializer_model::definition::{RedisShape, RedisTarget};
use materializer_model::memory::ManualClock;
use materializer_model::ports::{Expect, Sink, SinkAdmin, SinkError};
use materializer_model::{Offset, SinkId, Timestamp};
use materializer_sinks::redis::{Password, RedisSettings, RedisSink, Tls, probe};
use tempfile::TempDir;

use crate::faults::{apply, commit, token, unit};
use crate::place::{admin, place, sink, target};
use crate::server::{Server, free_port};

/// All that the sink, its readers and its coordinator need: what the documentation gives a user.
const ACL: &str = "ACL SETUSER shop on >s3cret ~main:* +info +ping +multi +exec +watch +unwatch \
    +get +mget +set +mset +hset +hget +hgetall +exists +ttl +pexpireat +pexpiretime +strlen +unlink +scan \
    +wait";

fn refused<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_user_with_few_rights_is_enough_and_what_is_missing_is_named() {
    let server = Server::start();
    server.command::<()>(ACL);
    let login = |password: &str| {
        let password = Password::new(password);
        server.settings().with_login(Some("shop"), &password)
    };
    let mut writer = sink(login("s3cret"), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 10, "1")).expect("written");
    let mut coordinator = admin(login("s3cret"));
    let retired = coordinator.retire(&unit().version, Offset(9), Duration::MAX);
    assert_eq!(retired.map(|retired| retired.finished), Ok(true));

    let clock = ManualClock::new(Timestamp(0));
    let found = probe(&place(login("s3cret")), &clock).expect("a probe");
    assert_eq!(found.commands_missing, None, "it may not ask");
    server.command::<()>("ACL SETUSER shop +acl|whoami +acl|dryrun");
    let found = probe(&place(login("s3cret")), &clock).expect("a probe");
    assert_eq!(found.commands_missing, Some(Vec::new()));
    server.command::<()>("ACL SETUSER shop -scan -mset");
    let found = probe(&place(login("s3cret")), &clock).expect("a probe");
    let missing = ["MSET", "SCAN"].map(str::to_owned).to_vec();
    assert_eq!(found.commands_missing, Some(missing));

    let wrong = refused(sink(login("guess"), &unit()).open(&token(1), Expect::Maybe));
    assert!(!wrong.contains("guess"), "{wrong}");
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_password_that_is_changed_in_its_file_is_taken_up_with_the_next_connection() {
    let server = Server::start();
    server.command::<()>(ACL);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").expect("a password");
    let login = server
        .settings()
        .with_login(Some("shop"), &Password::new("s3cret"))
        .with_password_file(file.clone());
    let mut writer = sink(login, &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    server.command::<()>("ACL SETUSER shop resetpass >changed");
    refused(writer.open(&token(1), Expect::Maybe));
    std::fs::write(&file, "changed\n").expect("a password");
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    std::fs::remove_file(&file).expect("removed");
    let gone = writer.open(&token(1), Expect::Maybe);
    assert!(
        matches!(&gone, Err(SinkError::Unavailable(why)) if why.contains("password")),
        "{gone:?}"
    );
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_missing_right_stops_a_commit_before_anything_is_written() {
    let server = Server::start();
    server.command::<()>(ACL);
    server.command::<()>("ACL SETUSER shop -mset");
    let login = server
        .settings()
        .with_login(Some("shop"), &Password::new("s3cret"));
    let mut writer = sink(login, &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    let why = refused(apply(&mut writer, &commit(1, 10, "1")));
    assert!(why.contains("NOPERM") && why.contains("mset"), "{why}");
    assert_eq!(
        server.command::<Vec<String>>("KEYS main:products:*"),
        [""; 0]
    );
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_server_that_evicts_is_refused_before_anything_is_written() {
    let server = Server::start();
    let open = |policy: &str, ttl| {
        server.command::<()>(&format!("CONFIG SET maxmemory-policy {policy}"));
        let target = RedisTarget {
            ttl,
            ..target(RedisShape::Json)
        };
        let place = place(server.settings());
        let mut sink =
            RedisSink::new(place, target, unit(), SinkId::new("server-1")).expect("a sink");
        sink.open(&token(1), Expect::Maybe)
    };
    let day = Some(Duration::from_secs(86_400));
    refused(open("allkeys-lru", None));
    refused(open("volatile-ttl", day));
    assert_eq!(server.command::<u64>("DBSIZE"), 0);
    assert_eq!(open("volatile-ttl", None), Ok(None));
    assert_eq!(open("noeviction", day), Ok(None));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_cluster_node_is_refused() {
    let server = Server::start_with(&["--save", "", "--cluster-enabled", "yes"]);
    let why = refused(sink(server.settings(), &unit()).open(&token(1), Expect::Maybe));
    assert!(why.contains("Cluster"), "{why}");
}

/// Makes an authority and a server's certificate for 127.0.0.1 in a folder.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl").success(), "openssl {arguments}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"
    ));
    openssl(&format!(
        "req {key} -subj /CN=server -keyout server.key -out server.csr"
    ));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").expect("written");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names \
         -out server.pem",
    );
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_server_is_reached_by_tls_and_an_unknown_authority_is_refused() {
    let folder = TempDir::new().expect("a folder");
    make_certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let _server = Server::start_with(&[
        "--save",
        "",
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
    ]);
    let settings = |suffix: &str| {
        RedisSettings::parse(&format!("rediss://127.0.0.1:{port}{suffix}")).expect("an address")
    };
    let trusting = |name: &str| {
        let authorities = Some(std::fs::read(folder.path().join(name)).expect("a certificate"));
        settings("").with_tls(Tls {
            authorities,
            client: None,
        })
    };
    let mut writer = sink(trusting("ca.pem"), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 1_200, &"x".repeat(1_000))).expect("written");
    drop(writer);
    refused(sink(settings(""), &unit()).open(&token(1), Expect::Data));
    let insecure = sink(settings("/#insecure"), &unit()).open(&token(1), Expect::Data);
    assert_eq!(insecure.expect("opened").map(|at| at.seq), Some(1));
}
