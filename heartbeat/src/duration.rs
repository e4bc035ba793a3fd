//! Durations as people write and read them: `500ms`, `30s`, `1m30s`, `2h`, `1d`.
//!
//! One syntax for the environment, the command lines and the configuration.

use std::fmt;
use std::time::Duration;

/// The longest duration that is accepted: 365 days. Nothing here waits longer.
pub const MAX: Duration = Duration::from_hours(365 * 24);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// Not whole numbers with a unit each.
    Form,
    /// More than [`MAX`].
    TooLong,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a duration is a whole number with a unit: 500ms, 30s, 5m, 2h, 1d, or 1m30s",
            Self::TooLong => "a duration is 365 days at most",
        })
    }
}

impl std::error::Error for Invalid {}

/// Reads a duration: whole numbers with a unit each (`ms`, `s`, `m`, `h`, `d`), largest unit first.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(heartbeat::duration::parse("1m30s"), Ok(Duration::from_secs(90)));
/// assert!(heartbeat::duration::parse("90").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, Invalid> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        let Some((_, factor)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
            return Err(Invalid::Form);
        };
        if number.is_empty() || factor >= smallest {
            return Err(Invalid::Form);
        }
        let number: u64 = number.parse().map_err(|_| Invalid::TooLong)?;
        total_ms =
            number.checked_mul(factor).and_then(|ms| total_ms.checked_add(ms)).ok_or(Invalid::TooLong)?;
        smallest = factor;
        rest = tail;
    }
    if smallest == u64::MAX {
        return Err(Invalid::Form);
    }
    let duration = Duration::from_millis(total_ms);
    if duration > MAX { Err(Invalid::TooLong) } else { Ok(duration) }
}

/// A number of milliseconds, shown as a person would say it: `812 ms`, `12.3 s`, `5 min`, `3.5 h`, `2 d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit_ms, unit) = match self.0 {
            0..1_000 => return write!(f, "{} ms", self.0),
            1_000..120_000 => (1_000, "s"),
            120_000..7_200_000 => (60_000, "min"),
            7_200_000..172_800_000 => (3_600_000, "h"),
            _ => (86_400_000, "d"),
        };
        let tenths = self.0 % unit_ms * 10 / unit_ms;
        match tenths {
            0 => write!(f, "{} {unit}", self.0 / unit_ms),
            _ => write!(f, "{}.{tenths} {unit}", self.0 / unit_ms),
        }
    }
}

/// Whole milliseconds, at most those of [`MAX`].
pub(crate) fn millis(duration: Duration) -> u64 {
    // 365 days of milliseconds are far below `u64::MAX`.
    u64::try_from(duration.min(MAX).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let good = [("0ms", 0), ("250ms", 250), ("30s", 30_000), ("1m30s", 90_000), ("1h", 3_600_000)];
        for (text, ms) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "-1s", " 1s", "1s ", "1s1m", "1s1s", "1 s", "1S", "5min", "١s"] {
            assert_eq!(parse(text), Err(Invalid::Form), "{text:?}");
        }
        for text in ["366d", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse(text), Err(Invalid::TooLong), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_people_say_them() {
        let shown = [
            (0, "0 ms"),
            (812, "812 ms"),
            (1_000, "1 s"),
            (12_345, "12.3 s"),
            (30_000, "30 s"),
            (150_000, "2.5 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ];
        for (ms, text) in shown {
            assert_eq!(Human(ms).to_string(), text);
        }
    }
}
