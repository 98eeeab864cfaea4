//! What a worker is told of a unit that it would feed.

use std::collections::BTreeMap;

use materializer_migrations::Follower;
use materializer_migrations::desired::desired;
use materializer_model::ports::{ControlLog, ControlTopic};
use materializer_model::progress::StoredCheckpoint;
use materializer_model::{
    Bar, CatalogId, Checkpoint, ClaimId, Counts, Token, Unit, ViewDefinition, WorkerId,
};

use crate::sample::{apply, definition, tantivy, version};
use crate::world::{Said, World, progress};

/// Has workers report commits of one unit of a version, in this order, and checks as of which commit
/// each would be told that the unit was reported.
fn check(view: ViewDefinition, reports: &[(&str, u64)], expected: [(&str, Option<u64>); 2]) {
    let mut world = World::new();
    world.ask(apply(view));
    let unit = Unit {
        version: version(1),
        copy: 0,
        shard: 0,
    };
    let mut log = world.control.log();
    for (sequence, (worker, seq)) in (1_000..).zip(reports) {
        let token = Token {
            catalog: CatalogId::new("catalog"),
            claim_offset: 0,
            claim: ClaimId::new("claim"),
        };
        let mut report = progress(unit.clone(), token, sequence, &Said::default());
        report.worker = WorkerId::new(*worker);
        report.checkpoint = Some(StoredCheckpoint(Checkpoint {
            seq: *seq,
            topics: BTreeMap::new(),
            bar: Bar::default(),
            counts: Counts::default(),
        }));
        let value = serde_json::to_vec(&report).expect("serialises");
        log.append(
            ControlTopic::Progress,
            Some(&unit.to_string()),
            Some(&value),
        )
        .expect("appended");
    }
    let mut follower = Follower::default();
    follower.follow(&mut log).expect("read");
    for (worker, seq) in expected {
        let me = WorkerId::new(worker);
        let directives = desired(follower.catalog(), follower.reports(), &me);
        let told = directives[&unit].last_reported.as_ref();
        assert_eq!(told.map(|at| at.0.seq), seq, "{worker} after {reports:?}");
    }
}

#[test]
fn a_copy_is_expected_only_where_the_worker_that_holds_it_left_it() {
    let copy = || tantivy("a", 1);
    check(copy(), &[("a", 7)], [("a", Some(7)), ("b", None)]);
    // It was built anew by `b`, from the genesis: fewer commits, and none of them went back.
    let anew = [("a", 7), ("b", 1), ("b", 2)];
    check(copy(), &anew, [("a", None), ("b", Some(2))]);
    // Its disk came back with an earlier state.
    check(copy(), &[("a", 7), ("a", 5)], [("a", Some(7)), ("b", None)]);
}

#[test]
fn rows_on_a_server_are_expected_by_whoever_takes_them_over() {
    let rows = [("a", 7), ("b", 5)];
    check(definition("a"), &rows, [("a", Some(7)), ("b", Some(7))]);
}
