//! The continuous gates: evaluated by the worker at every step, held as long as none breaks.

use std::time::Duration;

use materializer_model::Monotonic;
use materializer_model::definition::Gates;
use materializer_model::progress::{GateReading, Lag};

/// Ends that are older are unknown.
pub(crate) const ENDS_AGE_MAX: Duration = Duration::from_secs(10);
/// A stable end that was seen below the high watermark for less is not worth a word: the requests for
/// the two cross, and most transactions are short.
const STABLE_STILL_MIN: Duration = Duration::from_secs(5);
/// A stable end that stands still for this long below the high watermark fails its gate.
const STABLE_STILL_MAX: Duration = Duration::from_secs(60);

/// What the gates are evaluated on.
pub(crate) struct Evidence {
    pub(crate) bar_passed: bool,
    /// The age of the oldest end; `None` where one is unknown.
    pub(crate) ends_age: Option<Duration>,
    /// `None` where an end is unknown or too old.
    pub(crate) lag: Option<Lag>,
    pub(crate) failed: u64,
    pub(crate) dead: u64,
    pub(crate) dead_limit: Option<u64>,
    /// The longest time that a stable end has stood below its high watermark.
    pub(crate) held_back: Option<Duration>,
}

fn reading(gate: &str, holds: bool, reading: String) -> GateReading {
    GateReading {
        gate: gate.to_owned(),
        holds,
        reading,
    }
}

/// Evaluates every continuous gate. What is unknown does not hold.
pub(crate) fn evaluate(evidence: &Evidence, limits: &Gates) -> Vec<GateReading> {
    let Evidence { lag, .. } = evidence;
    let unknown = || "unknown".to_owned();
    let seconds = |span: Duration| format!("{:.1} s", span.as_secs_f64());
    let records_max = limits.lag_records;
    let seconds_max = limits.lag_seconds;
    let dead_limit = evidence.dead_limit.unwrap_or(evidence.dead);
    let held_back = evidence.held_back.unwrap_or_default();
    vec![
        reading(
            "bar",
            evidence.bar_passed,
            if evidence.bar_passed {
                "passed"
            } else {
                "not passed"
            }
            .to_owned(),
        ),
        reading(
            "ends",
            evidence.ends_age.is_some_and(|age| age <= ENDS_AGE_MAX),
            evidence.ends_age.map_or_else(unknown, |age| {
                format!("{} ≤ {}", seconds(age), seconds(ENDS_AGE_MAX))
            }),
        ),
        reading(
            "lag_records",
            lag.is_some_and(|lag| lag.records <= records_max),
            lag.map_or_else(unknown, |lag| format!("{} ≤ {records_max}", lag.records)),
        ),
        reading(
            "lag_seconds",
            lag.is_some_and(|lag| lag.seconds <= seconds_max),
            lag.map_or_else(unknown, |lag| {
                format!("{:.1} s ≤ {seconds_max} s", lag.seconds)
            }),
        ),
        reading(
            "failed",
            evidence.failed == 0 && evidence.dead <= dead_limit,
            format!("{} failed, {} dead", evidence.failed, evidence.dead),
        ),
        reading(
            "stable_offset",
            evidence.ends_age.is_some() && held_back < STABLE_STILL_MAX,
            if held_back < STABLE_STILL_MIN {
                "moves".to_owned()
            } else {
                format!(
                    "held back for {} by an open transaction",
                    seconds(held_back)
                )
            },
        ),
    ]
}

/// Since when all gates have held without a break.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held(Option<Monotonic>);

impl Held {
    pub(crate) fn note(&mut self, all_hold: bool, now: Monotonic) {
        self.0 = all_hold.then(|| self.0.unwrap_or(now));
    }

    pub(crate) fn time(&self, now: Monotonic) -> Option<Duration> {
        self.0.map(|since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Gates {
        Gates {
            lag_seconds: 10.0,
            lag_records: 1_000,
            stable_for: Duration::ZERO,
            documents_ratio: None,
            queries: Vec::new(),
            keys: Vec::new(),
        }
    }

    fn well() -> Evidence {
        Evidence {
            bar_passed: true,
            ends_age: Some(Duration::from_secs(1)),
            lag: Some(Lag {
                records: 12,
                seconds: 0.5,
                estimated: false,
            }),
            failed: 0,
            dead: 0,
            dead_limit: None,
            held_back: None,
        }
    }

    fn broken(evidence: &Evidence) -> Vec<String> {
        let readings = evaluate(evidence, &limits()).into_iter();
        readings.filter(|r| !r.holds).map(|r| r.gate).collect()
    }

    #[test]
    fn every_gate_fails_closed() {
        let check = |evidence: Evidence, expected: &[&str]| assert_eq!(broken(&evidence), expected);
        let lag = |records, seconds| {
            Some(Lag {
                records,
                seconds,
                estimated: false,
            })
        };
        let span = |seconds| Some(Duration::from_secs(seconds));
        check(well(), &[]);
        check(
            Evidence {
                bar_passed: false,
                ..well()
            },
            &["bar"],
        );
        check(
            Evidence {
                ends_age: None,
                lag: None,
                ..well()
            },
            &["ends", "lag_records", "lag_seconds", "stable_offset"],
        );
        check(
            Evidence {
                ends_age: span(11),
                lag: None,
                ..well()
            },
            &["ends", "lag_records", "lag_seconds"],
        );
        check(
            Evidence {
                lag: lag(1_001, 0.0),
                ..well()
            },
            &["lag_records"],
        );
        check(
            Evidence {
                lag: lag(1_000, 10.1),
                ..well()
            },
            &["lag_seconds"],
        );
        check(
            Evidence {
                failed: 1,
                ..well()
            },
            &["failed"],
        );
        check(
            Evidence {
                dead: 3,
                dead_limit: Some(2),
                ..well()
            },
            &["failed"],
        );
        check(
            Evidence {
                held_back: span(59),
                ..well()
            },
            &[],
        );
        check(
            Evidence {
                held_back: span(60),
                ..well()
            },
            &["stable_offset"],
        );
    }

    #[test]
    fn a_stable_end_is_said_to_be_held_back_only_after_some_seconds() {
        let check = |seconds, expected: &str| {
            let evidence = Evidence {
                held_back: Some(Duration::from_secs(seconds)),
                ..well()
            };
            let readings = evaluate(&evidence, &limits());
            let reading = readings.iter().find(|r| r.gate == "stable_offset");
            assert_eq!(reading.map(|r| r.reading.as_str()), Some(expected));
        };
        check(0, "moves");
        check(4, "moves");
        check(5, "held back for 5.0 s by an open transaction");
    }

    #[test]
    fn a_break_begins_the_holding_anew() {
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let mut held = Held::default();
        held.note(true, at(1));
        held.note(true, at(5));
        assert_eq!(held.time(at(6)), Some(Duration::from_secs(5)));
        held.note(false, at(7));
        assert_eq!(held.time(at(8)), None);
        held.note(true, at(9));
        assert_eq!(held.time(at(10)), Some(Duration::from_secs(1)));
    }
}
