//! The rules of the worker that can be broken on purpose; `materializer_model::defect` says what for.

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
    /// Records of a topic that grew are taken in as they come, old and new ones.
    ErasIgnored,
    /// The broker is not told under which leader the position was read: a log that was cut back is read on.
    CutIgnored,
    /// A unit reads the partitions of the other shards, too.
    OtherShardsRead,
    /// The checkpoint passes dead letters that are not acknowledged.
    LettersUnacknowledged,
    /// Nobody asks whether the log still holds what parts of a commit were read from.
    PartsUnproved,
}

#[cfg(feature = "mutations")]
impl Defect {
    /// Every defect.
    pub const ALL: [Self; 19] = [
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
        Self::ErasIgnored,
        Self::CutIgnored,
        Self::OtherShardsRead,
        Self::LettersUnacknowledged,
        Self::PartsUnproved,
    ];
}
