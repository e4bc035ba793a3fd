//! The workers of a Django-Q2 cluster, by their own stats.
//!
//! A worker is what Django-Q calls a cluster: one `qcluster` with its processes. Its guard writes a stat every half second
//! which is kept for 3 s. A stat counts by its signature; by its status, whatever the language; and by its time.
//!
//! **Time.** The stat was signed by the clock of the worker's host, and is compared with the clock of the server that keeps
//! it. Where the two agree within `AHEAD_MS` and `OLD_MS`, that is all. Where they do not, the stat is old or a clock is wrong,
//! and no clock can tell which: so it is looked at again until it has moved on, for as long as a living guard could keep
//! still (`STILL`). Moved on is alive, with a word about the clock.
//!
//! **What it proves.** That the guard turns: it looks after the other processes, restarts one that has ended or that is
//! past its timeout, and counts what is queued. It does not prove that a worker process, the pusher or the monitor turns:
//! one that is stopped or hangs without a timeout is alive to the guard, and so it is here.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::duration::Human;
use heartbeat::verdict::Verdict;

use super::{Answer, Facts, Listed, MOST_LOST, Missing, NAMED_IN_A_SENTENCE, Question, Roll, Silent};
use crate::checks::worker::Want;
use crate::django_q::signature::Key;
use crate::django_q::stat::{NoStat, Stat, Uuid};
use crate::django_q::store::{Place, Store, Untold};

/// How old a stat may be: what Django-Q keeps it for, and the second to which its time is whole.
const OLD_MS: u64 = 4_000;

/// How far ahead of the server a worker's clock may be.
const AHEAD_MS: u64 = 2_000;

/// How long a stat may stay the same while its guard turns: it is kept for 3 s.
const STILL: Duration = Duration::from_millis(3_300);

/// How often a stat in doubt is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Django-Q's words.
pub const STATUSES: [&str; 5] = ["Starting", "Idle", "Working", "Stopping", "Stopped"];

/// What is asked, and of which place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the stats are.
    pub place: Place,
    /// From Django's `SECRET_KEY` and the cluster's name.
    pub key: Key,
    /// The statuses of workers that count for nothing. Default: `Stopping` and `Stopped`.
    pub unhealthy: Option<Vec<String>>,
    /// What is asked.
    pub question: Question,
}

/// What is known of one worker.
enum Known {
    Stat(Stat),
    Refused(NoStat),
    /// Its stat does not move on.
    Still(Stat),
}

type Opened = (Uuid, Result<Stat, NoStat>);

/// All that was found.
#[derive(Default)]
struct Found {
    known: Vec<(Uuid, Known)>,
    now_unix_ms: u64,
    /// Workers whose clocks are wrong, and by how much.
    skewed: Vec<(String, u64)>,
}

impl Settings {
    /// The question whether at least one worker of the cluster can take work.
    pub fn new(place: Place, secret_key: &str, cluster: impl Into<String>) -> Self {
        let question = Question::new("django-q", &place, cluster);
        let key = Key::new(secret_key, &question.cluster);
        Self { place, key, unhealthy: None, question }
    }

    /// Asks, and judges. Takes no longer than `until`.
    pub fn answer(&self, until: Instant) -> Answer {
        self.answer_from(&mut None, until)
    }

    /// The same, from a store that is kept from one question to the next.
    pub fn answer_from(&self, store: &mut Option<Store>, until: Instant) -> Answer {
        match self.find(store, until) {
            Ok(found) => self.conclude(&found),
            Err(Untold { reason, detail }) => self.question.cannot_tell(reason, detail),
        }
    }

    fn find(&self, store: &mut Option<Store>, until: Instant) -> Result<Found, Untold> {
        let cluster = self.question.cluster.as_str();
        let store = match store {
            Some(store) => store,
            None => store.insert(Store::new(&self.place)?),
        };
        let ids = store.list(cluster, until)?;
        let (now_unix_ms, first) = self.open(store, &ids, until)?;
        let mut found = Found { now_unix_ms, ..Found::default() };
        let mut doubtful = Vec::new();
        for (id, opened) in first {
            match opened {
                Ok(stat) if is_timely(&stat, found.now_unix_ms) => found.known.push((id, Known::Stat(stat))),
                // What has stopped moves no more.
                Ok(stat) if stat.status.as_deref() == Some("Stopped") => {}
                Ok(stat) => doubtful.push((id, stat)),
                Err(refused) => found.known.push((id, Known::Refused(refused))),
            }
        }
        self.look_again(store, doubtful, &mut found, until)?;
        Ok(found)
    }

    /// What these are by now, and the server's clock.
    fn open(&self, store: &mut Store, ids: &[Uuid], until: Instant) -> Result<(u64, Vec<Opened>), Untold> {
        let mut opened = Vec::new();
        let mut each = |id, value: Vec<u8>| opened.push((id, Stat::open(&value, &self.key, id)));
        let now_unix_ms = store.look(&self.question.cluster, ids, until, &mut each)?;
        Ok((now_unix_ms, opened))
    }

    /// Looks at stats whose time is wrong until each has moved on or has had the time to.
    fn look_again(
        &self,
        store: &mut Store,
        mut doubtful: Vec<(Uuid, Stat)>,
        found: &mut Found,
        until: Instant,
    ) -> Result<(), Untold> {
        // The last look itself takes a moment; what cannot be waited for is decided by the clock.
        let enough = (Instant::now() + STILL).min(until.checked_sub(LOOK).unwrap_or(until));
        while !doubtful.is_empty() && Instant::now() + LOOK <= enough {
            thread::sleep(LOOK);
            let ids: Vec<_> = doubtful.iter().map(|(id, _)| *id).collect();
            let (now_unix_ms, looked) = self.open(store, &ids, until)?;
            for (id, opened) in looked {
                let Ok(stat) = opened else { continue };
                let before = doubtful
                    .iter()
                    .position(|(known, before)| *known == id && stat.at_unix_s > before.at_unix_s);
                if let Some(at) = before {
                    doubtful.swap_remove(at);
                    let off = now_unix_ms.abs_diff(stat.at_unix_s.saturating_mul(1_000));
                    found.skewed.push((stat.host.clone(), off));
                    found.known.push((id, Known::Stat(stat)));
                }
            }
        }
        found.known.extend(doubtful.into_iter().map(|(id, stat)| (id, Known::Still(stat))));
        Ok(())
    }

    fn conclude(&self, found: &Found) -> Answer {
        let here = |known: &Known| match known {
            Known::Stat(stat) | Known::Still(stat) => self.question.counts_here(&stat.host),
            Known::Refused(_) => true,
        };
        let known = found.known.iter().filter(|(_, known)| here(known));
        let workers = known.map(|(id, known)| self.listed(*id, known, found.now_unix_ms)).collect();
        let roll = Roll::new(workers, false);
        let (mut facts, refused) = (self.facts(&roll), refusals(found));
        facts.missing = self.missing(found, &roll);
        facts.remarks.extend(clocks(found));
        if roll.workers.is_empty() {
            let nobody =
                "Django-Q tells of no cluster of this name: none runs, or its stats are kept elsewhere";
            facts.remarks.push(nobody.to_owned());
        }
        facts.warnings = refused;
        self.question.conclude(facts, Some(roll))
    }

    fn listed(&self, id: Uuid, known: &Known, now_unix_ms: u64) -> Listed {
        let of = |stat: &Stat, verdict: Verdict, fresh: bool, takes_work: bool| Listed {
            id: Some(id.to_string()),
            worker: worker(stat),
            host: stat.host.clone(),
            verdict,
            age_ms: now_unix_ms.checked_sub(stat.at_unix_s.saturating_mul(1_000)),
            fresh,
            takes_work,
            queues: Vec::new(),
            tasks: None,
        };
        match known {
            Known::Stat(stat) => {
                let (live, ready) = self.counts(stat.status.as_deref());
                of(stat, verdict(stat.status.as_deref()), live, ready)
            }
            Known::Still(stat) => of(stat, Verdict::Silent, false, false),
            Known::Refused(_) => Listed {
                id: Some(id.to_string()),
                worker: id.to_string(),
                host: String::new(),
                verdict: Verdict::Corrupt,
                age_ms: None,
                fresh: false,
                takes_work: false,
                queues: Vec::new(),
                tasks: None,
            },
        }
    }

    /// Whether a worker of this status counts as live, and as one that takes work.
    fn counts(&self, status: Option<&str>) -> (bool, bool) {
        let Some(status) = status.filter(|status| STATUSES.contains(status)) else { return (false, false) };
        match &self.unhealthy {
            Some(unhealthy) => {
                let healthy = !unhealthy.iter().any(|word| word == status);
                (healthy, healthy && status != "Starting")
            }
            None => (status != "Stopped", matches!(status, "Idle" | "Working")),
        }
    }

    fn facts(&self, roll: &Roll) -> Facts {
        let mut facts = self.question.policy.tally(roll);
        // What Django-Q has forgotten nobody can count, and what has stopped is not lost.
        let still = roll.workers.iter().filter(|listed| listed.verdict == Verdict::Silent);
        facts.lost = still
            .map(|listed| Silent {
                worker: listed.worker.clone(),
                silent_ms: listed.age_ms.unwrap_or_default(),
            })
            .collect();
        facts.lost_count = u64::try_from(facts.lost.len()).unwrap_or(u64::MAX);
        facts.lost.truncate(MOST_LOST);
        facts
    }

    fn missing(&self, found: &Found, roll: &Roll) -> Vec<Missing> {
        let elsewhere = |name: &str| {
            found.known.iter().find_map(|(_, known)| match known {
                Known::Stat(stat) if worker(stat) == name => Some(format!("is on host {}", stat.host)),
                _ => None,
            })
        };
        let why = |name: &String| {
            let counts = |listed: &&Listed| {
                listed.fresh && (self.question.policy.want == Want::Live || listed.takes_work)
            };
            let mut named = roll.workers.iter().filter(|listed| listed.worker == *name);
            match (named.clone().find(counts), named.next()) {
                (Some(_), _) => None,
                (None, Some(listed)) => Some(format!("takes no work ({})", listed.verdict)),
                (None, None) => Some(elsewhere(name).unwrap_or_else(|| "is not there".to_owned())),
            }
        };
        let expect = self.question.policy.expect.iter();
        expect.filter_map(|name| Some(Missing { worker: name.clone(), why: why(name)? })).collect()
    }
}

/// A worker's name, as `heartbeat` too names one that has none.
fn worker(stat: &Stat) -> String {
    format!("{}:{}", stat.host, stat.pid)
}

fn is_timely(stat: &Stat, now_unix_ms: u64) -> bool {
    let at_ms = stat.at_unix_s.saturating_mul(1_000);
    at_ms <= now_unix_ms.saturating_add(AHEAD_MS) && now_unix_ms < at_ms.saturating_add(OLD_MS)
}

fn verdict(status: Option<&str>) -> Verdict {
    match status {
        Some("Starting") => Verdict::Starting,
        Some("Idle" | "Working") => Verdict::Alive,
        Some("Stopping") => Verdict::Draining,
        Some("Stopped") => Verdict::Stopped,
        _ => Verdict::Unknown,
    }
}

/// The hosts whose clocks are wrong, a few of them.
fn clocks(found: &Found) -> Vec<String> {
    let hosts: BTreeMap<_, _> = found.skewed.iter().map(|(host, off)| (host, off)).collect();
    let told = hosts.iter().take(NAMED_IN_A_SENTENCE);
    told.map(|(host, off)| format!("the clock of {host} is {} off", Human(**off))).collect()
}

/// How many stats are refused, by the reason.
fn refusals(found: &Found) -> Vec<String> {
    let all = [NoStat::Signature, NoStat::Content, NoStat::Copied];
    let count = |wanted: NoStat| {
        let is = |known: &&(Uuid, Known)| matches!(known.1, Known::Refused(refused) if refused == wanted);
        found.known.iter().filter(is).count()
    };
    let counted = all.into_iter().map(|refused| (count(refused), refused)).filter(|(count, _)| *count > 0);
    counted
        .map(|(count, refused)| {
            let stats = if count == 1 { "stat" } else { "stats" };
            format!("{count} {stats} not taken: {refused}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::cluster::Policy;
    use crate::status::Status;

    const NOW_S: u64 = 1_795_190_629;

    fn settings() -> Settings {
        Settings::new(Place::Broker("redis://:S3cret@h:1".parse().unwrap()), "T0psecret", "shop")
    }

    fn stat(number: u32, host: &str, status: &str) -> (Uuid, Known) {
        let id = Uuid::parse(&format!("{number:08x}-0000-0000-0000-000000000000")).unwrap();
        let status = (!status.is_empty()).then(|| status.to_owned());
        (
            id,
            Known::Stat(Stat {
                id,
                host: host.to_owned(),
                pid: number.into(),
                status,
                workers: 4,
                at_unix_s: NOW_S,
            }),
        )
    }

    fn found(known: Vec<(Uuid, Known)>) -> Found {
        Found { known, now_unix_ms: NOW_S * 1_000 + 700, skewed: Vec::new() }
    }

    fn ask(settings: &Settings, known: Vec<(Uuid, Known)>) -> (Status, String) {
        let answer = settings.conclude(&found(known));
        assert!(!format!("{answer:?} {settings:?}").contains("S3cret"));
        assert!(!format!("{answer:?} {settings:?}").contains("T0psecret"));
        (answer.status, answer.reason)
    }

    #[test]
    fn each_status_has_its_verdict_and_counts_for_what_it_should() {
        for (status, word, live, ready) in [
            ("Starting", "starting", Status::Pass, Status::Fail),
            ("Idle", "alive", Status::Pass, Status::Pass),
            ("Working", "alive", Status::Pass, Status::Pass),
            ("Stopping", "draining", Status::Pass, Status::Fail),
            ("Stopped", "stopped", Status::Fail, Status::Fail),
            ("Arrêté", "unknown", Status::Fail, Status::Fail),
            ("", "unknown", Status::Fail, Status::Fail),
        ] {
            let mut settings = settings();
            settings.question.list = true;
            assert_eq!(ask(&settings, vec![stat(1, "web-1", status)]).0, ready, "{status}");
            settings.question.policy.want = Want::Live;
            let answer = settings.conclude(&found(vec![stat(1, "web-1", status)]));
            assert_eq!(answer.status, live, "{status}");
            let listed = &answer.roll.unwrap().workers[0];
            assert_eq!((listed.verdict.as_str(), listed.worker.as_str()), (word, "web-1:1"));
            assert_eq!(listed.age_ms, Some(700));
        }
    }

    #[test]
    fn which_statuses_are_unhealthy_is_the_askers_to_say() {
        let unhealthy = |words: &[&str]| Settings {
            unhealthy: Some(words.iter().map(ToString::to_string).collect()),
            ..settings()
        };
        assert_eq!(ask(&unhealthy(&["Stopped"]), vec![stat(1, "a", "Stopping")]).0, Status::Pass);
        assert_eq!(ask(&unhealthy(&["Idle"]), vec![stat(1, "a", "Idle")]).0, Status::Fail);
        assert_eq!(ask(&unhealthy(&["Idle"]), vec![stat(1, "a", "Working")]).0, Status::Pass);
    }

    #[test]
    fn one_that_stops_does_not_fail_a_fleet_in_which_another_works() {
        let both = || vec![stat(1, "web-1", "Stopping"), stat(2, "web-2", "Working")];
        assert_eq!(ask(&settings(), both()), (Status::Pass, "1 worker takes work of 2 that beat".to_owned()));
        let mut two = settings();
        two.question.policy.min = Some(2);
        assert_eq!(ask(&two, both()), (Status::Fail, "min 2: 1 worker takes work".to_owned()));
    }

    #[test]
    fn only_workers_of_the_host_that_was_asked_for_count() {
        let mut settings = settings();
        settings.question.host = Some("web-1".to_owned());
        let both = || vec![stat(1, "web-1", "Stopping"), stat(2, "web-2", "Working")];
        assert_eq!(ask(&settings, both()).0, Status::Fail);
        settings.question.host = Some("web-2".to_owned());
        assert_eq!(ask(&settings, both()).0, Status::Pass);
        settings.question.policy.expect =
            vec!["web-2:2".to_owned(), "web-1:1".to_owned(), "web-9:9".to_owned()];
        let (status, reason) = ask(&settings, both());
        assert_eq!(status, Status::Fail);
        assert_eq!(reason, "web-1:1 is on host web-1; web-9:9 is not there");
    }

    #[test]
    fn a_stat_that_is_not_taken_is_named_counts_for_nothing_and_makes_no_pass_a_failure() {
        let forged = |number| (stat(number, "", "").0, Known::Refused(NoStat::Signature));
        let (status, reason) = ask(&settings(), vec![forged(1), forged(2)]);
        assert_eq!(status, Status::Fail);
        assert!(reason.contains("; 2 stats not taken: a signature that is wrong: "), "{reason}");
        let copied = (stat(3, "", "").0, Known::Refused(NoStat::Copied));
        let (status, reason) = ask(&settings(), vec![stat(1, "a", "Idle"), copied]);
        assert_eq!(status, Status::Warn);
        assert!(reason.ends_with("; 1 stat not taken: a stat at another key than its own"), "{reason}");
    }

    #[test]
    fn nobody_is_told_as_nobody_and_one_that_keeps_still_by_its_name() {
        let (status, reason) = ask(&settings(), Vec::new());
        assert!(status == Status::Fail && reason.contains("no cluster of this name"), "{reason}");
        let (id, known) = stat(7, "web-1", "Idle");
        let Known::Stat(mut silent) = known else { panic!() };
        silent.at_unix_s = NOW_S - 42;
        let (status, reason) = ask(&settings(), vec![(id, Known::Still(silent))]);
        assert_eq!(status, Status::Fail);
        assert!(reason.contains("lost: shop@web-1:7 silent for 42.7 s"), "{reason}");
    }

    #[test]
    fn a_stat_is_timely_by_a_second_that_is_whole_and_a_clock_that_is_nearly_right() {
        let (_, Known::Stat(stat)) = stat(1, "a", "Idle") else { panic!() };
        for (offset_ms, timely) in [(-2_001, false), (-2_000, true), (0, true), (3_999, true), (4_000, false)]
        {
            let now = (NOW_S * 1_000).checked_add_signed(offset_ms).unwrap();
            assert_eq!(is_timely(&stat, now), timely, "{offset_ms}");
        }
        assert!(!is_timely(&Stat { at_unix_s: u64::MAX, ..stat.clone() }, 0));
        assert!(!is_timely(&Stat { at_unix_s: 0, ..stat }, u64::MAX));
    }

    #[test]
    fn no_policy_at_all_wants_one() {
        assert_eq!(settings().question.policy, Policy { want: Want::Ready, ..Policy::default() });
    }
}
