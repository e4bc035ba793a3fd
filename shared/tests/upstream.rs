//! The kinds `statuspage` and `feed`, of a real server whose documents change, vanish and hang.
//!
//! The documents in `upstream/` are not recordings: they are written after the forms that the providers document and are
//! known to use, with what is peculiar to each (CDATA, foreign zones, prefixes, markup, dates to come).

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use servers::{Nginx, SOON, ask_within, check};
use shared::Status;
use shared::check::Check;

const QUIET: &str = include_str!("upstream/summary.json");
const INCIDENT: &str = include_str!("upstream/incident.json");
const SUMMARY: &str = "page/api/v2/summary.json";

/// Ten minutes ago, as `date` writes it.
fn recent(zone: &str, form: &str) -> String {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").env("TZ", zone).args(["--date=10 minutes ago", &format!("+{form}")]);
    String::from_utf8(date.output().unwrap().stdout).unwrap().trim().to_owned()
}

fn rfc_3339() -> String {
    recent("UTC", "%Y-%m-%dT%H:%M:%S.000Z")
}

fn incident() -> String {
    INCIDENT.replace("RECENT", &rfc_3339())
}

type Told = Result<(), (Status, String)>;

async fn told(check: &dyn Check) -> Told {
    let answer = check.run(Instant::now() + SOON).await;
    answer.map_err(|failure| (failure.status(), failure.reason().to_owned()))
}

fn unknown(reason: &str) -> Told {
    Err((Status::Unknown, reason.to_owned()))
}

fn warning(reason: &str) -> Told {
    Err((Status::Warn, reason.to_owned()))
}

/// Asks until that is the answer.
async fn becomes(check: &dyn Check, expected: Told) {
    let begun = Instant::now();
    loop {
        let now = told(check).await;
        if now == expected {
            return;
        }
        assert!(begun.elapsed() < SOON, "{now:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A page that is looked at every second, and whose answers live as long as that.
fn page(server: &Nginx, max_stale: &str) -> Box<dyn Check> {
    check(
        "statuspage",
        json!({ "url": server.url("/published/page"), "every": "1s", "max_stale": max_stale }),
    )
}

async fn once(kind: &str, settings: Value) -> Told {
    told(&*check(kind, settings)).await
}

const OPEN: &str = "1 incident is open, last told of 10 min ago";

#[tokio::test]
async fn an_incident_comes_and_goes_and_comes_back_without_a_restart() {
    let server = Nginx::start();
    server.publish(SUMMARY, QUIET);
    let check = page(&server, "2s");
    assert_eq!(told(&*check).await, Ok(()));
    server.publish(SUMMARY, &incident());
    becomes(&*check, warning(OPEN)).await;
    server.publish(SUMMARY, QUIET);
    becomes(&*check, Ok(())).await;
    server.publish(SUMMARY, "garbage");
    becomes(&*check, unknown("the answer is no summary of a status page")).await;
    server.publish(SUMMARY, &incident());
    becomes(&*check, warning(OPEN)).await;
}

#[tokio::test]
async fn asking_costs_no_look_and_what_has_not_changed_is_not_sent_again() {
    let server = Nginx::start();
    server.publish(SUMMARY, &incident());
    let check = page(&server, "1h");
    let begun = Instant::now();
    let not_modified = || server.answers().iter().filter(|answer| answer.starts_with("304 ")).count();
    while not_modified() < 2 {
        assert!(begun.elapsed() < SOON);
        for _ in 0..100 {
            assert_eq!(told(&*check).await, warning(OPEN));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let looks = server.answers();
    assert_eq!(looks[0], format!("200 /published/{SUMMARY}"));
    assert_eq!(looks.iter().filter(|answer| answer.starts_with("200 ")).count(), 1, "{looks:?}");
    // A second with up to a tenth less between them, and the first one at once.
    let most = begun.elapsed().as_millis() / 900 + 1;
    assert!(looks.len() as u128 <= most, "{} of at most {most}", looks.len());
}

#[tokio::test]
async fn a_frozen_server_holds_nobody_up_and_its_last_good_answer_does_not_live_for_ever() {
    let mut server = Nginx::start();
    server.publish(SUMMARY, QUIET);
    let check = page(&server, "3s");
    assert_eq!(told(&*check).await, Ok(()));
    server.program.freeze();
    let begun = Instant::now();
    let mut asked = 0;
    // Nobody who asks is held up, neither by the look that hangs nor by what it does not tell.
    let last = loop {
        match ask_within(&*check, Duration::from_secs(5)).await {
            Ok(()) => asked += 1,
            Err(reason) => break reason,
        }
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(last, "the last answer is too old");
    assert!(asked > 1 && begun.elapsed() > Duration::from_secs(1), "{asked} in {:?}", begun.elapsed());
    server.program.signal(Signal::SIGCONT);
    becomes(&*check, Ok(())).await;
    server.program.kill();
    becomes(&*check, unknown("no connection is accepted")).await;
    server.program.restart();
    becomes(&*check, Ok(())).await;
}

#[tokio::test]
async fn a_server_that_never_answered_is_unknown_before_the_deadline() {
    let server = Nginx::start();
    server.publish(SUMMARY, QUIET);
    server.program.freeze();
    let check = page(&server, "1h");
    let told = ask_within(&*check, Duration::from_secs(1)).await;
    assert_eq!(told, Err("there is no answer yet".to_owned()));
    server.program.signal(Signal::SIGCONT);
    becomes(&*check, Ok(())).await;
}

#[tokio::test]
async fn a_component_is_looked_at_alone_or_with_its_group() {
    let server = Nginx::start();
    server.publish(SUMMARY, &incident());
    let of = |component: &str| json!({ "url": server.url("/published/page/"), "component": component });
    for affected in ["", "Runners", "Compute"] {
        assert_eq!(once("statuspage", of(affected)).await, warning(OPEN), "{affected}");
    }
    assert_eq!(once("statuspage", of("Git Operations")).await, Ok(()));
    let missing = unknown("the page has no component Gone");
    assert_eq!(once("statuspage", of("Gone")).await, missing);
}

#[tokio::test]
async fn the_way_is_encrypted_where_the_url_says_so() {
    let server = Nginx::start();
    server.publish(SUMMARY, QUIET);
    let url = server.tls_url("/published/page");
    let trusting = json!({ "url": url, "tls": { "ca": server.ca } });
    assert_eq!(once("statuspage", trusting).await, Ok(()));
    let distrusting = unknown("no encrypted connection can be made");
    assert_eq!(once("statuspage", json!({ "url": url })).await, distrusting);
    let down = json!({ "url": server.tls_url("/down"), "tls": { "ca": server.ca } });
    assert_eq!(once("feed", down).await, unknown("redirected to where nothing is encrypted"));
}

#[tokio::test]
async fn what_is_no_document_is_unknown() {
    let server = Nginx::start();
    server.publish(SUMMARY, "{\"components\": []}");
    for (kind, path, reason) in [
        ("statuspage", "/published/page", "the answer is no summary of a status page"),
        ("statuspage", "/published/nothing", "the status is 404"),
        ("feed", &*format!("/published/{SUMMARY}"), "the answer is no feed of RSS or Atom"),
        ("feed", "/broken", "the status is 500"),
        ("feed", "/made", "the status is 204"),
        ("feed", "/endless", "the answer is larger than 1MiB"),
        ("feed", "/loop", "redirected more than 5 times"),
    ] {
        assert_eq!(once(kind, json!({ "url": server.url(path) })).await, unknown(reason), "{path}");
    }
}

#[tokio::test]
async fn the_feed_of_every_known_provider_is_read_with_and_without_an_incident() {
    let server = Nginx::start();
    let rss = || recent("UTC", "%a, %d %b %Y %H:%M:%S +0000");
    let pacific = recent("PST8", "%a, %d %b %Y %H:%M:%S PST");
    let feeds = [
        ("aws", include_str!("upstream/aws.rss"), pacific, "Thu, 10 Jun 2021 17:24:37 PDT"),
        ("azure", include_str!("upstream/azure.rss"), rss(), "Thu, 10 Jun 2021 17:24:37 Z"),
        ("google", include_str!("upstream/google-cloud.atom"), rfc_3339(), "2021-06-10T17:24:37+00:00"),
        ("heroku", include_str!("upstream/heroku.rss"), rss(), "Thu, 10 Jun 2021 17:24:37 GMT"),
        ("hetzner", include_str!("upstream/hetzner.atom"), rfc_3339(), "2021-06-10T17:24:37.000Z"),
    ];
    for (name, document, recent, old) in feeds {
        let settings = json!({ "url": server.url(&format!("/published/{name}")) });
        server.publish(name, &document.replace("RECENT", &recent));
        let expected = warning("1 entry of the last 8 h, the latest 10 min old");
        assert_eq!(once("feed", settings.clone()).await, expected, "{name}");
        let mut short = settings.clone();
        short["max_age"] = json!("9m");
        assert_eq!(once("feed", short).await, Ok(()), "{name}");
        server.publish(name, &document.replace("RECENT", old));
        assert_eq!(once("feed", settings.clone()).await, Ok(()), "{name}");
        server.publish(name, &document.replace("RECENT", ""));
        let undated = once("feed", settings).await;
        let expected =
            if matches!(name, "azure" | "hetzner") { Ok(()) } else { warning("1 entry without a date") };
        assert_eq!(undated, expected, "{name}");
    }
}

#[tokio::test]
async fn a_feed_changes_and_an_entry_grows_old_without_a_restart() {
    let server = Nginx::start();
    let heroku = include_str!("upstream/heroku.rss");
    let publish = |date: &str| server.publish("feed", &heroku.replace("RECENT", date));
    publish("Thu, 10 Jun 2021 17:24:37 GMT");
    let settings = json!({ "url": server.url("/published/feed"), "every": "1s", "max_age": "10m10s" });
    let check = check("feed", settings);
    assert_eq!(told(&*check).await, Ok(()));
    // Nothing but time makes it old: the document is not sent again.
    publish(&recent("UTC", "%a, %d %b %Y %H:%M:%S GMT"));
    let begun = Instant::now();
    while told(&*check).await.is_ok() {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    becomes(&*check, Ok(())).await;
    let sent = server.answers().iter().filter(|answer| answer.starts_with("200 ")).count();
    assert_eq!(sent, 2, "{:?}", server.answers());
}
