use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What Celery's own `app.control.ping` and a worker (5.7.0) said to each other over a real Redis, as its MONITOR told.
const MONITOR: &str = include_str!("../../../tests/fixtures/celery_ping_redis_monitor.txt");

/// The message that the first command with these words carries: its last one, in quotes.
fn captured(words: &str) -> String {
    let line = MONITOR.lines().find(|line| line.contains(words)).unwrap();
    let (_, message) = line.split_once(r#"" "{"#).unwrap();
    serde_json::from_str(&format!("\"{{{message}")).unwrap()
}

/// A reply as a real worker pushed it.
fn a_reply() -> String {
    captured(r#""LPUSH""#)
}

/// An event as a real worker published it.
fn a_beat() -> String {
    captured("/0.celeryev/worker.heartbeat")
}

#[test]
fn a_real_reply_is_read() {
    let opened = open(a_reply().as_bytes()).unwrap();
    assert_eq!(opened.ticket.as_deref(), Some("76173ced-bddb-4313-ae3f-d5d18e4897f0"));
    let (worker, answer) = reply(&opened.body).unwrap();
    assert_eq!((worker.as_str(), pong(&answer)), ("w1@anchor", Ok(())));
}

#[test]
fn a_real_event_is_read() {
    let opened = open(a_beat().as_bytes()).unwrap();
    let beat = Happening {
        worker: "w1@anchor".to_owned(),
        event: Event::Beat,
        active: 0,
        processed: 0,
        every_ms: Some(2_000),
    };
    assert_eq!(happenings(&opened.body), [beat]);
}

#[test]
fn what_is_sent_reads_as_it_was_written() {
    let body = request(Method::ActiveQueues, "t", "", "q");
    let opened = open(envelope(&body, "celery.pidbox", "").unwrap().to_string().as_bytes()).unwrap();
    assert_eq!(opened.body, body.as_bytes());
    let read: Value = serde_json::from_slice(&opened.body).unwrap();
    assert_eq!((&read["method"], &read["ticket"]), (&"active_queues".into(), &"t".into()));
    assert_eq!(read["reply_to"], json!({ "exchange": "", "routing_key": "q" }));
}

#[test]
fn a_reply_that_is_no_pong_tells_what_it_is() {
    for (answer, says) in [
        (r#"{"error":"boom"}"#, "did not reply with pong, but with {\"error\":\"boom\"}"),
        (r#"{"ok":"ping"}"#, "did not reply with pong, but with {\"ok\":\"ping\"}"),
        ("null", "did not reply with pong, but with null"),
        ("{\"ok\u{7f}\u{9b}\":1}", "did not reply with pong, but with {\"ok  \":1}"),
    ] {
        assert_eq!(pong(&serde_json::from_str(answer).unwrap()), Err(says.to_owned()));
    }
    let long = pong(&Value::String("ä".repeat(9_999))).unwrap_err();
    assert!(long.ends_with('…') && long.chars().count() < 100, "{long}");
}

#[test]
fn queues_are_their_names_and_anything_else_is_none() {
    let read = |text: &str| queues(&serde_json::from_str(text).unwrap());
    assert_eq!(read(r#"[{"name":"a","x":1},{"name":"b"}]"#), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(read("[]"), Ok(Vec::new()));
    assert_eq!(read("null"), Ok(Vec::new()));
    for text in
        [r#"{"error":"boom"}"#, r#"[{"name":7}]"#, r#"[{"name":""}]"#, r#"["a"]"#, r#"[{"name":"a\nb"}]"#]
    {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn nothing_but_one_worker_with_a_name_is_a_reply() {
    for body in ["", "[]", "{}", r#"{"a":1,"b":2}"#, r#"{"":1}"#, r#"{"a\u0007":1}"#, "{\"a\":", "7"] {
        assert_eq!(reply(body.as_bytes()), None, "{body}");
    }
    assert_eq!(reply(format!(r#"{{"{}":1}}"#, "w".repeat(256)).as_bytes()), None);
    assert_eq!(reply(&vec![b'['; 100_000]), None);
    let large = format!(r#"{{"w":"{}"}}"#, "x".repeat(MOST_BYTES));
    assert_eq!((reply(large.as_bytes()), open(large.as_bytes())), (None, None));
}

#[test]
fn events_of_tasks_and_of_nobody_are_left_out() {
    let body = br#"[{"type":"task-sent","hostname":"w"},{"type":"worker-heartbeat"},{"type":"worker-offline","hostname":"w","freq":1e300}]"#;
    let read = happenings(body);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].event, read[0].every_ms), (Event::Offline, None));
    for freq in ["0", "-1", "1e99", "\"x\"", "null"] {
        let body = format!(r#"{{"type":"worker-heartbeat","hostname":"w","freq":{freq}}}"#);
        assert_eq!(happenings(body.as_bytes())[0].every_ms, None, "{freq}");
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\PC\u{0}\u{1b}]{0,300}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("ok"),
        Just("name"),
        Just("type"),
        Just("hostname"),
        Just("freq"),
        Just("body"),
        Just("headers"),
        Just("w1@h")
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

/// Reads it as everything that it could be, and looks at what came out.
fn read_all_ways(bytes: &[u8]) {
    let opened = open(bytes).map(|opened| opened.body).unwrap_or_default();
    for body in [bytes, &opened] {
        if let Some((worker, answer)) = reply(body) {
            assert!(is_name(&worker));
            if let Err(why) = pong(&answer) {
                assert!(why.len() < 400 && !why.chars().any(char::is_control), "{why:?}");
            }
            if let Ok(names) = queues(&answer) {
                assert!(names.len() <= MOST_QUEUES && names.iter().all(|name| is_name(name)));
            }
        }
        for happening in happenings(body) {
            assert!(is_name(&happening.worker));
            assert!(
                happening
                    .every_ms
                    .is_none_or(|ms| ms <= Duration::from_hours(24).as_millis().try_into().unwrap())
            );
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_all_ways(&bytes);
    }

    #[test]
    fn no_json_does_harm(value in json()) {
        read_all_ways(value.to_string().as_bytes());
        let wrapped = json!({ "body": BASE64.encode(value.to_string()), "content-type": "application/json",
            "properties": { "body_encoding": "base64" } });
        read_all_ways(wrapped.to_string().as_bytes());
    }

    #[test]
    fn no_change_of_a_real_message_does_harm(at: Index, byte: u8, cut: Index) {
        let mut reply = a_reply().into_bytes();
        let at = at.index(reply.len());
        reply[at] = byte;
        read_all_ways(&reply);
        let beat = a_beat();
        let (begin, end) = beat.as_bytes().split_at(cut.index(beat.len()));
        read_all_ways(end);
        read_all_ways(begin);
    }
}
