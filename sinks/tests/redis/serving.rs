//! Aliases, and readers who follow them.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use materializer_model::definition::{RedisShape, RedisTarget};
use materializer_model::ports::{AliasPointer, Expect, Sink, SinkAdmin, SinkError};
use materializer_model::{Offset, SinkId, Unit, VersionId, VersionNumber, ViewName};
use materializer_sinks::redis::{
    Answer, NewestAliases, Read, ReadRequest, RedisSink, Reply, ViewReads, find_traces,
};

use crate::faults::{apply, commit, token};
use crate::place::{admin, admin_of, place, sink, target};
use crate::server::Server;

fn view() -> ViewName {
    "products".parse().expect("a name")
}

fn pointer(version: u32, epoch: u64) -> AliasPointer {
    AliasPointer {
        version: VersionNumber(version),
        epoch: Offset(epoch),
    }
}

fn request(reads: Vec<Read>) -> ReadRequest {
    ReadRequest {
        view: view(),
        shaped_as: VersionNumber(1),
        reads,
    }
}

fn reads_of(server: &Server) -> ViewReads {
    ViewReads::new(place(server.settings()), NewestAliases::default())
}

/// Writes ten rows with the version's name to each of two versions.
pub(crate) fn fill(server: &Server) {
    for number in [1, 2] {
        let unit: Unit = format!("products/v{number}/c0/s0").parse().expect("a unit");
        let mut writer = sink(server.settings(), &unit);
        assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
        apply(&mut writer, &commit(1, 10, &format!("v{number}"))).expect("written");
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn every_kind_of_read_is_answered_by_the_live_version() {
    let server = Server::start();
    let unit: Unit = "products/v1/c0/s0".parse().expect("a unit");
    let mut writer = RedisSink::new(
        place(server.settings()),
        target(RedisShape::Hash),
        unit,
        SinkId::new("server-1"),
    )
    .expect("a sink");
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 1, r#"{"title":"shoe","n":null}"#)).expect("written");
    let mut reads = reads_of(&server);
    let missing = reads.answer(&[request(Vec::new())]);
    assert!(
        matches!(&missing[..], [Err(SinkError::Unavailable(_))]),
        "{missing:?}"
    );
    let mut coordinator = admin(server.settings());
    assert_eq!(coordinator.move_alias(&view(), &pointer(1, 10)), Ok(()));

    let key = || b"product:key-0".to_vec();
    let none = || b"product:none".to_vec();
    let title = || b"title".to_vec();
    let answers = reads.answer(&[
        request(vec![
            Read::HashAll(key()),
            Read::HashGet(key(), title()),
            Read::HashGet(key(), b"n".to_vec()),
            Read::Exists(key()),
            Read::TimeToLive(key()),
            Read::Get(key()),
            Read::Length(key()),
            Read::Length(none()),
            Read::HashAll(none()),
            Read::Exists(none()),
            Read::TimeToLive(none()),
        ]),
        request(vec![Read::Get(none())]),
        // Whoever asks still routes by a version of another shape.
        ReadRequest {
            shaped_as: VersionNumber(2),
            ..request(vec![Read::Get(key())])
        },
    ]);
    let expected = [
        Reply::Fields(vec![(title(), b"shoe".to_vec())]),
        Reply::Bytes(b"shoe".to_vec()),
        Reply::Nil,
        Reply::Number(1),
        Reply::Number(-1),
        Reply::WrongType,
        Reply::WrongType,
        Reply::Number(0),
        Reply::Fields(Vec::new()),
        Reply::Number(0),
        Reply::Number(-2),
    ];
    let [Ok(many), Ok(one), Ok(other)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(many.replies, expected);
    assert_eq!(one.replies, [Reply::Nil]);
    assert_eq!(
        other.replies,
        [Reply::WrongType],
        "a row is never told as none"
    );
    assert_eq!(one.pointer, pointer(1, 10));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn one_version_answers_a_request_while_the_alias_moves() {
    const MOVES: u64 = 300;
    let server = Server::start();
    fill(&server);
    let mut coordinator = admin(server.settings());
    assert_eq!(coordinator.move_alias(&view(), &pointer(1, 1)), Ok(()));
    let keys = || (0..10).map(|n| Read::Get(format!("product:key-{n}").into_bytes()));
    let mixed = || keys().chain([Read::Exists(b"product:key-0".to_vec())]);
    let requests = [request(keys().collect()), request(mixed().collect())];
    thread::scope(|scope| {
        let swaps = scope.spawn(move || {
            for epoch in 2..=MOVES {
                let version = if epoch % 2 == 0 { 2 } else { 1 };
                let moved = coordinator.move_alias(&view(), &pointer(version, epoch));
                assert_eq!(moved, Ok(()));
            }
        });
        let mut reads = reads_of(&server);
        let mut epoch = 0;
        loop {
            let is_last = swaps.is_finished();
            for answer in reads.answer(&requests) {
                let answer = answer.expect("an answer");
                let value = Reply::Bytes(answer.pointer.version.to_string().into_bytes());
                assert!(answer.replies[..10].iter().all(|reply| *reply == value));
                assert!(answer.pointer.epoch.0 >= epoch, "the epoch never goes back");
                epoch = answer.pointer.epoch.0;
            }
            if is_last {
                assert_eq!(epoch, MOVES);
                break;
            }
        }
    });
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_reader_whose_idle_connection_was_cut_is_answered_all_the_same() {
    let server = Server::start();
    fill(&server);
    let mut coordinator = admin(server.settings());
    assert_eq!(coordinator.move_alias(&view(), &pointer(1, 1)), Ok(()));
    let mut reads = reads_of(&server);
    let requests = [request(vec![Read::Get(b"product:key-0".to_vec())])];
    for _ in 0..3 {
        let answers = reads.answer(&requests);
        assert!(answers[0].is_ok(), "{answers:?}");
        server.command::<u64>("CLIENT KILL TYPE normal SKIPME yes");
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn an_alias_that_is_not_ours_serves_nobody_and_is_written_over() {
    let server = Server::start();
    fill(&server);
    let mut coordinator = admin(server.settings());
    let mut reads = reads_of(&server);
    let requests = [request(vec![Read::Get(b"product:key-0".to_vec())])];
    for (epoch, foreign) in (1..).zip([
        "SET main::products:alias v2",
        "SET main::products:alias hello",
        "LPUSH main::products:alias v2",
    ]) {
        server.command::<redis::Value>("DEL main::products:alias");
        server.command::<redis::Value>(foreign);
        assert_eq!(coordinator.alias(&view()), Ok(None), "{foreign}");
        let answers = reads.answer(&requests);
        assert!(
            matches!(&answers[..], [Err(SinkError::Unavailable(_))]),
            "{answers:?}"
        );
        assert_eq!(coordinator.move_alias(&view(), &pointer(1, epoch)), Ok(()));
        assert_eq!(coordinator.alias(&view()), Ok(Some(pointer(1, epoch))));
        assert_eq!(server.command::<i64>("TTL main::products:alias"), -1);
        let answers = reads.answer(&requests);
        let answer = answers[0].as_ref().expect("an answer");
        assert_eq!(answer.replies, [Reply::Bytes(b"v1".to_vec())]);
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn an_alias_that_a_person_sets_back_is_followed_by_no_reader_of_a_gateway_that_saw_the_newer_one() {
    let server = Server::start();
    fill(&server);
    let mut coordinator = admin(server.settings());
    let newest = NewestAliases::default();
    let mut readers = [(); 2].map(|()| ViewReads::new(place(server.settings()), newest.clone()));
    let requests = [request(vec![Read::Get(b"product:key-0".to_vec())])];
    let told = |reader: &mut ViewReads| match reader.answer(&requests).remove(0) {
        Ok(Answer { pointer, .. }) => format!("{} {}", pointer.version, pointer.epoch),
        Err(SinkError::Unavailable(why)) => why,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(coordinator.move_alias(&view(), &pointer(1, 1)), Ok(()));
    assert_eq!(told(&mut readers[1]), "v1 1");
    assert_eq!(coordinator.move_alias(&view(), &pointer(2, 2)), Ok(()));
    assert_eq!(told(&mut readers[0]), "v2 2");
    for back in ["v1 1", "v1 2"] {
        server.set("main::products:alias", back);
        for reader in &mut readers {
            let why = told(reader);
            assert!(why.contains("went back from `v2 2`"), "{back}: {why}");
        }
    }
    server.set("main::products:alias", "v1 1");
    assert_eq!(coordinator.move_alias(&view(), &pointer(2, 2)), Ok(()));
    for reader in &mut readers {
        assert_eq!(told(reader), "v2 2");
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn an_emptied_server_takes_no_alias_and_a_live_version_is_not_retired() {
    let server = Server::start();
    fill(&server);
    let version = |number| materializer_model::VersionId {
        view: view(),
        number: VersionNumber(number),
    };
    let mut coordinator = admin(server.settings());
    assert_eq!(coordinator.move_alias(&view(), &pointer(1, 1)), Ok(()));
    let retired = coordinator.retire(&version(1), Offset(9), std::time::Duration::MAX);
    assert!(matches!(retired, Err(SinkError::Refused(_))), "{retired:?}");
    assert_eq!(
        server.command::<u64>("EXISTS main:products:v1:product:key-0"),
        1
    );

    server.command::<()>("FLUSHALL");
    let moved = coordinator.move_alias(&view(), &pointer(2, 2));
    assert!(matches!(moved, Err(SinkError::Damaged(_))), "{moved:?}");
    let retired = coordinator.retire(&version(1), Offset(9), std::time::Duration::MAX);
    let retired = retired.expect("nothing left to do");
    assert_eq!((retired.deleted, retired.finished), (0, true));
    assert_eq!(server.command::<u64>("DBSIZE"), 0);
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn an_alias_leads_to_no_version_of_which_one_shard_is_missing() {
    let server = Server::start();
    let target = RedisTarget {
        shards: 2,
        ..target(RedisShape::Json)
    };
    let mut coordinator = admin_of(server.settings(), &target);
    for (shard, expected) in [(1, "Damaged"), (0, "moved")] {
        let unit: Unit = format!("products/v1/c0/s{shard}").parse().expect("a unit");
        let mut writer = sink(server.settings(), &unit);
        assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
        let found = match coordinator.move_alias(&view(), &pointer(1, 1)) {
            Ok(()) => "moved",
            Err(SinkError::Damaged(why)) if why.contains("shard 0") => "Damaged",
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found, expected);
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn what_another_catalog_s_history_left_is_told_and_not_built_on() {
    let server = Server::start();
    let settings = server.settings();
    let installation = place(settings.clone()).installation;
    assert_eq!(find_traces(&settings, &installation), Ok(None));
    fill(&server);
    // More keys than one page of a scan holds.
    let many: Unit = "products/v3/c0/s0".parse().expect("a unit");
    let mut writer = sink(settings.clone(), &many);
    assert_eq!(writer.open(&token(7), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 5_000, "v3")).expect("written");
    let mut coordinator = admin(server.settings());
    assert_eq!(coordinator.move_alias(&view(), &pointer(2, 40)), Ok(()));
    let version = |number| VersionId {
        view: view(),
        number: VersionNumber(number),
    };
    let retired = coordinator.retire(&version(1), Offset(57), Duration::MAX);
    assert!(retired.is_ok_and(|retired| retired.finished));

    let traces = find_traces(&settings, &installation).expect("read");
    let traces = traces.expect("marked");
    assert_eq!(traces.mark.catalog, place(settings.clone()).catalog);
    assert_eq!(traces.aliases, BTreeMap::from([(view(), pointer(2, 40))]));
    let claimed = BTreeMap::from([(version(2), 1), (version(3), 7)]);
    assert_eq!(traces.claimed, claimed);
    assert_eq!(traces.retired, BTreeMap::from([(version(1), Offset(57))]));

    let unit: Unit = "products/v2/c0/s0".parse().expect("a unit");
    let mut another = sink(settings.clone(), &unit).claimed_from(5);
    let taken = another.open(&token(9), Expect::Maybe);
    assert!(matches!(taken, Err(SinkError::Damaged(_))), "{taken:?}");
    let mut same = sink(settings, &unit).claimed_from(1);
    assert!(same.open(&token(9), Expect::Maybe).is_ok());
}
