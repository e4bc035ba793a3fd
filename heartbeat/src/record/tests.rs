//! The record's format, held against `serde_json` in both directions and against everything that is no record.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use super::*;

/// A record with every field, and nothing in it that is not told apart from its neighbours.
pub fn full() -> Record {
    Record {
        id: Id(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        cluster: "orders".to_owned(),
        worker: "orders@web-3".to_owned(),
        host: "web-3".to_owned(),
        queues: vec!["mail".to_owned(), "Größe \"1\"".to_owned()],
        pid: 4242,
        pid_start: 867_530,
        pid_ns: 4_026_531_836,
        boot: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
        seq: 77,
        at_mono_ms: 1_000_000,
        at_unix_ms: 1_700_000_000_000,
        interval_ms: 1_000,
        promise_ms: 30_000,
        status: Status::Draining,
        until_mono_ms: Some(1_060_000),
        pulse: Some(Pulse { pulsed_mono_ms: 999_500, due_mono_ms: 1_029_500 }),
        tasks: Tasks {
            running: 2,
            done: 11,
            failed: 3,
            nearest: Some(Nearest {
                name: "resize".to_owned(),
                since_mono_ms: 990_000,
                due_mono_ms: Some(1_050_000),
            }),
        },
        stat: Some(Stat { ok_mono_ms: 999_000, failures: 5 }),
        broker: Some(Broker { lost_mono_ms: 998_000 }),
        version: Some("2.4.1".to_owned()),
    }
}

/// A record with none of the fields that may be absent.
pub fn least() -> Record {
    Record {
        queues: Vec::new(),
        status: Status::Idle,
        until_mono_ms: None,
        pulse: None,
        tasks: Tasks::default(),
        stat: None,
        broker: None,
        version: None,
        ..full()
    }
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = b"what stood here before".to_vec();
    record.write(&mut line);
    line
}

/// The format once more, in other words: as `serde_json` would hold it.
fn oracle(record: &Record) -> Map<String, Value> {
    let mut object = json!({
        "v": 1,
        "id": format!("{:032x}", record.id.0),
        "cluster": record.cluster,
        "worker": record.worker,
        "host": record.host,
        "queues": record.queues,
        "pid": record.pid,
        "pid_start": record.pid_start,
        "pid_ns": record.pid_ns,
        "boot": record.boot,
        "seq": record.seq,
        "at_mono_ms": record.at_mono_ms,
        "at_unix_ms": record.at_unix_ms,
        "interval_ms": record.interval_ms,
        "promise_ms": record.promise_ms,
        "status": record.status.as_str(),
        "tasks": {
            "running": record.tasks.running,
            "done": record.tasks.done,
            "failed": record.tasks.failed,
        },
    });
    if let Some(until) = record.until_mono_ms {
        object["until_mono_ms"] = until.into();
    }
    if let Some(pulse) = record.pulse {
        object["loop"] = json!({"pulsed_mono_ms": pulse.pulsed_mono_ms, "due_mono_ms": pulse.due_mono_ms});
    }
    if let Some(nearest) = &record.tasks.nearest {
        object["tasks"]["name"] = nearest.name.as_str().into();
        object["tasks"]["since_mono_ms"] = nearest.since_mono_ms.into();
        if let Some(due) = nearest.due_mono_ms {
            object["tasks"]["due_mono_ms"] = due.into();
        }
    }
    if let Some(stat) = record.stat {
        object["stat"] = json!({"ok_mono_ms": stat.ok_mono_ms, "failures": stat.failures});
    }
    if let Some(broker) = record.broker {
        object["broker"] = json!({"lost_mono_ms": broker.lost_mono_ms});
    }
    if let Some(version) = &record.version {
        object["version"] = version.as_str().into();
    }
    match object {
        Value::Object(members) => members,
        _ => unreachable!(),
    }
}

fn parse_value(value: &Map<String, Value>) -> Result<Record, Corrupt> {
    Record::parse(&serde_json::to_vec(value).unwrap())
}

/// The full record's JSON with one top-level value replaced by this text.
fn with_text(key: &str, text: &str) -> String {
    let members: Vec<_> = oracle(&full())
        .into_iter()
        .map(|(name, value)| {
            let value = if name == key { text.to_owned() } else { value.to_string() };
            format!("{name:?}:{value}")
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

/// What every record that was read must be, whoever wrote its bytes.
fn assert_possible(record: &Record) {
    assert_eq!(record.impossible(), None);
    let names = [&record.cluster, &record.worker, &record.host];
    for name in names.into_iter().chain(&record.queues).chain(&record.version) {
        assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}");
    }
    assert!(!record.boot.chars().any(char::is_control));
    assert!((1..=0x7fff_ffff).contains(&record.pid));
    assert_eq!(Record::parse(&line(record)).as_ref(), Ok(record));
}

/// A moment up to this one.
fn up_to(latest: u64) -> BoxedStrategy<u64> {
    prop_oneof![Just(latest), 0..=latest].boxed()
}

fn since(earliest: u64) -> BoxedStrategy<u64> {
    prop_oneof![Just(earliest), earliest..=u64::MAX, earliest..=earliest.saturating_add(100_000)].boxed()
}

fn name_strategy() -> BoxedStrategy<String> {
    let character = prop_oneof![any::<char>(), select(vec!['"', '\\', '/', ' ', 'é', '\u{2028}', '🦀'])];
    vec(character.prop_map(|c| if c.is_control() { 'x' } else { c }), 1..12)
        .prop_map(String::from_iter)
        .boxed()
}

fn pulse_strategy(at: u64) -> BoxedStrategy<Option<Pulse>> {
    let pulse = up_to(at).prop_flat_map(|pulsed_mono_ms| {
        since(pulsed_mono_ms).prop_map(move |due_mono_ms| Pulse { pulsed_mono_ms, due_mono_ms })
    });
    proptest::option::of(pulse).boxed()
}

fn tasks_strategy(at: u64) -> BoxedStrategy<Tasks> {
    let nearest = (name_strategy(), up_to(at)).prop_flat_map(|(name, since_mono_ms)| {
        let due = proptest::option::of(since(since_mono_ms));
        due.prop_map(move |due_mono_ms| Nearest { name: name.clone(), since_mono_ms, due_mono_ms })
    });
    (proptest::option::of(nearest), any::<[u64; 3]>())
        .prop_map(|(nearest, [running, done, failed])| Tasks {
            running: if nearest.is_some() { running.max(1) } else { running },
            done,
            failed,
            nearest,
        })
        .boxed()
}

/// Any record that some worker could have written.
pub fn any_record() -> BoxedStrategy<Record> {
    let moments = prop_oneof![any::<u64>(), 0_u64..10_000_000];
    let names = (name_strategy(), name_strategy(), name_strategy(), vec(name_strategy(), 0..4));
    let process = (1..=0x7fff_ffff_u32, any::<[u64; 2]>(), any::<u128>(), "[0-9a-f-]{0,36}");
    let accounts = moments.prop_flat_map(|at| {
        let stat = proptest::option::of((up_to(at), any::<u64>()));
        let stat = stat.prop_map(|stat| stat.map(|(ok_mono_ms, failures)| Stat { ok_mono_ms, failures }));
        let broker = proptest::option::of(up_to(at));
        let broker = broker.prop_map(|lost| lost.map(|lost_mono_ms| Broker { lost_mono_ms }));
        (Just(at), pulse_strategy(at), tasks_strategy(at), stat, broker)
    });
    let times = (1..=u64::MAX, any::<u64>(), 1_u64..100_000, prop_oneof![0_u64..100_000, any::<u64>()]);
    let rest = (select(&Status::ALL[..]), any::<Option<u64>>(), proptest::option::of(name_strategy()));
    (names, process, accounts, times, rest)
        .prop_map(|(names, process, accounts, times, rest)| Record {
            id: Id(process.2),
            cluster: names.0,
            worker: names.1,
            host: names.2,
            queues: names.3,
            pid: process.0,
            pid_start: process.1[0],
            pid_ns: process.1[1],
            boot: process.3,
            seq: times.0,
            at_mono_ms: accounts.0,
            at_unix_ms: times.1,
            interval_ms: times.2,
            promise_ms: times.3.max(times.2),
            status: rest.0,
            until_mono_ms: rest.1,
            pulse: accounts.1,
            tasks: accounts.2,
            stat: accounts.3,
            broker: accounts.4,
            version: rest.2,
        })
        .boxed()
}

/// Values of any type and some depth, for fields that no reader of today knows.
fn any_value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 12, 4, |inner| {
        let members = vec((any::<String>(), inner.clone()), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

/// Writes an object with its members in the order of `order`, and `space` between all its parts.
fn shuffled(members: Map<String, Value>, order: &[Index], space: &str) -> String {
    let mut members: Vec<_> = members.into_iter().collect();
    let mut parts = Vec::new();
    for index in order.iter().cycle() {
        if members.is_empty() {
            break;
        }
        let (key, value) = members.swap_remove(index.index(members.len()));
        let key = Value::from(key);
        let value = match value {
            Value::Object(nested) => shuffled(nested, order, space),
            value => value.to_string(),
        };
        parts.push(format!("{space}{key}{space}:{space}{value}{space}"));
    }
    format!("{{{}}}", parts.join(","))
}

proptest! {
    #[test]
    fn what_is_written_serde_json_reads_alike(record in any_record()) {
        let line = line(&record);
        let read: Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(read, Value::Object(oracle(&record)));
        prop_assert_eq!(line.last(), Some(&b'\n'));
        prop_assert_eq!(line.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
    }

    #[test]
    fn what_is_written_is_read_again(record in any_record()) {
        prop_assert_eq!(Record::parse(&line(&record)), Ok(record));
    }

    #[test]
    fn what_serde_json_writes_is_read_in_any_order_and_beside_unknown_fields(
        record in any_record(),
        unknown in vec(any_value(), 0..4),
        order in vec(any::<Index>(), 1..24),
        space in "[ \t\r\n]{0,3}",
    ) {
        let mut members = oracle(&record);
        for (number, value) in unknown.into_iter().enumerate() {
            for nested in ["loop", "tasks", "stat", "broker"] {
                if let Some(Value::Object(nested)) = members.get_mut(nested) {
                    nested.insert(format!("x{number}"), value.clone());
                }
            }
            members.insert(format!("x \"{number}\""), value);
        }
        let text = shuffled(members, &order, &space);
        prop_assume!(text.len() <= MAX_BYTES);
        prop_assert_eq!(Record::parse(text.as_bytes()), Ok(record), "{}", text);
    }

    #[test]
    fn damaged_bytes_are_refused_or_still_a_possible_record(
        record in any_record(),
        damage in vec((any::<Index>(), any::<u8>()), 1..8),
    ) {
        let mut line = line(&record);
        for (place, byte) in damage {
            let place = place.index(line.len());
            line[place] = byte;
        }
        if let Ok(read) = Record::parse(&line) {
            assert_possible(&read);
        }
    }

    #[test]
    fn random_bytes_are_never_a_record(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(Record::parse(&bytes).is_err());
    }

    #[test]
    fn random_json_is_never_a_record(value in any_value()) {
        prop_assert!(Record::parse(value.to_string().as_bytes()).is_err());
    }
}

#[test]
fn the_format_does_not_drift() {
    let golden = concat!(
        r#"{"v":1,"id":"0123456789abcdef0123456789abcdef","cluster":"orders","worker":"orders@web-3","#,
        r#""host":"web-3","queues":["mail","Größe \"1\""],"pid":4242,"pid_start":867530,"#,
        r#""pid_ns":4026531836,"boot":"c0ffee00-0000-4000-8000-000000000001","seq":77,"#,
        r#""at_mono_ms":1000000,"at_unix_ms":1700000000000,"interval_ms":1000,"promise_ms":30000,"#,
        r#""status":"draining","until_mono_ms":1060000,"#,
        r#""loop":{"pulsed_mono_ms":999500,"due_mono_ms":1029500},"#,
        r#""tasks":{"running":2,"done":11,"failed":3,"name":"resize","since_mono_ms":990000,"#,
        r#""due_mono_ms":1050000},"stat":{"ok_mono_ms":999000,"failures":5},"#,
        r#""broker":{"lost_mono_ms":998000},"version":"2.4.1"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line(&full())).unwrap(), golden);
    assert_eq!(Record::parse(golden.as_bytes()), Ok(full()));
    let golden = concat!(
        r#"{"v":1,"id":"0123456789abcdef0123456789abcdef","cluster":"orders","worker":"orders@web-3","#,
        r#""host":"web-3","queues":[],"pid":4242,"pid_start":867530,"pid_ns":4026531836,"#,
        r#""boot":"c0ffee00-0000-4000-8000-000000000001","seq":77,"at_mono_ms":1000000,"#,
        r#""at_unix_ms":1700000000000,"interval_ms":1000,"promise_ms":30000,"status":"idle","#,
        r#""tasks":{"running":0,"done":0,"failed":0}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line(&least())).unwrap(), golden);
}

#[test]
fn each_status_has_its_word_and_no_other_word_is_one() {
    let words = ["starting", "idle", "busy", "draining", "stopped"];
    assert_eq!(Status::ALL.map(Status::as_str), words);
    assert_eq!(Status::ALL.map(|status| format!("{status:>8}")), words.map(|word| format!("{word:>8}")));
    for (status, word) in Status::ALL.into_iter().zip(words) {
        let read = Record::parse(with_text("status", &format!("{word:?}")).as_bytes());
        assert_eq!(read.map(|record| record.status), Ok(status));
    }
    for word in ["", "Idle", "IDLE", "idle ", "alive", "wedged"] {
        let read = Record::parse(with_text("status", &format!("{word:?}")).as_bytes());
        assert_eq!(read, Err(Corrupt::Value("status")), "{word}");
    }
}

#[test]
fn a_record_cut_anywhere_is_refused() {
    for record in [full(), least()] {
        let line = line(&record);
        let whole = line.len() - 1;
        assert_eq!(Record::parse(&line[..whole]), Ok(record), "only the newline is missing");
        for cut in 0..whole {
            assert!(Record::parse(&line[..cut]).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn a_record_with_any_byte_changed_is_refused_or_still_possible() {
    let mut line = line(&full());
    let mut read_anyway = 0;
    for place in 0..line.len() {
        let right = line[place];
        for byte in 0..=u8::MAX {
            line[place] = byte;
            if let Ok(read) = Record::parse(&line) {
                read_anyway += 1;
                assert_eq!(read.impossible(), None);
                // Reading again what was read is slow in bulk; one in some is enough.
                if byte % 16 == 0 {
                    assert_possible(&read);
                }
            }
        }
        line[place] = right;
    }
    assert!(read_anyway > 1_000, "a digit more or less is no damage that a reader could see");
}

#[test]
fn each_field_that_a_record_must_have_is_missed() {
    let optional = ["until_mono_ms", "loop", "stat", "broker", "version"];
    for key in oracle(&full()).keys() {
        let mut members = oracle(&full());
        members.remove(key);
        let read = parse_value(&members);
        if optional.contains(&key.as_str()) {
            assert!(read.is_ok(), "{key} may be absent");
        } else {
            assert!(matches!(read, Err(Corrupt::Missing(field)) if field == key), "{key}: {read:?}");
        }
    }
    let nested = [
        ("loop", vec!["pulsed_mono_ms", "due_mono_ms"]),
        ("tasks", vec!["running", "done", "failed", "name", "since_mono_ms"]),
        ("stat", vec!["ok_mono_ms", "failures"]),
        ("broker", vec!["lost_mono_ms"]),
    ];
    for (object, keys) in nested {
        for key in keys {
            let mut members = oracle(&full());
            members[object].as_object_mut().unwrap().remove(key);
            assert_eq!(parse_value(&members), Err(Corrupt::Value(object)), "{object}.{key}");
        }
    }
}

#[test]
fn a_field_that_stands_there_twice_is_refused() {
    for (key, value) in oracle(&full()) {
        let text = with_text("", "");
        let text = format!("{},{key:?}:{value}}}", &text[..text.len() - 1]);
        let read = Record::parse(text.as_bytes());
        assert!(matches!(read, Err(Corrupt::Twice(field)) if field == key), "{key}: {read:?}");
        let Value::Object(members) = &value else { continue };
        for (inner, inner_value) in members {
            let whole = value.to_string();
            let doubled = format!("{},{inner:?}:{inner_value}}}", &whole[..whole.len() - 1]);
            let read = Record::parse(with_text(&key, &doubled).as_bytes());
            assert!(matches!(read, Err(Corrupt::Twice(field)) if field == key), "{key}.{inner}: {read:?}");
        }
    }
    // An escape does not make another key of it.
    let text = with_text("", "");
    let text = format!("{},\"\\u0073eq\":78}}", &text[..text.len() - 1]);
    assert_eq!(Record::parse(text.as_bytes()), Err(Corrupt::Twice("seq")));
}

#[test]
fn a_field_of_another_type_is_refused() {
    for (key, value) in oracle(&full()) {
        for other in ["null", "true", "1", "\"x\"", "[]", "{}", "[1]", "[[]]"] {
            let same_type = match &value {
                Value::Number(_) => other == "1",
                Value::String(_) => other == "\"x\"",
                Value::Array(_) => other == "[]",
                _ => false,
            };
            if !same_type {
                let read = Record::parse(with_text(&key, other).as_bytes());
                assert!(
                    matches!(read, Err(Corrupt::Value(field)) if field == key),
                    "{key} {other}: {read:?}"
                );
            }
        }
    }
}

#[test]
fn only_whole_numbers_in_plain_digits_are_numbers() {
    let numbers: Vec<_> =
        oracle(&full()).into_iter().filter_map(|(key, value)| value.is_number().then_some(key)).collect();
    assert_eq!(numbers.len(), 10);
    for key in numbers {
        for text in ["1e3", "1E3", "-0", "-1", "1.0", "0.0", "1e0", "18446744073709551616", "1e400"] {
            let read = Record::parse(with_text(&key, text).as_bytes());
            assert!(matches!(read, Err(Corrupt::Value(field)) if field == key), "{key} {text}: {read:?}");
        }
        for text in ["01", "+1", "1.", ".5", "1e", "0x1", "NaN", "Infinity", "١", "--1", ""] {
            let read = Record::parse(with_text(&key, text).as_bytes());
            assert!(read.is_err(), "{key} {text}: {read:?}");
        }
    }
    let read = Record::parse(with_text("seq", "18446744073709551615").as_bytes());
    assert_eq!(read.map(|record| record.seq), Ok(u64::MAX));
}

#[test]
fn another_version_is_refused_by_its_number() {
    for version in [0, 2, u64::MAX] {
        let read = Record::parse(with_text("v", &version.to_string()).as_bytes());
        assert_eq!(read, Err(Corrupt::Version(version)));
    }
    assert_eq!(Corrupt::Version(2).to_string(), "its version is 2, this program reads 1");
}

#[test]
fn each_reason_why_bytes_are_no_record_is_a_sentence() {
    for (corrupt, told) in [
        (Corrupt::Empty, "it is empty"),
        (Corrupt::TooLarge, "it is larger than 4096 bytes"),
        (Corrupt::Missing("seq"), "it has no \"seq\""),
        (Corrupt::Twice("seq"), "it has \"seq\" twice"),
        (Corrupt::Value("seq"), "its \"seq\" has an impossible value"),
        (Corrupt::Unsigned, "it is not signed"),
        (Corrupt::Signature, "its signature is not right"),
        (Corrupt::Stale, "it was signed too long ago"),
        (Corrupt::Lasting, "it is said to be good for longer than it promises"),
    ] {
        assert_eq!(corrupt.to_string(), told);
    }
}

#[test]
fn a_process_id_is_a_positive_one_of_31_bits() {
    for pid in ["1", "2147483647"] {
        assert!(Record::parse(with_text("pid", pid).as_bytes()).is_ok(), "{pid}");
    }
    for pid in ["0", "2147483648", "4294967295", "4294967297"] {
        assert_eq!(Record::parse(with_text("pid", pid).as_bytes()), Err(Corrupt::Value("pid")), "{pid}");
    }
}

#[test]
fn an_id_is_32_hexadecimal_digits_in_lower_case() {
    let good = "0123456789abcdef0123456789abcdef";
    let read = Record::parse(with_text("id", &format!("{good:?}")).as_bytes());
    assert_eq!(read.map(|record| record.id.to_string()), Ok(good.to_owned()));
    for id in ["", &good[1..], &format!("{good}0"), &good.to_uppercase(), &format!("+{}", &good[1..])] {
        let read = Record::parse(with_text("id", &format!("{id:?}")).as_bytes());
        assert_eq!(read, Err(Corrupt::Value("id")), "{id}");
    }
}

#[test]
fn what_no_worker_can_have_written_is_refused_on_each_side_of_its_border() {
    let at = full().at_mono_ms;
    let good = [
        ("seq", "1".to_owned()),
        ("promise_ms", "1000".to_owned()),
        ("loop", format!(r#"{{"pulsed_mono_ms":{at},"due_mono_ms":{at}}}"#)),
        (
            "tasks",
            format!(
                r#"{{"running":1,"done":0,"failed":0,"name":"","since_mono_ms":{at},"due_mono_ms":{at}}}"#
            ),
        ),
        ("tasks", r#"{"running":9,"done":0,"failed":0}"#.to_owned()),
        ("stat", format!(r#"{{"ok_mono_ms":{at},"failures":0}}"#)),
        ("broker", format!(r#"{{"lost_mono_ms":{at}}}"#)),
    ];
    for (key, text) in good {
        assert!(Record::parse(with_text(key, &text).as_bytes()).is_ok(), "{key} {text}");
    }
    let later = at + 1;
    let bad = [
        ("seq", "0".to_owned()),
        ("interval_ms", "0".to_owned()),
        ("promise_ms", "999".to_owned()),
        ("loop", format!(r#"{{"pulsed_mono_ms":{later},"due_mono_ms":{later}}}"#)),
        ("loop", r#"{"pulsed_mono_ms":5,"due_mono_ms":4}"#.to_owned()),
        ("tasks", format!(r#"{{"running":1,"done":0,"failed":0,"name":"a","since_mono_ms":{later}}}"#)),
        (
            "tasks",
            r#"{"running":1,"done":0,"failed":0,"name":"a","since_mono_ms":5,"due_mono_ms":4}"#.to_owned(),
        ),
        ("tasks", r#"{"running":0,"done":0,"failed":0,"name":"a","since_mono_ms":5}"#.to_owned()),
        ("tasks", r#"{"running":1,"done":0,"failed":0,"due_mono_ms":5}"#.to_owned()),
        ("stat", format!(r#"{{"ok_mono_ms":{later},"failures":0}}"#)),
        ("broker", format!(r#"{{"lost_mono_ms":{later}}}"#)),
    ];
    for (key, text) in bad {
        let read = Record::parse(with_text(key, &text).as_bytes());
        assert_eq!(read, Err(Corrupt::Value(key)), "{key} {text}");
    }
}

#[test]
fn text_that_could_steer_a_terminal_is_refused() {
    for character in ['\0', '\u{7}', '\n', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}'] {
        let text = Value::from(format!("a{character}b")).to_string();
        for key in ["cluster", "worker", "host", "boot", "version"] {
            let read = Record::parse(with_text(key, &text).as_bytes());
            assert_eq!(read, Err(Corrupt::Value(key)), "{text}");
        }
        let read = Record::parse(with_text("queues", &format!("[\"ok\",{text}]")).as_bytes());
        assert_eq!(read, Err(Corrupt::Value("queues")), "{text}");
        let tasks = format!(r#"{{"running":1,"done":0,"failed":0,"since_mono_ms":5,"name":{text}}}"#);
        let read = Record::parse(with_text("tasks", &tasks).as_bytes());
        assert_eq!(read, Err(Corrupt::Value("tasks")), "{text}");
    }
}

#[test]
fn names_are_never_empty_but_a_boot_id_may_be() {
    for key in ["cluster", "worker", "host", "version"] {
        assert_eq!(Record::parse(with_text(key, "\"\"").as_bytes()), Err(Corrupt::Value(key)));
    }
    assert_eq!(Record::parse(with_text("queues", "[\"\"]").as_bytes()), Err(Corrupt::Value("queues")));
    assert!(Record::parse(with_text("boot", "\"\"").as_bytes()).is_ok());
}

#[test]
fn values_that_nest_without_end_are_refused() {
    let nested = |open: &str, close: &str, depth: usize| {
        let text = with_text("", "");
        format!("{},\"x\":{}{}}}", &text[..text.len() - 1], open.repeat(depth), close.repeat(depth))
    };
    assert!(Record::parse(nested("[", "]", 16).as_bytes()).is_ok());
    for bomb in
        [nested("[", "]", 17), nested("{\"\":", "}", 17), nested("[", "", 3_000), nested("[", "]", 1_600)]
    {
        let read = Record::parse(bomb.as_bytes());
        assert!(matches!(read, Err(Corrupt::Syntax(Syntax { what: "too many levels", .. }))), "{read:?}");
    }
    assert!(Record::parse("[".repeat(MAX_BYTES).as_bytes()).is_err());
}

#[test]
fn a_record_of_4096_bytes_is_read_and_one_byte_more_is_too_many() {
    let mut line = line(&full());
    line.resize(MAX_BYTES, b' ');
    assert_eq!(Record::parse(&line), Ok(full()));
    line.push(b' ');
    assert_eq!(Record::parse(&line), Err(Corrupt::TooLarge));
}

#[test]
fn there_is_one_record_and_nothing_beside_it() {
    let line = line(&full());
    let after = |more: &[u8]| Record::parse(&[&line[..], more].concat());
    let before = |more: &[u8]| Record::parse(&[more, &line[..]].concat());
    assert_eq!(after(b" \t\r\n"), Ok(full()));
    assert_eq!(before(b" \t\r\n"), Ok(full()));
    for more in [&b"x"[..], b"{}", b",", b"\0", b"}", &line] {
        assert!(matches!(after(more), Err(Corrupt::Syntax(_))), "{more:?}");
    }
    for more in [&b"x"[..], b"[", b"\xef\xbb\xbf", b"\0", b"\x0b"] {
        assert!(matches!(before(more), Err(Corrupt::Syntax(_))), "{more:?}");
    }
    assert_eq!(Record::parse(b""), Err(Corrupt::Empty));
    assert_eq!(Record::parse(b"{}"), Err(Corrupt::Missing("v")));
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    let mut line = line(&full());
    let place = line.windows(6).position(|window| window == b"orders").unwrap();
    line[place] = 0xff;
    let read = Record::parse(&line);
    assert!(matches!(read, Err(Corrupt::Syntax(Syntax { at, .. })) if at == place), "{read:?}");
}
