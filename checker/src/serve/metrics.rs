//! `/metrics`: what stands of each check and of each subset, for a scrape. It asks no check: that is for who probes.

use std::sync::Arc;
use std::time::Instant;

use super::board::{Board, Setup};
use super::endpoints::Shows;
use super::formats::{Failing, Form};
use super::view::{Seen, Words};
use crate::format::openmetrics::Exposition;

/// What is shown to a scrape.
pub struct Metrics {
    checks: Vec<Seen>,
    /// The subsets' names, and whether each passes.
    subsets: Vec<(String, bool)>,
}

impl Shows for Metrics {
    fn passes(&self) -> bool {
        true
    }
}

/// The formats: a scrape that knows no `OpenMetrics` reads the same lines as Prometheus' own.
pub const FORMS: &[Form<Metrics>] = &[
    Form {
        name: "openmetrics",
        media: "application/openmetrics-text",
        content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
        failing: Failing::Told,
        print,
    },
    Form {
        name: "text",
        media: "text/plain",
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        failing: Failing::Told,
        print,
    },
];

impl Metrics {
    /// What stands now.
    pub fn of(board: &Board, setup: &Arc<Setup>) -> Self {
        let passes = |name: &str| board.look(setup, name, Words::Whole).is_some_and(|view| view.passed);
        let subsets = setup.subsets().map(|name| (name.to_owned(), passes(name))).collect();
        Self { checks: setup.look(), subsets }
    }
}

fn print(metrics: &Metrics) -> String {
    const AGE: &str = "checker_check_age_seconds";
    const TIME: &str = "checker_check_duration_seconds";
    let now = Instant::now();
    let mut shown = Exposition::default();
    shown.family("checker_subset_up", "gauge", "Whether the subset passes, by what stands of its checks.");
    for (name, passes) in &metrics.subsets {
        shown.sample("checker_subset_up", &[("subset", name)], u64::from(*passes));
    }
    shown.family("checker_check_status", "gauge", "1 for the status that holds, 0 for all others.");
    for Seen { outcome, .. } in &metrics.checks {
        for word in ["ok", "warning", "fail", "unknown"] {
            let labels = [("check", outcome.name.as_str()), ("status", word)];
            shown.sample("checker_check_status", &labels, u64::from(word == outcome.word()));
        }
    }
    let answered = metrics.checks.iter().filter_map(|seen| Some((seen, seen.answered?)));
    shown.seconds_family(AGE, "How long ago the check's last answer came.");
    for (seen, answered) in answered {
        let age = now.saturating_duration_since(answered.mono).as_secs_f64();
        shown.sample(AGE, &[("check", &seen.outcome.name)], format_args!("{age:.3}"));
    }
    let mut timed = metrics.checks.iter().filter_map(|seen| Some((seen, seen.took()?))).peekable();
    if timed.peek().is_some() {
        shown.seconds_family(TIME, "How long the check's last run took.");
    }
    for (seen, took) in timed {
        shown.sample(TIME, &[("check", &seen.outcome.name)], format_args!("{:.6}", took.as_secs_f64()));
    }
    shown.end()
}
