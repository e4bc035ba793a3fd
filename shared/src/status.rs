//! The four words that every answer is summed up in.

use std::fmt;

/// What an answer amounts to. Whether that passes is a matter of policy: see the answer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// As it should be.
    Pass,
    /// Good enough to pass, and somebody should look.
    Warn,
    /// Not as it should be.
    Fail,
    /// Nobody can tell: neither good nor bad.
    Unknown,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Warn, Self::Fail, Self::Unknown];

    /// The status's word in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }

    /// Its word in the answer about a check.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "ok",
            Self::Warn => "warning",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
