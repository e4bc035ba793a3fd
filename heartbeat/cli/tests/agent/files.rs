//! What stands in the folder and is no beat file; and the folder itself.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use notify::{RecursiveMode, Watcher};

use crate::bench::{HEARTBEAT, equal, exit, state, until};
use crate::scene::{INTERVAL, Scene};

#[test]
fn what_is_no_beat_file_is_named_once_and_hinders_nobody() {
    let scene = Scene::new();
    let _worker = scene.worker("w").start().unwrap();
    fs::write(scene.file("garbage"), "not a record").unwrap();
    fs::write(scene.file("empty"), "").unwrap();
    fs::create_dir(scene.file("folder")).unwrap();
    symlink(scene.file("w"), scene.file("link")).unwrap();
    fs::write(scene.file("loose"), "").unwrap();
    fs::set_permissions(scene.file("loose"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(scene.file(".w.0123"), "a draft").unwrap();
    nix::unistd::mkfifo(&scene.file("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _agent = scene.agent();
    scene.until_counts(1, 1);
    fs::write(scene.file(".later"), "{").unwrap();
    fs::rename(scene.file(".later"), scene.file("later")).unwrap();
    until("the last one is named", || scene.bench.stderr().contains("beats/later is not published"));
    // Looked at many times more.
    std::thread::sleep(INTERVAL * 5);
    let told = scene.bench.stderr();
    let mut named: Vec<_> = told
        .lines()
        .map(|line| line.strip_prefix("heartbeat: beats/").unwrap().split(' ').next().unwrap())
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["empty", "fifo", "folder", "garbage", "later", "link", "loose"], "{told}");
    assert!(
        told.contains(
            "beats/link is not published: the beat file is not to be trusted: it is a symbolic link"
        )
    );
    assert_eq!(scene.counts(), (1, 1, 1));
    assert_eq!(scene.members().len(), 1);
}

#[test]
fn a_folder_that_goes_away_and_comes_back_is_told_once_and_followed() {
    let scene = Scene::new();
    fs::remove_dir(scene.bench.path("beats")).unwrap();
    let _agent = scene.agent();
    let trouble =
        "heartbeat: beats cannot be read: No such file or directory (os error 2); it goes on trying\n";
    equal(&trouble.to_owned(), || scene.bench.stderr());
    fs::create_dir(scene.bench.path("beats")).unwrap();
    let _worker = scene.worker("w").start().unwrap();
    scene.until_counts(1, 1);
    // Moved away with all that is in it: that is no word of the worker's, whose process lives.
    fs::rename(scene.bench.path("beats"), scene.bench.path("away")).unwrap();
    let again = format!("{trouble}heartbeat: beats is there again\n{trouble}");
    equal(&again, || scene.bench.stderr());
    assert_eq!(scene.counts(), (1, 1, 1));
    fs::create_dir(scene.bench.path("beats")).unwrap();
    let seq = scene.members()[0].record().unwrap().seq;
    until("the worker is published again", || {
        scene.members().iter().any(|member| member.record().is_some_and(|record| record.seq > seq + 5))
    });
    assert_eq!(scene.members().len(), 1);
}

#[test]
fn a_file_that_turns_into_no_beat_file_and_back_is_one_worker_and_nobody_is_lost() {
    let scene = Scene::new();
    let _agent = scene.agent();
    let _worker = scene.worker("w").interval(Duration::from_secs(1)).start().unwrap();
    scene.until_counts(1, 1);
    let (id, mut seq) = (scene.members()[0].id, 0);
    for (number, turn) in ["garbage", "link", "nothing"].into_iter().enumerate() {
        match turn {
            "garbage" => fs::write(scene.file(".draft"), "not a record").unwrap(),
            "link" => symlink("/etc/hostname", scene.file(".draft")).unwrap(),
            _ => fs::write(scene.file(".draft"), "").unwrap(),
        }
        fs::rename(scene.file(".draft"), scene.file("w")).unwrap();
        equal(&(number + 1), || scene.bench.stderr().matches("beats/w is not published").count());
        assert_eq!(scene.counts(), (1, 1, 1), "{turn}");
        // Its next beat takes the place of what stands there.
        until("it beats on", || scene.members()[0].record().is_some_and(|record| record.seq > seq));
        seq = scene.members()[0].record().unwrap().seq;
        assert_eq!((scene.members().len(), scene.members()[0].id), (1, id), "{turn}");
    }
    assert!(scene.lost().is_empty());
}

/// Fills the queue in which the kernel keeps events for whoever watches the folder, and does not read them.
fn overflow(scene: &Scene) {
    let most: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let gate = Arc::new(Mutex::new(()));
    let lost: Arc<AtomicBool> = Arc::default();
    let (reader, seen) = (Arc::clone(&gate), Arc::clone(&lost));
    let mut witness = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        drop(reader.lock().unwrap());
        seen.fetch_or(event.unwrap().need_rescan(), Ordering::Relaxed);
    })
    .unwrap();
    witness.watch(&scene.bench.path("beats"), RecursiveMode::NonRecursive).unwrap();
    let held = gate.lock().unwrap();
    fs::write(scene.file(".here"), "").unwrap();
    // Each way is two events, and none is like the one before it, so that the kernel keeps them all.
    for _ in 0..most / 4 + 500 {
        fs::rename(scene.file(".here"), scene.file(".there")).unwrap();
        fs::rename(scene.file(".there"), scene.file(".here")).unwrap();
    }
    drop(held);
    until("events were lost", || lost.load(Ordering::Relaxed));
}

#[test]
fn events_that_the_kernel_has_lost_lose_no_worker() {
    let scene = Scene::new();
    let agent = scene.agent();
    // One beat each: nothing else tells of them later.
    let beats_once = |name: &str| {
        scene.worker(name).interval(Duration::from_mins(1)).promise(Duration::from_mins(5)).start().unwrap()
    };
    let (_stays, stops, again) = (beats_once("stays"), beats_once("stops"), beats_once("again"));
    scene.until_counts(3, 3);
    agent.signal(Signal::SIGSTOP);
    until("the agent has stopped", || state(agent.pid()) == Some('T'));
    overflow(&scene);
    stops.stop().unwrap();
    again.stop().unwrap();
    let (_again, _late) = (beats_once("again"), beats_once("late"));
    agent.signal(Signal::SIGCONT);
    let begun = Instant::now();
    let now = HashSet::from(["again", "late", "stays"].map(|name| scene.record(name).unwrap().id));
    equal(&now, || scene.members().iter().map(|member| member.id).collect());
    // Long before the folder is listed without any reason.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(scene.counts(), (3, 3, 3));
    assert!(scene.lost().is_empty());
    assert_eq!(scene.bench.stderr(), "");
}

#[test]
fn what_cannot_be_is_2_and_says_why() {
    let scene = Scene::new();
    for (options, word) in [
        (&[][..], "name a Redis by --redis or HEARTBEAT_REDIS_URL"),
        (&["--redis", "http://localhost"], "--redis is not a URL of Redis: it begins with none of redis://"),
        (&["--redis", "redis://localhost", "--interval", "1ms"], "--interval is 100 ms at least"),
        (&["--redis", "redis://localhost", "--interval", "soon"], "a duration is a whole number with a unit"),
        (&["--redis", "redis://localhost", "--owner", "nobody at all"], "there is no such user"),
    ] {
        let mut command = scene.bench.command(HEARTBEAT);
        assert_eq!(exit(command.args(["agent", "--dir", "beats"]).args(options)), 2, "{options:?}");
        assert!(scene.bench.stderr().contains(word), "{options:?}: {}", scene.bench.stderr());
    }
    let mut command = scene.bench.command(HEARTBEAT);
    command.args(["agent", "--dir", "beats"]).env("HEARTBEAT_REDIS_URL", "redis://:hush@");
    assert_eq!(exit(&mut command), 2);
    assert!(!scene.bench.stderr().contains("hush"), "{}", scene.bench.stderr());
}
