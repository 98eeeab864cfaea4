//! Bad days: stalled connections, full memory, killed and emptied servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use materializer_model::definition::RedisShape;
use materializer_model::ports::{Expect, Sink, SinkAdmin, SinkError, SinkReader};
use materializer_model::{
    Bar, Batch, CatalogId, Change, Checkpoint, ClaimId, Commit, Counts, Key, LeaderEpoch, Mutation,
    Offset, Origin, Partition, Position, Row, SinkId, Timestamp, Token, Topic, TopicCheckpoint,
    TopicId, Unit,
};
use materializer_sinks::redis::{RedisPlace, RedisReader, RedisSink, read_mark};

use crate::gate::Gate;
use crate::place::{admin, place, sink, target};
use crate::server::Server;

/// The longest that anything here is waited for.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn unit() -> Unit {
    "products/v1/c0/s0".parse().expect("a unit")
}

pub(crate) fn token(claim_offset: u64) -> Token {
    Token {
        catalog: CatalogId::new("catalog"),
        claim_offset,
        claim: ClaimId::new(format!("claim-{claim_offset}")),
    }
}

/// Returns the commit number `seq` of a unit, which sets all keys to one value.
pub(crate) fn commit(seq: u64, keys: usize, value: &str) -> Arc<Commit> {
    let checkpoint = |seq| Checkpoint {
        seq,
        topics: BTreeMap::new(),
        bar: Bar::default(),
        counts: Counts::default(),
    };
    let mut batch = Batch::default();
    for n in 0..keys {
        batch.put(Mutation {
            key: Key::new(format!("key-{n}").as_bytes()),
            change: Change::Upsert {
                row: Row::new(value.as_bytes()),
                expires_at: None,
            },
            origin: Origin {
                topic: Topic::new("shop.products"),
                partition: Partition(0),
                offset: Offset(seq),
            },
        });
    }
    Arc::new(Commit {
        batch,
        previous: (seq > 1).then(|| checkpoint(seq - 1)),
        checkpoint: checkpoint(seq),
    })
}

pub(crate) fn apply(sink: &mut RedisSink, commit: &Arc<Commit>) -> Result<(), SinkError> {
    sink.submit(Arc::clone(commit))?;
    let settled = sink.settle(LIMIT)?.expect("settled within the limit");
    assert_eq!(settled, commit.checkpoint);
    Ok(())
}

/// Returns the checkpoint's number and the distinct values of all rows.
pub(crate) fn contents(server: &Server) -> (Option<u64>, Vec<String>) {
    let target = target(RedisShape::Json);
    let mut reader = RedisReader::new(place(server.settings()), &target, unit()).expect("a reader");
    let mut values = std::collections::BTreeSet::new();
    let scanned = reader.scan(&mut |_, stored| {
        values.insert(String::from_utf8_lossy(&stored.row.0).into_owned());
        true
    });
    let seq = scanned.expect("a scan").after.map(|at| at.seq);
    (seq, values.into_iter().collect())
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn what_a_zombie_sent_before_it_was_replaced_has_no_effect_when_it_arrives() {
    let server = Server::start();
    let gate = Gate::open(server.socket());
    let mut zombie = sink(gate.settings(), &unit());
    assert_eq!(zombie.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut zombie, &commit(1, 10, "old")).expect("written");
    gate.hold_first(1);
    zombie.submit(commit(2, 10, "zombie")).expect("sent");
    assert_eq!(zombie.settle(Duration::ZERO), Ok(None));

    let mut owner = sink(server.settings(), &unit());
    let found = owner.open(&token(2), Expect::Data).expect("taken");
    assert_eq!(found.map(|at| at.seq), Some(1));
    // Nothing of the new owner's touches the rows: the takeover alone must void the old write.
    gate.release();
    assert_eq!(zombie.settle(LIMIT), Err(SinkError::Fenced(token(2))));
    assert_eq!(contents(&server), (Some(1), vec!["old".to_owned()]));
    apply(&mut owner, &commit(2, 10, "new")).expect("written");
    assert_eq!(contents(&server), (Some(2), vec!["new".to_owned()]));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn what_an_owner_sent_before_it_reconnected_has_no_effect_when_it_arrives() {
    let server = Server::start();
    let gate = Gate::open(server.socket());
    let mut settings = gate.settings();
    settings.request_timeout = Duration::from_millis(200);
    let mut owner = sink(settings, &unit());
    assert_eq!(owner.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut owner, &commit(1, 10, "old")).expect("written");
    gate.hold_first(1);
    owner.submit(commit(2, 10, "stalled")).expect("sent");
    let timed_out = owner.settle(LIMIT);
    assert!(
        matches!(timed_out, Err(SinkError::Unavailable(_))),
        "{timed_out:?}"
    );

    // The same claim, on a new connection.
    let found = owner.open(&token(1), Expect::Data).expect("opened again");
    assert_eq!(found.map(|at| at.seq), Some(1));
    gate.release();
    gate.wait_for_an_end();
    assert_eq!(contents(&server), (Some(1), vec!["old".to_owned()]));
    apply(&mut owner, &commit(2, 10, "again")).expect("written");
    assert_eq!(contents(&server), (Some(2), vec!["again".to_owned()]));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn each_part_of_a_split_commit_is_fenced() {
    let server = Server::start();
    let mut zombie = sink(server.settings(), &unit());
    assert_eq!(zombie.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut zombie, &commit(1, 1_200, "old")).expect("written");
    let mut owner = sink(server.settings(), &unit());
    owner.open(&token(2), Expect::Data).expect("taken");
    let late = apply(&mut zombie, &commit(2, 1_200, "zombie"));
    assert_eq!(late, Err(SinkError::Fenced(token(2))));
    assert_eq!(contents(&server), (Some(1), vec!["old".to_owned()]));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_server_without_memory_takes_nothing_and_loses_nothing() {
    let server = Server::start();
    let mut writer = sink(server.settings(), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 100, "small")).expect("written");
    let full = writer.usage().bytes.expect("told at the open") + 4_000_000;
    server.command::<()>(&format!("CONFIG SET maxmemory {full}"));
    let large = "x".repeat(100_000);
    let refused = apply(&mut writer, &commit(2, 100, &large));
    assert!(matches!(refused, Err(SinkError::Full(_))), "{refused:?}");

    let closed = apply(&mut writer, &commit(2, 100, "not opened again"));
    assert!(
        matches!(closed, Err(SinkError::Unavailable(_))),
        "{closed:?}"
    );

    // Parts of 4 MiB may stand before the one that was refused; the checkpoint does not.
    server.command::<()>("CONFIG SET maxmemory 1");
    let opened = writer.open(&token(1), Expect::Data);
    assert!(matches!(opened, Err(SinkError::Full(_))), "{opened:?}");
    server.command::<()>("CONFIG SET maxmemory 0");
    let found = writer.open(&token(1), Expect::Data).expect("opened again");
    assert_eq!(found.map(|at| at.seq), Some(1));
    apply(&mut writer, &commit(2, 100, &large)).expect("written");
    assert_eq!(contents(&server), (Some(2), vec![large]));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_killed_server_holds_a_whole_commit_when_it_is_back() {
    let keeping = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut server = Server::start_with(&keeping);
    let mut writer = sink(server.settings(), &unit());
    let mut next = 1;
    let mut found = writer.open(&token(1), Expect::Maybe).expect("opened");
    for _ in 0..5 {
        assert_eq!(found.map_or(0, |at| at.seq) + 1, next);
        for _ in 0..10 {
            apply(&mut writer, &commit(next, 200, &next.to_string())).expect("written");
            next += 1;
        }
        writer
            .submit(commit(next, 200, &next.to_string()))
            .expect("sent");
        server.kill_and_restart();
        let outcome = writer.settle(LIMIT);
        found = writer.open(&token(1), Expect::Data).expect("opened again");
        let seq = found.as_ref().map_or(0, |at| at.seq);
        assert!(
            seq == next || (seq == next - 1 && outcome.is_err()),
            "{seq} after {next}"
        );
        assert_eq!(contents(&server), (Some(seq), vec![seq.to_string()]));
        next = seq + 1;
    }
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_server_that_went_back_to_its_snapshot_tells_the_older_checkpoint() {
    let mut server = Server::start_with(&["--save", "", "--dbfilename", "snapshot.rdb"]);
    let mut writer = sink(server.settings(), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 10, "1")).expect("written");
    server.command::<()>("SAVE");
    apply(&mut writer, &commit(2, 10, "2")).expect("written");
    server.kill_and_restart();
    let lost = apply(&mut writer, &commit(3, 10, "3"));
    assert!(matches!(lost, Err(SinkError::Unavailable(_))), "{lost:?}");
    let found = writer.open(&token(1), Expect::Data).expect("opened again");
    assert_eq!(found.map(|at| at.seq), Some(1));
    assert_eq!(contents(&server), (Some(1), vec!["1".to_owned()]));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_promoted_replica_that_lagged_is_taken_at_its_older_checkpoint() {
    const COMMITS: u64 = 100;
    let value = |seq: u64| format!("{seq:05000}");
    let mut server = Server::start();
    let mut writer = sink(server.settings(), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, 100, &value(1))).expect("written");
    let replica = server.start_replica();
    replica.signal("STOP");
    // Far more than the sockets between the two hold.
    for seq in 2..=COMMITS {
        apply(&mut writer, &commit(seq, 100, &value(seq))).expect("written");
    }
    server.kill();
    replica.signal("CONT");
    replica.command::<()>("REPLICAOF NO ONE");

    let mut writer = sink(replica.settings(), &unit());
    let found = writer.open(&token(1), Expect::Data).expect("opened");
    let seq = found.expect("a checkpoint").seq;
    assert!(seq < COMMITS, "nothing was lost: {seq}");
    assert_eq!(contents(&replica), (Some(seq), vec![value(seq)]));
    apply(&mut writer, &commit(seq + 1, 100, &value(seq + 1))).expect("written");
    assert_eq!(contents(&replica), (Some(seq + 1), vec![value(seq + 1)]));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn another_catalogs_place_is_neither_written_nor_read() {
    let server = Server::start();
    let mut writer = sink(server.settings(), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    let keys = server.command::<u64>("DBSIZE");
    let foreign = RedisPlace {
        catalog: CatalogId::new("another"),
        ..place(server.settings())
    };
    let other: Unit = "products/v2/c0/s0".parse().expect("a unit");
    let target = target(RedisShape::Json);
    let mine = Token {
        catalog: CatalogId::new("another"),
        ..token(9)
    };
    let mut writer = RedisSink::new(
        foreign.clone(),
        target.clone(),
        other.clone(),
        SinkId::new("server-2"),
    )
    .expect("a sink");
    let opened = writer.open(&mine, Expect::Maybe);
    assert!(matches!(opened, Err(SinkError::Damaged(_))), "{opened:?}");
    let mut reader = RedisReader::new(foreign.clone(), &target, other).expect("a reader");
    let read = reader.read(&[]);
    assert!(matches!(read, Err(SinkError::Damaged(_))), "{read:?}");
    let read = read_mark(&foreign);
    assert!(matches!(read, Err(SinkError::Damaged(_))), "{read:?}");
    assert_eq!(server.command::<u64>("DBSIZE"), keys);
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn another_server_under_the_same_address_is_damage() {
    let first = Server::start();
    let second = Server::start();
    let settings = |server: &Server| server.settings();
    let mut writer = sink(settings(&first), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    let other = "another installation's server";
    let mark = format!(r#"{{"catalog":"catalog","sink":"{other}"}}"#);
    let set_mark = |server: &Server| {
        let mut command = redis::cmd("SET");
        command.arg("main::mark").arg(&mark);
        command.exec(&mut server.client()).expect("set");
    };
    set_mark(&first);
    set_mark(&second);
    // This sink saw `server-1` when it opened first.
    let opened = writer.open(&token(1), Expect::Maybe);
    assert!(matches!(opened, Err(SinkError::Damaged(_))), "{opened:?}");
    // One that never saw another takes it as it is.
    let opened = sink(settings(&second), &unit()).open(&token(1), Expect::Maybe);
    assert_eq!(opened, Ok(None));
}

/// Writes rows of one value, by an owner that is gone afterwards.
pub(crate) fn write_rows(server: &Server, rows: usize, value: &str) {
    let mut writer = sink(server.settings(), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &commit(1, rows, value)).expect("written");
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn nothing_is_deleted_before_every_replica_knows_of_the_retirement() {
    let server = Server::start();
    write_rows(&server, 10, "1");
    let replica = server.start_replica();
    replica.signal("STOP");
    let version = unit().version;
    let mut coordinator = admin(server.settings());
    let refused = coordinator.retire(&version, Offset(9), Duration::MAX);
    assert!(
        matches!(refused, Err(SinkError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(contents(&server), (None, vec!["1".to_owned()]));
    replica.signal("CONT");
    // Each try waits a second for the replica.
    let retired = (0..30).find_map(|_| coordinator.retire(&version, Offset(9), Duration::MAX).ok());
    let retired = retired.expect("retired in 30 s");
    assert_eq!((retired.deleted, retired.finished), (10, true));
    assert_eq!(contents(&server), (None, Vec::new()));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_deletion_is_over_once_every_replica_has_it() {
    let server = Server::start();
    write_rows(&server, 5_000, "1");
    let replica = server.start_replica();
    let version = unit().version;
    let mut coordinator = admin(server.settings());
    let begun = coordinator.retire(&version, Offset(9), Duration::ZERO);
    assert!(begun.is_ok_and(|begun| !begun.finished), "a page of many");
    replica.signal("STOP");
    let refused = coordinator.retire(&version, Offset(9), Duration::MAX);
    assert!(
        matches!(refused, Err(SinkError::Unavailable(_))),
        "{refused:?}"
    );
    replica.signal("CONT");
    let retired = (0..30).find_map(|_| coordinator.retire(&version, Offset(9), Duration::MAX).ok());
    assert!(retired.is_some_and(|retired| retired.finished), "in 30 s");
    replica.command::<()>("REPLICAOF NO ONE");
    assert_eq!(contents(&replica), (None, Vec::new()));
}

#[test]
#[ignore = "needs redis-server: ./dev test"]
fn a_commit_that_stopped_between_its_parts_is_told_until_a_later_one_is_past_its_end() {
    let at = |seq: u64| Checkpoint {
        topics: BTreeMap::from([(
            Topic::new("t"),
            TopicCheckpoint::new(
                TopicId("id".into()),
                BTreeMap::from([(
                    Partition(0),
                    Position {
                        next: Offset(seq * 10),
                        epoch: Some(LeaderEpoch(3)),
                        anchor: Timestamp(0),
                    },
                )]),
            ),
        )]),
        ..commit(seq, 0, "").checkpoint.clone()
    };
    let numbered = |previous: Option<u64>, seq: u64, keys: usize| {
        Arc::new(Commit {
            batch: commit(seq, keys, &seq.to_string()).batch.clone(),
            previous: previous.map(at),
            checkpoint: at(seq),
        })
    };
    let server = Server::start();
    let mut writer = sink(server.settings(), &unit());
    assert_eq!(writer.open(&token(1), Expect::Maybe), Ok(None));
    apply(&mut writer, &numbered(None, 1, 1)).expect("written");
    // The second of its two parts does not fit.
    let full = writer.usage().bytes.expect("told at the open") + 4_000_000;
    server.command::<()>(&format!("CONFIG SET maxmemory {full}"));
    let mut batch = commit(5, 500, "5").batch.clone();
    let large = commit(5, 501, &"x".repeat(4_000_000));
    batch.put(large.batch.mutations()[500].clone());
    let split = Arc::new(Commit {
        batch,
        previous: Some(at(1)),
        checkpoint: at(5),
    });
    let refused = apply(&mut writer, &split);
    assert!(matches!(refused, Err(SinkError::Full(_))), "{refused:?}");
    assert_eq!(contents(&server), (Some(1), vec!["5".to_owned()]));
    server.command::<()>("CONFIG SET maxmemory 0");

    for (claim, seq, ends) in [(2, 2, Some(5)), (3, 4, Some(5)), (4, 5, None)] {
        let mut writer = sink(server.settings(), &unit());
        let found = writer.open(&token(claim), Expect::Data).expect("opened");
        assert_eq!(writer.unfinished(), Some(&at(5)), "before {seq}");
        let previous = found.map(|at| at.seq);
        apply(&mut writer, &numbered(previous, seq, 1)).expect("written");
        writer
            .open(&token(claim), Expect::Data)
            .expect("opened again");
        assert_eq!(writer.unfinished(), ends.map(at).as_ref(), "after {seq}");
    }
    let keys = server.command::<u64>("EXISTS main::products:v1:s0:unfinished");
    assert_eq!(keys, 0);
}
