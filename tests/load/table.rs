//! The one table at the end, and the verdict: what was promised and not kept.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Rows in the order in which they were measured.
pub struct Table {
    judges: bool,
    rows: Vec<Row>,
}

enum Row {
    Section(String),
    Told { what: String, told: String },
    Judged { what: String, told: String, promise: String, kept: bool },
}

impl Table {
    /// Where it does not judge, a promise that is not kept is shown and fails nothing.
    pub fn new(judges: bool) -> Self {
        Self { judges, rows: Vec::new() }
    }

    pub fn section(&mut self, title: &str) {
        self.rows.push(Row::Section(title.to_owned()));
    }

    pub fn row(&mut self, what: &str, told: &str) {
        self.rows.push(Row::Told { what: what.to_owned(), told: told.to_owned() });
    }

    pub fn judged(&mut self, what: &str, told: &str, promise: &str, kept: bool) {
        let (what, told, promise) = (what.to_owned(), told.to_owned(), promise.to_owned());
        self.rows.push(Row::Judged { what, told, promise, kept });
    }

    pub fn show(&self, took: Duration) -> ExitCode {
        let width = |row: &Row| match row {
            Row::Section(_) => 0,
            Row::Told { what, .. } | Row::Judged { what, .. } => what.chars().count(),
        };
        let wide = self.rows.iter().map(width).max().unwrap_or(0);
        let mut missed = 0;
        let mut output = io::stdout().lock();
        let mut show = |line: &str| writeln!(output, "{line}").expect("standard output");
        for row in &self.rows {
            match row {
                Row::Section(title) => show(&format!("\n{title}")),
                Row::Told { what, told } => show(&format!("  {what:wide$}  {told}")),
                Row::Judged { what, told, promise, kept } => {
                    missed += usize::from(!kept);
                    let mark = if *kept { "kept" } else { "MISSED" };
                    show(&format!("  {what:wide$}  {told}  [{promise}: {mark}]"));
                }
            }
        }
        let judged = if self.judges { "" } else { " (small: not judged)" };
        show(&format!("\n{missed} promises missed{judged}; took {:.0} s", took.as_secs_f64()));
        ExitCode::from(u8::from(self.judges && missed > 0))
    }
}
