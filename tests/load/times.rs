//! Times of something that was done many times, and how they are told.

use std::fmt;
use std::time::Duration;

/// In ascending order.
#[derive(Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut each: Vec<Duration>) -> Self {
        assert!(!each.is_empty(), "nothing was measured");
        each.sort_unstable();
        Self(each)
    }

    /// How long the fastest so many per cent took at most.
    pub fn percent(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    pub fn median(&self) -> Duration {
        self.percent(50)
    }

    /// How many times as long as the other one, by the medians.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

/// Median and 99th percentile.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (p99 {})", Told(self.median()), Told(self.percent(99)))
    }
}

/// A duration in the unit that suits it.
pub struct Told(pub Duration);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (number, unit) = match seconds {
            0.0..1e-3 => (seconds * 1e6, "µs"),
            1e-3..1.0 => (seconds * 1e3, "ms"),
            _ => (seconds, "s"),
        };
        let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
        write!(f, "{number:.digits$} {unit}")
    }
}
