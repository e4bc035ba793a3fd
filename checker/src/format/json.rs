//! One JSON object on one line.

#[cfg(feature = "redis")]
use std::fmt::Write as _;

use serde_json::Value;
#[cfg(feature = "redis")]
use serde_json::{Map, json};
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::Answer;
#[cfg(feature = "run")]
use shared::runner::{Outcome, Report};

#[cfg(feature = "run")]
use super::Shown;

/// An answer about a worker. All its keys always stand there; what is not known is null.
pub fn worker(answer: &Answer) -> String {
    object([
        ("status", answer.status.as_str().into()),
        ("verdict", answer.verdict.as_str().into()),
        ("reason", answer.reason.as_str().into()),
        ("worker", answer.worker().into()),
        ("cluster", answer.cluster().into()),
        ("age_ms", answer.age_ms.into()),
        ("file", answer.file.to_string_lossy().into()),
    ])
}

/// An answer about a cluster. All its keys always stand there, but for the list; what is not known is null or empty.
#[cfg(feature = "redis")]
pub fn cluster(answer: &cluster::Answer) -> String {
    let unknown = cluster::Facts::default();
    let facts = answer.facts.as_ref();
    let number = |of: fn(&cluster::Facts) -> u64| Value::from(facts.map(of));
    let known = facts.unwrap_or(&unknown);
    let lost = known.lost.iter().map(|lost| json!({ "worker": lost.worker, "silent_ms": lost.silent_ms }));
    let missing = known.missing.iter().map(|missing| Value::from(missing.worker.as_str()));
    let queues = answer.queues.iter().zip(&known.queues);
    let queues: Map<_, _> = queues.map(|(queue, count)| (queue.name.clone(), (*count).into())).collect();
    let object: Vec<(&str, Value)> = vec![
        ("status", answer.status.as_str().into()),
        ("reason", answer.explanation().into()),
        ("cluster", answer.cluster.as_str().into()),
        ("fresh", number(|facts| facts.fresh)),
        ("ready", number(|facts| facts.ready)),
        ("lost", lost.collect()),
        ("lost_count", number(|facts| facts.lost_count)),
        ("missing", missing.collect()),
        ("queues", queues.into()),
        ("source", answer.source.into()),
        ("place", answer.place.as_str().into()),
    ];
    let mut text = open(object);
    if let Some(roll) = &answer.roll {
        list(&mut text, roll);
    }
    text.push_str("}\n");
    text
}

/// A list can be long, so it is written as it goes, and never stands in memory as a tree.
#[cfg(feature = "redis")]
fn list(text: &mut String, roll: &cluster::Roll) {
    text.push_str(r#","workers":["#);
    for (index, listed) in roll.workers.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let host = Some(listed.host.as_str()).filter(|host| !host.is_empty());
        let (worker, host) = (Value::from(listed.worker.as_str()), Value::from(host));
        let (age_ms, queues) = (Value::from(listed.age_ms), Value::from(listed.queues.as_slice()));
        let (verdict, takes_work) = (listed.verdict.as_str(), listed.fresh && listed.takes_work);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{comma}{{"worker":{worker},"verdict":"{verdict}","age_ms":{age_ms},"queues":{queues},"host":{host},"takes_work":{takes_work}"#
        );
        if let Some(cluster::Tasks { running, done }) = listed.tasks {
            let _ = write!(text, r#","tasks":{{"running":{running},"done":{done}}}"#);
        }
        text.push('}');
    }
    let _ = write!(text, r#"],"more_workers":{}"#, roll.more);
}

/// A report with a word for the whole, and its checks in their order: each an object with what is shown of it, or no more
/// than its own word. A check that passed has no reason.
#[cfg(feature = "run")]
pub fn report(word: &str, report: &Report, shown: Shown) -> String {
    let checks: Vec<_> = report
        .outcomes
        .iter()
        .map(|outcome| format!("{}:{}", Value::from(outcome.name.as_str()), check(outcome, shown)))
        .collect();
    format!("{{\"status\":{},\"checks\":{{{}}}}}\n", Value::from(word), checks.join(","))
}

#[cfg(feature = "run")]
fn check(outcome: &Outcome, shown: Shown) -> String {
    let mut members = vec![("status", Value::from(outcome.word()))];
    if shown.reasons {
        members.push(("reason", outcome.reason.as_deref().into()));
    }
    if shown.durations {
        members.push(("duration_ms", duration_ms(outcome.took)));
    }
    match &members[..] {
        [(_, word)] => word.to_string(),
        _ => open(members) + "}",
    }
}

/// Milliseconds with three digits after the point: most checks take less than one.
#[cfg(feature = "run")]
pub fn duration_ms(took: std::time::Duration) -> Value {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    (f64::from(micros) / 1_000.0).into()
}

/// The members in the order given, for people who read along; `serde_json`'s own map would sort them.
fn object<'k>(members: impl IntoIterator<Item = (&'k str, Value)>) -> String {
    open(members) + "}\n"
}

/// The same without its end, for an object with more in it.
fn open<'k>(members: impl IntoIterator<Item = (&'k str, Value)>) -> String {
    let members = members.into_iter().map(|(key, value)| format!("{}:{value}", Value::from(key)));
    format!("{{{}", members.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::samples;

    #[test]
    fn the_object_is_the_one_that_is_promised() {
        let shown = worker(&samples::alive());
        let expected = r#"{"status":"pass","verdict":"alive","reason":"busy, beat 812 ms ago, 1 task running","worker":"web-3:17","cluster":"orders","age_ms":812,"file":"/run/beat"}"#;
        assert_eq!(shown, format!("{expected}\n"));
        let missing: Value = serde_json::from_str(&worker(&samples::missing())).unwrap();
        assert_eq!((&missing["worker"], &missing["age_ms"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn every_answer_is_one_line_that_a_parser_reads_back() {
        for answer in samples::all() {
            let shown = worker(&answer);
            assert_eq!(shown.matches('\n').count(), 1, "{shown:?}");
            let read: Value = serde_json::from_str(&shown).unwrap();
            let expected = json!({
                "status": answer.status.as_str(),
                "verdict": answer.verdict.as_str(),
                "reason": answer.reason,
                "worker": answer.worker(),
                "cluster": answer.cluster(),
                "age_ms": answer.age_ms,
                "file": answer.file.to_str(),
            });
            assert_eq!(read, expected);
        }
    }
}
