//! `checker cluster` asks a Redis that means harm: how much memory that costs it, and that it ends.
//!
//! No real Redis says what is said here, so this is a server of the test's own: it reads RESP, and to each command it answers
//! what a test chose, as often and as fast as it is asked.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What to answer to a command with these arguments.
type Answer = dyn Fn(&str, &[String]) -> Vec<u8> + Send + Sync;

/// Answers whoever connects, for the rest of the test; gives the URL.
fn hostile(answer: impl Fn(&str, &[String]) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let answer: Arc<Answer> = Arc::new(answer);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let answer = Arc::clone(&answer);
            // Whoever asked may have had enough: that is for the test to see.
            thread::spawn(move || drop(serve(&stream, &*answer)));
        }
    });
    url
}

fn serve(stream: &TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let words = (0..number(&mut reader)?).map(|_| word(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let Some((command, arguments)) = words.split_first() else { return Ok(()) };
        writer.write_all(&answer(command, arguments))?;
    }
}

/// The number in a line such as `*3`; at the end of all, 0.
fn number(reader: &mut impl BufRead) -> std::io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim().get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(0))
}

fn word(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut bytes = vec![0; number(reader)? + 2];
    reader.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
}

fn array(of: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let of: Vec<_> = of.into_iter().collect();
    [format!("*{}\r\n", of.len()).into_bytes(), of.concat()].concat()
}

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

/// What it took to ask.
struct Cost {
    /// The most memory at one time, in MiB, as far as it was seen.
    most_mib: u64,
    took: Duration,
    code: Option<i32>,
    json: Value,
}

fn ask(url: &str, words: &str) -> Cost {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
    command.args(["cluster", "orders", "--format", "json"]).args(words.split_whitespace());
    command.env("HEARTBEAT_REDIS_URL", url).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let reading = thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).map(|_| text).unwrap()
    });
    let mut most_mib = 0;
    let code = loop {
        most_mib = most_mib.max(high_water_mib(&child));
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = reading.join().unwrap();
    let json = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text[..text.len().min(500)])));
    Cost { most_mib, took: begun.elapsed(), code, json }
}

/// What the kernel says was the most so far; nothing once it has ended.
fn high_water_mib(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

/// The server's clock says 1,000,000 s, and whoever is there is lost 600 s later.
const SCORE: &str = "1000600000";

fn time() -> Vec<u8> {
    array(["1000000", "0"].map(bulk))
}

/// A page of that many members from this number on, and where the next one begins.
fn page(next: &str, from: u64, members: u64) -> Vec<u8> {
    let found = (from..from + members).flat_map(|number| [bulk(&format!("{number:032x}")), bulk(SCORE)]);
    array([bulk(next), array(found)])
}

/// As large a record as there can be: of one queue with a long name, or of as many as there is room for.
fn record(id: &str, long: bool) -> String {
    let head = format!(
        r#"{{"v":1,"id":"{id}","cluster":"orders","worker":"w","host":"h","pid":1,"pid_start":1,"pid_ns":1,"boot":"b","seq":1,
"at_mono_ms":1,"at_unix_ms":1,"interval_ms":1,"promise_ms":600000,"status":"idle",
"tasks":{{"running":0,"done":0,"failed":0}},"queues":["#
    );
    let room = 4_096 - head.len() - 4;
    let queues = if long { format!("\"{}\"", "q".repeat(room)) } else { vec!["\"q\""; room / 4].join(",") };
    head + &queues + "]}"
}

/// Whatever is asked of a member, beside its record: nothing.
fn of_each(arguments: &[String], answer: impl Fn(&String) -> Vec<u8>) -> Vec<u8> {
    array(arguments.iter().map(answer))
}

/// An endless index of members, `a_page` at once, each with the largest record.
fn endless(a_page: u64, long: bool) -> impl Fn(&str, &[String]) -> Vec<u8> {
    move |command, arguments| match command {
        "TIME" => time(),
        "ZSCAN" => {
            let from: u64 = arguments[1].parse().unwrap();
            page(&(from + a_page).to_string(), from, a_page)
        }
        "ZMSCORE" => of_each(&arguments[1..], |_| bulk(SCORE)),
        "MGET" => of_each(arguments, |key| bulk(&record(&key[key.len() - 32..], long))),
        "HMGET" => of_each(&arguments[1..], |_| bulk("600000\nw\nh")),
        _ => array([":1000000000", ":0", ":1", ":1"].map(|number| format!("{number}\r\n").into_bytes())),
    }
}

#[test]
fn a_list_of_the_largest_records_without_end_has_its_bound() {
    for (a_page, long) in [(1_000, true), (1_000, false), (15_000, false)] {
        let url = hostile(endless(a_page, long));
        let cost = ask(&url, "--list --timeout 60s");
        let listed = cost.json["workers"].as_array().unwrap().len();
        println!("{a_page} a page, long {long}: {listed} listed, {} MiB, {:?}", cost.most_mib, cost.took);
        assert_eq!((cost.code, &cost.json["more_workers"]), (Some(0), &true.into()));
        assert!(listed > 1_000, "{listed}");
        assert!(cost.most_mib > 20 && cost.most_mib <= 256, "{} MiB", cost.most_mib);
        let cost = ask(&url, "--host h --timeout 60s");
        assert_eq!((cost.code, &cost.json["status"]), (Some(1), &"unknown".into()), "{}", cost.json);
        assert!(cost.most_mib <= 256, "{} MiB", cost.most_mib);
    }
}

#[test]
fn two_mebibytes_of_keys_at_once_are_no_page() {
    // Each takes 61 bytes.
    let url = hostile(|command, _| match command {
        "TIME" => time(),
        _ => page("0", 0, (2 << 20) / 61),
    });
    for words in ["--list", "--host self", "--for live --queue mail", "", "--expect w --max-lost 0"] {
        let cost = ask(&url, &format!("{words} --timeout 20s"));
        println!("{words}: {} MiB, {:?}", cost.most_mib, cost.took);
        assert_eq!((cost.code, &cost.json["status"]), (Some(1), &"unknown".into()), "{words}: {}", cost.json);
        assert!(
            cost.json["reason"].as_str().unwrap().starts_with("Redis gave no proper answer"),
            "{}",
            cost.json
        );
        assert!(cost.most_mib <= 128, "{} MiB", cost.most_mib);
    }
}

#[test]
fn an_answer_that_is_small_on_the_wire_and_large_in_memory_has_its_bound() {
    let nested = ["*1\r\n".repeat(98).as_str(), ":1\r\n"].concat();
    let of_nested = format!("*{}\r\n{}", 1 << 20, nested.repeat(40_000)).into_bytes();
    let of_none = format!("*{}\r\n{}", 1 << 22, "*0\r\n".repeat(1 << 21)).into_bytes();
    for large in [of_nested, of_none] {
        let url = hostile(move |_, _| large.clone());
        for words in ["--list", ""] {
            let cost = ask(&url, &format!("{words} --timeout 20s"));
            println!("{words}: {} MiB, {:?}", cost.most_mib, cost.took);
            assert_eq!((cost.code, &cost.json["status"]), (Some(1), &"unknown".into()), "{}", cost.json);
            assert!(cost.most_mib <= 128, "{} MiB", cost.most_mib);
        }
    }
}

#[test]
fn an_index_that_goes_on_for_ever_ends_with_the_timeout() {
    // The same members again and again, and no end.
    let url = hostile(|command, arguments| match command {
        "ZSCAN" => page("7", 0, 1_000),
        command => endless(1_000, false)(command, arguments),
    });
    let cost = ask(&url, "--list --timeout 2s");
    assert_eq!((cost.code, &cost.json["status"]), (Some(1), &"unknown".into()), "{}", cost.json);
    assert!(cost.took < Duration::from_millis(2_400), "{:?}", cost.took);
    assert!(cost.most_mib <= 256, "{} MiB", cost.most_mib);
}
