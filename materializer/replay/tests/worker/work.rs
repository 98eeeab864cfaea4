//! What a worker counts of its own work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use materializer_model::definition::OnError;
use materializer_model::memory::{ManualClock, TopicSettings};
use materializer_model::{Clock, Monotonic, Offset, Origin, Partition, Timestamp, Topic};
use materializer_replay::Work;

use crate::bench::Bench;

/// Returns a bench whose log has a row, its delete, nothing for the view, and poison: 4 bytes in keys and
/// 3 in values.
fn mixed(on_error: OnError) -> Bench {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.directive.on_error = on_error;
    bench.produce(0, "a", Some("1"));
    bench.produce(0, "a", None);
    bench.produce(0, "b", Some("-"));
    bench.produce(0, "c", Some("!"));
    bench
}

/// Returns what was done with records: upserts, deletes, excluded, skipped, dead letters, failed.
fn records(work: &Work) -> [u64; 6] {
    [
        work.upserts,
        work.deletes,
        work.excluded,
        work.skipped,
        work.dead_letters,
        work.failed,
    ]
}

#[test]
fn a_record_counts_once_as_what_became_of_it() {
    let dead_letter = OnError::DeadLetter {
        topic: Topic::new("dead"),
        limit: 1,
    };
    let check = |on_error, expected| {
        let mut bench = mixed(on_error);
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        assert_eq!(records(worker.work()), expected);
        assert_eq!(worker.work().bytes, 7);
    };
    check(OnError::Skip, [1, 1, 1, 1, 0, 0]);
    check(dead_letter, [1, 1, 1, 0, 1, 0]);
    check(OnError::Fail, [1, 1, 1, 0, 0, 1]);
}

#[test]
fn a_record_that_failed_counts_again_once_it_is_passed_over() {
    let mut bench = mixed(OnError::Fail);
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    bench.skip(Origin {
        topic: bench.topic.clone(),
        partition: Partition(0),
        offset: Offset(3),
    });
    bench.run(&mut worker, 3);
    assert_eq!(records(worker.work()), [1, 1, 1, 1, 0, 1]);
}

#[test]
fn a_commit_takes_from_its_submission_until_it_is_known_to_be_applied() {
    let mut bench = Bench::new(TopicSettings::kept(1));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let before = *worker.work();
    bench.produce(0, "a", Some("1"));
    bench.run(&mut worker, 3);
    let work = worker.work();
    // It is asked for its outcome in the step that follows.
    let took = work.committing - before.committing;
    assert_eq!(
        (work.commits - before.commits, took),
        (1, Duration::from_millis(50))
    );
}

#[test]
fn a_fault_that_passes_counts_as_a_retry() {
    let mut bench = mixed(OnError::DeadLetter {
        topic: Topic::new("dead"),
        limit: 1,
    });
    bench.lose_letters.store(true, Ordering::Relaxed);
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 5);
    assert_eq!(worker.work().retries, 1);
    // What was forgotten was read and derived again.
    assert_eq!(records(worker.work()), [2, 2, 2, 0, 2, 0]);
}

/// A clock that moves a little whenever it is looked at.
struct Ticking(ManualClock);

impl Clock for Ticking {
    fn monotonic(&self) -> Monotonic {
        self.0.advance(Duration::from_millis(1));
        self.0.monotonic()
    }

    fn broker(&self) -> Option<Timestamp> {
        self.0.broker()
    }
}

#[test]
fn time_is_added_to_what_it_was_spent_on() {
    let bench = Bench::new(TopicSettings::kept(1));
    bench.produce(0, "a", Some("1"));
    let mut worker = bench.worker_on(Arc::new(Ticking(bench.clock.clone())), 1);
    let mut before = *worker.work();
    // Steps once, and says which of the times grew.
    let mut step = || {
        worker.step(&bench.directive);
        let work = *worker.work();
        let grew = [
            ("opening", work.opening > before.opening),
            ("fetching", work.fetching > before.fetching),
            ("deriving", work.deriving > before.deriving),
            ("submitting", work.submitting > before.submitting),
            ("settling", work.settling > before.settling),
        ];
        before = work;
        let grew = grew.into_iter().filter(|(_, grew)| *grew);
        grew.map(|(what, _)| what).collect::<Vec<_>>()
    };
    assert_eq!(step(), ["opening"]);
    assert_eq!(step(), ["submitting"], "where it begins");
    assert_eq!(step(), ["fetching", "deriving", "settling"]);
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(step(), ["submitting"]);
    assert_eq!(step(), ["fetching", "deriving", "settling"]);
}
