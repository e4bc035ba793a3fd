//! One JSON object on one line.

use serde_json::Value;
use shared::checks::worker::Answer;

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

/// The members in the order given, for people who read along; `serde_json`'s own map would sort them.
fn object<const N: usize>(members: [(&str, Value); N]) -> String {
    let members = members.map(|(key, value)| format!("{}:{value}", Value::from(key)));
    format!("{{{}}}\n", members.join(","))
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
