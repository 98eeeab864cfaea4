//! What a verb does: one value that is shown, asked for, and then carried out.
//!
//! [`crate::judge::plan`] makes it. The CLI shows it and puts it into the request; the coordinator
//! makes it again from the catalog that it decides on, and carries it out only if it is the same.
//! It is stored in requests: variants and fields may be added, not changed.

use std::fmt;

use materializer_model::{Origin, TopicId, VersionId, VersionNumber, ViewName};
use serde::{Deserialize, Serialize};

use crate::words::span;

/// What a verb would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Plan {
    /// Nothing: it is so already.
    Nothing {
        /// What is so.
        why: String,
    },
    /// Build a new version.
    Start {
        /// The version.
        version: VersionId,
        /// The version that stays live meanwhile.
        live: Option<VersionNumber>,
        /// The candidate that is aborted for it.
        replaces: Option<VersionNumber>,
        /// Why a new version is needed.
        because: Vec<String>,
    },
    /// Change in place what only says how a version runs.
    ChangeSettings {
        /// The version.
        version: VersionId,
        /// What is changed.
        because: Vec<String>,
    },
    /// Check the gates, then move the alias forward.
    Promote {
        /// The version that becomes live.
        version: VersionId,
        /// The version that is live: the standby afterwards.
        from: Option<VersionNumber>,
        /// The standby, whose soak this ends.
        ends: Option<VersionNumber>,
        /// How long the standby is fed, in milliseconds.
        soak_ms: u64,
    },
    /// Check the standby, then move the alias back.
    RollBack {
        /// The standby, which becomes live.
        version: VersionId,
        /// The version that is live: the standby afterwards, marked rolled back.
        from: VersionNumber,
        /// How long that one is still fed, in milliseconds.
        soak_ms: u64,
    },
    /// Drop the standby before its soak is over.
    EndSoak {
        /// The standby.
        version: VersionId,
    },
    /// Retire the whole view.
    RetireView {
        /// The view.
        view: ViewName,
        /// Everything that goes.
        versions: Vec<VersionNumber>,
    },
    /// Give the candidate up.
    Abort {
        /// The candidate.
        version: VersionId,
    },
    /// Stop feeding a version.
    Pause {
        /// The version.
        version: VersionId,
    },
    /// Feed a version again.
    Resume {
        /// The version.
        version: VersionId,
    },
    /// Pass a record over in every build of a view.
    Skip {
        /// The version that stands before it.
        version: VersionId,
        /// The record.
        at: Origin,
        /// The id of the topic that the version reads. An older release did not write it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_id: Option<TopicId>,
    },
}

impl Plan {
    /// Says whether it changes nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing { .. })
    }

    /// Returns the version that it is about, where it is about one.
    #[must_use]
    pub fn version(&self) -> Option<&VersionId> {
        match self {
            Self::Start { version, .. }
            | Self::ChangeSettings { version, .. }
            | Self::Promote { version, .. }
            | Self::RollBack { version, .. }
            | Self::EndSoak { version }
            | Self::Abort { version }
            | Self::Pause { version }
            | Self::Resume { version }
            | Self::Skip { version, .. } => Some(version),
            Self::Nothing { .. } | Self::RetireView { .. } => None,
        }
    }

    /// Returns the steps in words, in the order in which they are carried out.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        match self {
            Self::Nothing { why } => vec![format!("nothing to do: {why}")],
            Self::Start {
                version,
                live: _,
                replaces,
                because: _,
            } => {
                let abort = replaces.map(|old| format!("abort {old}"));
                abort
                    .into_iter()
                    .chain([format!("build {} from genesis", version.number)])
                    .collect()
            }
            Self::ChangeSettings { version, because } => {
                vec![format!("change {version} in place: {}", because.join(", "))]
            }
            Self::Promote {
                version,
                from,
                ends,
                soak_ms,
            } => promotion_steps(version, *from, *ends, *soak_ms),
            Self::RollBack {
                version,
                from,
                soak_ms,
            } => vec![
                format!("check that {} is fresh", version.number),
                format!("move alias {from} → {}", version.number),
                format!(
                    "mark {from} rolled back, keep feeding it for {}",
                    span(*soak_ms)
                ),
                format!("retire {from}"),
            ],
            Self::EndSoak { version } => vec![
                format!("end the soak of {}", version.number),
                format!("retire {} when no reader uses it", version.number),
            ],
            Self::RetireView { view, versions } => {
                let retire = versions.iter().map(|version| format!("retire {version}"));
                [format!("remove alias {view}")]
                    .into_iter()
                    .chain(retire)
                    .collect()
            }
            Self::Abort { version } => vec![
                format!("stop building {}", version.number),
                format!("delete {}", version.number),
            ],
            Self::Pause { version } => vec![format!("stop feeding {}", version.number)],
            Self::Resume { version } => vec![format!("feed {} again", version.number)],
            Self::Skip { version, at, .. } => {
                vec![format!("skip {at} in {version} and every later build")]
            }
        }
    }
}

fn promotion_steps(
    version: &VersionId,
    from: Option<VersionNumber>,
    ends: Option<VersionNumber>,
    soak_ms: u64,
) -> Vec<String> {
    let number = version.number;
    let mut steps = vec!["check gates again".to_owned()];
    if let Some(ends) = ends {
        steps.push(format!("end the soak of {ends}, retire it"));
    }
    match from {
        None => steps.push(format!("point alias at {number}")),
        Some(from) => {
            steps.push(format!("move alias {from} → {number}"));
            steps.push(format!(
                "keep feeding {from} for {} (rollback)",
                span(soak_ms)
            ));
            steps.push(format!("retire {from}"));
        }
    }
    steps
}

/// Shows the steps as `1 check gates again    2 move alias v7 → v8`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Nothing { why } = self {
            return write!(f, "nothing to do: {why}");
        }
        for (index, step) in self.steps().iter().enumerate() {
            let gap = if index == 0 { "" } else { "    " };
            write!(f, "{gap}{} {step}", index + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_its_steps_in_order() {
        let promote = Plan::Promote {
            version: "products@v8".parse().expect("a version"),
            from: Some(VersionNumber(7)),
            ends: None,
            soak_ms: 86_400_000,
        };
        let expected = "1 check gates again    2 move alias v7 → v8    \
            3 keep feeding v7 for 24 h (rollback)    4 retire v7";
        assert_eq!(promote.to_string(), expected);
        let nothing = Plan::Nothing {
            why: "`products@v8` is live".into(),
        };
        assert_eq!(nothing.to_string(), "nothing to do: `products@v8` is live");
    }
}
