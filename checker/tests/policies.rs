//! All policies of `checker cluster` with each other, on a real Redis: every pair of what can be asked for, and a few hundred
//! mixtures of everything. What is right is worked out here once more, worker by worker, from what the documentation says.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::collections::BTreeMap;
use std::thread;

use nix::unistd::gethostname;
use serde_json::Value;
use servers::{Server, beat, beat_as, checker, record, until, worker};

const LONG: u64 = 600_000;

/// A worker as the test made it.
#[derive(Clone, Debug)]
struct Made {
    name: &'static str,
    host: String,
    queues: &'static [&'static str],
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It takes work.
    Ready,
    /// It beats, and takes no work.
    Busy,
    /// It went silent.
    Lost,
    /// It went silent twice.
    LostTwice,
    /// It went silent, and another of its name takes work.
    Anew,
    /// It takes work, and Redis has evicted its record.
    NoRecord,
    /// It takes work, and Redis has evicted its name.
    NoName,
}

impl Made {
    fn beats(&self) -> bool {
        !self.is_lost()
    }

    fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost | State::LostTwice)
    }

    fn counts(&self, asked: &Asked) -> bool {
        self.is_asked_for(asked) && self.beats() && (asked.live || self.state != State::Busy)
    }

    fn is_asked_for(&self, asked: &Asked) -> bool {
        match asked.host {
            None => true,
            Some("self") => self.host == own_host(),
            Some(host) => self.host == host,
        }
    }
}

fn own_host() -> String {
    gethostname().unwrap().into_string().unwrap()
}

fn fleet() -> Vec<Made> {
    let made = |name, host: &str, queues, state| Made { name, host: host.to_owned(), queues, state };
    vec![
        made("w1", "web-1", &["mail"], State::Ready),
        made("w2", "web-1", &["mail", "pdf"], State::Ready),
        made("w3", "web-1", &["pdf"], State::Busy),
        made("w4", "web-2", &["mail"], State::NoRecord),
        made("w5", "web-2", &["pdf"], State::Lost),
        made("w6", "web-2", &[], State::NoName),
        made("w7", &own_host(), &["mail"], State::Anew),
        made("w8", &own_host(), &["pdf"], State::LostTwice),
        made("w9", &own_host(), &["mail", "pdf"], State::Busy),
    ]
}

fn start(fleet: &[Made]) -> Server {
    let server = Server::start(&[]);
    for (number, made) in (1_u128..).zip(fleet) {
        let incarnation = |number, promise_ms| record(number, made.name, &made.host, made.queues, promise_ms);
        match made.state {
            State::Lost => beat(&server, &[incarnation(number, 20)]),
            State::LostTwice => beat(&server, &[incarnation(number + 100, 20), incarnation(number, 20)]),
            State::Busy => beat_as(&server, &[incarnation(number, LONG)], false),
            State::Anew => beat(&server, &[incarnation(number + 100, 20), incarnation(number, LONG)]),
            State::Ready | State::NoRecord | State::NoName => beat(&server, &[incarnation(number, LONG)]),
        }
    }
    let lost = |made: &Made| match made.state {
        State::Lost | State::Anew => 1,
        State::LostTwice => 2,
        _ => 0,
    };
    let lost: u64 = fleet.iter().map(lost).sum();
    let mut asking = server.fleet("orders");
    until("the lost are lost", || {
        let counts = asking.count(&[], std::time::Instant::now() + servers::SOON).unwrap();
        (counts.lost == lost).then_some(())
    });
    // Once nobody beats any more, nothing brings back what is evicted.
    for (number, made) in (1_u128..).zip(fleet) {
        let evicted = match made.state {
            State::NoRecord => server.ask(&format!("DEL heartbeat:{{orders}}:stat:{number:032x}")),
            State::NoName => server.ask(&format!("HDEL heartbeat:{{orders}}:names {number:032x}")),
            _ => continue,
        };
        assert_eq!(evicted, ":1");
    }
    server
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
struct Asked {
    min: Option<u64>,
    share: Option<(u64, u64)>,
    queues: &'static [(&'static str, Option<u64>)],
    expect: &'static [&'static str],
    max_lost: Option<u64>,
    live: bool,
    host: Option<&'static str>,
    unknown: Option<&'static str>,
    list: bool,
}

impl Asked {
    fn words(&self) -> String {
        let mut words = String::from("cluster orders --format json");
        let mut add = |word: String| words.extend([" ", &word]);
        self.min.into_iter().for_each(|min| add(format!("--min {min}")));
        self.share.into_iter().for_each(|(of, all)| add(format!("--min-percent {of} --expected {all}")));
        for (name, min) in self.queues {
            add(min.map_or(format!("--queue {name}"), |min| format!("--queue {name}:{min}")));
        }
        self.expect.iter().for_each(|name| add(format!("--expect {name}")));
        self.max_lost.into_iter().for_each(|most| add(format!("--max-lost {most}")));
        // Both ways to say what is the default.
        if self.live {
            add("--for live".to_owned());
        } else if self.list {
            add("--for ready".to_owned());
        }
        self.host.into_iter().for_each(|host| add(format!("--host {host}")));
        self.unknown.into_iter().for_each(|unknown| add(format!("--unknown {unknown}")));
        if self.list {
            add("--list".to_owned());
        }
        words
    }
}

/// What is right.
#[derive(Debug, PartialEq, Eq)]
struct Right {
    fresh: u64,
    ready: u64,
    lost: u64,
    queues: BTreeMap<String, u64>,
    missing: Vec<String>,
    /// How each failure begins, in their order.
    failures: Vec<String>,
    /// Who is listed.
    listed: Option<Vec<String>>,
}

fn right(fleet: &[Made], asked: &Asked) -> Right {
    let number = |of: &dyn Fn(&Made) -> bool| fleet.iter().filter(|made| of(made)).count() as u64;
    let here = |made: &Made| made.is_asked_for(asked);
    let counted = number(&|made| made.counts(asked));
    let lost = number(&|made| here(made) && made.is_lost());
    let mut failures = Vec::new();
    // At least one, where nothing is said of how many.
    let min = if asked.share.is_some() { asked.min } else { asked.min.or(Some(1)) };
    failures.extend(min.filter(|min| counted < *min).map(|min| format!("min {min}: ")));
    if let Some((percent, expected)) = asked.share.filter(|(percent, all)| counted * 100 < percent * all) {
        failures.push(format!("{percent} % of {expected} is "));
    }
    let mut queues = BTreeMap::new();
    for (queue, min) in asked.queues {
        let on = number(&|made| made.counts(asked) && made.queues.contains(queue));
        queues.insert((*queue).to_owned(), on);
        if on < min.unwrap_or(1) {
            failures.push(format!("queue {queue} needs {}: ", min.unwrap_or(1)));
        }
    }
    let is_there = |name: &&&str| !fleet.iter().any(|made| made.name == **name && made.counts(asked));
    let missing: Vec<_> = asked.expect.iter().filter(is_there).map(ToString::to_string).collect();
    failures.extend(missing.iter().map(|name| format!("{name} ")));
    failures.extend(asked.max_lost.filter(|most| lost > *most).map(|most| format!("max lost {most}: ")));
    let listed = asked.list.then(|| {
        let mut names: Vec<_> =
            fleet.iter().filter(|made| here(made)).map(|made| made.name.to_owned()).collect();
        names.sort();
        names
    });
    Right {
        fresh: number(&|made| here(made) && made.beats()),
        ready: number(&|made| here(made) && made.beats() && made.state != State::Busy),
        lost,
        queues,
        missing,
        failures,
        listed,
    }
}

/// What the command told, in the same form; the failures only as far as their beginnings go.
fn told(server: &Server, asked: &Asked, right: &Right) -> (Right, Option<i32>, Value) {
    let output = checker(&asked.words()).env("HEARTBEAT_REDIS_URL", server.url()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}: {output:?}", asked.words());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |list: &Value, of: &dyn Fn(&Value) -> Value| -> Vec<String> {
        let name = |value: &Value| of(value).as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    let more = |part: &&str| !part.starts_with("lost: ") && !part.starts_with("the cluster is empty");
    let parts = json["reason"].as_str().unwrap().split("; ").filter(more);
    let failed = parts.filter(|_| json["status"] == "fail");
    let begin = |(at, part): (usize, &str)| match right.failures.get(at) {
        Some(begin) if part.starts_with(begin.as_str()) => begin.clone(),
        _ => part.to_owned(),
    };
    let failures = failed.enumerate().map(begin).collect();
    let mut listed = json.get("workers").map(|workers| names(workers, &|worker| worker["worker"].clone()));
    if let Some(names) = &mut listed {
        names.sort();
    }
    let number = |name: &str| json[name].as_u64().unwrap();
    let told = Right {
        fresh: number("fresh"),
        ready: number("ready"),
        lost: number("lost_count"),
        queues: serde_json::from_value(json["queues"].clone()).unwrap(),
        missing: names(&json["missing"], &Value::clone),
        failures,
        listed,
    };
    (told, output.status.code(), json)
}

/// Each thing that can be asked for: how many ways there are, and the one of that number. The first says nothing.
type Choice = (usize, fn(&mut Asked, usize));

const CHOICES: [Choice; 9] = [
    (4, |asked, at| asked.min = [None, Some(0), Some(3), Some(6)][at]),
    (4, |asked, at| asked.share = [None, Some((50, 4)), Some((67, 6)), Some((100, 7))][at]),
    (5, |asked, at| {
        asked.queues = [
            &[][..],
            &[("mail", None)],
            &[("mail", Some(4)), ("pdf", None)],
            &[("pdf", Some(2))],
            &[("none", Some(0)), ("nobody", None)],
        ][at];
    }),
    (5, |asked, at| {
        asked.expect = [&[][..], &["w1"], &["w3", "w7"], &["w4", "w5", "w6"], &["w9", "nobody"]][at];
    }),
    (4, |asked, at| asked.max_lost = [None, Some(0), Some(1), Some(2)][at]),
    (2, |asked, at| asked.live = at == 1),
    (5, |asked, at| asked.host = [None, Some("web-1"), Some("web-2"), Some("self"), Some("nowhere")][at]),
    (3, |asked, at| asked.unknown = [None, Some("pass"), Some("fail")][at]),
    (2, |asked, at| asked.list = at == 1),
];

/// Every pair of ways of every pair of choices, and then mixtures of all.
fn all_that_is_asked() -> Vec<Asked> {
    let mut all = Vec::new();
    for (first, (ways, choose)) in CHOICES.iter().enumerate() {
        for (others, also_choose) in &CHOICES[first + 1..] {
            for (one, other) in (0..*ways).flat_map(|one| (1..*others).map(move |other| (one, other))) {
                let mut asked = Asked::default();
                choose(&mut asked, one);
                also_choose(&mut asked, other);
                all.push(asked);
            }
        }
    }
    let mut dice: u64 = 7;
    for _ in 0..200 {
        let mut asked = Asked::default();
        for (ways, choose) in CHOICES {
            // A linear congruence is random enough; its high bits are.
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            choose(&mut asked, usize::try_from(dice >> 33).unwrap() % ways);
        }
        all.push(asked);
    }
    all
}

#[test]
fn every_mixture_of_policies_amounts_to_what_each_worker_says() {
    let fleet = fleet();
    let server = start(&fleet);
    let all = all_that_is_asked();
    let (mut passed, mut failed) = (0, 0);
    thread::scope(|scope| {
        let some = all.chunks(all.len().div_ceil(4)).map(|some| {
            let (fleet, server) = (&fleet, &server);
            scope.spawn(move || {
                let mut passed = 0;
                for asked in some {
                    let right = right(fleet, asked);
                    let (told, code, json) = told(server, asked, &right);
                    let words = asked.words();
                    assert_eq!(told, right, "{words}: {json}");
                    let holds = right.failures.is_empty();
                    let expected = if holds { (Some(0), "pass") } else { (Some(1), "fail") };
                    assert_eq!((code, json["status"].as_str().unwrap()), expected, "{words}: {json}");
                    passed += usize::from(holds);
                }
                (passed, some.len() - passed)
            })
        });
        for (pass, fail) in some.collect::<Vec<_>>().into_iter().map(|some| some.join().unwrap()) {
            passed += pass;
            failed += fail;
        }
    });
    assert!(passed > 100 && failed > 100, "{passed} passed, {failed} failed: one of both is hardly tested");
}

#[test]
fn whatever_is_asked_of_a_redis_that_is_down_is_unknown_and_counts_as_was_asked() {
    let mut server = Server::start(&[]);
    server.kill();
    for asked in all_that_is_asked().into_iter().step_by(17) {
        let words = asked.words();
        let output = checker(&words).env("HEARTBEAT_REDIS_URL", server.url()).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&json["status"], &json["fresh"]), (&"unknown".into(), &Value::Null), "{words}: {json}");
        let code = i32::from(asked.unknown != Some("pass"));
        assert_eq!(output.status.code(), Some(code), "{words}: {json}");
    }
}

#[test]
fn a_real_worker_of_this_host_is_found_among_those_of_others() {
    let server = Server::start(&[]);
    let elsewhere = [
        record(1, "w1", "web-1", &["mail"], LONG),
        record(2, "w2", &format!("{}.elsewhere", own_host()), &["mail"], LONG),
        record(3, "w3", "self", &["mail"], LONG),
    ];
    beat(&server, &elsewhere);
    let ask = |words: &str| {
        let mut command = checker(&format!("cluster orders --format json {words}"));
        let output = command.env("HEARTBEAT_REDIS_URL", server.url()).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), json)
    };
    let (code, json) = ask("--host self --min 0");
    assert_eq!((code, &json["fresh"], &json["ready"]), (Some(0), &0.into(), &0.into()), "{json}");
    assert_eq!(ask("--host self").0, Some(1), "all others are elsewhere");

    let own = worker(&server, "own", &["pdf"]);
    until("it is counted", || (ask("--host self").0 == Some(0)).then_some(()));
    for (words, code) in [
        ("--host self --min 1 --queue pdf --expect own --max-lost 0", 0),
        ("--host self --min 2", 1),
        ("--host self --queue mail", 1),
        ("--host self --queue mail --for live", 1),
        ("--host self --expect w1", 1),
        ("--host self --min-percent 100 --expected 1 --for live", 0),
        ("--min 4 --queue mail:3 --queue pdf", 0),
    ] {
        assert_eq!(ask(words).0, Some(code), "{words}");
    }
    let (_, json) = ask("--host self --list");
    let listed = json["workers"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{json}");
    assert_eq!((&listed[0]["worker"], &listed[0]["host"]), (&"own".into(), &own_host().into()), "{json}");
    own.stop().unwrap();
    until("it is away", || (ask("--host self").0 == Some(1)).then_some(()));
}
