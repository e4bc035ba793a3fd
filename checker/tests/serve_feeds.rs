//! The feeds of `checker serve` over a real socket: what is in them, and that it stays. Whether they are feeds is tested with a
//! feed reader's own library, in `tests/web`.

#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod serving;

use std::fs;

use nix::sys::signal::Signal;
use serving::{Server, Told, shell, until};

/// Whether `there` is decides whether the check passes.
fn configuration(server: &str) -> String {
    let subsets = "[subsets]\nreadiness = ['files']\nothers = ['idle', 'files']\n";
    format!(
        "[service]\nname = 'a <b>&\"'\nenvironment = 't\u{e4}st'\n[server]\ncache = '0s'\n{server}\n{subsets}{}{}",
        shell("files", "test -e there", ""),
        shell("idle", "exit 0", "")
    )
}

/// What stands in each element of this name, as it is written.
fn all<'t>(told: &'t Told, name: &str) -> Vec<&'t str> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    told.body.split(&*begin).skip(1).map(|rest| rest.split(&*end).next().unwrap()).collect()
}

/// The changes in a feed of Atom: id, time, title and text of each.
fn entries(told: &Told) -> Vec<[String; 4]> {
    let entries = told.body.split("<entry>").skip(1);
    let part = |entry: &str, name: &str| {
        let entry = Told { body: entry.to_owned(), ..told.clone() };
        all(&entry, name)[0].to_owned()
    };
    entries.map(|entry| ["id", "updated", "title", "content"].map(|name| part(entry, name))).collect()
}

#[test]
fn a_change_is_an_entry_that_stays_the_same_wherever_and_however_often_it_is_read() {
    let server = Server::start(&configuration("detail = 'safe'"));
    fs::write(server.path("there"), "").unwrap();
    server.get("/readyz");
    fs::remove_file(server.path("there")).unwrap();
    let failed = server.get("/readyz?format=atom");
    // Who reads feeds takes nothing from an answer that fails.
    assert_eq!((failed.status, server.get("/readyz").status), (200, 503));
    assert_eq!(failed.header("content-type"), Some("application/atom+xml; charset=utf-8"));
    let changes = entries(&failed);
    let told: Vec<_> = changes.iter().map(|[.., title, text]| (&**title, &**text)).collect();
    assert_eq!(
        told,
        [("files: fail", "the program ended with status 1; before: ok"), ("files: ok", "before: unknown")]
    );
    assert_ne!(changes[0][0], changes[1][0]);
    assert_eq!(server.get("/readyz?format=atom").body, failed.body);
    // The same as RSS, and of another subset.
    let rss = server.ask("GET", "/readyz/", "Accept: application/rss+xml\r\n");
    assert_eq!((rss.status, rss.header("content-type")), (200, Some("application/rss+xml; charset=utf-8")));
    let ids: Vec<_> =
        changes.iter().map(|[id, ..]| format!("<guid isPermaLink=\"false\">{id}</guid>")).collect();
    assert!(ids.iter().all(|id| rss.body.contains(id)) && rss.body.matches("<item>").count() == 2, "{rss:?}");
    let others = entries(&server.get("/healthcheck/others?format=atom"));
    assert_eq!(others.len(), 3);
    assert!(changes.iter().all(|change| others.contains(change)), "{others:?}");
    // Whatever the server does meanwhile.
    server.configure(&configuration("detail = 'safe'\nfailure_status = 500"));
    server.signal(Signal::SIGHUP);
    until("the other configuration", || (server.get("/readyz").status == 500).then_some(()));
    assert_eq!(server.get("/readyz?format=atom").body, failed.body);
    fs::write(server.path("there"), "").unwrap();
    let recovered = entries(&server.get("/readyz?format=atom"));
    assert_eq!((&*recovered[0][2], &recovered[1..]), ("files: ok", &changes[..]));
}

#[test]
fn a_feed_names_itself_by_the_address_that_it_was_asked_at_and_is_xml_whatever_it_names() {
    let server = Server::start(&configuration(""));
    let ask = |lines: &str| {
        let head =
            format!("GET /healthcheck/liveness?format=atom HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
        server.send(head.as_bytes())
    };
    for (lines, address) in [
        ("Host: status.example:81\r\n", "http://status.example:81/healthcheck/liveness"),
        ("Host: it\r\nX-Forwarded-Proto: https\r\n", "https://it/healthcheck/liveness"),
        ("Host: \"><x>\r\n", "http://localhost/healthcheck/liveness"),
    ] {
        let told = ask(lines);
        // Whatever address leads to it, it is one and the same.
        assert_eq!(all(&told, "id"), ["urn:checker:a+%3Cb%3E%26%22:t%C3%A4st:liveness"], "{told:?}");
        assert!(
            told.body.contains(&format!(
                "rel=\"self\" type=\"application/atom+xml\" href=\"{address}?format=atom\""
            ))
        );
        assert_eq!(all(&told, "title"), ["a &lt;b&gt;&amp;&quot;: liveness"]);
        assert_eq!(ask(lines).body, told.body);
    }
}

#[test]
fn no_more_is_told_than_is_configured() {
    let server = Server::start(&configuration("expose_version = false"));
    for format in ["atom", "rss"] {
        let told = server.get(&format!("/readyz?format={format}"));
        assert!(told.body.contains(">before: unknown<") && !told.body.contains("status 1"), "{told:?}");
        assert!(
            all(&told, "title")[0] == "Checks: readiness" && !told.body.contains("&lt;b&gt;"),
            "{told:?}"
        );
        assert!(!told.body.contains("%3Cb%3E") && !told.body.contains("t%C3%A4st"), "{told:?}");
    }
    assert_eq!(all(&server.get("/readyz?format=atom"), "id")[0], "urn:checker:Checks::readiness");
}

#[test]
fn links_are_those_of_the_connection_whatever_is_configured_for_the_next_start() {
    let server = Server::start(&configuration(""));
    let link = "href=\"http://it/readyz?format=atom\"";
    assert!(server.get("/readyz?format=atom").body.contains(link));
    server.configure(&configuration("failure_status = 500\ntls = { cert = 'cert.pem', key = 'key.pem' }"));
    until("the other configuration", || (server.get("/readyz").status == 500).then_some(()));
    assert!(server.get("/readyz?format=atom").body.contains(link));
}
