//! What reads the bytes of others, as the fuzzer calls it (`tests/fuzz`), with what must be true of every answer. Built for
//! nobody else.

use std::path::Path;

use crate::celery::{message, task};
use crate::checks::feed::entries;
use crate::checks::{kafka, migrations, statuspage};
use crate::config::{Configuration, Surroundings};
use crate::django_q::pickle::Pickle;
use crate::django_q::signature::Key;
use crate::django_q::stat::{self, Stat, Uuid};

/// A configuration, where no file and no variable is.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let reading =
        Configuration::parse(text, Surroundings { variable: &|_| None, folder: Path::new("/proc/nowhere") });
    let usable = reading.problems.iter().all(|problem| problem.code.is_warning());
    assert_eq!(reading.configuration.is_some(), usable);
    let lines = text.split('\n').count();
    for place in reading.problems.iter().filter_map(|problem| problem.place.as_ref()) {
        assert!((1..=lines).contains(&place.line), "{place:?} of {lines} lines");
    }
}

/// The pickle of a stat, which anybody may have written who can write to the broker, and a stat that nobody has signed.
pub fn django_q(bytes: &[u8]) {
    if let Ok(pickle) = Pickle::parse(bytes) {
        let _ = pickle.root();
        let _ = stat::read(&pickle, 0);
    }
    let id = Uuid::parse("00000000-0000-0000-0000-000000000001").expect("it is one");
    assert!(Stat::open(bytes, &Key::new("s3cret", "salt"), id).is_err(), "nobody has signed it");
}

/// What Celery's workers and clients write.
pub fn celery(bytes: &[u8]) {
    for body in [Some(bytes.to_vec()), message::open(bytes).map(|opened| opened.body)].into_iter().flatten() {
        if let Some((worker, answer)) = message::reply(&body) {
            assert!(!worker.is_empty() && !worker.chars().any(char::is_control), "{worker:?}");
            let _ = message::pong(&answer);
            for queue in message::queues(&answer).into_iter().flatten() {
                assert!(!queue.chars().any(char::is_control), "{queue:?}");
            }
        }
        for happening in message::happenings(&body) {
            assert!(!happening.worker.chars().any(char::is_control), "{happening:?}");
            assert_ne!(happening.every_ms, Some(u64::MAX));
        }
        let _ = task::end(&body);
    }
}

/// A feed of RSS or Atom.
pub fn feed(bytes: &[u8]) {
    for entry in entries::read(bytes).into_iter().flatten() {
        assert!(entry.title.len() <= bytes.len(), "nothing is expanded");
    }
}

/// The summary of a status page.
pub fn status_page(bytes: &[u8]) {
    for component in [None, Some("API")] {
        if let Some(Err(failure)) = statuspage::judged(bytes, component) {
            assert!(failure.reason().len() < 200, "{failure}");
        }
    }
}

/// What a Kafka broker answers.
pub fn kafka(bytes: &[u8]) {
    let _ = kafka::message::Metadata::read(bytes, &["orders".to_owned()]);
    let _ = kafka::message::read_coordinator(bytes);
    let _ = kafka::message::read_handshake(bytes);
    let _ = kafka::message::read_authenticate(bytes);
}

/// A migration in Python.
pub fn migration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(statements) = migrations::statements(text) {
        assert!(statements <= text.len(), "each takes a character");
    }
}
