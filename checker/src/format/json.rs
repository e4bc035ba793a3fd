//! One JSON object on one line.

use serde_json::Value;
#[cfg(feature = "redis")]
use serde_json::{Map, json};
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::Answer;
#[cfg(feature = "run")]
use shared::runner::{Outcome, Report};

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
    let mut object: Vec<(&str, Value)> = vec![
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
    if let Some(roll) = &answer.roll {
        object.push(("workers", roll.workers.iter().map(listed).collect()));
        object.push(("more_workers", roll.more.into()));
    }
    self::object(object)
}

#[cfg(feature = "redis")]
fn listed(worker: &cluster::Listed) -> Value {
    json!({
        "worker": worker.worker,
        "verdict": worker.verdict.as_str(),
        "age_ms": worker.age_ms,
        "queues": worker.queues,
        "host": worker.host,
        "takes_work": worker.fresh && worker.takes_work,
    })
}

/// A report, with its checks in their order. All keys of a check always stand there; a check that passed has no reason.
#[cfg(feature = "run")]
pub fn report(report: &Report) -> String {
    let check = |outcome: &Outcome| {
        let value = members([
            ("status", outcome.word().into()),
            ("reason", outcome.reason.as_deref().into()),
            ("duration_ms", duration_ms(outcome.took)),
        ]);
        format!("{}:{value}", Value::from(outcome.name.as_str()))
    };
    let checks: Vec<_> = report.outcomes.iter().map(check).collect();
    format!("{{\"status\":{},\"checks\":{{{}}}}}\n", Value::from(report.status.as_str()), checks.join(","))
}

/// Milliseconds with three digits after the point: most checks take less than one.
#[cfg(feature = "run")]
pub fn duration_ms(took: std::time::Duration) -> Value {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    (f64::from(micros) / 1_000.0).into()
}

/// The members in the order given, for people who read along; `serde_json`'s own map would sort them.
fn object<'k>(members: impl IntoIterator<Item = (&'k str, Value)>) -> String {
    format!("{}\n", self::members(members))
}

fn members<'k>(members: impl IntoIterator<Item = (&'k str, Value)>) -> String {
    let members = members.into_iter().map(|(key, value)| format!("{}:{value}", Value::from(key)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
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
