//! The exit statuses: one table for the command, its help and its documentation.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked is done.
    Done,
    /// It was refused, and nothing was run.
    Refused,
    /// Arguments or configuration that cannot be.
    Invalid,
    /// The system failed this command.
    Unexpected,
    /// The command to run is there and cannot be run.
    NotExecutable,
    /// There is no such command.
    NotFound,
    /// The command ran; this is its own status.
    Command(u8),
}

impl Exit {
    /// The statuses that do not come from the command that was run, with what they mean.
    pub const OWN: [(Self, &str); 5] = [
        (Self::Refused, "refused: the beat file is held or unsafe; COMMAND was not run"),
        (Self::Invalid, "invalid arguments or configuration; COMMAND was not run"),
        (Self::Unexpected, "an unexpected failure of `heartbeat run` itself"),
        (Self::NotExecutable, "COMMAND cannot be executed"),
        (Self::NotFound, "COMMAND was not found"),
    ];

    /// Those of `heartbeat agent`.
    #[cfg(feature = "redis")]
    pub const OF_THE_AGENT: [(Self, &str); 3] = [
        (Self::Done, "ended by SIGTERM or SIGINT"),
        (Self::Invalid, "invalid arguments"),
        (Self::Unexpected, "an unexpected failure"),
    ];

    /// As a shell would tell it: the exit status, or 128 and the signal's number.
    pub fn of(status: ExitStatus) -> Self {
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
        // Both are below 256 by the kernel's word.
        Self::Command(u8::try_from(code).unwrap_or(255))
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Invalid => 2,
            Self::Unexpected => 3,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Command(code) => code,
        }
    }

    /// The table, for the help.
    pub fn help() -> String {
        let own = Self::OWN.map(|(exit, meaning)| format!("  {:3}  {meaning}\n", exit.code()));
        format!("Exit status: COMMAND's own, 128+N where signal N ended it; or\n{}", own.concat())
    }

    /// The same for `heartbeat agent`.
    #[cfg(feature = "redis")]
    pub fn agent_help() -> String {
        let own = Self::OF_THE_AGENT.map(|(exit, meaning)| format!("  {:3}  {meaning}\n", exit.code()));
        format!("Exit status:\n{}", own.concat())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_passed_on_as_a_shell_would_tell_it() {
        for (raw, code) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (15, 143), (9 | 0x80, 137), (64, 192)] {
            assert_eq!(Exit::of(ExitStatus::from_raw(raw)).code(), code, "{raw:#x}");
        }
    }

    #[test]
    fn the_page_shows_the_table_as_it_is() {
        let page = include_str!("../README.md");
        for (exit, meaning) in Exit::OWN {
            let row = format!("| {} | {} |", exit.code(), meaning.replace("COMMAND", "`COMMAND`"));
            assert!(page.contains(&row), "{row}");
        }
    }
}
