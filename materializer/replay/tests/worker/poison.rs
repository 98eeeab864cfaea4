//! What becomes of a record that the view cannot take in.

use std::sync::atomic::Ordering;

use materializer_model::definition::OnError;
use materializer_model::memory::TopicSettings;
use materializer_model::progress::Health;
use materializer_model::{Offset, Origin, Partition, Topic};

use crate::bench::{Bench, LETTERS_MAX, failed, rows};

fn poisoned(on_error: OnError) -> Bench {
    let mut bench = Bench::new(TopicSettings::kept(1));
    bench.directive.on_error = on_error;
    bench.produce(0, "a", Some("1"));
    bench.produce(0, "b", Some("!"));
    bench.produce(0, "c", Some("1"));
    bench
}

fn dead_letter(limit: u64) -> OnError {
    OnError::DeadLetter {
        topic: Topic::new("dead"),
        limit,
    }
}

#[test]
fn fail_stops_before_the_record_with_everything_below_it_written() {
    let mut bench = poisoned(OnError::Fail);
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let origin = Origin {
        topic: bench.topic.clone(),
        partition: Partition(0),
        offset: Offset(1),
    };
    let Health::Failed { why, at, hint } = worker.progress().health else {
        panic!("{:?}", worker.progress().health);
    };
    assert_eq!(
        (why.as_str(), at.as_ref()),
        ("begins with `!`", Some(&origin))
    );
    assert_eq!(
        hint.as_deref(),
        Some("`materializer skip v@v1 --at t/0/1 --reason '…'`")
    );
    assert_eq!(bench.stored(), (rows(&[("a", "1")]), 1));
    assert_eq!(worker.progress().held_ms, None, "its gates do not hold");

    bench.skip(origin);
    bench.run(&mut worker, 3);
    assert_eq!(worker.progress().health, Health::Ok);
    assert_eq!(bench.stored(), (rows(&[("a", "1"), ("c", "1")]), 3));
}

#[test]
fn a_skip_of_a_topic_that_was_made_anew_passes_over_no_record_of_the_new_one() {
    let mut bench = poisoned(OnError::Fail);
    let origin = Origin {
        topic: bench.topic.clone(),
        partition: Partition(0),
        offset: Offset(2),
    };
    bench.skip(origin.clone());
    bench.log.create(&bench.topic, TopicSettings::kept(1));
    for key in ["a", "b", "c"] {
        bench.produce(0, key, Some("2"));
    }
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    assert_eq!(
        bench.stored().0,
        rows(&[("a", "2"), ("b", "2"), ("c", "2")])
    );
    assert!(bench.verify().is_right());
    bench.skip(origin);
    assert_eq!(bench.verify().unexpected, 1, "it has it already");
}

#[test]
fn skip_goes_on_and_counts() {
    let mut bench = poisoned(OnError::Skip);
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    assert_eq!(worker.progress().health, Health::Ok);
    assert_eq!(bench.stored(), (rows(&[("a", "1"), ("c", "1")]), 3));
    let counts = bench.reported().expect("reported").0.counts;
    assert_eq!((counts.skipped, counts.dead), (1, 0));
}

#[test]
fn dead_letters_hold_the_record_as_it_was_and_their_limit_outlives_a_restart() {
    let mut bench = poisoned(dead_letter(1));
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 3);
    let letters = bench.letters.letters();
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(
        (
            letter.key.as_deref(),
            letter.value.as_deref(),
            letter.origin.offset
        ),
        (Some(&b"b"[..]), Some(&b"!"[..]), Offset(1))
    );
    assert_eq!(bench.stored().1, 3);

    bench.produce(0, "d", Some("!"));
    let mut next = bench.worker(2);
    bench.run(&mut next, 3);
    assert!(failed(&next).starts_with("more than 1 dead letters"));
    assert_eq!((bench.letters.letters().len(), bench.stored().1), (1, 3));

    bench.directive.on_error = dead_letter(2);
    bench.run(&mut next, 3);
    assert_eq!(next.progress().health, Health::Ok);
    assert_eq!((bench.letters.letters().len(), bench.stored().1), (2, 4));
}

#[test]
fn a_letter_that_was_lost_is_sent_again_before_the_position_passes_its_record() {
    let mut bench = poisoned(dead_letter(1));
    bench.lose_letters.store(true, Ordering::Relaxed);
    let mut worker = bench.worker(1);
    bench.run(&mut worker, 5);
    assert!(!bench.lose_letters.load(Ordering::Relaxed), "it was lost");
    let letters = bench.letters.letters();
    let offsets: Vec<Offset> = letters.iter().map(|letter| letter.origin.offset).collect();
    assert_eq!(offsets, [Offset(1)]);
    assert_eq!(bench.stored(), (rows(&[("a", "1"), ("c", "1")]), 3));
    assert_eq!(bench.reported().expect("reported").0.counts.dead, 1);
    assert_eq!(worker.progress().health, Health::Ok);
}

#[test]
fn a_rewound_unit_gets_past_more_dead_letters_than_may_wait_at_once() {
    for lost in [false, true] {
        let mut bench = Bench::new(TopicSettings::kept(1));
        bench.directive.on_error = dead_letter(100);
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        let earlier = bench.store.image();
        for _ in 0..3 * LETTERS_MAX {
            bench.produce(0, "a", Some("!"));
        }
        bench.produce(0, "b", Some("1"));
        bench.run(&mut worker, 5);
        let expected = bench.stored();
        let dead = bench.reported().expect("reported").0.counts.dead;

        bench.store.restore(earlier);
        bench.lose_letters.store(lost, Ordering::Relaxed);
        let mut next = bench.worker(2);
        bench.run(&mut next, 5);
        assert!(!bench.lose_letters.load(Ordering::Relaxed));
        assert_eq!(next.progress().health, Health::Ok, "lost: {lost}");
        assert_eq!(bench.stored(), expected, "lost: {lost}");
        assert_eq!(bench.reported().expect("reported").0.counts.dead, dead);
    }
}

#[test]
fn a_record_passed_over_on_a_compacted_topic_takes_its_keys_row_along() {
    let check = |settings: TopicSettings, expected: &[(&str, &str)]| {
        let mut bench = Bench::new(settings);
        bench.directive.on_error = OnError::Skip;
        bench.produce(0, "a", Some("1"));
        bench.produce(0, "a", Some("!"));
        let mut worker = bench.worker(1);
        bench.run(&mut worker, 3);
        assert_eq!(bench.stored(), (rows(expected), 2));
    };
    check(TopicSettings::kept(1), &[("a", "1")]);
    check(TopicSettings::compacted(1), &[]);
}
