//! `checker serve` over a real socket: each endpoint, method, header, format and rule.

#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod serving;

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
