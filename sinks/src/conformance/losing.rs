//! What is not there any more, or not what it was.

use materializer_model::ports::Expect;

use super::support::{
    Writer, check_fails, check_holds, checkpoint, delete, first, row, scan, set, token,
};
use super::{Harm, Place};

/// After a commit was reported, rows without a checkpoint are not refilled.
pub fn a_lost_checkpoint_is_damage_and_nothing_is_written(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    drop(writer);
    if !place.harm(&first(), Harm::LoseCheckpoint) {
        return;
    }
    let mut sink = place.sink(&first());
    check_fails(sink.open(&token(2), Expect::Data), "Damaged");
    drop(sink);
    // The token is not raised either: whoever claims later finds what was found now.
    let mut sink = place.sink(&first());
    check_fails(sink.open(&token(1), Expect::Data), "Damaged");
    assert_eq!(scan(&mut *place.reader(&first())).len(), 1);
}

/// What cannot be read is not guessed at, not even where nothing is expected.
pub fn a_spoiled_checkpoint_is_damage(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    drop(writer);
    if !place.harm(&first(), Harm::SpoilCheckpoint) {
        return;
    }
    for expect in [Expect::Data, Expect::Maybe] {
        check_fails(place.sink(&first()).open(&token(2), expect), "Damaged");
    }
}

/// What is emptied behind an open sink takes no commit that claims to follow what was there.
pub fn an_emptied_place_takes_no_commit_and_is_damage(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    if !place.harm(&first(), Harm::Empty) {
        return;
    }
    check_fails(
        writer.try_commit(vec![set("b", row("boot", 2))]),
        "Unavailable",
    );
    check_fails(writer.sink.open(&token(1), Expect::Data), "Damaged");
    check_fails(writer.sink.open(&token(2), Expect::Data), "Damaged");
    drop(writer);
    check_holds::<&str>(place, &first(), None, &[]);
}

/// A loss that nobody was told a commit before is no loss.
pub fn an_emptied_place_is_begun_anew_if_nothing_was_reported(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    if !place.harm(&first(), Harm::Empty) {
        return;
    }
    drop(writer);
    let mut writer = Writer::open(place, &first(), 2, Expect::Maybe);
    assert_eq!(writer.at, None);
    writer.commit(vec![set("b", row("boot", 1))]);
    check_holds(
        place,
        &first(),
        writer.at.as_ref(),
        &[("b", row("boot", 1))],
    );
}

/// Rows and checkpoint went back together; what that means is left to the worker.
pub fn a_lost_tail_comes_back_as_the_older_checkpoint(place: &dyn Place) {
    let mut writer = Writer::begin(place, &first());
    writer.commit(vec![set("a", row("shoe", 1))]);
    drop(writer);
    let restore = place.save();
    let mut writer = Writer::open(place, &first(), 2, Expect::Data);
    writer.commit(vec![set("a", row("shoe", 2)), set("b", row("boot", 2))]);
    writer.commit(vec![delete("a")]);
    drop(writer);
    restore();

    let mut writer = Writer::open(place, &first(), 2, Expect::Data);
    assert_eq!(writer.at, Some(checkpoint(1, 2)));
    check_holds(
        place,
        &first(),
        writer.at.as_ref(),
        &[("a", row("shoe", 1))],
    );
    writer.commit(vec![set("b", row("boot", 2)), delete("a")]);
    check_holds(
        place,
        &first(),
        writer.at.as_ref(),
        &[("b", row("boot", 2))],
    );
}
