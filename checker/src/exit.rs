//! The exit statuses: one table for all commands, and the one place where a panic is contained.

use std::panic::{self, UnwindSafe};
use std::process::ExitCode;

use crate::stream;

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
    /// 0 to 3, as monitoring plugins end: in the `nagios` format only.
    Plugin(PluginState),
}

/// The states of a monitoring plugin; each one's number is its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is its own word")]
pub enum PluginState {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl Exit {
    /// The process's exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Unexpected => 3,
            Self::Plugin(state) => state as u8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Runs a command. A panic becomes one line on standard error, and [`Exit::Unexpected`].
pub fn contained(command: impl FnOnce() -> Exit + UnwindSafe) -> Exit {
    panic::set_hook(Box::new(|panic| stream::complain(&format!("unexpected failure: {}", one_line(panic)))));
    panic::catch_unwind(command).unwrap_or(Exit::Unexpected)
}

fn one_line(panic: &panic::PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message").replace(char::is_control, " ");
    match panic.location() {
        Some(location) => format!("{message} ({}:{})", location.file(), location.line()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_unexpected_failure_and_no_more() {
        let before = panic::take_hook();
        let exit = contained(|| panic!("two\nlines"));
        panic::set_hook(before);
        assert_eq!((exit, exit.code()), (Exit::Unexpected, 3));
    }
}
