//! Faults that can be planted to test the tests: for each the simulation must find a seed that
//! shows it. Without the feature `mutations` none can be planted, and the checks compile to nothing.

/// A rule that is broken on purpose.
#[cfg_attr(
    not(feature = "mutations"),
    expect(unreachable_pub, reason = "public with the feature only")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A report from before a decision began counts for it.
    OldEvidence,
    /// A fact that lost against another is appended once more, as it was decided.
    StaleAppendedAgain,
    /// A fact counts however late it is appended.
    NeverTooLate,
    /// The end of a soak counts as soon as the decider's own clock says so.
    SoakByOwnClock,
    /// A version is deleted as soon as it is no longer fed.
    DeletedUndrained,
    /// An alias is taken for moved without being read back.
    AliasUnread,
    /// The alias of a view that was retired is left where it is.
    AliasLeft,
    /// A request that is too old is left unanswered.
    ExpiredUnanswered,
}

#[cfg(feature = "mutations")]
mod planting {
    use std::cell::Cell;

    use super::Defect;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    impl Defect {
        /// Every defect.
        pub const ALL: [Self; 8] = [
            Self::OldEvidence,
            Self::StaleAppendedAgain,
            Self::NeverTooLate,
            Self::SoakByOwnClock,
            Self::DeletedUndrained,
            Self::AliasUnread,
            Self::AliasLeft,
            Self::ExpiredUnanswered,
        ];
    }

    /// Plants a defect in every coordinator that this thread steps, or none.
    pub fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }

    pub(crate) fn is_planted(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }
}

#[cfg(feature = "mutations")]
pub(crate) use planting::is_planted;
#[cfg(feature = "mutations")]
pub use planting::plant;

/// Says whether a defect is planted.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is_planted(_defect: Defect) -> bool {
    false
}
