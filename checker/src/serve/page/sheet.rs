//! How the pages look: the document, and in its `<main>` all that may change.
//!
//! Everything is escaped by `maud`, and nothing is decided here: what may be told comes through the accessors of `Seen` alone. Times
//! are told as such, so that the same state is the same text whenever it is drawn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heartbeat::duration::Human;
use heartbeat::verdict::Verdict;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use shared::Status;
use shared::check::{Worker, Workers};

use super::crews::Crew;
use super::{SCRIPT, SIGN, STYLE, strip};
use crate::format::plain::Plain;
use crate::format::time::rfc3339;
use crate::serve::board::{Board, READINESS, STARTUP, Setup};
use crate::serve::standing::Change;
use crate::serve::view::{Seen, View, Words};

/// How many changes are listed.
const CHANGES: usize = 12;

/// How many rows of workers are shown, where one stands in each of its queues.
const ROWS: usize = 500;

/// How many places of workers in queues are counted.
const PLACES: usize = 5_000;

/// Seconds after which the page loads itself anew where no script does better.
const RELOAD: u32 = 10;

/// What is said of the page itself.
const NOTE: &str = "This page asks no check: it shows what was answered to those who did. To ask the checks of a subset, follow its name.";

/// The whole page.
pub fn page(board: &Board, setup: &Arc<Setup>, base: &str) -> String {
    let sheet = Sheet::of(board, setup, base);
    let connection = html! { p #connection .quiet role="status" { "As of " (utc(SystemTime::now())) } };
    sheet.document(setup.title(), &connection, RELOAD)
}

/// What changes of it: the element `<main>`.
pub fn main(board: &Board, setup: &Arc<Setup>, base: &str) -> String {
    Sheet::of(board, setup, base).main().into_string()
}

/// One subset's answer as a page. It asked the checks, and so would loading it anew.
pub fn subset(view: &View) -> String {
    let word = view.word().replace('_', " ");
    let sheet = Sheet {
        status: view.status(),
        headline: format!("{}: {word}", view.subset),
        explained: counted(&view.checks),
        body: html! {
            @if !view.checks.is_empty() { (checks(&view.checks, view.shown.durations)) }
        },
        note: "Loading this page asks the checks again.",
    };
    let asked = html! { p .quiet { "Asked " (utc(view.at)) } };
    sheet.document(view.setup.title(), &asked, 0)
}

/// A document's `<main>`, before it is written.
struct Sheet {
    status: Status,
    headline: String,
    explained: String,
    body: Markup,
    /// What stands below it and does not change.
    note: &'static str,
}

impl Sheet {
    fn of(board: &Board, setup: &Arc<Setup>, base: &str) -> Self {
        let checks = setup.look();
        let (status, headline) = headline(&checks, board.is_stopping());
        let body = html! {
            (subsets(board, setup, base))
            @if !checks.is_empty() {
                (self::checks(&checks, setup.server.durations))
                @for (check, crew) in board.live().crews.look(setup) {
                    (crew_of(check.name(), &crew, setup.names_workers()))
                }
                (changes(&checks))
            }
        };
        Self { status, headline, explained: counted(&checks), body, note: NOTE }
    }

    fn main(&self) -> Markup {
        html! {
            main data-title=(self.headline) data-icon=(icon(self.status)) {
                div class={ "verdict " (self.status.word()) } role="status" {
                    p { (self.headline) }
                    @if !self.explained.is_empty() { p { (self.explained) } }
                }
                (self.body)
            }
        }
    }

    fn document(&self, name: &str, connection: &Markup, reload: u32) -> String {
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.headline) }
                    link rel="icon" href=(icon(self.status));
                    style { (PreEscaped(STYLE)) }
                    @if reload > 0 {
                        noscript { meta http-equiv="refresh" content=(reload); }
                    }
                }
                body data-now=(millis(SystemTime::now())) data-sign=(SIGN.as_millis()) {
                    header {
                        h1 { (name) }
                        (connection)
                    }
                    (self.main())
                    footer { p { (self.note) } }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        document.into_string()
    }
}

/// The worst there is, as a sentence.
fn headline(checks: &[Seen], is_stopping: bool) -> (Status, String) {
    let of = |status: Status| checks.iter().filter(|seen| seen.outcome.status == status).count();
    let (all, failed, unknown, warned) =
        (checks.len(), of(Status::Fail), of(Status::Unknown), of(Status::Warn));
    if is_stopping {
        return (Status::Fail, "This server is about to stop".to_owned());
    }
    if failed > 0 {
        return (Status::Fail, format!("{failed} of {all} {} not pass", checks_do(failed)));
    }
    if unknown > 0 {
        return (Status::Unknown, format!("{unknown} of {all} {} not tell", checks_do(unknown)));
    }
    match (all, warned) {
        (0, _) => (Status::Pass, "There are no checks".to_owned()),
        (_, 0) => (
            Status::Pass,
            if all == 1 { "The check passes".to_owned() } else { format!("All {all} checks pass") },
        ),
        (_, 1) => (Status::Warn, format!("1 of {all} checks warns")),
        _ => (Status::Warn, format!("{warned} of {all} checks warn")),
    }
}

fn checks_do(count: usize) -> &'static str {
    if count == 1 { "checks does" } else { "checks do" }
}

fn counted(checks: &[Seen]) -> String {
    let count = |status: Status| checks.iter().filter(|seen| seen.outcome.status == status).count();
    let parts = Status::ALL.into_iter().map(|status| (count(status), status.word()));
    let parts: Vec<_> =
        parts.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    parts.join(", ")
}

fn subsets(board: &Board, setup: &Arc<Setup>, base: &str) -> Markup {
    let looked: Vec<_> = setup.subsets().filter_map(|name| look(board, setup, name)).collect();
    html! {
        @if !looked.is_empty() {
            h2 #subsets { "Subsets" }
            ul .cards {
                @for view in &looked {
                    li class=(view.status().word()) {
                        a #{ "subset-" (view.subset) } href={ (base) (path(&view.subset)) "?format=html" } { (view.subset) }
                        p class=(view.status().word()) {
                            span .word { (view.word().replace('_', " ")) }
                            span .quiet { (counted(&view.checks)) }
                        }
                    }
                }
            }
        }
    }
}

fn look(board: &Board, setup: &Arc<Setup>, name: &str) -> Option<View> {
    let words = match name {
        READINESS => Words::Ready,
        STARTUP => Words::Started,
        _ => Words::Whole,
    };
    board.look(setup, name, words)
}

fn path(subset: &str) -> String {
    match subset {
        READINESS => "readyz".to_owned(),
        STARTUP => "startupz".to_owned(),
        name => format!("healthcheck/{name}"),
    }
}

fn checks(checks: &[Seen], durations: bool) -> Markup {
    html! {
        h2 #checks { "Checks" }
        div .sheet {
            // The roles are those that the elements have anyway; a narrow page lays them out so that browsers forget them.
            table .wide role="table" aria-labelledby="checks" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for name in ["Check", "State", "Since", "Last answer"] {
                            th scope="col" role="columnheader" { (name) }
                        }
                        @if durations { th scope="col" role="columnheader" { "Took" } }
                        th scope="col" role="columnheader" { "Last runs" }
                    }
                }
                tbody role="rowgroup" {
                    @for seen in checks { (row(seen, durations)) }
                }
            }
        }
    }
}

fn row(seen: &Seen, durations: bool) -> Markup {
    let outcome = &seen.outcome;
    let runs: Vec<_> = seen.runs().map(|(run, _)| run.status).collect();
    html! {
        tr #{ "check-" (outcome.name) } class=(outcome.word()) role="row" {
            th scope="row" role="rowheader" {
                b { (outcome.name) } " "
                span .quiet { (seen.kind) @if !outcome.critical { ", not critical" } }
                @if let Some(reason) = &outcome.reason {
                    span .reason { (Plain(reason)) }
                }
            }
            td class={ "state " (outcome.word()) } role="cell" { span .word { (outcome.word()) } }
            td .when.since role="cell" data-name="since" { (moment(seen.since.wall)) (before(seen)) }
            td .when role="cell" data-name="last answer" {
                @match seen.answered {
                    Some(answered) => (moment(answered.wall)),
                    None => "none yet",
                }
            }
            @if durations {
                td .took role="cell" data-name="took" { (seen.took().map(duration).unwrap_or_default()) }
            }
            td .past role="cell" { (strip::draw(&runs)) }
        }
    }
}

/// What stood before.
fn before(seen: &Seen) -> Markup {
    html! {
        @if let Some(before) = seen.before {
            " " span .quiet.before { "before: " (before.word()) }
        }
    }
}

fn changes(checks: &[Seen]) -> Markup {
    let mut changes: Vec<(&str, Change)> =
        checks.iter().flat_map(|seen| seen.changes().map(|change| (&*seen.outcome.name, change))).collect();
    changes.sort_by_key(|(_, change)| std::cmp::Reverse(change.at.mono));
    changes.truncate(CHANGES);
    html! {
        @if !changes.is_empty() {
            h2 #changes { "Last changes" }
            ol .sheet.changes {
                @for (name, change) in &changes {
                    li class=(change.to.word()) {
                        span .quiet { (moment(change.at.wall)) }
                        span { b { (name) } ": " (change.from.word()) " → " }
                        span .word { (change.to.word()) }
                        @if let Some(reason) = &change.reason { span .quiet { (Plain(reason)) } }
                    }
                }
            }
        }
    }
}

/// The workers that a check is about, by queue; with their names, or only how many there are of each verdict.
fn crew_of(check: &str, crew: &Crew, names: bool) -> Markup {
    let id = format!("workers-{check}");
    html! {
        h2 #(id) {
            "Workers of "
            @match &crew.told {
                Ok(workers) if !workers.cluster.is_empty() => (Plain(&workers.cluster)),
                _ => (check),
            }
        }
        div .sheet {
            @match &crew.told {
                Err(reason) => (not_known(&html! { (Plain(reason)) })),
                Ok(_) if !crew.is_current() => (not_known(&html! { "they were last read " (moment(crew.at.wall)) })),
                Ok(workers) => {
                    (roster(workers, crew.at.wall, &id, names))
                    p .note.quiet { "Read " (moment(crew.at.wall)) }
                }
            }
        }
    }
}

fn not_known(why: &Markup) -> Markup {
    html! { p .note.unknown { span .word { "unknown" } " " span .quiet { (why) } } }
}

fn roster(workers: &Workers, at: SystemTime, id: &str, names: bool) -> Markup {
    let (queues, more) = by_queue(&workers.workers, if names { ROWS } else { PLACES });
    let more = more || queues.len() > ROWS;
    let queues = queues.into_iter().take(ROWS);
    html! {
        @if workers.workers.is_empty() { p .note.quiet { "Nobody beats, and nobody has of late." } }
        @else {
            table aria-labelledby=(id) {
                thead {
                    tr {
                        @for name in [if names { "Worker" } else { "Queue" }, "Verdict", "Next deadline"] {
                            th scope="col" { (name) }
                        }
                    }
                }
                @if names {
                    @for (queue, crew) in queues { (group(&queue, &crew, at)) }
                } @else {
                    tbody { @for (queue, crew) in queues { (counts(&queue, &crew, at)) } }
                }
            }
        }
        @if workers.more || more { p .note.quiet { "There are more: not all are shown." } }
    }
}

fn group(queue: &str, crew: &[&Worker], at: SystemTime) -> Markup {
    html! {
        tbody {
            tr .rowgroup { th scope="rowgroup" colspan="3" { b { (queue) } " " span .quiet { (crew.len()) } } }
            @for worker in crew { (worker_row(worker, at)) }
        }
    }
}

/// A queue with how many of its workers are of each verdict, and the nearest deadline of all their tasks.
fn counts(queue: &str, crew: &[&Worker], at: SystemTime) -> Markup {
    let of = |verdict: Verdict| crew.iter().filter(|worker| worker.verdict == verdict).count();
    let left = crew.iter().filter_map(|worker| worker.nearest.as_ref()?.1).min();
    html! {
        tr {
            th scope="row" { b { (queue) } " " span .quiet { (crew.len()) } }
            td {
                @for (verdict, count) in Verdict::ALL.map(|verdict| (verdict, of(verdict))) {
                    @if count > 0 { div class=(status(verdict).word()) { span .word { (count) " " (verdict) } } }
                }
            }
            td { @if let Some(left) = left { span .quiet { (moment(after(at, left))) } } }
        }
    }
}

/// Each queue with its workers; of all of them no more than `most`, and whether there are more.
fn by_queue(workers: &[Worker], most: usize) -> (BTreeMap<String, Vec<&Worker>>, bool) {
    let mut queues: BTreeMap<String, Vec<&Worker>> = BTreeMap::new();
    let none = ["no queue".to_owned()];
    let places = workers.iter().flat_map(|worker| {
        let names = if worker.queues.is_empty() { &none[..] } else { &worker.queues[..] };
        names.iter().map(move |name| (Plain(name).to_string(), worker))
    });
    for (count, (name, worker)) in places.enumerate() {
        if count == most {
            return (queues, true);
        }
        queues.entry(name).or_default().push(worker);
    }
    (queues, false)
}

fn status(verdict: Verdict) -> Status {
    match (verdict.live(), verdict.ready()) {
        (Some(false), _) => Status::Fail,
        (None, _) => Status::Unknown,
        (_, Some(true)) => Status::Pass,
        _ => Status::Warn,
    }
}

fn worker_row(worker: &Worker, at: SystemTime) -> Markup {
    let (verdict, status) = (worker.verdict, status(worker.verdict));
    html! {
        tr class=(status.word()) {
            th scope="row" {
                b { @if worker.name.is_empty() { "no name" } @else { (Plain(&worker.name)) } }
                @if status != Status::Pass { span .reason { (Plain(&worker.reason)) } }
            }
            td class=(status.word()) { span .word { (verdict) } }
            td {
                @if let Some((task, left)) = &worker.nearest {
                    (Plain(task)) " "
                    span .quiet {
                        @match left {
                            Some(left) => (moment(after(at, *left))),
                            None => "no deadline",
                        }
                    }
                }
            }
        }
    }
}

/// So many milliseconds after a time, or before it.
fn after(at: SystemTime, ms: i64) -> SystemTime {
    let by = Duration::from_millis(ms.unsigned_abs());
    let then = if ms < 0 { at.checked_sub(by) } else { at.checked_add(by) };
    then.unwrap_or(at)
}

/// A time, which a script tells as how long ago it is.
pub fn moment(at: SystemTime) -> Markup {
    html! { time datetime=(iso(at)) { (utc(at)) } }
}

/// `2026-01-31 23:59:59 UTC`.
fn utc(at: SystemTime) -> String {
    iso(at).replace('T', " ").replace('Z', " UTC")
}

fn iso(at: SystemTime) -> String {
    rfc3339(millis(at) / 1_000)
}

/// Milliseconds since 1970.
pub fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn duration(took: Duration) -> String {
    match took.as_micros() {
        micros @ 0..10_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        _ => Human(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)).to_string(),
    }
}

/// A dot in the status's colour.
fn icon(status: Status) -> String {
    let colour = match status {
        Status::Pass => "1f9d4d",
        Status::Warn => "d69e2e",
        Status::Fail => "d3382d",
        Status::Unknown => "8a8c85",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::serve::standing::Moment;

    fn worker(name: &str, verdict: Verdict, left: Option<i64>) -> Worker {
        Worker {
            name: format!("host-{name}:1"),
            host: format!("host-{name}"),
            id: None,
            age_ms: None,
            queues: vec!["mail".to_owned()],
            verdict,
            reason: format!("host-{name}:1 hangs in its task"),
            nearest: Some(("invoice-4711".to_owned(), left)),
        }
    }

    fn crew(read: Duration) -> Crew {
        let workers = vec![
            worker("a", Verdict::Wedged, None),
            worker("b", Verdict::Alive, Some(90_000)),
            worker("c", Verdict::Alive, Some(30_000)),
        ];
        let told = Ok(Workers { cluster: "orders".to_owned(), workers, more: false, counts: None });
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        Crew { told, at: Moment { mono: Instant::now().checked_sub(read).unwrap(), wall } }
    }

    #[test]
    fn without_names_a_queue_has_so_many_workers_of_each_verdict_and_its_nearest_deadline() {
        let shown = crew_of("fleet", &crew(Duration::ZERO), false).into_string();
        for hidden in ["host-", "invoice", "hangs"] {
            assert!(!shown.contains(hidden), "{hidden}: {shown}");
        }
        for told in [
            ">mail<",
            ">1 wedged<",
            ">2 alive<",
            "1970-01-12T13:47:10Z",
            "Read <time datetime=\"1970-01-12T13:46:40Z\"",
        ] {
            assert!(shown.contains(told), "{told}: {shown}");
        }
        let shown = crew_of("fleet", &crew(Duration::ZERO), true).into_string();
        for told in ["host-a:1", "invoice-4711", "hangs"] {
            assert!(shown.contains(told), "{told}: {shown}");
        }
    }

    #[test]
    fn workers_that_were_read_long_ago_are_not_shown_as_if_it_were_now() {
        for names in [true, false] {
            let shown = crew_of("fleet", &crew(Duration::from_secs(61)), names).into_string();
            assert!(shown.contains("unknown") && shown.contains("they were last read <time"), "{shown}");
            assert!(!shown.contains("alive") && !shown.contains("host-"), "{shown}");
        }
    }

    #[test]
    fn a_crowd_of_queues_is_bounded() {
        let queues = (0..2_000).map(|number| format!("queue-{number}")).collect::<Vec<_>>();
        let many = |name| Worker { queues: queues.clone(), ..worker(name, Verdict::Alive, None) };
        let told = Ok(Workers {
            cluster: "orders".to_owned(),
            workers: vec![many("a"), many("b"), many("c")],
            more: false,
            counts: None,
        });
        for names in [true, false] {
            let crew = Crew { told: told.clone(), ..crew(Duration::ZERO) };
            let shown = crew_of("fleet", &crew, names).into_string();
            assert!(shown.contains("There are more") && shown.matches("<tr").count() <= 2 * ROWS + 1);
        }
    }
}
