//! A task as it is sent to Celery's workers (its message protocol, version 2), and what they tell of its end. Pure, and
//! suspicious of every byte that comes in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::message::{MOST_BYTES, envelope, short};
use super::{Error, unique};

/// What a worker's clock may be ahead of this one's: by so much later than it is of any use does a task expire.
const SKEW: Duration = Duration::from_mins(1);

/// A task's body: no arguments, and nothing that is to follow it.
pub const BODY: &str = r#"[[],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// A task without arguments, which is sent for its end alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name, as the workers have registered it.
    pub name: String,
    /// The queue that it is sent to.
    pub queue: String,
}

/// A task that is under way.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    pub(super) headers: Value,
    pub(super) queue: String,
    /// The message as it stands in a list of Redis.
    pub(super) envelope: String,
}

/// How a task has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was done.
    Done,
    /// It failed: with what, as far as that is told.
    Failed(String),
    /// A worker did not begin it: it had expired by the worker's clock, or somebody has revoked it.
    Revoked,
}

impl Task {
    /// One that no worker begins once `left` and a minute have passed.
    pub(super) fn sent(&self, left: Duration) -> Result<Sent, Error> {
        let id = unique()?;
        let expires = date(SystemTime::now() + left + SKEW)?;
        let headers = json!({
            "lang": "py",
            "task": self.name,
            "id": id,
            "root_id": id,
            "parent_id": null,
            "group": null,
            "shadow": null,
            "eta": null,
            "expires": expires,
            "retries": 0,
            "timelimit": [null, null],
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "origin": "checker",
            "ignore_result": false,
        });
        let mut envelope = envelope(BODY, "", &self.queue)?;
        envelope["headers"] = headers.clone();
        envelope["properties"]["correlation_id"] = id.as_str().into();
        Ok(Sent { id, headers, queue: self.queue.clone(), envelope: envelope.to_string() })
    }
}

/// `2026-01-31T23:59:59Z`, in whole seconds.
fn date(at: SystemTime) -> Result<String, Error> {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let at = at.ok_or_else(|| Error::local("this host's clock is far from any date", seconds))?;
    let (hour, minute, second) = at.to_hms();
    Ok(format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date()))
}

#[derive(Deserialize)]
struct Told {
    status: String,
    #[serde(default)]
    result: Value,
}

/// How a task has ended, by what a worker has written of it in JSON; nothing where it has not ended.
pub fn end(bytes: &[u8]) -> Result<Option<End>, Unread> {
    if bytes.len() > MOST_BYTES {
        return Err(Unread);
    }
    let told: Told = serde_json::from_slice(bytes).map_err(|_| Unread)?;
    let of = |name| told.result.get(name).and_then(Value::as_str).unwrap_or("?");
    Ok(match end_of(&told.status) {
        Some(End::Failed(_)) => {
            let why =
                format!("{}: {}", of("exc_type"), told.result.get("exc_message").unwrap_or(&Value::Null));
            Some(End::Failed(short(&why)))
        }
        end => end,
    })
}

/// The same by its state alone.
pub fn end_of(state: &str) -> Option<End> {
    match state {
        "SUCCESS" => Some(End::Done),
        "FAILURE" => Some(End::Failed(String::new())),
        "REVOKED" => Some(End::Revoked),
        _ => None,
    }
}

/// What stands where a result should is none, or none in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread;

#[cfg(test)]
mod tests {
    use super::super::message::open;
    use super::*;

    fn task() -> Task {
        Task { name: "shop.ping".to_owned(), queue: "mail".to_owned() }
    }

    #[test]
    fn a_task_is_what_celery_itself_sends() {
        let sent = task().sent(Duration::from_secs(5)).unwrap();
        assert_eq!(
            (&sent.headers["task"], &sent.headers["id"]),
            (&"shop.ping".into(), &sent.id.clone().into())
        );
        let envelope: Value = serde_json::from_str(&sent.envelope).unwrap();
        assert_eq!(envelope["headers"], sent.headers);
        let properties = &envelope["properties"];
        assert_eq!(properties["delivery_info"], json!({ "exchange": "", "routing_key": "mail" }));
        assert_eq!(properties["correlation_id"], Value::from(sent.id));
        assert_eq!(open(envelope.to_string().as_bytes()).unwrap().body, BODY.as_bytes());
        assert_eq!(serde_json::from_str::<Value>(BODY).unwrap().as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_date_is_written_as_python_reads_it() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn an_end_is_told_from_what_is_none() {
        let failed =
            r#"{"status":"FAILURE","result":{"exc_type":"NotRegistered","exc_message":["shop.ping"]}}"#;
        for (text, ended) in [
            (r#"{"status":"SUCCESS","result":"pong","traceback":null}"#, Ok(Some(End::Done))),
            (failed, Ok(Some(End::Failed(r#"NotRegistered: ["shop.ping"]"#.to_owned())))),
            (r#"{"status":"FAILURE","result":7}"#, Ok(Some(End::Failed("?: null".to_owned())))),
            (r#"{"status":"REVOKED"}"#, Ok(Some(End::Revoked))),
            (r#"{"status":"STARTED","result":{"pid":7}}"#, Ok(None)),
            ("", Err(Unread)),
            ("{}", Err(Unread)),
            (r#"{"status":7}"#, Err(Unread)),
        ] {
            assert_eq!(end(text.as_bytes()), ended, "{text}");
        }
        let large = format!(r#"{{"status":"SUCCESS","result":"{}"}}"#, "x".repeat(MOST_BYTES));
        assert_eq!(end(large.as_bytes()), Err(Unread));
    }
}
