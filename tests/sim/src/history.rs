//! What is run, how it is named on a command line, and how it went.

use std::collections::BTreeSet;
use std::fmt;

use crate::chaos::Flaw;
use crate::{feed, migrate};

/// Which history is run. Everything that happens in it follows from this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What every choice comes from.
    pub seed: u64,
    /// The rule that a server breaks, to test the simulator.
    pub flaw: Option<Flaw>,
    /// The events that happen, by their numbers; all of them, if `None`.
    pub events: Option<BTreeSet<u64>>,
}

impl History {
    /// Returns the whole history of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Returns it with servers that break a rule.
    #[must_use]
    pub fn with(self, flaw: Option<Flaw>) -> Self {
        Self { flaw, ..self }
    }

    /// Says whether an event happens.
    #[must_use]
    pub fn has(&self, event: u64) -> bool {
        self.events
            .as_ref()
            .is_none_or(|events| events.contains(&event))
    }

    /// Reads numbers as [`History`]'s `Display` writes them: `3,7,20-24`.
    #[must_use]
    pub fn parse_events(text: &str) -> Option<BTreeSet<u64>> {
        let mut events = BTreeSet::new();
        for span in text.split(',').filter(|span| !span.is_empty()) {
            let (first, last) = span.split_once('-').unwrap_or((span, span));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            events.extend(first..=last);
        }
        Some(events)
    }
}

/// The arguments of `sim` that run it again.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        let Some(events) = &self.events else {
            return Ok(());
        };
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for event in events {
            match spans.last_mut() {
                Some((_, last)) if *last + 1 == *event => *last = *event,
                Some(_) | None => spans.push((*event, *event)),
            }
        }
        let spans: Vec<String> = spans
            .into_iter()
            .map(|(first, last)| match last - first {
                0 => first.to_string(),
                _ => format!("{first}-{last}"),
            })
            .collect();
        write!(f, " --events {}", spans.join(","))
    }
}

/// How a history went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Everything that happened, a line each.
    pub trace: Vec<String>,
    /// The promise that was broken, if one was.
    pub broken: Option<String>,
}

/// The two kinds of histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One unit is fed.
    Feed,
    /// One view goes through versions.
    Migrate,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Feed, Self::Migrate];

    /// Returns its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Migrate => "migrate",
        }
    }

    /// Returns how many events its histories have before it is calm.
    #[must_use]
    pub fn events(self) -> u64 {
        match self {
            Self::Feed => crate::feeding::EVENTS,
            Self::Migrate => crate::migration::EVENTS,
        }
    }

    /// Runs a history.
    #[must_use]
    pub fn run(self, history: &History) -> Outcome {
        match self {
            Self::Feed => feed(history),
            Self::Migrate => migrate(history),
        }
    }
}
