//! A whole fleet whose Redis goes away and comes back: how many of it knock at once, counted where they knock.

use std::net::TcpListener;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::Heartbeat;

use crate::servers::{SOON, Server, until};
use crate::worker::builder;

const FLEET: usize = 300;
const INTERVAL: Duration = Duration::from_secs(1);
const AWAY: Duration = Duration::from_secs(20);

/// In which a worker that has just lost its Redis tries a few times more quickly.
const FIRST: Duration = Duration::from_secs(3);

/// In which nobody could tell a crowd from one.
const WINDOW: Duration = Duration::from_millis(100);

/// How many had come in all, at moments that follow each other.
struct Arrivals(Vec<(Instant, usize)>);

impl Arrivals {
    fn begin() -> Self {
        Self(vec![(Instant::now(), 0)])
    }

    fn note(&mut self, count: usize) {
        self.0.push((Instant::now(), count));
    }

    fn count(&self) -> usize {
        self.0.last().expect("a first one").1
    }

    /// Those after the first ones.
    fn since(self, first: Duration) -> (usize, Self) {
        let begun = self.0[0].0;
        let later: Vec<_> =
            self.0.into_iter().skip_while(|(at, _)| at.duration_since(begun) < first).collect();
        (later[0].1, Self(later))
    }

    /// The most that came between two moments that lie a window apart, or a little more.
    fn largest_crowd(&self) -> usize {
        let within = |(index, (from, before)): (usize, &(Instant, usize))| {
            let later = self.0[index..].iter().find(|(at, _)| at.duration_since(*from) >= WINDOW);
            later.map_or(self.count(), |(_, count)| *count) - before
        };
        self.0.iter().enumerate().map(within).max().expect("a first one")
    }
}

/// Workers that start at one moment, as after a deployment.
fn fleet(url: &str) -> Vec<Heartbeat> {
    let together = Barrier::new(FLEET);
    thread::scope(|scope| {
        let start = |number: usize| {
            let together = &together;
            scope.spawn(move || {
                let settings = builder().worker(format!("w{number}")).redis(url).interval(INTERVAL);
                together.wait();
                settings.start().expect("a start")
            })
        };
        let starting: Vec<_> = (0..FLEET).map(start).collect();
        starting.into_iter().map(|thread| thread.join().expect("a handle")).collect()
    })
}

/// Stands where a Redis stood, and hangs up on everybody.
fn hang_up_on_all(port: u16) -> Arrivals {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port of the one that was killed");
    listener.set_nonblocking(true).expect("a setting");
    let mut arrivals = Arrivals::begin();
    let end = Instant::now() + AWAY;
    while Instant::now() < end {
        if listener.accept().is_ok() {
            arrivals.note(arrivals.count() + 1);
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    arrivals
}

/// Those that come to a Redis that has just been started, until all are back: as it counts its connections itself, of
/// which two are the test's own.
fn welcome(redis: &mut Server) -> (Arrivals, Duration) {
    let mut arrivals = Arrivals::begin();
    redis.restart();
    let returned = Instant::now();
    let mut connection = redis.connection().expect("a connection");
    until("all are back", SOON, || {
        // Before the connections are counted: the last one to come may come in between.
        let there: usize =
            redis::cmd("ZCARD").arg("heartbeat:{c}:workers").query(&mut connection).expect("a count");
        let stats: String = redis::cmd("INFO").arg("stats").query(&mut connection).expect("its numbers");
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        arrivals.note(line.expect("a line").parse::<usize>().expect("a number") - 2);
        (there == FLEET).then_some(())
    });
    (arrivals, returned.elapsed())
}

#[test]
fn a_fleet_does_not_come_to_its_redis_all_at_once_neither_while_it_is_away_nor_when_it_returns() {
    let mut redis = Server::start(&[]);
    let fleet = fleet(&redis.url());
    let there = || (redis.ask::<usize>("ZCARD heartbeat:{c}:workers") == FLEET).then_some(());
    until("all beat", SOON, there);
    let failures = || fleet.iter().map(|worker| worker.counters().redis_failures).sum::<u64>();
    let before = failures();
    redis.kill();
    let (first, vain) = hang_up_on_all(redis.port).since(FIRST);
    let failed = usize::try_from(failures() - before).expect("a number");
    let (returning, took) = welcome(&mut redis);
    eprintln!(
        "{FLEET} workers, {INTERVAL:?}: {first} tries within {FIRST:?}, {} within {AWAY:?}, of those after the first at most \
         {} within {WINDOW:?}; then {} connections, at most {} within {WINDOW:?}, and all back after {took:.2?}",
        vain.count(),
        vain.largest_crowd(),
        returning.count(),
        returning.largest_crowd(),
    );
    // What a worker counts as a failure is one knock, but for those that are under way at the end.
    assert!(vain.count().abs_diff(failed) <= FLEET / 10, "{} tries, {failed} failures", vain.count());
    // About as often as they would beat, but for the first ones.
    let beats = |of: Duration| FLEET * usize::try_from(of.as_secs() / INTERVAL.as_secs()).expect("a number");
    assert!(first <= beats(FIRST) + 4 * FLEET, "{first} tries at first");
    let later = vain.count() - first;
    assert!((beats(AWAY) / 2..=beats(AWAY)).contains(&later), "{later} tries");
    assert!(vain.largest_crowd() <= FLEET / 3, "{} of {FLEET} at once", vain.largest_crowd());
    // Each once.
    assert!((FLEET..=FLEET + FLEET / 20).contains(&returning.count()), "{} connections", returning.count());
    assert!(returning.largest_crowd() <= FLEET / 3, "{} of {FLEET} at once", returning.largest_crowd());
    assert!(took <= 2 * INTERVAL, "back after {took:?}");
}
