//! What a worker is told of a unit that it would feed.

use materializer_migrations::desired::desired;
use materializer_migrations::{Follower, Reports, Role};
use materializer_model::memory::MemoryControlLog;
use materializer_model::ports::{ControlLog, ControlTopic};
use materializer_model::progress::{Progress, StoredCheckpoint};
use materializer_model::{CatalogId, ClaimId, Token, Unit, ViewDefinition, WorkerId};

use crate::sample::{apply, checkpoint, definition, tantivy, version};
use crate::world::{Said, World, progress};

/// The positions in two partitions.
type At = [u64; 2];

fn unit() -> Unit {
    Unit {
        version: version(1),
        copy: 0,
        shard: 0,
    }
}

fn report(worker: &str, sequence: u64) -> Progress {
    let token = Token {
        catalog: CatalogId::new("catalog"),
        claim_offset: 0,
        claim: ClaimId::new("claim"),
    };
    let mut report = progress(unit(), token, sequence, &Said::default());
    report.worker = WorkerId::new(worker);
    report
}

fn append(log: &mut MemoryControlLog, report: &Progress) {
    let value = serde_json::to_vec(report).expect("serialises");
    let key = unit().to_string();
    log.append(ControlTopic::Progress, Some(&key), Some(&value))
        .expect("appended");
}

/// Returns the positions that a worker is told.
fn told(log: &mut MemoryControlLog, worker: &str) -> Option<At> {
    let mut follower = Follower::default();
    follower.follow(log).expect("read");
    let me = WorkerId::new(worker);
    let directives = desired(follower.catalog(), follower.reports(), &me);
    let told = directives[&unit()].last_reported.as_ref()?;
    let next: Vec<u64> = told.0.positions().map(|(_, _, at)| at.next.0).collect();
    Some(next.try_into().expect("two partitions"))
}

/// Has workers report commits of one unit of a version, each with its number and positions, in this
/// order, and checks what each would be told was reported of the unit.
fn check(view: ViewDefinition, reports: &[(&str, u64, At)], expected: [(&str, Option<At>); 2]) {
    let mut world = World::new();
    world.ask(apply(view));
    let mut log = world.control.log();
    for (sequence, (worker, seq, next)) in (1_000..).zip(reports) {
        let mut report = report(worker, sequence);
        report.checkpoint = Some(StoredCheckpoint(checkpoint(*seq, *next)));
        append(&mut log, &report);
    }
    for (worker, at) in expected {
        assert_eq!(told(&mut log, worker), at, "{worker} after {reports:?}");
    }
}

#[test]
fn a_copy_is_expected_only_where_the_worker_that_holds_it_left_it() {
    let copy = || tantivy("a", 1);
    let (far, near) = ([70, 70], [50, 50]);
    check(copy(), &[("a", 7, far)], [("a", Some(far)), ("b", None)]);
    // It was built anew by `b`, from the genesis: fewer commits, and none of them went back.
    let anew = [("a", 7, far), ("b", 1, [0, 0]), ("b", 2, near)];
    check(copy(), &anew, [("a", None), ("b", Some(near))]);
    // Its disk came back with an earlier state.
    let back = [("a", 7, far), ("a", 5, near)];
    check(copy(), &back, [("a", Some(far)), ("b", None)]);
}

#[test]
fn rows_on_a_server_are_expected_by_whoever_takes_them_over() {
    let far = Some([70, 70]);
    let rows = [("a", 7, [70, 70]), ("b", 5, [50, 50])];
    check(definition("a"), &rows, [("a", far), ("b", far)]);
}

#[test]
fn positions_tell_what_is_further_and_not_the_number_of_commits() {
    let check = |reports: &[(&str, u64, At)], expected| {
        check(definition("a"), reports, [("a", expected), ("b", expected)]);
    };
    // The sink went back, and many small commits follow.
    check(&[("a", 7, [70, 70]), ("a", 9, [60, 60])], Some([70, 70]));
    // The whole gap came in one commit.
    check(&[("a", 7, [70, 70]), ("a", 5, [80, 80])], Some([80, 80]));
    // One partition is past the gap and the other is not.
    check(&[("a", 7, [70, 70]), ("a", 8, [60, 80])], Some([70, 80]));
}

#[test]
fn what_a_unit_has_to_reach_again_outlives_the_report_that_had_it() {
    let mut world = World::new();
    world.ask(apply(definition("a")));
    let mut log = world.control.log();
    let mut opening = report("b", 1_000);
    opening.until = Some(StoredCheckpoint(checkpoint(7, [70, 70])));
    append(&mut log, &opening);
    assert_eq!(told(&mut log, "b"), Some([70, 70]));
}

#[test]
fn rows_that_readers_were_led_to_are_expected_though_no_report_of_them_is_left() {
    let check = |definition: ViewDefinition, while_built, when_live| {
        let mut world = World::new();
        let has_data = |world: &World| {
            let (catalog, none) = (world.client.state().catalog(), Reports::default());
            let directives = desired(catalog, &none, &WorkerId::new("worker"));
            let mut told = directives.values().map(|directive| directive.has_data);
            let first = told.next().expect("one unit");
            assert!(told.all(|next| next == first));
            first
        };
        let verb = apply(definition);
        let plan = world.client.plan(&verb).expect("a plan");
        world.client.ask(verb, plan, "").expect("asked");
        world.until("it is built", |w| w.role(1) == Some(Role::Building));
        assert_eq!(has_data(&world), while_built);
        world.until("it is live", |w| w.role(1) == Some(Role::Live));
        assert_eq!(has_data(&world), when_live);
    };
    check(definition("a"), false, true);
    // A copy may be added at any time, and is built from nothing.
    check(tantivy("a", 2), false, false);
}
