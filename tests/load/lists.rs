//! Lists of workers: of a few, whose time is promised, and of the most that there can be, whose memory is.

use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Cursor, Fleet, MAX_PAGE};

use crate::crew::Crew;
use crate::place::{Line, Place};
use crate::table::Table;
use crate::times::{Times, Told};
use crate::{INTERVAL, Plan, command, mebibytes, number, soon, while_all_beat, while_pinging};

/// How long a list of a few may take.
const PROMISED: Duration = Duration::from_millis(10);

/// Programs that have work to do where a list is asked for under beats: this one, which beats, Redis, and the command.
const BUSY_PROGRAMS: usize = 3;

/// The moment at which it is judged: all workers and foreign keys are there, and rest.
const QUIET: &str = "nobody beats";

/// A small cluster beside this large one, which has beaten, in a quiet moment and while the large one beats; and then all of
/// the large one.
pub fn of_few_and_all(plan: &Plan, place: &Place, few: &str, many: &mut Crew, table: &mut Table) {
    Crew::of(few, plan.few).beat_once(&place.url());
    of_few(plan, place, few, QUIET, table);
    let cluster = many.cluster.clone();
    while_all_beat(place, many, || {
        let beaten = format!("{} beat every {INTERVAL} s", number(plan.many));
        of_few(plan, place, few, &beaten, table);
        for format in ["json", "text"] {
            of_all(plan, place, &cluster, format, table);
        }
    });
}

/// By the library, and by the command.
fn of_few(plan: &Plan, place: &Place, cluster: &str, moment: &str, table: &mut Table) {
    let (url, text) = (place.url(), place.text());
    let mut fleet = Fleet::new(url, cluster);
    let mut pages = Vec::new();
    for _ in 0..plan.commands * 3 {
        let begun = Instant::now();
        let mut next = Some(Cursor::default());
        let mut members = 0;
        while let Some(cursor) = next {
            let page = fleet.members(&cursor, MAX_PAGE, soon()).unwrap();
            members += page.members.iter().filter(|member| member.record().is_some()).count();
            next = page.next;
        }
        pages.push(begun.elapsed());
        assert!(members >= plan.few, "{members} of {} members", plan.few);
    }
    let of = format!("of {}, {moment}", number(plan.few));
    judge(&format!("all members {of}, with their records"), &Times::new(pages), moment, table);
    let run = || {
        let done = command::run(&format!("cluster {cluster} --list --format json --timeout 20s"), &text);
        let workers = done.json()["workers"].as_array().map_or(0, Vec::len);
        assert_eq!(workers, plan.few, "{}", done.output);
        done.took
    };
    let lists = Times::new((0..plan.commands).map(|_| run()).collect());
    judge(&format!("checker cluster --list {of}"), &lists, moment, table);
}

/// Under beats a time is judged only where each program has a core of its own; else it tells how they share them.
fn judge(what: &str, times: &Times, moment: &str, table: &mut Table) {
    let told = format!("median {times}, the fastest tenth {}", Told(times.percent(10)));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if moment == QUIET || cores >= BUSY_PROGRAMS {
        table.judged(what, &told, "median within 10 ms", times.median() <= PROMISED);
    } else {
        let shared = format!("not judged: generator, Redis and command share {cores} cores");
        table.row(what, &format!("{told}  [{shared}]"));
    }
}

/// Of all of a large cluster, and the memory that it takes.
fn of_all(plan: &Plan, place: &Place, cluster: &str, format: &str, table: &mut Table) {
    let words = format!("cluster {cluster} --list --format {format} --timeout 120s");
    let mut line = Line::to(place.node(cluster));
    let (done, longest) = while_pinging(&mut line, || command::run_and_look(&words, &place.text()));
    let listed = match format {
        "json" => done.json()["workers"].as_array().map_or(0, Vec::len),
        // The answer and the heading.
        _ => done.output.lines().count() - 2,
    };
    assert_eq!(listed, plan.many, "{words}: exit {:?}", done.code);
    #[expect(clippy::cast_precision_loss, reason = "a size to be shown")]
    let told = format!(
        "{}, {} of memory at the most for {} of output; a PING meanwhile at most {}",
        Told(done.took),
        mebibytes(done.most_memory as f64),
        mebibytes(done.output.len() as f64),
        Told(longest),
    );
    let what = format!("checker cluster --list --format {format} of {}", number(plan.many));
    table.judged(&what, &told, "128 MiB", done.most_memory <= 128 << 20);
}
