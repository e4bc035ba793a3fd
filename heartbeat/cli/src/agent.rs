//! `heartbeat agent`: one publisher for all beat files of a host or pod. This file is its one loop: when to look, when to
//! judge, when to publish and when to end. What is in the folder, who is known, and the way to Redis stand in files of their own.

mod carrier;
mod folder;
mod roster;
mod service;
mod wake;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Fleets, InvalidKey, SigningKeys, Url};

use self::carrier::{Carrier, Outcome};
use self::folder::Folder;
use self::roster::{Errand, Roster, Which};
use self::service::Service;
use self::wake::{End, Wake};
use crate::cli::Agent;
use crate::exit::Exit;
use crate::tell;

/// Between two looks at what has changed, at least: what changes all the time is looked at that often.
const LOOK_GAP: Duration = Duration::from_millis(50);

/// Between two publications, at least, where something cannot wait for the interval.
const URGENT_GAP: Duration = Duration::from_millis(100);

/// How much is sent to a Redis that has not answered yet, or not of late; of more than four times as many workers a quarter.
/// Of a usual host that costs it a few milliseconds, and one whose answers come too late still hears of all workers. It also
/// teaches Redis the script, of which it is then told no more than the name.
const PROBE: usize = 100;

/// What one errand adds to the time that a round trip may take.
const EACH: Duration = Duration::from_micros(500);

const LEAST_INTERVAL: Duration = Duration::from_millis(100);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// The wait after a first failure; it doubles with each further one.
const LEAST_BACKOFF: Duration = Duration::from_millis(100);
const MOST_BACKOFF: Duration = Duration::from_secs(10);

/// How long the end may take.
const END: Duration = Duration::from_millis(800);

/// Publishes until it is asked to end.
pub fn agent(arguments: &Agent) -> Exit {
    let (fleets, interval) = match settings(arguments) {
        Ok(settings) => settings,
        Err(wrong) => {
            tell(format_args!("heartbeat: {wrong}"));
            return Exit::Invalid;
        }
    };
    match published(arguments, fleets, interval) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tell(format_args!("heartbeat: {error}"));
            Exit::Unexpected
        }
    }
}

fn settings(arguments: &Agent) -> Result<(Fleets, Duration), String> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let url = match (&arguments.redis, given("HEARTBEAT_REDIS_URL")) {
        (Some(url), _) => url.parse().map_err(|wrong| format!("--redis is not a URL of Redis: {wrong}"))?,
        (None, Some(url)) => {
            let url = url.to_str().unwrap_or_default().parse();
            url.map_err(|wrong| format!("HEARTBEAT_REDIS_URL is not a URL of Redis: {wrong}"))?
        }
        (None, None) => return Err("name a Redis by --redis or HEARTBEAT_REDIS_URL".to_owned()),
    };
    let url: Url = url;
    url.check_files().map_err(|wrong| wrong.to_string())?;
    let interval = arguments.interval.unwrap_or(DEFAULT_INTERVAL);
    if interval < LEAST_INTERVAL {
        return Err("--interval is 100 ms at least".to_owned());
    }
    let fleets = Fleets::new(url);
    let keys = match (&arguments.key_file, given("HEARTBEAT_KEY")) {
        (Some(file), _) => {
            let keys = SigningKeys::from_file(file);
            Some(keys.map_err(|why| format!("the key in {} cannot be used: {why}", file.display()))?)
        }
        (None, Some(text)) => {
            let keys = text.to_str().unwrap_or_default().parse();
            Some(keys.map_err(|why: InvalidKey| format!("HEARTBEAT_KEY cannot be used: {why}"))?)
        }
        (None, None) => None,
    };
    Ok((if let Some(keys) = keys { fleets.signed(keys) } else { fleets }, interval))
}

fn published(arguments: &Agent, fleets: Fleets, interval: Duration) -> io::Result<()> {
    // Before any thread.
    let end = End::new()?;
    let wake = Arc::new(Wake::new()?);
    let place = fleets.place();
    let carrier = Carrier::start(fleets, millis(interval), Arc::clone(&wake))?;
    let owner = arguments.owner.unwrap_or_default();
    let folder = Folder::new(arguments.dir.clone(), owner, Arc::clone(&wake));
    let roster = Roster::default();
    let now = Instant::now();
    let mut publisher = Publisher { folder, roster, carrier, place, pace: Pace::new(interval, now) };
    publisher.until_its_end(&end, &wake, &mut Service::from_environment())
}

/// When to do what.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// When all are judged, and their beats published.
    due: Instant,
    /// Whether beats wait to be published.
    beats_due: bool,
    looked: Instant,
    sent: Instant,
    /// Nothing is tried before this.
    not_before: Instant,
    backoff: Duration,
    failing: bool,
    /// How many have failed.
    tries: usize,
    /// Whether Redis has answered the last time, be it by a refusal.
    answered: bool,
    /// Which were wanted the last time.
    wanted: Which,
}

impl Pace {
    fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            due: now,
            beats_due: false,
            looked: now,
            sent: now,
            // So that agents that start together do not publish together, now and from then on.
            not_before: now + interval.min(Duration::from_secs(1)).mul_f64(fraction()),
            backoff: LEAST_BACKOFF,
            failing: false,
            tries: 0,
            answered: false,
            wanted: Which::All,
        }
    }

    /// How long one round trip may take.
    fn patience(&self, errands: usize) -> Duration {
        let usual = (self.interval * 3).clamp(Duration::from_secs(1), Duration::from_secs(5));
        usual + EACH * u32::try_from(errands).unwrap_or(u32::MAX)
    }

    /// How much one round trip may carry.
    fn most(&self) -> usize {
        if self.answered { roster::MOST_ERRANDS } else { PROBE }
    }

    /// Between half and all of a time that doubles, from when the try began: one that waited in vain has waited already.
    fn failed(&mut self, now: Instant) {
        let most = (self.interval * 3 / 2).min(MOST_BACKOFF);
        let wait = self.backoff.min(most).mul_f64(0.5 + fraction() / 2.0);
        self.not_before = (self.sent + wait).max(now);
        self.backoff = (self.backoff * 2).min(MOST_BACKOFF);
        self.beats_due = true;
        self.tries = self.tries.wrapping_add(1);
        self.answered = false;
    }
}

/// From 0 to 1, at random.
fn fraction() -> f64 {
    // Without random bits all are in step, and nothing else is wrong.
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Publisher {
    folder: Folder,
    roster: Roster,
    carrier: Carrier,
    /// Redis, without secrets.
    place: String,
    pace: Pace,
}

impl Publisher {
    fn until_its_end(&mut self, end: &End, wake: &Wake, service: &mut Service) -> io::Result<()> {
        let mut ready = false;
        loop {
            let now = Instant::now();
            if let Some(outcome) = self.carrier.outcome()? {
                self.came_back(&outcome, now);
            }
            if now >= self.pace.looked + LOOK_GAP && self.folder.has_changed() {
                self.pace.looked = now;
                self.folder.look(&mut self.roster);
            }
            if now >= self.pace.due {
                self.pace.due = next(self.pace.due, self.pace.interval, now);
                self.folder.attend(&mut self.roster, now);
                self.roster.recheck();
                self.folder.look_again(&self.roster.gone(true), &mut self.roster);
                self.pace.beats_due = true;
            }
            // The looks may have taken their time.
            let now = Instant::now();
            self.publish_what_is_due(now);
            ready = ready || service.ready();
            if !self.carrier.is_stuck(now) {
                service.attend(now, || self.status());
            }
            let wait = self.next_turn(service).saturating_duration_since(Instant::now());
            if end.wait(wake, wait)? {
                service.stopping();
                self.withdraw_all(Instant::now() + END);
                return Ok(());
            }
        }
    }

    fn publish_what_is_due(&mut self, now: Instant) {
        if !self.carrier.is_free() || now < self.pace.not_before {
            return;
        }
        let which = if self.pace.beats_due {
            Which::All
        } else if now >= self.pace.sent + URGENT_GAP {
            Which::Urgent
        } else {
            return;
        };
        let most = self.pace.most();
        let errands = match most {
            PROBE => self.roster.probe(which, PROBE, self.pace.tries),
            most => self.roster.errands(which, most),
        };
        if which == Which::All {
            self.pace.beats_due = errands.len() >= most;
        }
        if !errands.is_empty() {
            self.pace.sent = now;
            self.pace.wanted = which;
            let until = now + self.pace.patience(errands.len());
            self.carrier.send(errands, until);
        }
    }

    fn next_turn(&self, service: &Service) -> Instant {
        let mut turn = self.pace.due;
        if self.folder.has_changed() {
            turn = turn.min(self.pace.looked + LOOK_GAP);
        }
        if self.carrier.is_free() {
            if self.pace.beats_due {
                turn = turn.min(self.pace.not_before);
            } else if self.roster.has_errands(Which::Urgent) {
                turn = turn.min(self.pace.not_before.max(self.pace.sent + URGENT_GAP));
            }
        }
        service.due().map_or(turn, |due| turn.min(due))
    }

    fn came_back(&mut self, outcome: &Outcome, now: Instant) {
        self.roster.done(&outcome.told);
        match &outcome.error {
            None => {
                self.pace.backoff = LEAST_BACKOFF;
                self.pace.answered = true;
                // Among a few urgent ones may be none of those that are refused.
                if self.pace.wanted == Which::All && std::mem::take(&mut self.pace.failing) {
                    tell(format_args!("heartbeat: Redis at {} is reached again", self.place));
                }
            }
            Some(error) => {
                // Whom Redis refuses holds up nobody else.
                if outcome.told.is_empty() {
                    self.pace.failed(now);
                }
                self.pace.answered = outcome.answered;
                if !std::mem::replace(&mut self.pace.failing, true) {
                    tell(format_args!("heartbeat: cannot publish to Redis: {error}; it goes on trying"));
                }
            }
        }
    }

    fn status(&self) -> String {
        let tally = self.roster.tally();
        if self.pace.failing { format!("{tally}; Redis is not reached") } else { tally.to_string() }
    }

    fn withdraw_all(&mut self, until: Instant) {
        // Whoever was not told of is not there.
        if !self.carrier.is_free()
            && let Some(outcome) = self.carrier.wait(until)
        {
            self.roster.done(&outcome.told);
            self.pace.answered = outcome.answered;
        }
        self.folder.look_again(&self.roster.gone(false), &mut self.roster);
        let mut errands = self.roster.farewell();
        let first = if self.pace.answered { errands.len() } else { PROBE };
        let rest = errands.split_off(errands.len().min(first));
        for errands in [errands, rest] {
            let (why, answered) = match self.carry(errands, until) {
                Ok(Outcome { error: None, .. }) => continue,
                Ok(Outcome { error: Some(error), answered, .. }) => (error.to_string(), answered),
                Err(late) => (late, false),
            };
            tell(format_args!("heartbeat: cannot withdraw from Redis: {why}"));
            if !answered {
                return;
            }
        }
    }

    /// Carries a last load, and waits for it.
    fn carry(&mut self, errands: Vec<Errand>, until: Instant) -> Result<Outcome, String> {
        if errands.is_empty() {
            return Ok(Outcome { told: errands, answered: true, error: None });
        }
        let late = || "no answer in time".to_owned();
        if !self.carrier.is_free() {
            return Err(late());
        }
        self.carrier.send(errands, until);
        // A little more: its own deadline is the better answer.
        self.carrier.wait(until + Duration::from_millis(50)).ok_or_else(late)
    }
}

/// The next of the moments that lie an interval apart. Those that were missed are not made up for.
fn next(due: Instant, interval: Duration, now: Instant) -> Instant {
    let next = due + interval;
    if next > now { next } else { now + interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_that_waited_in_vain_has_waited_already() {
        let begun = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(10), begun);
        for _ in 0..10 {
            pace.sent = begun;
            pace.failed(begun);
            assert!(pace.not_before > begun && pace.not_before <= begun + MOST_BACKOFF, "{pace:?}");
            let late = begun + MOST_BACKOFF;
            pace.failed(late);
            assert_eq!(pace.not_before, late);
        }
    }
}
