//! Faults of librdkafka, by what our callers do about them.
//!
//! `poll` tells nothing of a refused login or a wrong certificate: librdkafka retries for ever and
//! only says so to its error callback. The [`Watch`] keeps the most telling of those texts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use materializer_model::ports::{ControlError, LogError};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What a client last said of itself.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    last: Mutex<Option<Said>>,
}

#[derive(Clone, Debug)]
struct Said {
    reach: Reach,
    text: String,
}

/// How telling an error is of why the brokers cannot be used; a later one replaces a lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// One connection broke.
    Broken,
    /// No broker can be reached.
    Unreachable,
    /// They refuse us.
    Refused,
}

impl Watch {
    fn said(&self) -> MutexGuard<'_, Option<Said>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an error, unless a more telling one is kept already.
    pub(crate) fn note(&self, code: RDKafkaErrorCode, text: &str) {
        let reach = match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL => Reach::Refused,
            RDKafkaErrorCode::AllBrokersDown => Reach::Unreachable,
            _ => Reach::Broken,
        };
        let text = text.trim();
        let mut last = self.said();
        let text = match &*last {
            Some(said) if said.reach > reach => return,
            // How many are down is said without their addresses; the connection that broke has one.
            Some(said) if said.reach == Reach::Broken && reach == Reach::Unreachable => {
                format!("{text}: {}", said.text)
            }
            Some(_) | None => text.to_owned(),
        };
        *last = Some(Said { reach, text });
    }

    /// Takes the error that says why no broker can be used, if there is one.
    pub(crate) fn take_fault(&self) -> Option<LogError> {
        let mut last = self.said();
        match last.as_ref()?.reach {
            Reach::Broken => None,
            Reach::Unreachable => last.take().map(|said| LogError::Unavailable(said.text)),
            Reach::Refused => last.take().map(|said| LogError::Refused(said.text)),
        }
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // librdkafka's own lines are a help in a search; what must be known is told as an error.
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info => tracing::debug!(facility, line, "librdkafka"),
            RDKafkaLogLevel::Debug => tracing::trace!(facility, line, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        self.note(code.unwrap_or(RDKafkaErrorCode::Unknown), reason);
    }
}

impl ConsumerContext for Watch {}

/// Says what an error code means for the one who asked for `what`.
pub(crate) fn log_error(watch: &Watch, code: RDKafkaErrorCode, what: &str) -> LogError {
    match watch.take_fault() {
        Some(LogError::Refused(why)) => return LogError::Refused(format!("{what}: {why}")),
        Some(LogError::Unavailable(why)) => return LogError::Unavailable(format!("{what}: {why}")),
        Some(LogError::OutOfRange { .. } | LogError::Truncated { .. }) | None => {}
    }
    let text = format!("{what}: {}", meaning(code));
    if is_lasting(code) {
        LogError::Refused(text)
    } else {
        LogError::Unavailable(text)
    }
}

/// Says the same of any error of the binding.
pub(crate) fn kafka_error(watch: &Watch, error: &KafkaError, what: &str) -> LogError {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    };
    match code {
        Some(code) => log_error(watch, code, what),
        None => LogError::Refused(format!("{what}: {error}")),
    }
}

/// Turns a fault of the log into one of the control log, where nothing was appended.
pub(crate) fn control_error(error: LogError) -> ControlError {
    match error {
        LogError::Unavailable(why) => ControlError::Unavailable(why),
        LogError::Refused(why) => ControlError::Refused(why),
        LogError::OutOfRange { .. } | LogError::Truncated { .. } => {
            ControlError::Lost(error.to_string())
        }
    }
}

fn is_lasting(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::UnknownTopic
            | E::UnknownPartition
            | E::UnknownTopicOrPartition
            | E::InvalidTopic
            | E::TopicAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::Authentication
            | E::SaslAuthenticationFailed
            | E::SSL
            | E::PolicyViolation
            | E::InvalidConfig
            | E::InvalidReplicationFactor
            | E::InvalidRecord
            | E::MessageSizeTooLarge
    )
}

fn meaning(code: RDKafkaErrorCode) -> String {
    use RDKafkaErrorCode as E;
    match code {
        E::UnknownTopic | E::UnknownTopicOrPartition => {
            "there is no such topic, or it may not be described by this login".to_owned()
        }
        E::TopicAuthorizationFailed => {
            "this login lacks the permissions on the topic (READ and DESCRIBE to read, WRITE to write)"
                .to_owned()
        }
        E::OperationTimedOut | E::RequestTimedOut => "no answer in time".to_owned(),
        _ => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_are_down_are_told_by_their_address() {
        let watch = Watch::default();
        let refused = "127.0.0.1:1/bootstrap: Connect failed: Connection refused";
        watch.note(RDKafkaErrorCode::BrokerTransportFailure, refused);
        assert_eq!(watch.take_fault(), None, "another broker may answer");
        watch.note(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        watch.note(RDKafkaErrorCode::BrokerTransportFailure, "a lesser one");
        let told = LogError::Unavailable(format!("1/1 brokers are down: {refused}"));
        assert_eq!(watch.take_fault(), Some(told));
        assert_eq!(watch.take_fault(), None, "told once");
    }
}
