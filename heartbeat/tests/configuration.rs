//! Configuration: what code and environment say, which of them counts, and what is refused with which words.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use heartbeat::observe::{Owner, observe};
use heartbeat::record::{MAX_BYTES, Record};
use heartbeat::{Builder, ErrorKind, Heartbeat};
use tempfile::TempDir;

/// A builder in an environment of these variables only.
fn builder(variables: &[(&'static str, &str)]) -> Builder {
    let variables: Vec<(&'static str, OsString)> =
        variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
    Heartbeat::builder().environment(move |asked| {
        variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| value.clone())
    })
}

/// The first record of a worker that was started so.
#[track_caller]
fn record_of(builder: Builder) -> Record {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let heartbeat = builder.file(&path).start().unwrap();
    let record = record(&path);
    heartbeat.stop().unwrap();
    record
}

#[track_caller]
fn record(path: &Path) -> Record {
    let seen = observe(path, Owner::Own);
    seen.record().unwrap_or_else(|| panic!("{seen:?}")).clone()
}

/// What a configuration is refused with; no thread and no file come of it.
#[track_caller]
fn refusal(builder: Builder) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = builder.file(folder.path().join("beat")).start().expect_err("not refused");
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    text.strip_prefix("heartbeat: ").expect("an error says whose it is").to_owned()
}

fn place() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat").into_os_string().into_string().unwrap();
    (folder, path)
}

#[test]
fn without_any_setting_there_are_sensible_defaults() {
    let record = record_of(builder(&[]));
    assert_eq!(record.cluster, "default");
    assert_eq!(record.worker, format!("{}:{}", record.host, std::process::id()));
    assert_eq!(record.pid, std::process::id());
    assert_eq!((record.interval_ms, record.promise_ms), (1_000, 30_000));
    assert_eq!((record.queues, record.version, record.until_mono_ms), (Vec::new(), None, None));
}

#[test]
fn each_variable_sets_its_setting() {
    let (_folder, path) = place();
    let started = builder(&[
        ("HEARTBEAT_FILE", &path),
        ("HEARTBEAT_CLUSTER", "orders"),
        ("HEARTBEAT_WORKER", "orders@web-3"),
        ("HEARTBEAT_QUEUES", "mail, images ,,thumbs"),
        ("HEARTBEAT_INTERVAL", "20ms"),
        ("HEARTBEAT_PROMISE", "1m30s"),
        ("HEARTBEAT_LOOP_BUDGET", "45s"),
    ]);
    let heartbeat = started.start().unwrap();
    heartbeat.pulse();
    // A change of state makes a beat at once, and that beat has the pulse.
    heartbeat.drain(None);
    let record = loop {
        let record = record(path.as_ref());
        if record.pulse.is_some() {
            break record;
        }
        std::thread::yield_now();
    };
    assert_eq!((record.cluster.as_str(), record.worker.as_str()), ("orders", "orders@web-3"));
    assert_eq!(record.queues, ["mail", "images", "thumbs"]);
    assert_eq!((record.interval_ms, record.promise_ms), (20, 90_000));
    let pulse = record.pulse.unwrap();
    assert_eq!(pulse.due_mono_ms - pulse.pulsed_mono_ms, 45_000);
}

#[test]
fn code_wins_over_the_environment() {
    let (_folder, path) = place();
    let record = record_of(
        builder(&[
            ("HEARTBEAT_FILE", &path),
            ("HEARTBEAT_CLUSTER", "theirs"),
            ("HEARTBEAT_WORKER", "theirs"),
            ("HEARTBEAT_QUEUES", "theirs"),
            ("HEARTBEAT_INTERVAL", "5s"),
            ("HEARTBEAT_PROMISE", "50s"),
        ])
        .cluster("ours")
        .worker("ours")
        .queues(["ours", "too"])
        .interval(Duration::from_millis(500))
        .promise(Duration::from_secs(5))
        .version("1.2.3"),
    );
    assert_eq!((record.cluster.as_str(), record.worker.as_str()), ("ours", "ours"));
    assert_eq!(record.queues, ["ours", "too"]);
    assert_eq!((record.interval_ms, record.promise_ms), (500, 5_000));
    assert_eq!(record.version.as_deref(), Some("1.2.3"));
    assert!(!Path::new(&path).exists(), "the environment's file was used");
}

#[test]
fn no_queues_in_code_are_no_queues_whatever_the_environment_says() {
    let none: [&str; 0] = [];
    assert!(record_of(builder(&[("HEARTBEAT_QUEUES", "mail")]).queues(none)).queues.is_empty());
}

#[test]
fn no_file_in_code_is_no_file_whatever_the_environment_says() {
    let (_folder, path) = place();
    let heartbeat = builder(&[("HEARTBEAT_FILE", &path)]).no_file().start().unwrap();
    assert_eq!(heartbeat.counters().beats, 1);
    assert!(!Path::new(&path).exists());
    heartbeat.stop().unwrap();
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let empty = [
        ("HEARTBEAT_CLUSTER", ""),
        ("HEARTBEAT_WORKER", ""),
        ("HEARTBEAT_QUEUES", ""),
        ("HEARTBEAT_INTERVAL", ""),
        ("HEARTBEAT_PROMISE", ""),
        ("HEARTBEAT_LOOP_BUDGET", ""),
    ];
    let (with, without) = (record_of(builder(&empty)), record_of(builder(&[])));
    assert_eq!((with.cluster, with.worker), (without.cluster, without.worker));
    assert_eq!((with.queues, with.interval_ms, with.promise_ms), (without.queues, 1_000, 30_000));
}

#[test]
fn a_bad_duration_is_refused_by_its_variables_name() {
    for name in ["HEARTBEAT_INTERVAL", "HEARTBEAT_PROMISE", "HEARTBEAT_LOOP_BUDGET"] {
        for (value, why) in [
            ("5", "a duration is a whole number with a unit"),
            ("fast", "a duration is a whole number with a unit"),
            ("1.5s", "a duration is a whole number with a unit"),
            ("-1s", "a duration is a whole number with a unit"),
            ("366d", "a duration is 365 days at most"),
        ] {
            let text = refusal(builder(&[(name, value)]));
            assert!(text.starts_with(&format!("{name} is {value:?}: {why}")), "{text}");
        }
    }
}

#[test]
fn what_is_not_utf_8_is_refused_by_its_variables_name() {
    for name in ["HEARTBEAT_CLUSTER", "HEARTBEAT_WORKER", "HEARTBEAT_QUEUES", "HEARTBEAT_INTERVAL"] {
        let garbled = Heartbeat::builder()
            .environment(move |asked| (asked == name).then(|| OsString::from_vec(b"caf\xe9".to_vec())));
        assert_eq!(refusal(garbled), format!("{name} is not UTF-8"));
    }
}

#[test]
fn a_path_need_not_be_utf_8() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OsString::from_vec(b"caf\xe9".to_vec()));
    let variable = path.clone().into_os_string();
    let started = Heartbeat::builder()
        .environment(move |asked| (asked == "HEARTBEAT_FILE").then(|| variable.clone()))
        .start();
    assert_eq!(record(&path).pid, std::process::id());
    started.unwrap().stop().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_promise_is_two_intervals_at_least() {
    let with = |interval, promise| {
        builder(&[]).interval(Duration::from_millis(interval)).promise(Duration::from_millis(promise))
    };
    assert_eq!(record_of(with(100, 200)).promise_ms, 200);
    assert_eq!(refusal(with(100, 199)), "the promise is two intervals at least");
    // Also where one of the two is the default.
    let slow = refusal(builder(&[("HEARTBEAT_INTERVAL", "16s")]));
    assert_eq!(slow, "the promise is two intervals at least");
    let hasty = refusal(builder(&[("HEARTBEAT_PROMISE", "1999ms")]));
    assert_eq!(hasty, "the promise is two intervals at least");
}

#[test]
fn no_duration_is_too_short_or_too_long() {
    let ms = Duration::from_millis;
    assert_eq!(record_of(builder(&[]).interval(ms(10))).interval_ms, 10);
    assert_eq!(refusal(builder(&[]).interval(ms(9))), "the interval is 10 ms at least");
    assert_eq!(refusal(builder(&[]).interval(Duration::ZERO)), "the interval is 10 ms at least");
    assert_eq!(refusal(builder(&[]).loop_budget(Duration::ZERO)), "the loop budget is 1 ms at least");
    let year = heartbeat::duration::MAX;
    let too_long = "no duration is longer than 365 days";
    assert_eq!(record_of(builder(&[]).promise(year)).promise_ms, 31_536_000_000);
    for more in [year + ms(1), Duration::MAX] {
        assert_eq!(refusal(builder(&[]).promise(more)), too_long);
        assert_eq!(refusal(builder(&[]).interval(more)), too_long);
        assert_eq!(refusal(builder(&[]).loop_budget(more)), too_long);
        assert_eq!(refusal(builder(&[]).start_deadline(more)), too_long);
    }
}

#[test]
fn names_that_could_steer_a_terminal_or_are_empty_are_refused() {
    for bad in ["", "a\nb", "\u{1b}[2J", "a\u{7f}", "a\u{9b}b", "a\0b"] {
        let name = format!("{bad:?}");
        assert_eq!(refusal(builder(&[]).cluster(bad)), format!("{name} cannot be a cluster's name"));
        assert_eq!(refusal(builder(&[]).worker(bad)), format!("{name} cannot be a worker's name"));
        assert_eq!(refusal(builder(&[]).version(bad)), format!("{name} cannot be a version's name"));
        assert_eq!(refusal(builder(&[]).queues(["ok", bad])), format!("{name} cannot be a queue's name"));
    }
    let from_outside = refusal(builder(&[("HEARTBEAT_CLUSTER", "a\tb")]));
    assert_eq!(from_outside, "\"a\\tb\" cannot be a cluster's name");
}

#[test]
fn braces_in_a_clusters_name_are_refused() {
    for bad in ["{orders}", "a{", "}a"] {
        assert_eq!(refusal(builder(&[]).cluster(bad)), "a cluster's name has no braces");
    }
    // Only the cluster's name stands in a hash tag.
    assert_eq!(record_of(builder(&[]).worker("{a}")).worker, "{a}");
}

#[test]
fn a_file_mode_that_others_may_write_by_or_that_its_owner_cannot_read_by_is_refused() {
    for good in [0o600, 0o400, 0o644, 0o640, 0o755] {
        record_of(builder(&[]).file_mode(good));
    }
    for bad in [0o620, 0o602, 0o666, 0o200, 0o044, 0o4600, 0o1600, 0o10_600, 0] {
        let text = refusal(builder(&[]).file_mode(bad));
        assert!(text.starts_with("the file mode is "), "{bad:o}: {text}");
    }
}

#[test]
fn a_record_that_would_not_fit_is_refused_in_clear_words() {
    let with = |length| builder(&[]).worker("w").queues(["q".repeat(length)]);
    let text = refusal(with(MAX_BYTES));
    assert!(text.starts_with("the record could take "), "{text}");
    assert!(text.ends_with(" bytes, and 4096 is the limit: name fewer queues, or shorter ones"), "{text}");
    // The border: as many bytes too many as the text says, and no less.
    let taken: usize = text.split(' ').nth(4).unwrap().parse().unwrap();
    let most = MAX_BYTES - (taken - MAX_BYTES);
    assert!(refusal(with(most + 1)).starts_with("the record could take 4097 bytes"));
    let (_folder, path) = place();
    let heartbeat = with(most).start_deadline(Duration::from_mins(1)).file(&path).start().unwrap();
    // What may come yet: every counter with all its digits, a pulse, and a task of 64 quotes.
    let keys =
        r#","loop":{"pulsed_mono_ms":,"due_mono_ms":},"name":"","since_mono_ms":,"due_mono_ms":"#.len();
    let (counters, moments, name) = (4 * 19, 4 * 15, 2 * 64);
    let written = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    let room = MAX_BYTES - written;
    assert!(room >= keys + counters + moments + name, "{room} bytes are kept free");
    // At its largest it still fits.
    heartbeat.pulse();
    let _tasks: Vec<_> = (0..3).map(|_| heartbeat.task(&"\"".repeat(100), Duration::from_mins(1))).collect();
    heartbeat.drain(Duration::from_mins(1));
    let full = loop {
        let record = record(path.as_ref());
        if record.tasks.running == 3 && record.pulse.is_some() {
            break record;
        }
        std::thread::yield_now();
    };
    assert_eq!(full.tasks.nearest.unwrap().name.len(), 64);
}

#[test]
fn a_file_without_a_name_is_refused() {
    for path in ["/", "/tmp/..", ""] {
        let error = builder(&[]).file(path).start().expect_err("not refused");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
}

#[test]
fn a_relative_path_is_meant_from_the_folder_at_the_start() {
    let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let relative = Path::new(folder.path().file_name().unwrap()).join("beat");
    let heartbeat = builder(&[]).file(&relative).start().unwrap();
    assert_eq!(record(&folder.path().join("beat")).pid, std::process::id());
    heartbeat.stop().unwrap();
}

#[test]
fn the_environment_is_read_once_and_only_for_what_is_documented() {
    use std::cell::RefCell;
    use std::rc::Rc;
    let asked = Rc::new(RefCell::new(Vec::new()));
    let (_folder, path) = place();
    let seen = Rc::clone(&asked);
    let heartbeat = Heartbeat::builder()
        .environment(move |name| {
            seen.borrow_mut().push(name.to_owned());
            (name == "HEARTBEAT_FILE").then(|| OsString::from(&path))
        })
        .start()
        .unwrap();
    heartbeat.stop().unwrap();
    let mut asked = asked.borrow().clone();
    asked.sort();
    // systemd's own variable says whether there is a systemd to talk to.
    asked.retain(|name| !(cfg!(feature = "systemd") && name == "NOTIFY_SOCKET"));
    // A key is for Redis.
    let documented = [
        "HEARTBEAT_CLUSTER",
        "HEARTBEAT_FILE",
        "HEARTBEAT_INTERVAL",
        #[cfg(feature = "redis")]
        "HEARTBEAT_KEY",
        "HEARTBEAT_LOOP_BUDGET",
        "HEARTBEAT_PROMISE",
        "HEARTBEAT_QUEUES",
        "HEARTBEAT_REDIS_URL",
        "HEARTBEAT_WORKER",
    ];
    assert_eq!(asked, documented);
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_redis_that_this_build_cannot_reach_is_no_reason_to_fail_and_not_silent() {
    let (_folder, path) = place();
    let variables = [("HEARTBEAT_FILE", path.as_str()), ("HEARTBEAT_REDIS_URL", "redis://:S3cret@h")];
    let heartbeat = builder(&variables).start().unwrap();
    let told = heartbeat.last_error().unwrap();
    assert!(told.contains("HEARTBEAT_REDIS_URL") && told.contains("feature `redis`"), "{told}");
    assert!(!told.contains("S3cret"), "{told}");
    assert_eq!(record(Path::new(&path)).stat, None);
    let without = builder(&[("HEARTBEAT_FILE", &path), ("HEARTBEAT_REDIS_URL", "")]);
    heartbeat.stop().unwrap();
    assert_eq!(without.start().unwrap().last_error(), None);
}

#[test]
fn the_builders_debug_form_is_not_empty_and_tells_the_names() {
    let text = format!("{:?}", builder(&[]).cluster("orders"));
    assert!(text.starts_with("Builder") && text.contains("orders"), "{text}");
}

#[test]
fn a_path_that_is_not_free_yet_is_taken_once_it_is_where_it_may_wait() {
    let (_folder, path) = place();
    let first = builder(&[]).file(&path).start().unwrap();
    let quick = || {
        let (interval, promise) = (Duration::from_millis(20), Duration::from_millis(100));
        builder(&[]).worker("second").interval(interval).promise(promise).file(&path)
    };
    assert!(matches!(quick().start().expect_err("held").kind(), ErrorKind::Held { .. }));
    let second = quick().file_may_wait().start().unwrap();
    assert!(second.file_failure().unwrap().contains("held by another living worker"));
    let before = second.counters().file_failures;
    std::thread::sleep(Duration::from_millis(300));
    // Once in a promise, and not with each beat.
    assert!(second.counters().file_failures - before <= 4, "{:?}", second.counters());
    assert_eq!(record(path.as_ref()).pid, std::process::id());
    first.stop().unwrap();
    while observe(path.as_ref(), Owner::Own).record().is_none_or(|record| record.worker != "second") {
        std::thread::yield_now();
    }
    while second.file_failure().is_some() {
        std::thread::yield_now();
    }
    second.stop().unwrap();
    assert!(!Path::new(&path).exists());
}

#[test]
fn queues_may_change_while_a_worker_runs_and_what_cannot_be_changes_nothing() {
    let (_folder, path) = place();
    let heartbeat = builder(&[]).queues(["mail"]).file(&path).start().unwrap();
    heartbeat.set_queues(["mail", "orders"]).unwrap();
    while record(path.as_ref()).queues != ["mail", "orders"] {
        std::thread::yield_now();
    }
    for bad in [vec![String::new()], vec!["a\nb".to_owned()], vec!["q".repeat(MAX_BYTES)]] {
        assert_eq!(heartbeat.set_queues(bad).expect_err("refused").kind(), ErrorKind::Configuration);
    }
    heartbeat.set_queues([""; 0]).unwrap();
    while !record(path.as_ref()).queues.is_empty() {
        std::thread::yield_now();
    }
}
