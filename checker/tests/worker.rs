//! `checker worker` as a process: every verdict, every format, every policy, and what hostile or broken files can
//! not do.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod bench;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use bench::{Answer, Bench, answer, checker};
use heartbeat::Heartbeat;
use heartbeat::verdict::Verdict;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

fn judged() -> impl Iterator<Item = Verdict> {
    Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::Unknown)
}

fn verdict(told: &Answer) -> String {
    told.stdout.split(':').next().unwrap().to_owned()
}

fn one_line(told: &Answer) {
    assert_eq!(told.stdout.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{told:?}");
    assert_eq!(told.stderr, "", "{told:?}");
}

// --- verdicts, questions, formats -------------------------------------------------------------------------------

#[test]
fn every_verdict_has_its_name_its_line_and_its_exit_status() {
    for expected in judged() {
        let mut bench = Bench::new();
        bench.prepare(expected);
        for (question, passes) in [("live", expected.live()), ("ready", expected.ready())] {
            let told = bench.ask(&format!("--for {question}"));
            assert_eq!(verdict(&told), expected.as_str(), "{told:?}");
            assert_eq!(told.code, i32::from(passes != Some(true)), "{question}: {told:?}");
            one_line(&told);
        }
    }
}

#[test]
fn every_verdict_is_told_alike_in_every_format() {
    for expected in judged() {
        let mut bench = Bench::new();
        bench.prepare(expected);
        for question in ["live", "ready"] {
            let ask = |format: &str| bench.ask(&format!("--for {question} --format {format}"));
            let [text, json, health, nagios, metrics] =
                ["text", "json", "health+json", "nagios", "openmetrics"].map(ask);
            for same in [&json, &health, &metrics] {
                assert_eq!(same.code, text.code, "{expected}: {same:?}");
            }
            let status = json_status(&json, expected);
            assert_eq!(health_status(&health, expected), status);
            let (word, code) = match status.as_str() {
                "pass" => ("OK", 0),
                "warn" => ("WARNING", 1),
                _ => ("CRITICAL", 2),
            };
            assert_eq!(nagios.code, code, "{nagios:?}");
            assert!(nagios.stdout.starts_with(&format!("HEARTBEAT {word} - {expected}: ")), "{nagios:?}");
            one_line(&nagios);
            let families = openmetrics(&metrics.stdout);
            let up = &families["heartbeat_worker_up"][0];
            assert_eq!(up.value, if text.code == 0 { 1.0 } else { 0.0 }.to_string());
            let holds: Vec<_> =
                families["heartbeat_worker_verdict"].iter().filter(|sample| sample.value == "1").collect();
            assert_eq!(holds.len(), 1);
            assert_eq!(holds[0].labels["verdict"], expected.as_str());
        }
    }
}

fn json_status(told: &Answer, expected: Verdict) -> String {
    one_line(told);
    let read: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(read["verdict"], expected.as_str());
    let keys: HashSet<_> = read.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = ["status", "verdict", "reason", "worker", "cluster", "age_ms", "file"];
    assert!(promised.iter().all(|key| keys.contains(key)), "{read}");
    if !matches!(expected, Verdict::Missing | Verdict::Unsafe | Verdict::Corrupt) {
        assert_eq!((&read["worker"], &read["cluster"]), (&"web-3:17".into(), &"orders".into()));
        assert!(read["age_ms"].is_u64());
    }
    read["status"].as_str().unwrap().to_owned()
}

fn health_status(told: &Answer, expected: Verdict) -> String {
    let read: Value = serde_json::from_str(&told.stdout).unwrap();
    let checks = read["checks"].as_object().unwrap();
    let (_, verdict) = checks.iter().find(|(name, _)| name.ends_with("ness")).unwrap();
    assert_eq!(verdict[0]["observedValue"], expected.as_str());
    read["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_real_worker_is_alive_and_stopped_it_is_missing() {
    let bench = Bench::new();
    let heartbeat = Heartbeat::builder().environment(|_| None).file(&bench.file).start().unwrap();
    let told = bench.ask("--for ready");
    assert_eq!((told.code, verdict(&told).as_str()), (0, "alive"), "{told:?}");
    assert!(told.stdout.starts_with("alive: idle, beat "), "{told:?}");
    heartbeat.stop().unwrap();
    let told = bench.ask("");
    assert_eq!(
        (told.code, told.stdout),
        (1, format!("missing: there is no beat file ({})\n", bench.file.display()))
    );
}

#[test]
fn the_file_is_the_flags_else_the_environments() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    assert_eq!(bench.ask("").code, 0);
    assert_eq!(bench.ask("--file /nonexistent/beat").code, 1);
    let unset = answer(checker().arg("worker").env("HEARTBEAT_FILE", "").args(["--format", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&unset.stdout).unwrap()["file"], heartbeat::DEFAULT_FILE);
}

#[test]
fn every_verdict_is_explained_by_the_help_and_the_page() {
    let help = answer(checker().args(["worker", "--help"])).stdout;
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for verdict in Verdict::ALL {
        let row = |cell: &str| cell == verdict.as_str();
        assert!(help.lines().any(|line| row(line.trim_start().split("  ").next().unwrap())), "{verdict}");
        assert!(page.lines().any(|line| line.starts_with(&format!("| `{verdict}` |"))), "{verdict}");
    }
}

// --- policies ---------------------------------------------------------------------------------------------------

#[test]
fn an_overdue_task_is_tolerated_where_that_is_asked_for_and_never_ready() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Overdue);
    assert_eq!(bench.ask("").code, 1);
    assert_eq!(bench.ask("--overdue warn").code, 0);
    assert_eq!(bench.ask("--overdue warn --for ready").code, 1);
    let told = bench.ask("--overdue warn --format json");
    assert!(told.stdout.starts_with(r#"{"status":"warn","verdict":"overdue","#), "{told:?}");
    assert_eq!(bench.ask("--overdue warn --format nagios").code, 1);
}

#[test]
fn a_checker_without_descriptors_cannot_tell_and_kills_nobody() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    let starved = |arguments: &str| {
        let mut strace = Command::new("strace");
        strace.args([
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=openat,open",
            "-e",
            "inject=openat,open:error=EMFILE",
        ]);
        strace.arg("-P").arg(&bench.file).arg(env!("CARGO_BIN_EXE_checker")).arg("worker");
        answer(strace.args(arguments.split_whitespace()).arg("--file").arg(&bench.file))
    };
    for (arguments, code) in [
        ("", 0),
        ("--for live", 0),
        ("--for ready", 1),
        ("--unknown fail", 1),
        ("--for ready --unknown pass", 0),
        ("--format nagios", 3),
    ] {
        let told = starved(arguments);
        assert_eq!(told.code, code, "{arguments}: {told:?}");
        assert!(told.stdout.contains("unknown: the checker cannot tell"), "{told:?}");
    }
    assert!(starved("--format json").stdout.starts_with(r#"{"status":"unknown","verdict":"unknown","#));
}

#[test]
fn a_touched_file_is_judged_by_its_mtime_where_an_age_is_given() {
    let bench = Bench::new();
    bench.write_bytes(b"", 0o644);
    let told = bench.ask("");
    assert_eq!((told.code, verdict(&told).as_str()), (1, "corrupt"));
    for (age_s, expected) in [(0, "alive"), (50, "alive"), (70, "silent"), (-1, "alive"), (-30, "silent")] {
        let now = SystemTime::now();
        let distance = Duration::from_secs(u64::from(i32::unsigned_abs(age_s)));
        let mtime = if age_s < 0 { now + distance } else { now - distance };
        fs::File::options().write(true).open(&bench.file).unwrap().set_modified(mtime).unwrap();
        let told = bench.ask("--max-age 60s");
        assert_eq!(verdict(&told), expected, "{age_s} s: {told:?}");
        assert_eq!(told.code, i32::from(expected != "alive"));
    }
}

#[test]
fn a_max_age_takes_the_place_of_the_workers_promise() {
    let mut bench = Bench::new();
    bench.record.at_mono_ms -= 2_500;
    bench.prepare(Verdict::Alive);
    assert_eq!(verdict(&bench.ask("")), "alive");
    assert_eq!(verdict(&bench.ask("--max-age 2s")), "silent");
}

// --- what is no beat file ---------------------------------------------------------------------------------------

#[test]
fn a_link_a_pipe_and_a_folder_are_unsafe_and_nobody_waits_for_them() {
    for kind in ["link", "pipe", "folder"] {
        let bench = Bench::new();
        match kind {
            "link" => symlink("/etc/passwd", &bench.file).unwrap(),
            "pipe" => mkfifo(&bench.file, Mode::S_IRWXU).unwrap(),
            _ => fs::create_dir(&bench.file).unwrap(),
        }
        for arguments in ["", "--max-age 60s", "--owner any"] {
            let told = bench.ask(arguments);
            assert_eq!((told.code, verdict(&told).as_str()), (1, "unsafe"), "{kind}: {told:?}");
            one_line(&told);
        }
    }
}

#[test]
fn a_path_through_something_that_is_no_folder_is_one_clear_line() {
    let told = Bench::new().ask("--file /etc/passwd/beat");
    assert_eq!((told.code, verdict(&told).as_str()), (1, "missing"));
    one_line(&told);
}

#[test]
fn names_that_mean_harm_stay_names_in_every_format() {
    for harm in
        ["\u{202e}evil", "a | age=0s", "\"},\"status\":\"pass", "a\" 1\n", "# EOF", "\\", &"ü".repeat(500)]
    {
        let mut bench = Bench::new();
        bench.run_a_task(harm);
        harm.clone_into(&mut bench.record.worker);
        harm.clone_into(&mut bench.record.cluster);
        bench.write();
        let possible = !harm.contains(char::is_control);
        let expected = if possible { "overdue" } else { "corrupt" };
        let text = bench.ask("");
        assert_eq!(verdict(&text), expected, "{text:?}");
        assert!(!text.stdout.contains('\u{202e}'), "{text:?}");
        one_line(&text);
        let nagios = bench.ask("--format nagios");
        one_line(&nagios);
        assert_eq!(nagios.stdout.matches('|').count(), usize::from(possible), "{nagios:?}");
        let json: Value = serde_json::from_str(&bench.ask("--format json").stdout).unwrap();
        assert_eq!((&json["status"], &json["verdict"]), (&"fail".into(), &expected.into()));
        assert_eq!(json["worker"], if possible { harm.into() } else { Value::Null });
        let health: Value = serde_json::from_str(&bench.ask("--format health+json").stdout).unwrap();
        assert_eq!(health["status"], "fail");
        let metrics = openmetrics(&bench.ask("--format openmetrics").stdout);
        let worker = metrics["heartbeat_worker_up"][0].labels.get("worker").map(String::as_str);
        assert_eq!(worker, possible.then_some(harm));
    }
}

#[test]
fn a_path_that_means_harm_stays_a_path_in_every_format() {
    let harm = "/nonexistent/\"} 1\n# EOF\n| \u{1b}[2J";
    let told = |format: &str| answer(checker().args(["worker", "--format", format, "--file", harm]));
    one_line(&told("text"));
    one_line(&told("nagios"));
    assert!(!told("nagios").stdout.contains('|'));
    assert_eq!(serde_json::from_str::<Value>(&told("json").stdout).unwrap()["file"], harm);
    assert_eq!(serde_json::from_str::<Value>(&told("health+json").stdout).unwrap()["status"], "fail");
    assert_eq!(openmetrics(&told("openmetrics").stdout)["heartbeat_worker_up"][0].labels["file"], harm);
}

#[test]
fn garbage_of_any_kind_is_corrupt() {
    let bench = Bench::new();
    let mut valid = Vec::new();
    bench.record.write(&mut valid);
    let cut = &valid[..valid.len() / 2];
    for bytes in [
        &b"\0"[..],
        b"\n",
        b"{}",
        b"null",
        b"[[[[[[[[[[[[[[[[[[[[[[[[",
        b"{\"v\":2}",
        &[0xff; 4_096],
        &[b'{'; 10_000],
        cut,
    ] {
        bench.write_bytes(bytes, 0o600);
        let told = bench.ask("");
        assert_eq!((told.code, verdict(&told).as_str()), (1, "corrupt"), "{told:?}");
        one_line(&told);
    }
}

// --- the command line -------------------------------------------------------------------------------------------

#[test]
fn wrong_arguments_end_with_2_and_what_is_wrong() {
    for (arguments, hint) in [
        ("worker --no-such-flag", "--no-such-flag"),
        ("worker --max-age 30", "a duration is a whole number with a unit: 500ms, 30s"),
        ("worker --timeout 0s", "a timeout is 1ms at least"),
        ("worker --for both", "[possible values: live, ready]"),
        ("worker --format xml", "possible values: text, json, health+json, nagios, openmetrics"),
        ("worker extra", "extra"),
        ("wroker", "worker"),
        ("", "Usage"),
        ("completions tcsh", "bash"),
    ] {
        let told = answer(checker().args(arguments.split_whitespace()));
        assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{arguments}: {told:?}");
        assert!(told.stderr.contains(hint), "{arguments}: {told:?}");
    }
}

#[test]
fn wrong_arguments_of_a_monitoring_plugin_are_unknown_on_one_line_of_standard_output() {
    for arguments in [
        "--format nagios --no-such-flag",
        "--max-age 30 --format=nagios",
        "--format nagios --owner no-such-user",
    ] {
        let told = answer(checker().arg("worker").args(arguments.split_whitespace()));
        assert_eq!(told.code, 3, "{told:?}");
        assert!(told.stdout.starts_with("HEARTBEAT UNKNOWN - "), "{told:?}");
        assert_eq!(told.stdout.matches('\n').count(), 1, "{told:?}");
        assert!(!told.stderr.is_empty());
    }
}

#[test]
fn the_commands_own_help_begins_as_the_overview_describes_it() {
    let help = answer(checker().args(["worker", "-h"])).stdout;
    let overview = answer(checker().arg("--help")).stdout;
    let line = overview.lines().find(|line| line.trim_start().starts_with("worker ")).unwrap();
    assert_eq!(line.trim_start().trim_start_matches("worker").trim(), help.lines().next().unwrap());
    assert!(help.contains("Usage: checker worker [OPTIONS]"), "{help}");
}

#[test]
fn the_version_is_told() {
    let told = answer(checker().arg("--version"));
    assert_eq!((told.code, told.stdout), (0, format!("checker {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_reader_that_has_gone_changes_nothing_of_the_status() {
    let mut bench = Bench::new();
    for (expected, code) in [(Verdict::Missing, 1), (Verdict::Alive, 0)] {
        bench.prepare(expected);
        for arguments in ["", "--format openmetrics"] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let told = answer(bench.command(arguments).stdout(Stdio::from(writer)));
            assert_eq!((told.code, told.stderr.as_str()), (code, ""), "a closed pipe");
        }
        let shell = format!("{} worker >&-", env!("CARGO_BIN_EXE_checker"));
        let told = answer(Command::new("sh").args(["-c", &shell]).env("HEARTBEAT_FILE", &bench.file));
        assert_eq!((told.code, told.stderr.as_str()), (code, ""), "no standard output at all");
    }
    let help = answer(checker().arg("--help").stdout(Stdio::from(std::io::pipe().unwrap().1)));
    assert_eq!(help.code, 0);
}

#[test]
fn an_answer_that_cannot_be_written_is_an_unexpected_failure() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let told = answer(bench.command("").stdout(Stdio::from(full)));
    assert_eq!(told.code, 3);
    assert!(told.stderr.starts_with("checker: the answer could not be written: "), "{told:?}");
    assert_eq!(told.stderr.matches('\n').count(), 1);
}

#[test]
fn it_starts_no_thread_and_no_process_and_leaves_no_file() {
    let mut bench = Bench::new();
    bench.prepare(Verdict::Alive);
    let trace = bench.folder.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=clone,clone3,fork,vfork,socket,openat,open", "-o"]).arg(&trace);
    let told = answer(strace.arg(env!("CARGO_BIN_EXE_checker")).args(["worker", "--file"]).arg(&bench.file));
    assert_eq!(told.code, 0, "{told:?}");
    let trace = fs::read_to_string(trace).unwrap();
    for call in ["clone(", "clone3(", "fork(", "socket(", "O_CREAT", "O_WRONLY", "O_RDWR"] {
        assert!(!trace.contains(call), "{trace}");
    }
    assert!(trace.contains("/beat"), "{trace}");
}

// --- completions and manual -------------------------------------------------------------------------------------

#[test]
fn every_shell_is_given_completions_that_know_the_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let told = answer(checker().args(["completions", shell]));
        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{shell}");
        for word in ["worker", "max-age", "health+json"] {
            assert!(
                told.stdout.contains(word) || shell == "elvish" || shell == "powershell",
                "{shell}: {word}"
            );
        }
        assert!(told.stdout.contains("max-age"), "{shell}");
    }
    let script = answer(checker().args(["completions", "bash"])).stdout;
    let complete = format!(
        "{script}\nCOMP_WORDS=(checker wor); COMP_CWORD=1; _checker checker wor checker; echo \"${{COMPREPLY[@]}}\""
    );
    assert_eq!(answer(Command::new("bash").args(["-c", &complete])).stdout, "worker\n");
}

#[test]
fn the_manual_has_a_page_for_each_command_that_is_shown() {
    let page = answer(checker().arg("man")).stdout;
    assert!(page.contains(".TH checker 1"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let told = answer(checker().args(["man", "--dir"]).arg(folder.path().join("man1")));
    assert_eq!((told.code, told.stdout.as_str()), (0, ""));
    let pages: Vec<_> =
        fs::read_dir(folder.path().join("man1")).unwrap().map(|page| page.unwrap().file_name()).collect();
    assert!(
        pages.iter().any(|page| page == "checker-worker.1")
            && !pages.iter().any(|page| page == "checker-man.1"),
        "{pages:?}"
    );
    let told = answer(checker().args(["man", "--dir", "/etc/passwd/man1"]));
    assert_eq!((told.code, told.stderr.matches('\n').count()), (1, 1), "{told:?}");
}

// --- a strict reader of OpenMetrics ---------------------------------------------------------------------------------

#[derive(Debug)]
struct Sample {
    labels: HashMap<String, String>,
    value: String,
}

/// Reads an exposition by the rules of `OpenMetrics` 1.0, each family's metadata first, and none twice.
fn openmetrics(text: &str) -> HashMap<String, Vec<Sample>> {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut families: HashMap<String, Vec<Sample>> = HashMap::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let [what, name, rest] = metadata.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            match what {
                "TYPE" => {
                    assert!(families.insert(name.to_owned(), Vec::new()).is_none(), "twice: {line}");
                    (family, kind) = (name.to_owned(), rest.to_owned());
                    assert!(["gauge", "counter"].contains(&rest), "{line}");
                }
                "UNIT" => assert!(name == family && name.ends_with(&format!("_{rest}")), "{line}"),
                "HELP" => assert!(name == family && !rest.contains(['\\', '"']), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, rest) = line.split_once('{').expect(line);
        let expected = if kind == "counter" { format!("{family}_total") } else { family.clone() };
        assert_eq!(name, expected, "{line}");
        let (labels, value) = labels(rest);
        value.parse::<f64>().expect(line);
        let samples = families.get_mut(&family).unwrap();
        assert!(samples.iter().all(|other| other.labels != labels), "twice: {line}");
        samples.push(Sample { labels, value });
    }
    families
}

/// Reads `name="value",…} number`.
fn labels(text: &str) -> (HashMap<String, String>, String) {
    let mut labels = HashMap::new();
    let mut rest = text;
    loop {
        let (name, tail) = rest.split_once("=\"").expect(text);
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{text}");
        let (value, tail) = quoted(tail);
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
        if let Some(number) = tail.strip_prefix("} ") {
            return (labels, number.to_owned());
        }
        rest = tail.strip_prefix(',').expect(text);
    }
}

fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next().expect(text).1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                other => panic!("\\{other} in {text}"),
            },
            plain => value.push(plain),
        }
    }
    panic!("never closed: {text}")
}
