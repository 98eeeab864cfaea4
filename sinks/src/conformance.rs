//! What every sink promises, as a suite of cases for tests: the same for memory, Redis and tantivy.
//!
//! A sink is put to it by a [`Place`] and one line:
//!
//! ```text
//! materializer_sinks::conformance_suite!(MemoryPlace::default());
//! ```
//!
//! Each case gets a place of its own. Rows are objects with a text `title` and an integer `n`.
//! What only one sink does (a server's memory, a directory's lock) is left to that sink's own tests.

use materializer_model::Unit;
use materializer_model::ports::{Sink, SinkAdmin, SinkReader};

mod administering;
mod losing;
mod owning;
mod reading;
mod support;
mod writing;

pub use administering::*;
pub use losing::*;
pub use owning::*;
pub use reading::*;
pub use writing::*;

/// What is done to a unit behind its owner's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Everything in the place is gone, the connections stay.
    Empty,
    /// The unit's checkpoint is gone, its rows stay.
    LoseCheckpoint,
    /// The unit's checkpoint is a text that none of our programs writes.
    SpoilCheckpoint,
}

/// What a sink is made for, where sinks differ by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// A later claim takes a unit from an owner that still has it open. (Otherwise it is refused
    /// until that owner is gone.)
    pub takes_from_the_living: bool,
    /// Several shards write one version; here it has two.
    pub shards: bool,
    /// Rows end by themselves.
    pub expiry: bool,
    /// It stores the aliases that readers follow. (Otherwise gateways are the alias.)
    pub aliases: bool,
}

/// Puts back what was saved.
pub type Restore<'a> = Box<dyn FnOnce() + 'a>;

/// An empty place in which any unit can be kept, and in which harm can be done.
pub trait Place: Sync {
    /// Says what the sink is made for.
    fn abilities(&self) -> Abilities;

    /// Returns a new writer of a unit.
    fn sink(&self, unit: &Unit) -> Box<dyn Sink>;

    /// Returns a new reader of a unit.
    fn reader(&self, unit: &Unit) -> Box<dyn SinkReader>;

    /// Returns what the coordinator uses.
    fn admin(&self) -> Box<dyn SinkAdmin>;

    /// Saves everything that is stored, and returns what puts it back in place of what is there
    /// then: a fail-over to a replica that lagged. Nothing is open at either time.
    fn save(&self) -> Restore<'_>;

    /// Does harm to a unit, or says that this sink cannot come to it.
    fn harm(&self, unit: &Unit, harm: Harm) -> bool;
}

/// Makes a test of each case. Takes an expression that makes a
/// [`Place`], evaluated anew for each; with `ignore = "why",` before it,
/// the tests are ignored.
#[macro_export]
macro_rules! conformance_suite {
    (ignore = $why:literal, $place:expr) => {
        $crate::conformance_suite! { @all [#[ignore = $why]] [$place] }
    };
    ($place:expr) => {
        $crate::conformance_suite! { @all [] [$place] }
    };
    (@all $attributes:tt $place:tt) => {
        $crate::conformance_suite! { @each $attributes $place
            a_place_begins_empty
            an_upsert_is_read_back_and_replaces_the_row_before
            a_delete_removes_the_row_and_deleting_nothing_is_no_fault
            the_last_change_of_a_key_in_a_batch_counts
            a_batch_of_many_rows_is_written_whole
            a_commit_without_rows_moves_the_checkpoint
            the_same_commit_sent_twice_is_applied_once
            large_documents_are_kept
            odd_keys_are_kept_apart
            a_checkpoint_holds_hundreds_of_partitions
            an_owner_resumes_at_its_checkpoint
            a_later_claim_takes_the_unit_at_its_checkpoint
            a_zombie_has_no_effect_and_is_told
            rivals_never_both_win_a_commit
            another_catalogs_owner_is_refused
            an_open_tells_whether_a_commit_landed
            opening_again_voids_nothing_that_was_settled
            two_shards_of_a_version_are_independent
            a_lost_checkpoint_is_damage_and_nothing_is_written
            a_spoiled_checkpoint_is_damage
            an_emptied_place_takes_no_commit_and_is_damage
            an_emptied_place_is_begun_anew_if_nothing_was_reported
            a_lost_tail_comes_back_as_the_older_checkpoint
            rows_and_checkpoint_are_of_one_instant
            a_scan_sees_all_rows_of_its_version_and_no_others
            a_row_ends_when_its_time_has_come
            a_rebuild_gives_the_same_rows
            an_alias_moves_only_forward
            an_alias_is_removed_only_by_a_later_event
            an_alias_leads_only_to_a_version_that_is_there
            rows_are_counted_and_keys_are_found
            a_retirement_deletes_its_own_and_nothing_else
            a_retired_unit_is_never_opened_again
        }
    };
    (@each $attributes:tt $place:tt $($case:ident)+) => {
        $( $crate::conformance_suite! { @one $attributes $place $case } )+
    };
    (@one [$($attribute:tt)*] [$place:expr] $case:ident) => {
        #[test]
        $($attribute)*
        fn $case() {
            $crate::conformance::$case(&$place);
        }
    };
}
