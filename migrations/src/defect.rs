//! The rules of the coordinator that can be broken on purpose; `materializer_model::defect` says what for.

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
    /// One unit of a version stands for all of them.
    OneUnitSuffices,
    /// A version is deleted while a gateway may still route readers to it.
    GatewaysUnheard,
    /// A catalog that ends before what others have read of it is decided on.
    CutCatalogTaken,
    /// An event counts whatever revision it was decided on.
    StaleAccepted,
    /// What is decided after a newer program's event is decided as if it were not there.
    NewerIgnored,
    /// The standby of a version that is replaced stays one.
    SecondStandby,
    /// An alias is confirmed without being read.
    ConfirmedUnread,
    /// A view that was retired cannot be applied again.
    RetiredForEver,
}

#[cfg(feature = "mutations")]
impl Defect {
    /// Those that a simulated history finds. The others are found by the exploration of every state.
    pub const ALL: [Self; 11] = [
        Self::OldEvidence,
        Self::StaleAppendedAgain,
        Self::NeverTooLate,
        Self::SoakByOwnClock,
        Self::DeletedUndrained,
        Self::AliasUnread,
        Self::AliasLeft,
        Self::ExpiredUnanswered,
        Self::OneUnitSuffices,
        Self::GatewaysUnheard,
        Self::CutCatalogTaken,
    ];
}
