//! All orders in which the steps of workers and of a reader at one beat file can follow each other, each played on a real folder
//! by the functions of the library, which know nothing of it.
//!
//! This program has system calls of its own in the place of libc's: in an actor's thread each that has to do with the folder
//! waits until it is its turn, and a worker may be killed between any two of them: then none of its calls does anything
//! any more, and the kernel's part (its locks and leases end) is done for it. A sleep lasts until another actor has made a step.
//!
//! An order is not gone on with where the folder, and what each actor has been told so far, are as they have been before:
//! all that can follow has been played from there.

#![allow(dead_code, reason = "the modules are those of the library, whole")]

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use file::{BeatFile, DEFAULT_MODE, Failure};
use observe::{Observation, Owner, observe};
use record::{Id, Record, Status, Tasks};
use steps::Broken;

#[path = "../../heartbeat/src/clock.rs"]
mod clock;
#[path = "../../heartbeat/src/duration.rs"]
mod duration;
#[path = "../../heartbeat/src/file.rs"]
mod file;
#[path = "../../heartbeat/src/json.rs"]
mod json;
#[path = "../../heartbeat/src/observe.rs"]
mod observe;
#[path = "../../heartbeat/src/process.rs"]
mod process;
#[path = "../../heartbeat/src/record.rs"]
mod record;
mod steps;
#[path = "../../heartbeat/src/verdict.rs"]
mod verdict;

/// What `process` has of it, for `exit()` alone.
mod publisher {
    use std::time::Duration;

    #[derive(Debug)]
    pub struct Shared;

    impl Shared {
        pub fn request_stop(&self) {}

        pub fn wait_stopped(&self, _: Duration) -> Result<(), String> {
            Ok(())
        }
    }
}

/// What an actor came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A worker: how many of its beats are out, in which way the last one went.
    Beaten { out: usize, last: Last },
    /// A reader: the worker and the beat that each look found, or in a word what else.
    Seen(Vec<Result<(u128, u64), String>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    Renamed,
    InPlace,
    Held,
    Failed,
    Stopped,
}

/// One of those who come together at the file.
#[derive(Clone)]
enum Actor {
    /// Beats so many times from this number on; the path is its own already where that is not 1.
    Worker { id: u128, from: u64, beats: u64, stop: bool },
    /// Looks so many times.
    Reader { looks: usize },
}

/// What is played in all orders.
struct Play {
    name: &'static str,
    actors: Vec<Actor>,
    /// What stands there at first: a worker's first beat, and whether that worker lives.
    stands: Option<(u128, bool)>,
    /// No new file can be made.
    full: bool,
    /// The actor that is killed before each of its steps, in one order after the other.
    mortal: Option<usize>,
    /// It takes minutes, so it is played with `--whole` alone.
    long: bool,
    /// What the system does not keep; then it must go wrong.
    broken: Option<Broken>,
    right: fn(&End) -> Result<(), String>,
}

/// How a play ended.
struct End {
    outcomes: Vec<Outcome>,
    killed: bool,
    found: Option<(u128, u64)>,
    names: BTreeSet<String>,
}

const A: u128 = 0xa;
const B: u128 = 0xb;
const DEAD: u128 = 0xd;

/// Above all that the kernel gives, so that whether it lives is what `steps` says.
fn pid_of(id: u128) -> u32 {
    5_000_000 + id as u32
}

fn record_of(id: u128, seq: u64) -> Record {
    Record {
        id: Id(id),
        cluster: "c".to_owned(),
        worker: format!("w{id:x}"),
        host: "h".to_owned(),
        // No two records of a worker are equally long.
        queues: if seq % 2 == 0 { vec!["q".repeat(200)] } else { Vec::new() },
        pid: pid_of(id),
        pid_start: 7,
        pid_ns: observe::pid_namespace(),
        boot: observe::boot_id(),
        seq,
        at_mono_ms: clock::mono_ms(),
        at_unix_ms: 1,
        interval_ms: 1_000,
        promise_ms: 3_600_000,
        status: Status::Idle,
        until_mono_ms: None,
        pulse: None,
        tasks: Tasks::default(),
        stat: None,
        broker: None,
        version: None,
    }
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = Vec::new();
    record.write(&mut line);
    line
}

impl Actor {
    fn play(&self, path: &Path, records: &Records, claimed: Option<BeatFile>) -> Outcome {
        match *self {
            Self::Reader { looks } => Outcome::Seen(
                (0..looks)
                    .map(|_| match observe(path, Owner::Own) {
                        Observation::Record(record) => Ok((record.id.0, record.seq)),
                        other => Err(format!("{other:?}")),
                    })
                    .collect(),
            ),
            Self::Worker { id, from, beats, stop } => {
                let mut file = claimed.unwrap_or_else(|| beat_file(path, id));
                let (mut out, mut last) = (0, Last::Failed);
                for seq in from..from + beats {
                    last = match file.publish(&records[&(id, seq)], None) {
                        Ok(file::Written::Renamed) => Last::Renamed,
                        Ok(file::Written::InPlace(_)) => Last::InPlace,
                        Err(Failure::Held(_)) => Last::Held,
                        Err(_) => Last::Failed,
                    };
                    out += usize::from(matches!(last, Last::Renamed | Last::InPlace));
                    if last == Last::Held {
                        break;
                    }
                }
                if stop && last != Last::Held {
                    last = if file.remove(&records[&(id, from + beats)]).is_ok() {
                        Last::Stopped
                    } else {
                        Last::Failed
                    };
                }
                Outcome::Beaten { out, last }
            }
        }
    }
}

fn beat_file(path: &Path, id: u128) -> BeatFile {
    BeatFile::new(path.to_owned(), Id(id), DEFAULT_MODE).expect("a path")
}

/// What a reader saw is of workers that were there, and never older than what it saw before.
fn never_torn_nor_older(end: &End) -> Result<(), String> {
    for outcome in &end.outcomes {
        let Outcome::Seen(looks) = outcome else { continue };
        let mut before: Option<(u128, u64)> = None;
        for look in looks {
            let (id, seq) = look.clone().map_err(|other| format!("a reader saw {other}"))?;
            match before {
                Some((earlier, last)) if earlier == id && last > seq => {
                    return Err(format!("{seq} after {last}"));
                }
                Some((earlier, _)) if earlier != id && id == DEAD => {
                    return Err("the dead one again".to_owned());
                }
                _ => before = Some((id, seq)),
            }
        }
    }
    Ok(())
}

/// Beats as new files, before a reader: in the end the last beat is there, and nothing else.
fn beats(end: &End) -> Result<(), String> {
    never_torn_nor_older(end)?;
    let left: Vec<_> = end.names.iter().filter(|name| *name != "beat").collect();
    if end.killed {
        // A draft at most, which the next worker clears away.
        return if left.len() <= 1 && end.found.is_some() { Ok(()) } else { Err(format!("left: {left:?}")) };
    }
    if end.found == Some((A, 3)) && left.is_empty() {
        Ok(())
    } else {
        Err(format!("{:?}, left: {left:?}", end.found))
    }
}

/// On a full disk each beat is written over the last, or is not made where a reader is in the way.
fn beats_on_a_full_disk(end: &End) -> Result<(), String> {
    never_torn_nor_older(end)?;
    let Some(Outcome::Beaten { out, .. }) = end.outcomes.first() else { return Err("no worker".to_owned()) };
    match end.found {
        Some((A, seq)) if end.killed || (*out == 0) == (seq == 1) => Ok(()),
        found => Err(format!("{found:?} after {out} beats")),
    }
}

/// Two that start at one path: one has it.
fn one_of_two(end: &End) -> Result<(), String> {
    never_torn_nor_older(end)?;
    let mut out = Vec::new();
    for (outcome, id) in end.outcomes.iter().zip([A, B]) {
        match outcome {
            Outcome::Beaten { out: 1, last: Last::Renamed } => out.push(id),
            Outcome::Beaten { out: 0, last: Last::Held } => {}
            Outcome::Beaten { out: 0, last: Last::Failed } if end.killed && id == A => {}
            other => return Err(format!("{id:x}: {other:?}")),
        }
    }
    match (out.as_slice(), end.found) {
        ([one], Some((id, 1))) if *one == id => Ok(()),
        // The one that was killed may have had it before, and the other one after it.
        ([A, B], Some((B, 1))) if end.killed => Ok(()),
        // It had it and died, after the other one was refused.
        ([], Some((A, 1))) if end.killed => Ok(()),
        (out, found) => Err(format!("{out:x?} have it, and {found:x?} is there")),
    }
}

/// It has the path, and what the dead one left behind is gone.
fn taken_over(end: &End) -> Result<(), String> {
    never_torn_nor_older(end)?;
    match (&end.outcomes[0], end.found, end.names.len()) {
        (Outcome::Beaten { out: 1, last: Last::Renamed }, Some((A, 1)), 1) => Ok(()),
        _ => Err(format!("{:?}, {:?}, {:?}", end.outcomes[0], end.found, end.names)),
    }
}

/// The other one is refused while it is there, and has the path once it is gone; what it wrote is never removed.
fn stop_and_start(end: &End) -> Result<(), String> {
    match (&end.outcomes[1], end.found) {
        (Outcome::Beaten { out: 1, last: Last::Renamed }, Some((B, 1))) => Ok(()),
        (Outcome::Beaten { out: 0, last: Last::Held }, None) => Ok(()),
        (Outcome::Beaten { out: 0, last: Last::Held }, Some((A, _))) if end.killed => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Who is there and lives keeps its path.
fn refused(end: &End) -> Result<(), String> {
    never_torn_nor_older(end)?;
    match (&end.outcomes[1], end.found) {
        (Outcome::Beaten { out: 0, last: Last::Held }, Some((A, 3))) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn plays() -> Vec<Play> {
    let beating = Actor::Worker { id: A, from: 2, beats: 2, stop: false };
    let starts = |id| Actor::Worker { id, from: 1, beats: 1, stop: false };
    let reader = |looks| Actor::Reader { looks };
    let play = |name, actors: &[Actor], right| Play {
        name,
        actors: actors.to_vec(),
        stands: None,
        full: false,
        mortal: None,
        long: false,
        broken: None,
        right,
    };
    let (lives, dead) = (Some((A, true)), Some((DEAD, false)));
    vec![
        Play {
            stands: lives,
            ..play("two beats, and a reader that looks twice", &[beating.clone(), reader(2)], beats)
        },
        Play {
            stands: lives,
            mortal: Some(0),
            ..play("the same, and the worker is killed at any step", &[beating.clone(), reader(2)], beats)
        },
        Play {
            stands: lives,
            full: true,
            ..play(
                "two beats on a full disk, and a reader that looks twice",
                &[beating.clone(), reader(2)],
                beats_on_a_full_disk,
            )
        },
        Play {
            stands: lives,
            full: true,
            long: true,
            mortal: Some(0),
            ..play(
                "the same, and the worker is killed at any step",
                &[beating.clone(), reader(2)],
                beats_on_a_full_disk,
            )
        },
        play("two workers start at one path", &[starts(A), starts(B)], one_of_two),
        Play {
            mortal: Some(0),
            ..play("the same, and one of them is killed at any step", &[starts(A), starts(B)], one_of_two)
        },
        Play {
            stands: dead,
            ..play("two workers take over from a dead one", &[starts(A), starts(B)], one_of_two)
        },
        Play {
            stands: dead,
            ..play(
                "a worker takes over from a dead one, and a reader looks twice",
                &[starts(A), reader(2)],
                taken_over,
            )
        },
        Play {
            stands: dead,
            long: true,
            ..play(
                "two workers take over from a dead one, and a reader looks twice",
                &[starts(A), starts(B), reader(2)],
                one_of_two,
            )
        },
        Play {
            stands: lives,
            ..play(
                "a worker starts where another one beats, and a reader looks",
                &[beating.clone(), starts(B), reader(1)],
                refused,
            )
        },
        Play {
            stands: lives,
            mortal: Some(0),
            ..play(
                "a worker starts while another one beats and stops, or is killed at any step",
                &[Actor::Worker { id: A, from: 2, beats: 1, stop: true }, starts(B)],
                stop_and_start,
            )
        },
        Play {
            stands: lives,
            broken: Some(Broken::Rename),
            ..play("two beats, and a rename that is not one step", &[beating.clone(), reader(2)], beats)
        },
        Play {
            stands: lives,
            full: true,
            broken: Some(Broken::Lease),
            ..play(
                "two beats on a full disk, without leases",
                &[beating.clone(), reader(2)],
                beats_on_a_full_disk,
            )
        },
        Play {
            broken: Some(Broken::Lock),
            ..play("two workers start at one path, without locks", &[starts(A), starts(B)], one_of_two)
        },
        Play {
            stands: lives,
            broken: Some(Broken::Process),
            ..play(
                "a worker starts where another one seems gone",
                &[beating.clone(), starts(B), reader(1)],
                refused,
            )
        },
    ]
}

/// Each worker's beats, by their numbers.
type Records = Arc<BTreeMap<(u128, u64), Vec<u8>>>;

/// Plays one order: at each moment `choose` says which of these goes on; whether one was killed comes with the end.
fn perform(
    play: &Play,
    records: &Records,
    folder: &Path,
    choose: &mut dyn FnMut(&steps::Moment) -> steps::Choice,
) -> End {
    for entry in fs::read_dir(folder).expect("the folder").flatten() {
        fs::remove_file(entry.path()).expect("a file of an earlier order");
    }
    let path = folder.join("beat");
    let mut standing = None;
    if let Some((id, lives)) = play.stands {
        let mut file = beat_file(&path, id);
        file.publish(&records[&(id, 1)], None).expect("the first beat");
        standing = lives.then_some(file);
        if !lives {
            // What it was about to publish.
            fs::write(folder.join(format!(".beat.{}", Id(id))), "half a rec").expect("a draft");
        }
    }
    let (tell, told): (Sender<(usize, Outcome)>, Receiver<_>) = channel();
    let living: Vec<u32> = play
        .actors
        .iter()
        .map(|actor| if let Actor::Worker { id, .. } = actor { pid_of(*id) } else { 0 })
        .collect();
    let stage = steps::Stage::new(folder, living, play.full, play.mortal, play.broken);
    let threads: Vec<_> = play
        .actors
        .iter()
        .enumerate()
        .map(|(number, actor)| {
            let (actor, path, records, tell, stage) =
                (actor.clone(), path.clone(), Arc::clone(records), tell.clone(), Arc::clone(&stage));
            let claimed =
                if matches!(actor, Actor::Worker { from: 2.., .. }) { standing.take() } else { None };
            std::thread::spawn(move || {
                let outcome = steps::as_actor(&stage, number, || actor.play(&path, &records, claimed));
                tell.send((number, outcome)).expect("somebody waits for it");
            })
        })
        .collect();
    let killed = stage.direct(choose);
    for thread in threads {
        thread.join().expect("an actor does not panic");
    }
    let mut outcomes: Vec<_> = told.try_iter().collect();
    outcomes.sort_by_key(|(number, _)| *number);
    let found = observe(&path, Owner::Own).record().map(|record| (record.id.0, record.seq));
    let names = fs::read_dir(folder).expect("the folder").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    End { outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect(), killed, found, names }
}

/// What of the folder an actor could be told.
fn state_of(folder: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        file.hash(&mut hasher);
        // Not by opening it: that would break a lease.
        steps::content(&file).hash(&mut hasher);
        fs::symlink_metadata(&file).map(|metadata| metadata.len()).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// Plays all orders; how many, and how many different moments there are.
fn explore(play: &Play, folder: &Path) -> Result<(u64, usize), String> {
    // Per moment of the order that is played now: all that could be chosen, and which of it is.
    let mut order: Vec<(Vec<steps::Choice>, usize)> = Vec::new();
    let mut known: HashSet<u64> = HashSet::new();
    let mut played = 0;
    // The same in every order: a moment is known by what is written there.
    let all = [A, B, DEAD].into_iter().flat_map(|id| (1..=4).map(move |seq| (id, seq)));
    let records = Arc::new(all.map(|(id, seq)| ((id, seq), line(&record_of(id, seq)))).collect());
    loop {
        let (mut depth, mut free) = (0, false);
        let mut told = Vec::new();
        let end = perform(play, &records, folder, &mut |moment| {
            let choice = if let Some((choices, chosen)) = order.get(depth).filter(|_| !free) {
                assert_eq!(*choices, moment.choices, "{}: the same order went another way", play.name);
                choices[*chosen]
            } else {
                free |= !known.insert(moment.key(state_of(folder)));
                if !free {
                    order.push((moment.choices.clone(), 0));
                }
                moment.choices[0]
            };
            depth += 1;
            told.push(moment.tell(choice));
            choice
        });
        played += 1;
        if let Err(wrong) = (play.right)(&end) {
            return Err(format!("  {}\nWRONG: {wrong}", told.join("\n  ")));
        }
        while let Some((choices, chosen)) = order.last_mut() {
            *chosen += 1;
            if *chosen < choices.len() {
                break;
            }
            order.pop();
        }
        if order.is_empty() {
            return Ok((played, known.len()));
        }
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = std::env::args().skip(1).any(|argument| argument == "--whole");
    for play in plays().into_iter().filter(|play| whole || !play.long) {
        println!("{} ...", play.name);
        match (explore(&play, folder.path()), play.broken) {
            (Ok((orders, moments)), None) => {
                println!("    right in {orders} orders, through {moments} moments")
            }
            (Err(_), Some(broken)) => println!("    wrong, as it has to be without {broken:?}"),
            (Ok(_), Some(broken)) => fail(&format!("right without {broken:?} too, so this proves nothing")),
            (Err(told), None) => fail(&told),
        }
    }
}

fn fail(why: &str) {
    println!("{why}");
    std::process::exit(1);
}
