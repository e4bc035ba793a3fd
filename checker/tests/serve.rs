//! `checker serve` over a real socket: each endpoint, method, header, format and rule.

#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod serving;

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};
use serving::{Server, shell};

/// A subset of each result.
fn mixed(server: &str) -> String {
    let mut text = format!(
        "[service]\nname = 'orders'\nversion = '1.2'\ncommit = 'abc'\n[server]\n{server}\n[subsets]\nreadiness = ['good']\nstartup = ['fails']\nwarns = ['good', 'warns']\nall = ['fails', '@warns']\n"
    );
    text += &shell("good", "exit 0", "");
    text += &shell("warns", "exit 1", "critical = false");
    text += &shell("fails", "echo S3cret words >&2; exit 3", "");
    text
}

#[test]
fn each_endpoint_answers_in_the_form_that_clients_know() {
    let server = Server::start(&mixed(""));
    for (path, status, expected) in [
        ("/healthz", 200, json!({"status": "ok", "checks": {}})),
        ("/readyz", 200, json!({"status": "ready", "checks": {"good": "ok"}})),
        ("/startupz", 503, json!({"status": "not_started", "checks": {"fails": "fail"}})),
        (
            "/healthcheck/all",
            503,
            json!({"status": "fail", "checks": {"fails": "fail", "good": "ok", "warns": "warning"}}),
        ),
        (
            "/healthcheck/warns",
            503,
            json!({"status": "warning", "checks": {"good": "ok", "warns": "warning"}}),
        ),
        ("/healthcheck/liveness", 200, json!({"status": "ok", "checks": {}})),
        ("/version", 200, json!({"service": "orders", "environment": null, "version": "1.2"})),
    ] {
        for path in [path.to_owned(), format!("{path}/"), format!("{path}?anything=1")] {
            let told = server.get(&path);
            assert_eq!((told.status, told.json()), (status, expected.clone()), "{path}");
            assert_eq!(told.header("content-type"), Some("application/json"), "{path}");
        }
    }
}

#[test]
fn what_is_not_there_is_told_as_json() {
    let server = Server::start("[server]\nexpose_version = false\n");
    for path in [
        "/",
        "/nothing",
        "/healthcheck",
        "/healthcheck/none",
        "/healthcheck/a/b",
        "/readyz",
        "/startupz",
        "/version",
        "/%2e%2e/readyz",
        "//healthz",
        "//",
    ] {
        let told = server.get(path);
        assert_eq!(
            (told.status, &told.json()["error"]),
            (404, &json!("there is nothing at this path")),
            "{path}"
        );
    }
}

#[test]
fn what_is_not_there_is_that_whatever_the_method_and_the_format() {
    let server = Server::start("[server]\nexpose_version = false\n");
    for path in ["/", "/nothing", "/healthcheck/none", "/readyz", "/startupz", "/version"] {
        for (method, query, lines) in [
            ("POST", "", "Content-Length: 0\r\n"),
            ("DELETE", "", ""),
            ("GET", "?format=no", ""),
            ("GET", "", "Accept: image/png\r\n"),
            ("GET", "", "Accept: text/event-stream\r\n"),
        ] {
            let told = server.ask(method, &format!("{path}{query}"), lines);
            assert_eq!(told.status, 404, "{method} {path}{query} {lines}");
        }
    }
    for (method, query, status) in [("POST", "", 405), ("GET", "?format=no", 406)] {
        assert_eq!(server.ask(method, &format!("/healthcheck/liveness{query}"), "").status, status);
    }
}

#[test]
fn every_answer_is_kept_by_nobody_and_found_by_no_search_engine() {
    let server = Server::start(&mixed(""));
    for (method, path) in [
        ("GET", "/healthz"),
        ("HEAD", "/readyz"),
        ("GET", "/nothing"),
        ("POST", "/readyz"),
        ("GET", "/readyz?format=no"),
    ] {
        let told = server.ask(method, path, "");
        for (name, value) in [("cache-control", "no-store"), ("vary", "accept"), ("x-robots-tag", "noindex")]
        {
            assert_eq!(told.header(name), Some(value), "{method} {path}");
        }
    }
}

#[test]
fn head_is_get_without_its_body_and_nothing_else_is_a_method() {
    let server = Server::start(&mixed(""));
    for (path, status) in [("/healthz", 200), ("/startupz", 503), ("/nothing", 404)] {
        let (get, head) = (server.get(path), server.ask("HEAD", path, ""));
        assert_eq!((head.status, &*head.body), (status, ""));
        assert_eq!(head.header("content-length").unwrap(), get.body.len().to_string());
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "WHATEVER"] {
        let told = server.ask(method, "/readyz", "Content-Length: 0\r\n");
        assert_eq!((told.status, told.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert!(told.json()["error"].is_string());
    }
}

#[test]
fn the_format_is_the_one_that_is_asked_for_and_no_header_is_an_error_of_the_server() {
    let server = Server::start(&mixed(""));
    let content = |path: &str, lines: &str| {
        let told = server.ask("GET", path, lines);
        (told.status, told.header("content-type").unwrap().to_owned())
    };
    for (query, accept, status, kind) in [
        ("", "", 200, "application/json"),
        ("", "Accept: text/plain\r\n", 200, "text/plain; charset=utf-8"),
        ("", "Accept: application/health+json\r\n", 200, "application/health+json"),
        ("?format=text", "Accept: application/json\r\n", 200, "text/plain; charset=utf-8"),
        ("?format=health+json", "", 200, "application/health+json"),
        ("", "Accept: garbage;;;q=,,\"\r\n", 200, "application/json"),
        ("", "Accept: image/png\r\n", 406, "application/json"),
        ("?format=png", "", 406, "application/json"),
        ("?format=%ff%00", "", 406, "application/json"),
    ] {
        let told = content(&format!("/readyz{query}"), accept);
        assert_eq!(told, (status, kind.to_owned()), "{query} {accept}");
    }
    let bytes = server
        .send(b"GET /readyz HTTP/1.1\r\nHost: it\r\nConnection: close\r\nAccept: \xff\xfe/\xff\r\n\r\n");
    assert_eq!(bytes.status, 200);
    assert_eq!(
        server.get("/healthcheck/all?format=text").body,
        "fail: fails\nok: good\nwarning: warns\nfail: all: 1 ok, 1 warning, 1 fail\n"
    );
    let health = server.get("/healthcheck/all?format=health%2Bjson").json();
    assert_eq!((&health["status"], &health["checks"]["good"][0]["status"]), (&json!("fail"), &json!("pass")));
    assert_eq!(health["checks"]["fails"][0]["output"], Value::Null);
}

#[test]
fn no_more_is_told_than_is_configured_and_what_happened_goes_to_the_log_alone() {
    let server = Server::start(&mixed(
        "detail = 'safe'\ndurations = true\nexpose_build_info = true\nfailure_status = 500\nwarnings_fail = false",
    ));
    let told = server.get("/startupz");
    assert_eq!(told.status, 500);
    let check = &told.json()["checks"]["fails"];
    assert_eq!(
        (&check["status"], &check["reason"]),
        (&json!("fail"), &json!("the program ended with status 3"))
    );
    assert!(check["duration_ms"].as_f64().unwrap() > 0.0, "{told:?}");
    let line = server.wait_for_log("check=\"fails\"");
    for part in
        ["ERROR", "check changed", "from=\"unknown\"", "to=\"fail\"", "status 3", "it said: S3cret words"]
    {
        assert!(line.contains(part), "{line}");
    }
    server.get("/startupz");
    assert_eq!(server.log().matches("check=\"fails\"").count(), 1);
    assert_eq!(server.get("/version").json()["commit"], "abc");
    assert_eq!(server.get("/healthcheck/warns").status, 200);
    let reasons = Server::start(&mixed("detail = 'safe'"));
    assert_eq!(
        reasons.get("/startupz").json()["checks"]["fails"],
        json!({"status": "fail", "reason": "the program ended with status 3"})
    );
    let durations = Server::start(&mixed("durations = true"));
    let check = durations.get("/startupz").json()["checks"]["fails"].clone();
    assert!(check["reason"].is_null() && check["duration_ms"].is_number(), "{check}");
}

#[test]
fn who_is_in_no_network_is_refused_whatever_it_asks_but_for_the_process_itself() {
    let server = Server::start(&mixed("[server.access]\nnetworks = ['10.0.0.0/8', '::1']"));
    for path in ["/readyz", "/version", "/nothing", "/healthcheck/all", "/openapi.json"] {
        let told = server.get(path);
        assert_eq!(
            (told.status, told.json()),
            (403, json!({"error": "this may not be asked from here"})),
            "{path}"
        );
    }
    assert_eq!(server.ask("POST", "/readyz", "").status, 403);
    assert_eq!(server.get("/healthz").status, 200);
    let own = Server::start(&mixed("[server.access]\nnetworks = ['127.0.0.0/8']"));
    assert_eq!(own.get("/readyz").status, 200);
    // Who asks directly is who it is, whatever it says.
    assert_eq!(own.ask("GET", "/readyz", "X-Forwarded-For: 8.8.8.8\r\n").status, 200);
    let all = Server::start(&mixed("[server.access]\nprotect_healthz = true\nnetworks = ['10.0.0.0/8']"));
    assert_eq!(all.get("/healthz").status, 403);
}

#[test]
fn behind_a_trusted_proxy_the_client_is_who_it_says_and_never_the_proxy_itself() {
    let access =
        "[server.access]\nnetworks = ['127.0.0.0/8', '192.0.2.0/24']\ntrusted_proxies = ['127.0.0.1']";
    let server = Server::start(&mixed(access));
    for (lines, status) in [
        ("", 200),
        ("X-Forwarded-For: 192.0.2.7\r\n", 200),
        ("X-Forwarded-For: 8.8.8.8\r\n", 403),
        ("X-Forwarded-For: 192.0.2.7, 8.8.8.8\r\n", 403),
        ("X-Forwarded-For: 8.8.8.8, 192.0.2.7, 127.0.0.1\r\n", 200),
        ("X-Forwarded-For: garbage, 8.8.8.8\r\n", 403),
        ("X-Forwarded-For: 8.8.8.8, garbage\r\n", 403),
        ("X-Forwarded-For: garbage\r\n", 403),
        ("X-Forwarded-For: \r\n", 403),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 8.8.8.8\r\n", 403),
        ("X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: [::ffff:192.0.2.7]:99\r\n", 200),
        ("Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 8.8.8.8\r\n", 403),
    ] {
        assert_eq!(server.ask("GET", "/readyz", lines).status, status, "{lines}");
    }
    let server = Server::start(&mixed(&format!("{access}\nclient_ip_header = 'Forwarded'")));
    for (lines, status) in [
        ("Forwarded: for=8.8.8.8, for=\"192.0.2.7:99\";proto=https\r\n", 200),
        ("Forwarded: for=192.0.2.7, for=8.8.8.8\r\n", 403),
        ("Forwarded: for=\"192.0.2.7, for=8.8.8.8\r\n", 403),
        // The proxy asks for somebody, and does not say for whom where it should.
        ("X-Forwarded-For: 192.0.2.7\r\n", 403),
        ("X-Real-IP: 192.0.2.7\r\n", 403),
        ("", 200),
    ] {
        assert_eq!(server.ask("GET", "/readyz", lines).status, status, "{lines}");
    }
}

#[test]
fn a_token_opens_and_any_other_bytes_are_no_error_of_the_server() {
    let server = Server::start(&mixed("[server.access]\ntoken = 'Gehéim'"));
    let with = |token: &[u8]| {
        [&b"X-Probe-Token: "[..], b"Authorization: Bearer "].map(|header| {
            let mut bytes = b"GET /readyz HTTP/1.1\r\nHost: it\r\nConnection: close\r\n".to_vec();
            bytes.extend_from_slice(header);
            bytes.extend_from_slice(token);
            bytes.extend_from_slice(b"\r\n\r\n");
            server.send(&bytes).status
        })
    };
    assert_eq!(with("Gehéim".as_bytes()), [200; 2]);
    for token in [&b""[..], b"Geh", b"Geh\xe9im", b"\xff\xfe\x80", "Gehéim2".as_bytes()] {
        assert_eq!(with(token), [403; 2], "{token:?}");
    }
    assert_eq!((server.get("/readyz").status, server.get("/healthz").status), (403, 200));
}

#[test]
fn behind_a_secret_path_there_is_nothing_to_see_without_it() {
    let server = Server::start(&mixed("[server.access]\npath_secret = 's-3cret'"));
    for (path, status) in [
        ("/s-3cret/readyz", 200),
        ("/s-3cret/readyz/", 200),
        ("/s-3cret/healthcheck/all", 503),
        ("/s-3cret/healthz", 200),
        ("/healthz", 200),
        ("/readyz", 404),
        ("/s-3cre/readyz", 404),
        ("/s-3cret", 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    let server = Server::start(&mixed("[server.access]\npath_secret = 's-3cret'\nprotect_healthz = true"));
    assert_eq!((server.get("/healthz").status, server.get("/s-3cret/healthz").status), (404, 200));
}

#[test]
fn the_description_tells_of_what_this_configuration_serves() {
    let server = Server::start(&mixed(
        "failure_status = 500\nexpose_version = false\n[server.access]\ntoken = 'S3cret'",
    ));
    let told = server.ask("GET", "/openapi.json", "X-Probe-Token: S3cret\r\n");
    assert!(!told.body.contains("S3cret"));
    let document = told.json();
    assert_eq!(
        (&document["openapi"], &document["security"]),
        (&json!("3.1.0"), &json!([{"token": []}, {"bearer": []}]))
    );
    assert!(
        document["paths"]["/version"].is_null()
            && document["paths"]["/readyz"]["get"]["responses"]["500"].is_object()
    );
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters")
        {
            let path = path.replace("{subset}", "all");
            let told = server.ask(&method.to_uppercase(), &path, "X-Probe-Token: S3cret\r\n");
            let documented = &operation["responses"][told.status.to_string()];
            assert!(documented.is_object(), "{method} {path}: {}", told.status);
            let kind = told.header("content-type").unwrap().split(';').next().unwrap();
            assert!(method == "head" || documented["content"][kind].is_object(), "{method} {path}: {kind}");
        }
    }
}

#[test]
fn whatever_is_answered_is_in_the_description() {
    for (settings, place) in [
        ("detail = 'safe'", ""),
        ("detail = 'safe'\nfailure_status = 500\n[server.access]\npath_secret = 'S3cret'", "/S3cret"),
    ] {
        let server = Server::start(&mixed(settings));
        let text = server.get(&format!("{place}/openapi.json")).body;
        assert!(!text.contains("S3cret"), "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["servers"], json!([{ "url": "." }]));
        assert_eq!(server.get(&format!("{place}/openapi.json/")).json()["servers"], json!([{ "url": ".." }]));
        let operation = |path: &str, method: &str| {
            let path = &document["paths"][path];
            assert!(path.is_object(), "{text}");
            (path["parameters"][0]["schema"]["enum"].clone(), path[method]["responses"].clone())
        };
        let check = |path: &str, method: &str, told: &serving::Told| {
            let (_, responses) = operation(path, method);
            let response = &responses[told.status.to_string()];
            assert!(response.is_object(), "{method} {path}: {told:?}");
            let media = told.header("content-type").map(|media| media.split(';').next().unwrap());
            assert!(
                media.is_none_or(|media| method == "head" || response["content"][media].is_object()),
                "{method} {path}: {media:?}"
            );
            assert!(told.header("retry-after").is_none() || response["headers"]["Retry-After"].is_object());
        };
        let long = "X: y\r\n".repeat(200);
        for path in document["paths"].as_object().unwrap().keys() {
            let (formats, _) = operation(path, "get");
            let real = format!("{place}{}", path.replace("{subset}", "all"));
            for method in ["get", "head"] {
                for format in formats.as_array().unwrap() {
                    let query = format!("{real}?format={}", format.as_str().unwrap().replace('+', "%2B"));
                    let told = server.ask(&method.to_uppercase(), &query, "");
                    assert_ne!(told.status, 406, "{query}");
                    check(path, method, &told);
                }
                let asked =
                    [("", "Accept: image/png\r\n"), ("?format=no", ""), ("?format=", ""), ("", &*long)];
                for (query, lines) in asked {
                    check(
                        path,
                        method,
                        &server.ask(&method.to_uppercase(), &format!("{real}{query}"), lines),
                    );
                }
            }
        }
        check("/healthcheck/{subset}", "get", &server.get(&format!("{place}/healthcheck/none")));
        let mut streams = Vec::new();
        let refused = loop {
            let mut stream = server.connect();
            write!(stream, "GET {place}/?format=events HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = vec![0; 32 * 1_024];
            let length = stream.read(&mut answer).unwrap();
            let told = serving::parse(&answer[..length], std::time::Duration::ZERO);
            check("/", "get", &told);
            streams.push(stream);
            if told.status != 200 {
                break told;
            }
            assert!(streams.len() < 100);
        };
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    }
    let silent = Server::start(&mixed("expose_version = false"));
    assert!(!silent.get("/openapi.json").body.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_scrape_is_told_what_stands_and_asks_no_check() {
    let server = Server::start(&mixed("detail = 'safe'"));
    let scrape = || {
        server.ask(
            "GET",
            "/metrics",
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
        )
    };
    let unasked = scrape();
    assert_eq!(
        unasked.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let has = |told: &serving::Told, line: &str| told.body.lines().any(|shown| shown == line);
    assert!(has(&unasked, "checker_check_status{check=\"good\",status=\"unknown\"} 1"), "{}", unasked.body);
    assert!(!unasked.body.contains("_age_seconds{"));
    server.get("/healthcheck/all");
    let asked = scrape();
    for line in [
        "checker_check_status{check=\"good\",status=\"ok\"} 1",
        "checker_check_status{check=\"fails\",status=\"fail\"} 1",
        "checker_check_status{check=\"fails\",status=\"ok\"} 0",
        "checker_subset_up{subset=\"readiness\"} 1",
        "checker_subset_up{subset=\"all\"} 0",
        "checker_checks{status=\"ok\"} 1",
        "checker_checks{status=\"fail\"} 1",
        "# EOF",
    ] {
        assert!(has(&asked, line), "{line}\n{}", asked.body);
    }
    assert!(
        asked.body.contains("checker_check_age_seconds{check=\"good\"} ") && !asked.body.contains("duration")
    );
    let timed = Server::start(&mixed("detail = 'safe'\ndurations = true"));
    let told = timed.get("/readyz?format=openmetrics");
    assert!(
        told.status == 200
            && told.body.contains("checker_check_duration_seconds{subset=\"readiness\",check=\"good\"} ")
    );
    assert!(timed.get("/metrics").body.contains("checker_check_duration_seconds{check=\"good\"} "));
    let plain = timed.ask("GET", "/metrics", "Accept: text/plain;version=0.0.4\r\n");
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn where_no_details_are_told_nothing_is_named_to_who_does_not_name_it() {
    let server = Server::start(&mixed("durations = true\npage = true"));
    server.get("/healthcheck/all");
    for path in ["/metrics", "/openapi.json"] {
        let told = server.get(path);
        for name in ["\"good\"", "\"fails\"", "\"warns\"", "\"all\""] {
            assert!(told.status == 200 && !told.body.contains(name), "{name} in {}", told.body);
        }
    }
    let told = server.get("/metrics").body;
    for line in [
        "checker_subset_up{subset=\"readiness\"} 1",
        "checker_subset_up{subset=\"startup\"} 0",
        "checker_checks{status=\"ok\"} 1",
        "checker_checks{status=\"warning\"} 1",
        "checker_checks{status=\"fail\"} 1",
        "checker_checks{status=\"unknown\"} 0",
    ] {
        assert!(told.lines().any(|shown| shown == line), "{line}\n{told}");
    }
    assert_eq!(told.lines().filter(|line| !line.starts_with('#')).count(), 6, "{told}");
}

#[test]
fn the_router_is_mounted_in_an_application_of_ones_own() {
    use std::net::SocketAddr;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checker.toml");
    std::fs::write(&path, mixed("[server.access]\nnetworks = ['127.0.0.1']")).unwrap();
    let configuration = checker::Configuration::read(&path).configuration.unwrap();
    let health = checker::router(configuration).unwrap();
    let application = axum::Router::new().nest("/status", health).fallback(|| async { "own" });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let ask = move |path: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        serving::parse(&answer, std::time::Duration::ZERO)
    };
    let (told, tell) = std::sync::mpsc::channel();
    let asker = std::thread::spawn(move || {
        let paths = ["/status/readyz", "/status/healthz/", "/status/nothing", "/elsewhere"];
        for path in paths {
            told.send((path, ask(path))).unwrap();
        }
    });
    let served = axum::serve(listener, application.into_make_service_with_connect_info::<SocketAddr>());
    runtime.block_on(async {
        tokio::select! {
            served = served.into_future() => panic!("{served:?}"),
            ended = tokio::task::spawn_blocking(move || asker.join()) => ended.unwrap().unwrap(),
        }
    });
    let answers: Vec<_> = tell.into_iter().map(|(path, told)| (path, told.status, told.body)).collect();
    let statuses: Vec<_> = answers.iter().map(|(path, status, _)| (*path, *status)).collect();
    assert_eq!(
        statuses,
        [("/status/readyz", 200), ("/status/healthz/", 200), ("/status/nothing", 404), ("/elsewhere", 200)]
    );
    assert_eq!(
        (&*answers[0].2, &*answers[3].2),
        ("{\"status\":\"ready\",\"checks\":{\"good\":\"ok\"}}\n", "own")
    );
}
