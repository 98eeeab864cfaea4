//! What a history of migrations has besides crashes and faults that pass: one kind of trouble, or none.

use crate::chaos::Shared;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// The sink's server goes back to what it held, or is an empty one, now and then.
    SinkLoses,
    /// The append times of the control topics go back and forth by so many milliseconds.
    ClocksJump(u64),
    /// Once, the topic gets one more partition.
    Grown,
    /// Once, a leader is elected that lacks the end of a partition.
    Cut,
    /// Once, the topic is made anew under the same name.
    Recreated,
    /// Once, the catalog loses its end.
    CatalogCut,
    /// Once, the control topics are made anew under the same names.
    CatalogReplaced,
}

impl Trouble {
    pub(super) fn choose(shared: &Shared) -> Self {
        match shared.below(20) {
            0..4 => Self::SinkLoses,
            4 => Self::ClocksJump(2_500), // no two differ by more than the 5 s that are asked for
            5 | 6 => Self::ClocksJump(60_000),
            7 => Self::Grown,
            8 | 9 => Self::Cut,
            10 => Self::Recreated,
            11 => Self::CatalogCut,
            12 => Self::CatalogReplaced,
            _ => Self::None,
        }
    }

    /// Says whether nothing may be decided after it, until the catalog is restored.
    pub(super) fn ends_deciding(self) -> bool {
        match self {
            Self::CatalogCut | Self::CatalogReplaced => true,
            Self::None
            | Self::SinkLoses
            | Self::ClocksJump(_)
            | Self::Grown
            | Self::Cut
            | Self::Recreated => false,
        }
    }

    /// Says whether it comes once, and when is due.
    pub(super) fn comes_once(self) -> bool {
        match self {
            Self::None | Self::SinkLoses | Self::ClocksJump(_) => false,
            Self::Grown
            | Self::Cut
            | Self::Recreated
            | Self::CatalogCut
            | Self::CatalogReplaced => true,
        }
    }
}
