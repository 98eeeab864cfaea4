//! Faults that can be planted to test the tests: for each the simulation must find a seed that
//! shows it. Without the feature `mutations` none can be planted, and the checks compile to nothing.

/// A rule that is broken on purpose.
#[cfg_attr(
    not(feature = "mutations"),
    expect(unreachable_pub, reason = "public with the feature only")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The checkpoint is committed first, its data with the next commit.
    CheckpointBeforeData,
    /// A delete of a key that the fold has not seen is dropped.
    UnseenDeleteDropped,
    /// The bar of every partition is 0.
    BarZero,
    /// End-of-partition marks do not advance the position.
    EndMarksIgnored,
    /// A record that is passed over on a compacted topic leaves the older row of its key.
    ExcludedWithoutDelete,
    /// A resume begins where the last report stood, not where the sink's checkpoint stands.
    ResumedFromReport,
    /// A commit whose outcome is unknown is taken for applied.
    UnknownTakenForApplied,
    /// Reading goes on where it was although the sink's checkpoint is another one.
    ReadOnOverRewind,
    /// A topic made anew under the same name is not noticed.
    TopicIdIgnored,
    /// A log that begins above 0 is accepted.
    GenesisAssumed,
    /// A rewound unit says that it is well.
    RewindUnsaid,
    /// A checkpoint is resumed however old it is.
    HorizonIgnored,
    /// A lag is computed from ends of any age.
    OldEndsBelieved,
    /// A topic that got more partitions is read on as it was.
    GrowthIgnored,
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
        pub const ALL: [Self; 14] = [
            Self::CheckpointBeforeData,
            Self::UnseenDeleteDropped,
            Self::BarZero,
            Self::EndMarksIgnored,
            Self::ExcludedWithoutDelete,
            Self::ResumedFromReport,
            Self::UnknownTakenForApplied,
            Self::ReadOnOverRewind,
            Self::TopicIdIgnored,
            Self::GenesisAssumed,
            Self::RewindUnsaid,
            Self::HorizonIgnored,
            Self::OldEndsBelieved,
            Self::GrowthIgnored,
        ];
    }

    /// Plants a defect in every worker that this thread steps, or none.
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
