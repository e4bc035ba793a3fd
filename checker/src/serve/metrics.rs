//! `/metrics`: what stands of each check, subset and worker, for a scrape. It asks no check: that is for who probes.
//!
//! Where no details are told, nothing is named but what stands in everybody's paths, and checks are only counted; workers are named in
//! full detail alone. There are as many series as the configuration makes, and for each check of a cluster those of 500 workers at
//! most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::check::{Worker, Workers};
use shared::checks::worker::check::Worker as Alone;
use shared::kind::Settings as _;

use super::board::{Board, LIVENESS, READINESS, STARTUP, Setup};
use super::endpoints::Shows;
use super::formats::{Failing, Form};
use super::page::Crew;
use super::view::{Seen, Words};
use super::watched::Watched;
use crate::format::openmetrics::{self as families, Exposition};

/// The words for a check.
const WORDS: [&str; 4] = ["ok", "warning", "fail", "unknown"];

/// What is shown to a scrape.
pub struct Metrics {
    checks: Vec<Seen>,
    /// The subsets' names, and whether each passes.
    subsets: Vec<(String, bool)>,
    /// Whether checks may be named.
    checks_named: bool,
    /// Whether workers may be.
    workers_named: bool,
    /// The workers of the checks that are about any.
    crews: Vec<(Arc<Watched>, Arc<Crew>)>,
}

/// Whose a sample is.
type Labels<'m> = Vec<(&'static str, &'m str)>;

/// Workers, and the check that is about them.
type Crewed<'m> = (&'m Watched, &'m Workers);

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

/// Reads the workers once more where that is due, and does not wait for long. Those that are read still are left out.
pub async fn prepare(board: &Board, setup: &Setup) {
    board.live().crews.meet(board, setup, Duration::ZERO).await;
}

impl Metrics {
    /// What stands now.
    pub fn of(board: &Board, setup: &Arc<Setup>) -> Self {
        let checks_named = setup.shown().reasons;
        let passes = |name: &str| board.look(setup, name, Words::Whole).is_some_and(|view| view.passed);
        let subsets =
            setup.subsets().filter(|name| checks_named || [LIVENESS, READINESS, STARTUP].contains(name));
        let subsets = subsets.map(|name| (name.to_owned(), passes(name))).collect();
        let (workers_named, crews) = (setup.names_workers(), board.live().crews.settled(setup));
        Self { checks: setup.look(), subsets, checks_named, workers_named, crews }
    }

    /// The workers that could be read: of checks about one worker, and of those about a cluster.
    fn crews(&self) -> (Vec<Crewed<'_>>, Vec<Crewed<'_>>) {
        let current = self.crews.iter().filter(|(_, crew)| crew.is_current());
        let read = current.filter_map(|(check, crew)| Some((&**check, crew.told.as_ref().ok()?)));
        read.partition(|(check, _)| check.configured.kind == Alone::KIND)
    }
}

fn print(metrics: &Metrics) -> String {
    let mut shown = Exposition::default();
    shown.family("checker_subset_up", "gauge", "Whether the subset passes, by what stands of its checks.");
    for (name, passes) in &metrics.subsets {
        shown.sample("checker_subset_up", &[("subset", name)], u64::from(*passes));
    }
    shown.family("checker_checks", "gauge", "How many checks have each status.");
    for word in WORDS {
        let count = metrics.checks.iter().filter(|seen| seen.outcome.word() == word).count();
        shown.sample("checker_checks", &[("status", word)], count);
    }
    if metrics.checks_named {
        checks(&mut shown, &metrics.checks);
        let (alone, clusters) = metrics.crews();
        if !alone.is_empty() {
            workers(&mut shown, &alone, metrics.workers_named);
        }
        if !clusters.is_empty() {
            counted(&mut shown, &clusters);
            if metrics.workers_named {
                named(&mut shown, &clusters);
            }
        }
    }
    shown.end()
}

fn checks(shown: &mut Exposition, checks: &[Seen]) {
    const AGE: &str = "checker_check_age_seconds";
    const TIME: &str = "checker_check_duration_seconds";
    let now = Instant::now();
    shown.family("checker_check_status", "gauge", "1 for the status that holds, 0 for all others.");
    for Seen { outcome, .. } in checks {
        for word in WORDS {
            let labels = [("check", outcome.name.as_str()), ("status", word)];
            shown.sample("checker_check_status", &labels, u64::from(word == outcome.word()));
        }
    }
    let answered = checks.iter().filter_map(|seen| Some((seen, seen.answered?)));
    shown.seconds_family(AGE, "How long ago the check's last answer came.");
    for (seen, answered) in answered {
        let age = now.saturating_duration_since(answered.mono).as_secs_f64();
        shown.sample(AGE, &[("check", &seen.outcome.name)], format_args!("{age:.3}"));
    }
    let mut timed = checks.iter().filter_map(|seen| Some((seen, seen.took()?))).peekable();
    if timed.peek().is_some() {
        shown.seconds_family(TIME, "How long the check's last run took.");
    }
    for (seen, took) in timed {
        shown.sample(TIME, &[("check", &seen.outcome.name)], format_args!("{:.6}", took.as_secs_f64()));
    }
}

/// Workers that a check is about alone, as `checker worker` tells them; by the checks' names, or by their own too.
fn workers(shown: &mut Exposition, crews: &[Crewed<'_>], named: bool) {
    let each =
        |crews| each(crews).map(move |(own, worker)| (if named { own } else { own[..1].to_vec() }, worker));
    shown.gauge(families::VERDICT);
    for (own, worker) in each(crews) {
        shown.verdicts(&own, worker.verdict);
    }
    shown.seconds_family(families::AGE.0, families::AGE.1);
    for (own, worker) in each(crews) {
        if let Some(age_ms) = worker.age_ms {
            shown.seconds(families::AGE, &own, age_ms);
        }
    }
}

/// How many workers clusters have, as `checker cluster` tells it.
fn counted(shown: &mut Exposition, crews: &[Crewed<'_>]) {
    shown.gauge(families::WORKERS);
    for crew in crews {
        if let Some(counts) = &crew.1.counts {
            shown.counts(&labels(*crew), [counts.fresh, counts.ready, counts.lost]);
        }
    }
    shown.gauge(families::QUEUE_WORKERS);
    for crew in crews {
        for (queue, count) in crew.1.counts.iter().flat_map(|counts| &counts.queues) {
            let own = [&labels(*crew)[..], &[("queue", queue)]].concat();
            shown.sample(families::QUEUE_WORKERS.0, &own, *count);
        }
    }
}

/// Each worker of clusters, as `checker cluster --list` tells them.
fn named(shown: &mut Exposition, crews: &[Crewed<'_>]) {
    shown.gauge(families::WORKER_VERDICT);
    for (own, worker) in each(crews) {
        let own = [&own[..], &[("verdict", worker.verdict.as_str())]].concat();
        shown.sample(families::WORKER_VERDICT.0, &own, 1);
    }
    shown.seconds_family(families::WORKER_AGE.0, families::WORKER_AGE.1);
    for (own, worker) in each(crews) {
        if let Some(age_ms) = worker.age_ms {
            shown.seconds(families::WORKER_AGE, &own, age_ms);
        }
    }
}

fn labels((check, workers): Crewed<'_>) -> Labels<'_> {
    vec![("check", check.name()), ("cluster", &workers.cluster)]
}

/// Each worker by itself. What it does not tell of itself is an empty label, which is as good as none.
fn each<'m>(crews: &'m [Crewed<'m>]) -> impl Iterator<Item = (Labels<'m>, &'m Worker)> {
    crews.iter().flat_map(|crew| {
        crew.1.workers.iter().map(|worker| {
            let mut own = labels(*crew);
            own.extend([("worker", &*worker.name), ("host", &*worker.host)]);
            own.extend(worker.id.as_deref().map(|id| ("id", id)));
            (own, worker)
        })
    })
}
