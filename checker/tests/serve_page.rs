//! The page of `checker serve` over a real socket: where there is one, what it tells, and its stream. How it looks and behaves in
//! a browser is tested in `tests/pages`.

#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod serving;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serving::{SOON, Server, shell, until};

/// Whether `there` is decides whether the check passes.
fn configuration(server: &str) -> String {
    let subsets = "[subsets]\nreadiness = ['files']\nothers = ['files', 'idle']\n";
    format!(
        "[service]\nname = '<script>alert(\"1\")</script>'\n[server]\n{server}\n{subsets}{}{}",
        shell("files", "test -e there", ""),
        shell("idle", "exit 0", "critical = false")
    )
}

/// A stream of the page.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn of(server: &Server) -> Self {
        let mut stream = server.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: it\r\nAccept: text/event-stream\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    /// The lines of the head.
    fn head(&mut self) -> Vec<String> {
        let lines = self.0.by_ref().lines().map(Result::unwrap);
        lines.take_while(|line| !line.is_empty()).collect()
    }

    /// The data of the next event that is no mere sign of life; nothing where the stream has ended, or nothing comes within `patience`.
    fn event(&mut self, patience: Duration) -> Option<String> {
        self.0.get_ref().set_read_timeout(Some(patience)).unwrap();
        let (mut data, mut line, mut alive) = (String::new(), String::new(), false);
        loop {
            line.clear();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            alive |= line == "event: alive\n";
            match line.trim_end_matches(['\r', '\n']).strip_prefix("data: ") {
                Some(part) => data.push_str(part),
                // An event ends with an empty line; what frames the bytes of the stream has a line of its own before it.
                None if line == "\n" && alive => (data, alive) = (String::new(), false),
                None if line == "\n" && !data.is_empty() => return Some(data),
                None => {}
            }
        }
    }
}

#[test]
fn there_is_a_page_where_it_is_wanted_and_by_default_where_details_are_told() {
    for (settings, status) in [
        ("", 404),
        ("detail = 'none'", 404),
        ("detail = 'safe'", 200),
        ("page = true", 200),
        ("detail = 'safe'\npage = false", 404),
    ] {
        let server = Server::start(&configuration(settings));
        assert_eq!(server.get("/").status, status, "{settings}");
        let head = Stream::of(&server).head();
        assert!(head[0].contains(&status.to_string()), "{settings}: {head:?}");
    }
}

#[test]
fn it_loads_nothing_and_runs_nothing_but_its_own_and_no_name_is_markup() {
    let server = Server::start(&configuration("detail = 'safe'"));
    for (path, status) in [("/", 200), ("/?x=%3Cscript%3E", 200), ("/readyz?format=html", 503)] {
        let told = server.get(path);
        assert_eq!((told.status, told.header("content-type")), (status, Some("text/html; charset=utf-8")));
        let policy = told.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(told.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(told.body.matches("<script").count(), 1, "{}", told.body);
        assert!(told.body.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"), "{}", told.body);
        for outside in ["src=", "http://", "https://", " style=", " onclick=", "@import"] {
            let found = told.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(outside), "{outside} in {path}");
        }
    }
    assert!(server.get("/healthz").header("content-security-policy").is_some());
}

#[test]
fn no_more_is_told_than_is_configured() {
    let reason = "the program ended with status 1";
    for (settings, reasons, durations) in
        [("page = true", false, false), ("detail = 'safe'\ndurations = true", true, true)]
    {
        let server = Server::start(&configuration(settings));
        assert_eq!(server.get("/readyz").status, 503);
        for page in ["/", "/readyz?format=html"] {
            let page = server.get(page).body;
            assert!(page.contains("id=\"check-files\""), "{page}");
            assert_eq!((page.contains(reason), page.contains(">Took<")), (reasons, durations), "{page}");
        }
    }
}

#[test]
fn it_asks_no_check_and_a_subset_s_page_asks_those_of_the_subset() {
    let server = Server::start(&configuration("detail = 'safe'"));
    let never = |page: &str| page.matches("not asked yet").count();
    for _ in 0..3 {
        assert_eq!(never(&server.get("/").body), 2);
    }
    server.get("/readyz?format=html");
    assert_eq!(never(&server.get("/").body), 1);
}

#[test]
fn links_lead_to_the_subsets_behind_a_secret_path_too() {
    let secret = "detail = 'safe'\n[server.access]\npath_secret = 'hidden'";
    for (settings, page) in [("detail = 'safe'", "/"), (secret, "/hidden/"), (secret, "/hidden")] {
        let server = Server::start(&configuration(settings));
        let (told, folder) = (server.get(page), page.rsplit_once('/').unwrap().0);
        let links: Vec<_> =
            told.body.split(" href=\"").skip(2).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(links.len(), 2, "{}", told.body);
        for link in links {
            let path = link.strip_prefix("./").unwrap();
            let found = server.get(&format!("{folder}/{path}"));
            assert_eq!(found.status, 503, "{link}");
            assert!(found.body.contains("id=\"check-files\""), "{link}");
        }
    }
    assert_eq!(Server::start(&configuration(secret)).get("/").status, 404);
}

#[test]
fn the_stream_tells_what_is_at_once_and_again_where_it_has_changed_and_no_faster_than_four_times_a_second() {
    let server = Server::start(&configuration("detail = 'safe'\ncache = '1ms'"));
    let mut stream = Stream::of(&server);
    let head = stream.head();
    for line in [
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
    ] {
        assert!(head.iter().any(|own| own.eq_ignore_ascii_case(line)), "{line}: {head:?}");
    }
    let first = stream.event(SOON).unwrap();
    assert!(first.starts_with("<main") && first.contains("not asked yet"), "{first}");
    assert_eq!(stream.event(Duration::from_millis(700)), None, "nothing has changed");

    let mut stream = Stream::of(&server);
    stream.event(SOON).unwrap();
    let begun = Instant::now();
    thread::scope(|scope| {
        let probing = scope.spawn(|| {
            while begun.elapsed() < Duration::from_secs(2) {
                server.get("/readyz");
            }
        });
        let mut events = 0;
        while !probing.is_finished() {
            events += usize::from(stream.event(Duration::from_millis(600)).is_some());
        }
        assert!((2..=10).contains(&events), "{events} events within {:?}", begun.elapsed());
    });

    while stream.event(Duration::from_millis(600)).is_some() {}
    std::fs::write(server.path("there"), "").unwrap();
    server.get("/readyz");
    let told = stream.event(SOON).unwrap();
    assert!(told.contains("id=\"check-files\" class=\"ok\""), "{told}");
}

#[test]
fn a_stream_that_has_nothing_to_tell_says_again_and_again_that_it_lives() {
    let server = Server::start(&configuration("detail = 'safe'"));
    let mut stream = Stream::of(&server);
    stream.event(SOON).unwrap();
    let begun = Instant::now();
    let sign = stream.0.by_ref().lines().map(Result::unwrap).find(|line| line == "event: alive");
    assert!(sign.is_some() && begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn there_are_so_many_streams_and_one_that_is_left_makes_place_for_another() {
    let server = Server::start(&configuration("detail = 'safe'"));
    let mut streams: Vec<_> = (0..32).map(|_| Stream::of(&server)).collect();
    for stream in &mut streams {
        assert!(stream.event(SOON).is_some());
    }
    let refused = server.ask("GET", "/", "Accept: text/event-stream\r\n");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")), "{refused:?}");
    assert_eq!(server.get("/").status, 200);
    streams.pop();
    until("a place for another stream", || {
        let mut stream = Stream::of(&server);
        stream.head()[0].contains("200").then_some(())
    });
}

#[test]
fn who_asks_only_for_the_head_of_a_stream_takes_no_place() {
    let server = Server::start(&configuration("detail = 'safe'"));
    let heads: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"HEAD / HTTP/1.1\r\nHost: it\r\nAccept: text/event-stream\r\n\r\n").unwrap();
            let mut stream = Stream(BufReader::new(stream));
            assert!(stream.head()[0].contains("200"));
            stream
        })
        .collect();
    assert!(Stream::of(&server).head()[0].contains("200"));
    drop(heads);
}

#[test]
fn a_stream_tells_of_the_end_and_ends_however_the_server_is_told_to_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(&configuration("detail = 'safe'\ndrain = '1s'\ntimeout = '30s'"));
        let mut stream = Stream::of(&server);
        stream.event(SOON).unwrap();
        let begun = Instant::now();
        server.signal(signal);
        let told = stream.event(SOON).unwrap();
        assert!(told.contains("This server is about to stop"), "{told}");
        assert_eq!(stream.event(SOON), None);
        // It holds up nothing: no connection is left to wait for once the drain is over.
        let ended = until("the end of the server", || server.child.try_wait().unwrap());
        assert!(
            ended.success() && begun.elapsed() < Duration::from_secs(10),
            "{ended} after {:?}",
            begun.elapsed()
        );
    }
}
