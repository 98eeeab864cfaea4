//! Who may write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use materializer_model::Unit;
use materializer_model::ports::{Expect, Sink, SinkError};

use super::Place;
use super::support::{
    Writer, apply, check_fails, check_holds, checkpoint, commit_after, delete, first, row, set,
    token, token_of, unit,
};

/// The same claim opens again, in the same sink and in a new one, and goes on.
pub fn an_owner_resumes_at_its_checkpoint(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    writer.commit(vec![set("b", row("boot", 2))]);
    let again = writer.sink.open(&token(1), Expect::Data);
    assert_eq!(again, Ok(Some(checkpoint(2, 2))));
    writer.commit(vec![delete("a")]);
    drop(writer);

    let mut writer = Writer::open(place, &first(), 1, Expect::Data);
    assert_eq!(writer.at, Some(checkpoint(3, 2)));
    writer.commit(vec![set("c", row("sock", 3))]);
    let rows = [("b", row("boot", 2)), ("c", row("sock", 3))];
    check_holds(place, &first(), writer.at.as_ref(), &rows);
}

/// A takeover begins where the owner before ended.
pub fn a_later_claim_takes_the_unit_at_its_checkpoint(place: &dyn Place) {
    let mut old = Writer::begin(place, &first());
    old.commit(vec![set("a", row("shoe", 1))]);
    if !place.abilities().takes_from_the_living {
        drop(old);
    }
    let mut new = Writer::open(place, &first(), 2, Expect::Data);
    assert_eq!(new.at, Some(checkpoint(1, 2)));
    new.commit(vec![set("a", row("shoe", 2))]);
    check_holds(place, &first(), new.at.as_ref(), &[("a", row("shoe", 2))]);
}

/// An old owner neither writes nor takes the unit back, and learns who has it.
pub fn a_zombie_has_no_effect_and_is_told(place: &dyn Place) {
    let mut zombie = Writer::begin(place, &first());
    zombie.commit(vec![set("a", row("shoe", 1))]);
    let late = vec![set("a", row("late", 9)), set("z", row("late", 9))];
    let late = commit_after(zombie.at.as_ref(), late);
    let mut zombie: Option<Box<dyn Sink>> = Some(zombie.sink);
    if !place.abilities().takes_from_the_living {
        zombie = None;
    }
    // Takes the unit without writing: the stored checkpoint is still the one the zombie knows.
    let mut owner = Writer::open(place, &first(), 2, Expect::Data);
    if let Some(sink) = &mut zombie {
        check_fails(apply(&mut **sink, &late), "Fenced");
    }
    owner.commit(vec![set("b", row("boot", 2))]);
    if !place.abilities().takes_from_the_living {
        drop(owner.sink);
        owner.sink = place.sink(&first());
    }
    let mut returned = zombie.unwrap_or_else(|| place.sink(&first()));
    check_fails(returned.open(&token(1), Expect::Data), "Fenced");
    drop(returned);
    let at = owner.sink.open(&token(2), Expect::Data);
    assert_eq!(at, Ok(Some(checkpoint(2, 2))));
    let rows = [("a", row("shoe", 1)), ("b", row("boot", 2))];
    check_holds(place, &first(), Some(&checkpoint(2, 2)), &rows);
}

/// Rivals take the unit from each other all the time: each commit is won by one of them.
pub fn rivals_never_both_win_a_commit(place: &dyn Place) {
    const COMMITS: u64 = 100;
    if !place.abilities().takes_from_the_living {
        return;
    }
    let claims = AtomicU64::new(1);
    let contend = || {
        let mut won = Vec::new();
        let mut sink = place.sink(&first());
        loop {
            let claim = token(claims.fetch_add(1, Ordering::Relaxed));
            let mut at = match sink.open(&claim, Expect::Maybe) {
                Ok(at) => at,
                Err(SinkError::Fenced(_) | SinkError::Unavailable(_)) => continue,
                Err(fault) => panic!("{fault:?}"),
            };
            for _ in 0..5 {
                let seq = at.as_ref().map_or(1, |at| at.seq + 1);
                if seq > COMMITS {
                    return won;
                }
                let sets = ["a", "b"].map(|key| set(key, row("shoe", seq)));
                match apply(&mut *sink, &commit_after(at.as_ref(), sets.to_vec())) {
                    Ok(checkpoint) => at = Some(checkpoint),
                    Err(SinkError::Fenced(_) | SinkError::Unavailable(_)) => break,
                    Err(fault) => panic!("{fault:?}"),
                }
                won.push(seq);
            }
        }
    };
    let mut won: Vec<u64> = thread::scope(|scope| {
        let rivals: Vec<_> = (0..3).map(|_| scope.spawn(contend)).collect();
        let won = rivals
            .into_iter()
            .map(|rival| rival.join().expect("a rival"));
        won.flatten().collect()
    });
    won.sort_unstable();
    assert!(won.iter().copied().eq(1..=COMMITS), "{won:?}");
    let rows = ["a", "b"].map(|key| (key, row("shoe", COMMITS)));
    check_holds(place, &first(), Some(&checkpoint(COMMITS, 2)), &rows);
}

/// Claims of another catalog mean nothing here, however late they are.
pub fn another_catalogs_owner_is_refused(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    drop(writer);
    let mut foreign = place.sink(&first());
    check_fails(
        foreign.open(&token_of("another", 9), Expect::Maybe),
        "Damaged",
    );
    check_fails(
        foreign.open(&token_of("another", 9), Expect::Data),
        "Damaged",
    );
    drop(foreign);
    let mut writer = Writer::open(place, &first(), 1, Expect::Data);
    assert_eq!(writer.at, Some(checkpoint(1, 2)));
    writer.commit(vec![set("a", row("shoe", 2))]);
}

/// A commit is submitted and its outcome never read: the next open says whether it is there, and it
/// is sent again if it is not.
pub fn an_open_tells_whether_a_commit_landed(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    for n in 2..12 {
        let commit = commit_after(writer.at.as_ref(), vec![set("a", row("shoe", n))]);
        writer.sink.submit(commit.clone()).expect("submitted");
        let found = writer.sink.open(&token(n), Expect::Data).expect("opened");
        if found != Some(commit.checkpoint.clone()) {
            assert_eq!(found, writer.at, "neither before nor after");
            let landed = apply(&mut *writer.sink, &commit);
            assert_eq!(landed, Ok(commit.checkpoint.clone()));
        }
        writer.at = Some(commit.checkpoint.clone());
        check_holds(
            place,
            &first(),
            writer.at.as_ref(),
            &[("a", row("shoe", n))],
        );
    }
}

/// Opening is harmless, however often.
pub fn opening_again_voids_nothing_that_was_settled(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    for n in 1..4 {
        writer.commit(vec![set(format!("key-{n}"), row("shoe", n))]);
        for _ in 0..2 {
            let found = writer.sink.open(&token(1), Expect::Data);
            assert_eq!(found, Ok(writer.at.clone()));
        }
    }
    let rows: Vec<_> = (1..4)
        .map(|n| (format!("key-{n}"), row("shoe", n)))
        .collect();
    check_holds(place, &first(), writer.at.as_ref(), &rows);
}

/// Each shard has its own token and checkpoint; the rows are those of the version.
pub fn two_shards_of_a_version_are_independent(place: &dyn Place) {
    if !place.abilities().shards {
        return;
    }
    let second = unit("products/v1/c0/s1");
    let mut even = Writer::begin(place, &first());
    let mut odd = Writer::begin(place, &second);
    even.commit(vec![set("0", row("shoe", 0))]);
    odd.commit(vec![set("1", row("boot", 1))]);
    odd.commit(vec![set("3", row("sock", 3))]);
    let mut odd = Writer::open(place, &second, 7, Expect::Data);
    odd.commit(vec![delete("1")]);
    even.commit(vec![set("2", row("sandal", 2))]);
    assert_eq!(even.at, Some(checkpoint(2, 2)));
    assert_eq!(odd.at, Some(checkpoint(3, 2)));
    let checkpoint_of = |unit: &Unit| place.reader(unit).read(&[]).expect("a read").checkpoint;
    assert_eq!(checkpoint_of(&first()), even.at);
    assert_eq!(checkpoint_of(&second), odd.at);
}
