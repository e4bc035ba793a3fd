//! The exit statuses: one table for all commands.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: what was asked passed.
    Passed,
    /// 1: what was asked failed.
    Failed,
    /// 2: invalid arguments or configuration.
    Invalid,
    /// 3: an unexpected failure of the command itself.
    Unexpected,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Passed => 0,
            Exit::Failed => 1,
            Exit::Invalid => 2,
            Exit::Unexpected => 3,
        })
    }
}
