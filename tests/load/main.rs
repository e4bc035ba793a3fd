//! The load generator: many workers that beat, millions of foreign keys beside theirs, and what it costs to ask.
//!
//! `tests/run scale` prepares what this needs and runs it; `tests/run load` runs it small and quick. It starts its own
//! servers, measures one thing after another, and ends with one table. Absolute times are those of this machine under its
//! load of this moment; so promises are judged by ratios of what was measured in turn, and by the median where a time is
//! promised, and they are not judged with `--small`. That all that was told is right always is.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod command;
mod crew;
mod lists;
mod place;
#[path = "../../checker/tests/servers/mod.rs"]
mod servers;
mod table;
mod times;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Cursor, Fleet, MAX_PAGE, Url};
use serde_json::Value;

use crew::{Crew, Pace, QUEUE, Sent};
use place::{Line, Node, Place};
use table::Table;
use times::{Times, Told};

/// How much of everything.
struct Plan {
    /// Sizes of clusters, and the interval in seconds at which each of their workers beats.
    sizes: &'static [(usize, f64)],
    /// Those that are asked among foreign keys too.
    crowded: &'static [usize],
    foreign: usize,
    /// A cluster that is listed at once, and one that is the largest that can be.
    few: usize,
    many: usize,
    /// How many stats Django-Q2 has.
    stats: usize,
    /// How often each question is asked.
    questions: usize,
    commands: usize,
    /// How long a server is kept busy.
    busy: Duration,
}

const FULL: Plan = Plan {
    sizes: &[(10, 1.0), (1_000, 1.0), (10_000, 2.0), (100_000, 15.0), (1_000_000, 120.0)],
    crowded: &[10, 1_000, 100_000],
    foreign: 5_000_000,
    few: 1_000,
    many: 100_000,
    stats: 1_000,
    questions: 3_000,
    commands: 30,
    busy: Duration::from_secs(5),
};

const SMALL: Plan = Plan {
    sizes: &[(10, 1.0), (1_000, 1.0)],
    crowded: &[1_000],
    foreign: 10_000,
    few: 200,
    many: 1_000,
    stats: 20,
    questions: 200,
    commands: 2,
    busy: Duration::from_millis(300),
};

/// The interval of whoever is not measured by its pace, in seconds.
const INTERVAL: f64 = 15.0;

fn main() -> ExitCode {
    let small = std::env::args().any(|word| word == "--small");
    let plan = if small { SMALL } else { FULL };
    let mut table = Table::new(!small);
    let begun = Instant::now();

    let place = Place::one();
    table.section("One Redis, no keys but the workers'");
    for (size, interval) in plan.sizes {
        sizing(&plan, &place, *size, *interval, &mut table);
        place.node("").ask("FLUSHALL");
    }
    saturate(&plan, &place, &["orders".to_owned()], &mut table);
    place.node("").ask("FLUSHALL");

    place.node("").populate(plan.foreign);
    table.section(&format!("One Redis, {} foreign keys in it", number(plan.foreign)));
    for size in plan.crowded {
        crowded(&plan, &place, *size, &mut table);
    }
    questions(&plan, &place, &mut table);
    walks(&plan, &place, &mut table);
    django(&plan, &place, &mut table);
    drop(place);

    let place = Place::cluster();
    let names = place.names_apart();
    place.node(&names[0]).populate(plan.foreign);
    let keys = number(plan.foreign);
    table.section(&format!("A Redis Cluster of six nodes, {keys} foreign keys on the one that is asked"));
    for size in plan.crowded {
        crowded_as(&plan, &place, &names[0], *size, &mut table);
    }
    weighed(&plan, &place, &names[1], &mut table);
    let mut crew = Crew::of(&names[0], plan.many);
    crew.beat_once(&place.url());
    lists::of_few_and_all(&plan, &place, &place.name_beside(&names[0]), &mut crew, &mut table);
    saturate(&plan, &place, &names[..1], &mut table);
    saturate(&plan, &place, &names, &mut table);
    drop(place);

    table.end(begun.elapsed())
}

/// What a cluster of this size takes of one Redis.
fn sizing(plan: &Plan, place: &Place, size: usize, interval: f64, table: &mut Table) {
    let mut crew = Crew::of("orders", size);
    let memory = weigh(place, &mut crew);
    let line = crew.mean_line();
    let a_second = float(size) / interval;
    let (trips, cost) = while_beating(plan, place, &mut crew, a_second);
    let who = format!("{} workers, each every {interval} s", number(size));
    trips.row(&who, table);
    let server = format!(
        "{:.0} beats/s take {:.1} % of its core, {:.1} µs each; {memory:.0} bytes a worker, {} in all (a record has {line})",
        cost.a_second,
        cost.share * 100.0,
        cost.each_us,
        mebibytes(memory * float(size)),
    );
    table.row(&format!("{who}: the server"), &server);
}

/// The same in a Redis Cluster, of a node that has no other keys.
fn weighed(plan: &Plan, place: &Place, cluster: &str, table: &mut Table) {
    let mut crew = Crew::of(cluster, plan.many);
    let memory = weigh(place, &mut crew);
    let told = format!("{memory:.0} bytes a worker, {} in all", mebibytes(memory * float(plan.many)));
    table.row(&format!("{} workers on another node: the server", number(plan.many)), &told);
}

/// What each worker takes of its server's memory, in bytes, once all have beaten.
fn weigh(place: &Place, crew: &mut Crew) -> f64 {
    let node = place.node(&crew.cluster);
    // What the server's own caches and the scripts take is no worker's.
    Crew::of(&place.name_beside(&crew.cluster), 1).beat_once(&place.url());
    let before = node.memory();
    crew.beat_once(&place.url());
    (node.memory() - before) / float(crew.workers.len())
}

/// Counts among foreign keys.
fn crowded(plan: &Plan, place: &Place, size: usize, table: &mut Table) {
    crowded_as(plan, place, "orders", size, table);
}

fn crowded_as(plan: &Plan, place: &Place, cluster: &str, size: usize, table: &mut Table) {
    let mut crew = Crew::of(cluster, size);
    crew.beat_once(&place.url());
    let (trips, _) = while_beating(plan, place, &mut crew, float(size) / INTERVAL);
    trips.row(&format!("{} workers, each every {INTERVAL} s", number(size)), table);
    let records: Vec<_> = crew.workers.iter().map(|worker| &worker.record).collect();
    let mut fleet = Fleet::new(place.url(), cluster);
    for records in records.chunks(256) {
        fleet.withdraw(records, soon()).unwrap().into_iter().for_each(Result::unwrap);
    }
}

/// PINGs and counts in turn.
struct Trips {
    ping: Times,
    count: Times,
}

impl Trips {
    fn row(&self, who: &str, table: &mut Table) {
        let ratio = self.count.ratio(&self.ping);
        let told = format!("PING {}, count {}: {ratio:.2} of a PING", self.ping, self.count);
        table.judged(&format!("{who}: a count"), &told, "at most 2 PINGs", ratio <= 2.0);
    }
}

/// What beating cost the server.
struct Cost {
    a_second: f64,
    /// Of its one core.
    share: f64,
    each_us: f64,
}

fn while_beating(plan: &Plan, place: &Place, crew: &mut Crew, a_second: f64) -> (Trips, Cost) {
    let (url, cluster) = (place.url(), crew.cluster.clone());
    let node = place.node(&cluster);
    let (size, ready) = (crew.workers.len() as u64, crew.ready());
    let rhythm = Pace { a_second: Some(a_second), together: 8 };
    let (end, sent) = (AtomicBool::new(false), Sent::default());
    let measured = thread::scope(|scope| {
        let beating = Ends(&end);
        crew.beat(scope, &url, rhythm, 2, &end, &sent);
        // Alone first: asking is not part of what beating costs.
        let begun = (Instant::now(), node.busy(), sent.accepted.load(Ordering::Relaxed));
        thread::sleep(plan.busy);
        let (took, busy) = (begun.0.elapsed().as_secs_f64(), node.busy() - begun.1);
        let beats = as_float(sent.accepted.load(Ordering::Relaxed) - begun.2);
        let cost = Cost { a_second: beats / took, share: busy / took, each_us: busy / beats.max(1.0) * 1e6 };
        let trips = trips(plan.questions, node, &url, &cluster, size, ready);
        drop(beating);
        (trips, cost)
    });
    assert_eq!(sent.refused.into_inner(), 0, "beats were refused");
    measured
}

fn trips(times: usize, node: Node<'_>, url: &Url, cluster: &str, size: u64, ready: (u64, u64)) -> Trips {
    let mut line = Line::to(node);
    let mut fleet = Fleet::new(url.clone(), cluster);
    let (mut pings, mut counts) = (Vec::new(), Vec::new());
    for turn in 0..times + 50 {
        let ping = line.ping();
        let begun = Instant::now();
        let counted = fleet.count(&[QUEUE], soon()).unwrap();
        let count = begun.elapsed();
        assert_eq!((counted.fresh, counted.ready, &counted.queues[..]), (size, ready.0, &[ready.1][..]));
        // The first ones connect, and find caches cold.
        if turn >= 50 {
            pings.push(ping);
            counts.push(count);
        }
    }
    Trips { ping: Times::new(pings), count: Times::new(counts) }
}

/// As many beats as one core of a server takes; in a Redis Cluster, of each of these clusters' servers.
fn saturate(plan: &Plan, place: &Place, names: &[String], table: &mut Table) {
    let url = place.url();
    let mut crews: Vec<_> = names.iter().map(|name| Crew::of(name, plan.many)).collect();
    for crew in &mut crews {
        crew.beat_once(&url);
    }
    let rhythm = Pace { a_second: None, together: 128 };
    let (end, sent) = (AtomicBool::new(false), Sent::default());
    let busy = || names.iter().map(|name| place.node(name).busy()).sum::<f64>();
    let (took, used, beats) = thread::scope(|scope| {
        let beating = Ends(&end);
        for crew in &mut crews {
            crew.beat(scope, &url, rhythm, 2, &end, &sent);
        }
        let begun = (Instant::now(), busy(), sent.accepted.load(Ordering::Relaxed));
        thread::sleep(plan.busy);
        let taken = (begun.0.elapsed().as_secs_f64(), busy() - begun.1);
        let beats = as_float(sent.accepted.load(Ordering::Relaxed) - begun.2);
        drop(beating);
        (taken.0, taken.1, beats)
    });
    assert_eq!(sent.refused.into_inner(), 0, "beats were refused");
    let each_us = used / beats * 1e6;
    let what = match names {
        [_] => format!("{} workers, as fast as it goes", number(plan.many)),
        names => format!("{} clusters of {}, each on a node of its own", names.len(), number(plan.many)),
    };
    let told = format!(
        "{:.0} beats/s, with {:.0} % of a core a server; {each_us:.1} µs each, so a core carries {:.0} a second",
        beats / took,
        used / took / float(names.len()) * 100.0,
        1e6 / each_us,
    );
    table.row(&what, &told);
}

/// All that the commands ask, of a small cluster and of a large one.
fn questions(plan: &Plan, place: &Place, table: &mut Table) {
    let text = place.text();
    let mut crew = Crew::of("many", plan.many);
    crew.beat_once(&place.url());
    lists::of_few_and_all(plan, place, "few", &mut crew, table);
    let (size, ready) = (crew.workers.len() as u64, crew.ready());
    let host = crew::host(7);
    let on_host = crew.on_host(&host);
    while_all_beat(place, &mut crew, || {
        let of = format!("of {}", number(plan.many));
        let commands = |what: &str, words: &str, times: usize, right: &dyn Fn(&Value) -> bool| {
            let run = || {
                let done = command::run(&format!("cluster many --format json {words}"), &text);
                let json = done.json();
                let shown = done.output.get(..400).unwrap_or(&done.output);
                assert!(right(&json), "checker cluster many {words}: exit {:?}: {shown}", done.code);
                done.took
            };
            let times = Times::new((0..times).map(|_| run()).collect());
            (format!("checker cluster {what}"), times)
        };
        let told = |(what, times): (String, Times)| table.row(&what, &times.to_string());
        let version = || command::run("--version", &text).took;
        told(("checker --version".to_owned(), Times::new((0..plan.commands).map(|_| version()).collect())));
        let passes = |json: &Value| json["status"] == "pass" && json["fresh"] == size;
        told(commands(&of, "", plan.commands, &passes));
        let policies =
            format!("--min 2 --queue {QUEUE}:2 --expect {} --max-lost 0 --timeout 20s", crew::name(20));
        told(commands(&format!("{of}, all policies"), &policies, plan.commands, &passes));
        let on_queue = |json: &Value| json["queues"][QUEUE] == ready.1;
        told(commands(&format!("{of}, --queue"), &format!("--queue {QUEUE}"), plan.commands, &on_queue));
        let here = |json: &Value| json["status"] == "pass" && json["fresh"] == on_host;
        let slow = plan.commands.div_ceil(10);
        told(commands(&format!("{of}, --host"), &format!("--host {host} --timeout 60s"), slow, &here));
        let words = format!("--host {host} --queue {QUEUE}:0 --timeout 60s");
        told(commands(&format!("{of}, --host and --queue"), &words, slow, &here));
        let first = Times::new((0..slow).map(|_| command::first_of_watch("many", &text)).collect());
        table.row(
            &format!("checker watch --cluster {of}, to its first line"),
            &Told(first.median()).to_string(),
        );
    });
}

/// Does something while all of them beat, each at the usual interval.
fn while_all_beat(place: &Place, crew: &mut Crew, work: impl FnOnce()) {
    let (url, size) = (place.url(), crew.workers.len());
    let (end, sent) = (AtomicBool::new(false), Sent::default());
    thread::scope(|scope| {
        let beating = Ends(&end);
        let rhythm = Pace { a_second: Some(float(size) / INTERVAL), together: 8 };
        crew.beat(scope, &url, rhythm, 2, &end, &sent);
        work();
        drop(beating);
    });
    assert_eq!(sent.refused.into_inner(), 0, "beats were refused");
}

/// What it takes to look through all keys of a server, which nothing here does for workers of its own: at once, in steps, and
/// as the command does it in steps for clusters of Django-Q2.
fn walks(plan: &Plan, place: &Place, table: &mut Table) {
    let node = place.node("few");
    let (mut line, mut other) = (Line::to(node), Line::to(node));
    let rounds = plan.commands.div_ceil(10);
    let of = format!("of {} keys", number(plan.foreign));
    let mut row = |what: String, walk: &mut dyn FnMut()| {
        let (times, longest) = while_pinging(&mut line, || {
            let mut timed = || {
                let begun = Instant::now();
                walk();
                begun.elapsed()
            };
            Times::new((0..rounds).map(|_| timed()).collect())
        });
        table.row(&what, &format!("{times}; a PING meanwhile at most {}", Told(longest)));
    };
    row(format!("KEYS {of}, none of which is meant"), &mut || {
        assert_eq!(other.ask("KEYS nobody:*"), "*0");
    });
    row(format!("SCAN {of}, in steps of 1,000"), &mut || assert_eq!(other.scan("nobody:*"), 0));
    let text = place.text();
    row(format!("checker cluster --source django-q {of}"), &mut || {
        let json =
            command::run("cluster nobody --source django-q --timeout 120s --format json", &text).json();
        // It has looked at all of them, and nobody was there.
        assert_eq!((&json["status"], &json["fresh"]), (&"fail".into(), &0.into()), "{json}");
    });
}

/// What Django-Q2 asks, of as many stats of its own, on the same server; and the same question to this project.
fn django(plan: &Plan, place: &Place, table: &mut Table) {
    let python =
        std::env::var_os("LOAD_PYTHON").expect("LOAD_PYTHON: a Python with django-q2; tests/run has one");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/load/django_stats.py");
    let rounds = plan.commands.div_ceil(4);
    let mut command = Command::new(python);
    command.arg(script).args([place.text(), plan.stats.to_string(), rounds.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("Python");
    let lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = Line::to(place.node("few"));
    // Where the question takes long, stats expire meanwhile: they live for 3 s.
    let mut found_least = plan.stats;
    let (all, longest) = while_pinging(&mut line, || {
        let read = |line: std::io::Result<String>| {
            let line = line.unwrap();
            let (ms, found) = line.split_once(' ').unwrap();
            found_least = found_least.min(found.parse().unwrap());
            Duration::from_secs_f64(ms.parse::<f64>().unwrap() / 1_000.0)
        };
        Times::new(lines.lines().map(read).collect())
    });
    assert!(child.wait().unwrap().success(), "django_stats.py failed");
    let mut fleet = Fleet::new(place.url(), "few");
    let (ours, our_longest) = while_pinging(&mut line, || {
        let mut ask = || {
            let begun = Instant::now();
            let page = fleet.members(&Cursor::default(), MAX_PAGE, soon()).unwrap();
            assert!(!page.members.is_empty());
            begun.elapsed()
        };
        Times::new((0..plan.commands).map(|_| ask()).collect())
    });
    let stats = number(plan.stats);
    let blocked = |longest| format!("a PING meanwhile at most {}", Told(longest));
    let told = format!("{all}; {}; it found {} of them at the least", blocked(longest), number(found_least));
    table.row(&format!("Django-Q2's Stat.get_all() of {stats}"), &told);
    let times = all.ratio(&ours);
    table.row(
        &format!("all members of {}, beside it", number(plan.few)),
        &format!("{ours}; {}; Django-Q2 takes {times:.0} times as long", blocked(our_longest)),
    );
}

/// Tells other threads to end, also where what they serve fails: else a failure would wait for them for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something, and tells the longest that another client had to wait for the server meanwhile.
fn while_pinging<T>(line: &mut Line, work: impl FnOnce() -> T) -> (T, Duration) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let pinging = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                longest = longest.max(line.ping());
                thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        let working = Ends(&done);
        let result = work();
        drop(working);
        (result, pinging.join().unwrap())
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// With commas between thousands.
fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

fn float(number: usize) -> f64 {
    as_float(number as u64)
}

#[expect(clippy::cast_precision_loss, reason = "counts that are small")]
fn as_float(number: u64) -> f64 {
    number as f64
}
