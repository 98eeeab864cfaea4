//! Why a worker cannot go on, by what it does about it.

use materializer_model::ports::{ControlError, LogError, SinkError};
use materializer_model::{Origin, Token};

/// What keeps a unit from going on until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) why: String,
    pub(crate) at: Option<Origin>,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            at: None,
            hint: Some(hint.into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Passes by itself: open again after a while.
    Retry(String),
    /// Somebody else owns the unit: leave it.
    Fenced(Token),
    /// Data is lost or foreign: write nothing more.
    Damaged(String),
    /// Nothing is lost, but it cannot go on as things are: try again now and then.
    Failed(Failure),
}

impl From<SinkError> for Halt {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Unavailable(why) | SinkError::Full(why) => Self::Retry(why),
            SinkError::Fenced(token) => Self::Fenced(token),
            SinkError::Damaged(why) => Self::Damaged(why),
            SinkError::Refused(why) => Self::Failed(Failure::new(
                why,
                "`materializer doctor` checks the connection",
            )),
        }
    }
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Self {
        let rebuild =
            "what was read is still served; a rebuild needs a topic that is complete from 0";
        match error {
            LogError::Unavailable(why) => Self::Retry(why),
            LogError::Refused(why) => Self::Failed(Failure::new(
                why,
                "`materializer doctor` checks topics and permissions",
            )),
            LogError::OutOfRange { .. } | LogError::Truncated { .. } => {
                Self::Failed(Failure::new(error.to_string(), rebuild))
            }
        }
    }
}

impl From<ControlError> for Halt {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Unavailable(why) | ControlError::Unknown(why) => Self::Retry(why),
            ControlError::Refused(why) | ControlError::Lost(why) => Self::Failed(Failure::new(
                why,
                "`materializer doctor` checks the catalog's topics",
            )),
        }
    }
}
