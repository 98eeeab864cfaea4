//! The roles of a version and the one table of how they follow each other.
//!
//! Only facts in the catalog change a role. Whoever appends a fact asks [`Role::after`] whether it
//! is legal; the fold follows the same table, so every process sees the same roles. No way leads
//! out of `Retiring` but to `Retired`: a deletion that was begun late harms nobody.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is replayed and catches up; it was never live.
    Building,
    /// The alias names it.
    Live,
    /// It was live just before; it is still fed, so that a rollback to it is fresh.
    Standby,
    /// It is no longer fed and no longer a rollback target, but readers may still use it.
    Draining,
    /// Nobody reads it; it is being deleted. The point of no return.
    Retiring,
    /// Nothing of it is left.
    Retired,
}

/// What happens to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The alias moves to it, by a promotion.
    Promoted,
    /// The alias moves back to it.
    RolledBackTo,
    /// The alias moves to another version, and it becomes the rollback target.
    Replaced,
    /// Its soak is over, was ended, or another version takes its place as the rollback target.
    SoakEnded,
    /// The whole view is retired.
    ViewRetired,
    /// A candidate is given up.
    Aborted,
    /// No reader uses it any more.
    Drained,
    /// Everything it stored is gone.
    Deleted,
}

impl Role {
    /// Every role, in the order of a version's life.
    pub const ALL: [Self; 6] = [
        Self::Building,
        Self::Live,
        Self::Standby,
        Self::Draining,
        Self::Retiring,
        Self::Retired,
    ];

    /// Returns the role that follows; `None` where the step is refused.
    #[must_use]
    pub fn after(self, cause: Cause) -> Option<Self> {
        match (self, cause) {
            (Self::Building | Self::Standby, Cause::Promoted)
            | (Self::Standby, Cause::RolledBackTo) => Some(Self::Live),
            (Self::Live, Cause::Replaced) => Some(Self::Standby),
            (Self::Standby, Cause::SoakEnded)
            | (Self::Live | Self::Standby, Cause::ViewRetired) => Some(Self::Draining),
            (Self::Building, Cause::Aborted | Cause::ViewRetired)
            | (Self::Draining, Cause::Drained) => Some(Self::Retiring),
            (Self::Retiring, Cause::Deleted) => Some(Self::Retired),
            (
                Self::Building
                | Self::Live
                | Self::Standby
                | Self::Draining
                | Self::Retiring
                | Self::Retired,
                _,
            ) => None,
        }
    }

    /// Says whether workers feed a version in this role.
    #[must_use]
    pub fn is_fed(self) -> bool {
        match self {
            Self::Building | Self::Live | Self::Standby => true,
            Self::Draining | Self::Retiring | Self::Retired => false,
        }
    }

    /// Returns the role as it is written in status and labels: one of a closed set.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Live => "live",
            Self::Standby => "standby",
            Self::Draining => "draining",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::Promoted,
        Self::RolledBackTo,
        Self::Replaced,
        Self::SoakEnded,
        Self::ViewRetired,
        Self::Aborted,
        Self::Drained,
        Self::Deleted,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_allows_these_steps_and_no_others() {
        let mut allowed = Vec::new();
        for from in Role::ALL {
            for cause in Cause::ALL {
                if let Some(to) = from.after(cause) {
                    allowed.push(format!("{from} {cause:?} {to}"));
                }
            }
        }
        let expected = [
            "building Promoted live",
            "building ViewRetired retiring",
            "building Aborted retiring",
            "live Replaced standby",
            "live ViewRetired draining",
            "standby Promoted live",
            "standby RolledBackTo live",
            "standby SoakEnded draining",
            "standby ViewRetired draining",
            "draining Drained retiring",
            "retiring Deleted retired",
        ];
        assert_eq!(allowed, expected);
    }

    #[test]
    fn nothing_comes_back_from_retirement() {
        for cause in Cause::ALL {
            assert_eq!(Role::Retired.after(cause), None, "{cause:?}");
            let next = Role::Retiring.after(cause);
            assert!(next.is_none_or(|role| role == Role::Retired), "{cause:?}");
        }
    }
}
