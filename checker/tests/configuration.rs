//! The configuration as the commands tell of it: every mistake of a file with its line and code, the kinds of check, the
//! schema, the metadata.
//!
//! `broken/` holds configurations with mistakes. Beside each stands what is wrong with it, a line and a code each.

#![cfg(feature = "run")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use shared::checks::KINDS;
use shared::config::Code;

fn checker(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
    command.args(words).env_remove("CHECKER_CONFIG").env_remove("HEARTBEAT_REDIS_URL");
    command
}

fn told(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn broken() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    files
}

#[test]
fn every_mistake_of_every_broken_configuration_is_told_with_its_line_and_code() {
    let files = broken();
    assert!(files.len() >= 40, "{}", files.len());
    for file in files {
        let name = file.to_str().unwrap();
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
        let expected: Vec<_> = expected.lines().map(str::to_owned).collect();
        let (code, stdout, stderr) = told(&mut checker(&["validate", "--config", name]));
        let lines: Vec<_> = stdout.lines().collect();
        let (count, problems) = lines.split_last().unwrap();
        let mut found: Vec<_> = problems
            .iter()
            .map(|line| {
                let mut parts = line.strip_prefix(name).unwrap().trim_start_matches(':').split(':');
                let (line, _column, code) =
                    (parts.next().unwrap(), parts.next(), parts.next().unwrap().trim());
                format!("{line} {code}")
            })
            .collect();
        let in_order = found.clone();
        let line = |told: &String| told.split(' ').next().unwrap().parse::<u32>().unwrap();
        assert!(in_order.is_sorted_by_key(line), "{stdout}");
        let mut expected_sorted = expected.clone();
        found.sort();
        expected_sorted.sort();
        assert_eq!(found, expected_sorted, "{stdout}");
        let only_warns = expected.iter().all(|line| line.ends_with("C021") || line.ends_with("C022"));
        assert_eq!(code, Some(if only_warns { 0 } else { 2 }), "{stdout}");
        assert!(count.contains(if only_warns { "1 warning" } else { "mistake" }), "{count}");
        assert!(!stdout.contains("S3cret") && stderr.is_empty(), "{stdout}{stderr}");
        assert!(!stdout.chars().any(|c| c.is_control() && c != '\n'));
    }
}

#[test]
fn the_broken_configurations_show_every_code_that_a_text_can_have() {
    let expected = broken()
        .iter()
        .map(|file| fs::read_to_string(file.with_extension("expected")).unwrap())
        .collect::<String>();
    let shown: BTreeSet<_> =
        expected.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    // Of a file itself the next test tells.
    let elsewhere = [Code::Unreadable, Code::TooLarge];
    let all = Code::ALL.into_iter().filter(|code| !elsewhere.contains(code)).map(|code| code.to_string());
    assert_eq!(shown, all.collect());
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, code) in [
        ("/nonexistent/checker.toml".to_owned(), "C001"),
        (folder.path().to_str().unwrap().to_owned(), "C001"),
        (pipe.to_str().unwrap().to_owned(), "C001"),
        (write("large", &vec![b'#'; 1024 * 1024 + 1]), "C002"),
        (write("bytes", b"a = '\xff'"), "C003"),
        (write("deep", "[".repeat(100_000).as_bytes()), "C003"),
    ] {
        let (status, stdout, _) = told(&mut checker(&["validate", "--config", &path]));
        assert_eq!(status, Some(2), "{stdout}");
        assert!(stdout.contains(code), "{path}: {stdout}");
        for words in [vec!["run", "all", "--config", &path], vec!["version", "--config", &path]] {
            let (status, stdout, stderr) = told(&mut checker(&words));
            assert_eq!((status, &*stdout), (Some(2), ""));
            assert!(stderr.contains(code), "{stderr}");
        }
    }
}

#[test]
fn validation_is_told_in_json_too() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let file = folder.join("unknown-kind.toml");
    let (code, stdout, _) =
        told(&mut checker(&["validate", "--format", "json", "--config", file.to_str().unwrap()]));
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &document["valid"]), (Some(2), &Value::Bool(false)));
    let first = &document["problems"][0];
    assert_eq!(
        (&first["code"], &first["line"], &first["level"]),
        (&"C014".into(), &4.into(), &"error".into())
    );
    assert!(first["message"].as_str().unwrap().contains("did you mean `tcp`?"), "{first}");
}

#[test]
fn the_file_is_the_one_that_is_named_or_that_the_environment_names_or_the_one_here() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["checker", "environment", "flag"] {
        fs::write(folder.path().join(format!("{name}.toml")), format!("[service]\nname = '{name}'\n"))
            .unwrap();
    }
    let version = |words: &[&str], environment: &str| {
        let mut command = checker(&[&["version"], words].concat());
        told(command.current_dir(folder.path()).env("CHECKER_CONFIG", environment)).1
    };
    let named = |name: &str| format!("{{\"environment\":null,\"service\":\"{name}\",\"version\":null}}\n");
    assert_eq!(version(&["--config", "flag.toml"], "environment.toml"), named("flag"));
    assert_eq!(version(&[], "environment.toml"), named("environment"));
    assert_eq!(version(&[], ""), named("checker"));
}

#[test]
fn the_kinds_are_listed_and_each_tells_all_of_its_settings() {
    let (code, list, _) = told(&mut checker(&["checks"]));
    assert_eq!(code, Some(0));
    for kind in KINDS {
        assert!(
            list.lines().any(|line| line.starts_with(&format!("{} ", kind.name))),
            "{}: {list}",
            kind.name
        );
        let (code, page, _) = told(&mut checker(&["checks", kind.name]));
        assert_eq!(code, Some(0));
        let (own, common) = shared::config::schema::settings(kind);
        for setting in own.iter().chain(&common) {
            assert!(page.contains(&format!("\n  {} (", setting.name)), "{}: {page}", setting.name);
        }
        let (_, document, _) = told(&mut checker(&["checks", kind.name, "--format", "json"]));
        let document: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["settings"].as_array().unwrap().len(), own.len() + common.len());
    }
    let (code, stdout, stderr) = told(&mut checker(&["checks", "tpc"]));
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert_eq!(stderr, "checker: there is no kind of check `tpc`; did you mean `tcp`?\n");
}
