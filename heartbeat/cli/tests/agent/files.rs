//! What stands in the folder and is no beat file; and the folder itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::bench::{HEARTBEAT, equal, exit, until};
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
