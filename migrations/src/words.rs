//! Numbers in words, as every verb shows them.

use std::fmt::{self, Display};
use std::time::Duration;

/// A count with its thousands apart: `41 203 117`.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(' ');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// Returns a span in its two largest units: `6m 17s`, `52s`, `3d 4h`.
#[must_use]
pub fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Returns a span in words: `24 h`, `90 s`, `250 ms`; the largest unit that divides it.
#[must_use]
pub fn span(ms: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let whole = units
        .into_iter()
        .filter(|(unit, name)| *name != "d" || ms > *unit)
        .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{} {name}", ms / unit),
        None => format!("{ms} ms"),
    }
}

/// Returns a span as `2:11`, minutes and seconds.
pub(crate) fn clock(ms: u64) -> String {
    if ms > 0 && ms < 1_000 {
        return span(ms);
    }
    let seconds = ms / 1_000;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (41_203_117, "41 203 117"),
        ] {
            assert_eq!(Count(count).to_string(), expected);
        }
    }

    #[test]
    fn spans_are_rough_or_whole() {
        for (seconds, expected) in [
            (0, "0s"),
            (52, "52s"),
            (377, "6m 17s"),
            (86_340, "23h 59m"),
            (273_600, "3d 4h"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), expected);
        }
        for (ms, expected) in [
            (0, "0 ms"),
            (250, "250 ms"),
            (90_000, "90 s"),
            (120_000, "2 m"),
            (86_400_000, "24 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(span(ms), expected);
        }
    }
}
