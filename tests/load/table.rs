//! The table, a line as soon as it is measured; and the verdict at its end: what was promised and not kept.

use std::io::{self, Stdout, Write};
use std::process::ExitCode;
use std::time::Duration;

/// As wide as the longest name of a row.
const WIDE: usize = 62;

/// What was shown so far.
pub struct Table {
    output: Stdout,
    judges: bool,
    missed: Vec<String>,
}

impl Table {
    /// Where it does not judge, no promise is missed.
    pub fn new(judges: bool) -> Self {
        Self { output: io::stdout(), judges, missed: Vec::new() }
    }

    pub fn section(&self, title: &str) {
        self.show(&format!("\n{title}"));
    }

    pub fn row(&self, what: &str, told: &str) {
        self.show(&format!("  {what:WIDE$}  {told}"));
    }

    pub fn judged(&mut self, what: &str, told: &str, promise: &str, kept: bool) {
        let mark = match (self.judges, kept) {
            (false, _) => "not judged",
            (true, true) => "kept",
            (true, false) => "MISSED",
        };
        self.row(what, &format!("{told}  [{promise}: {mark}]"));
        if self.judges && !kept {
            self.missed.push(what.to_owned());
        }
    }

    pub fn end(&self, took: Duration) -> ExitCode {
        self.show(&format!("\n{} promises missed; took {:.0} s", self.missed.len(), took.as_secs_f64()));
        for what in &self.missed {
            self.show(&format!("  missed: {what}"));
        }
        ExitCode::from(u8::from(!self.missed.is_empty()))
    }

    fn show(&self, line: &str) {
        writeln!(self.output.lock(), "{line}").expect("standard output");
    }
}
