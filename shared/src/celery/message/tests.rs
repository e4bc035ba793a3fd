use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A reply as a real worker (Celery 5.7.0) pushed it.
const REPLY: &str = r#"{"body": "eyJ3MUBhbmNob3IiOiB7Im9rIjogInBvbmcifX0=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"ticket": "76173ced-bddb-4313-ae3f-d5d18e4897f0", "clock": 3}, "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "reply.celery.pidbox", "routing_key": "cd838848-c223-3a6c-aec1-fef3dbf671bc"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "6b2700af-1c4b-4aef-8f3b-208889e8cdb7"}}"#;

/// An event as a real worker published it.
const BEAT: &str = r#"{"body": "eyJob3N0bmFtZSI6ICJ3MUBhbmNob3IiLCAidXRjb2Zmc2V0IjogNi4wLCAicGlkIjogMzA1NTIsICJjbG9jayI6IDI1LCAiZnJlcSI6IDIuMCwgImFjdGl2ZSI6IDAsICJwcm9jZXNzZWQiOiAwLCAibG9hZGF2ZyI6IFswLjUsIDEuMTUsIDAuNjhdLCAic3dfaWRlbnQiOiAicHktY2VsZXJ5IiwgInN3X3ZlciI6ICI1LjcuMCIsICJzd19zeXMiOiAiTGludXgiLCAidGltZXN0YW1wIjogMTc5NTE4ODc0OS4zNTQ5NzcxLCAidHlwZSI6ICJ3b3JrZXItaGVhcnRiZWF0In0=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": "w1@anchor"}, "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "3d56aa0f-3266-4513-96fb-66075a6d76f8"}}"#;

#[test]
fn a_real_reply_is_read() {
    let opened = open(REPLY.as_bytes()).unwrap();
    assert_eq!(opened.ticket.as_deref(), Some("76173ced-bddb-4313-ae3f-d5d18e4897f0"));
    let (worker, answer) = reply(&opened.body).unwrap();
    assert_eq!((worker.as_str(), pong(&answer)), ("w1@anchor", Ok(())));
}

#[test]
fn a_real_event_is_read() {
    let opened = open(BEAT.as_bytes()).unwrap();
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
    fn no_change_of_a_real_message_does_harm(at in 0..REPLY.len(), byte: u8, cut in 0..BEAT.len()) {
        let mut reply = REPLY.as_bytes().to_vec();
        reply[at] = byte;
        read_all_ways(&reply);
        read_all_ways(&BEAT.as_bytes()[cut..]);
        read_all_ways(&BEAT.as_bytes()[..cut]);
    }
}
