//! Celery's messages: what is sent to its workers, and what they send. Pure, and suspicious of every byte that comes in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Error, Method, unique};

/// The longest message that is looked at. A worker's reply takes 30 bytes for `ping` and about 600 a queue for
/// `active_queues`.
pub const MOST_BYTES: usize = 1 << 20;

/// The most queues of one worker that are kept.
const MOST_QUEUES: usize = 1_000;

/// The longest name of a worker or a queue; AMQP allows no longer one.
const LONGEST_NAME: usize = 255;

/// A message's text for the workers.
pub fn request(method: Method, ticket: &str, exchange: &str, routing_key: &str) -> String {
    json!({
        "method": method.as_str(),
        "arguments": {},
        "destination": null,
        "pattern": null,
        "matcher": null,
        "ticket": ticket,
        "reply_to": { "exchange": exchange, "routing_key": routing_key },
    })
    .to_string()
}

/// A message as it is over Redis, which knows neither headers nor properties.
pub fn envelope(body: &str, exchange: &str, routing_key: &str) -> Result<Value, Error> {
    Ok(json!({
        "body": BASE64.encode(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": { "clock": 1 },
        "properties": {
            "delivery_mode": 2,
            "delivery_info": { "exchange": exchange, "routing_key": routing_key },
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": unique()?,
        },
    }))
}

/// What came out of an envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// The question that it answers.
    pub ticket: Option<String>,
    /// Its JSON text.
    pub body: Vec<u8>,
}

#[derive(Deserialize)]
struct Envelope {
    body: String,
    #[serde(default, rename = "content-type")]
    content_type: String,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Headers {
    #[serde(default)]
    ticket: Option<String>,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(default)]
    body_encoding: Option<String>,
}

/// Opens what a worker has sent over Redis; nothing where it is not in the form that workers send.
pub fn open(bytes: &[u8]) -> Option<Opened> {
    if bytes.len() > MOST_BYTES {
        return None;
    }
    let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
    if envelope.content_type != "application/json" {
        return None;
    }
    let body = match envelope.properties.body_encoding.as_deref() {
        Some("base64") => BASE64.decode(&envelope.body).ok()?,
        _ => envelope.body.into_bytes(),
    };
    Some(Opened { ticket: envelope.headers.ticket, body })
}

/// A reply's text: who replied, and what. There is one worker in it; nothing else is taken for a reply.
pub fn reply(body: &[u8]) -> Option<(String, Value)> {
    let Value::Object(object) = parse(body)? else { return None };
    let mut entries = object.into_iter();
    match (entries.next(), entries.next()) {
        (Some((worker, answer)), None) if is_name(&worker) => Some((worker, answer)),
        _ => None,
    }
}

/// What a worker has said to `ping`: nothing, or why that is not the answer of a worker that is well.
pub fn pong(answer: &Value) -> Result<(), String> {
    match answer {
        Value::Object(object) if object.get("ok").and_then(Value::as_str) == Some("pong") => Ok(()),
        other => Err(format!("did not reply with pong, but with {}", short(&other.to_string()))),
    }
}

/// What a worker has said to `active_queues`: the names of its queues, or why there are none.
pub fn queues(answer: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("did not tell its queues, but {}", short(&answer.to_string()));
    // It is null from a worker that has lost its broker and consumes nothing.
    let list = match answer {
        Value::Array(list) => list,
        Value::Null => return Ok(Vec::new()),
        _ => return Err(wrong()),
    };
    let name = |queue: &Value| queue.get("name")?.as_str().filter(|name| is_name(name)).map(str::to_owned);
    let names: Option<Vec<_>> = list.iter().take(MOST_QUEUES).map(name).collect();
    names.ok_or_else(wrong)
}

/// Something that a worker has said of itself without being asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// The worker's name.
    pub worker: String,
    /// What it said.
    pub event: Event,
    /// How many tasks it runs.
    pub active: u64,
    /// How many it has run since its start.
    pub processed: u64,
    /// How often it says so, in milliseconds.
    pub every_ms: Option<u64>,
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there.
    Beat,
    /// It ends.
    Offline,
}

/// The events of one message: there may be several in a list.
pub fn happenings(body: &[u8]) -> Vec<Happening> {
    match parse(body) {
        Some(Value::Array(list)) => list.iter().filter_map(|value| happening(value.as_object()?)).collect(),
        Some(Value::Object(object)) => happening(&object).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn happening(object: &Map<String, Value>) -> Option<Happening> {
    let event = match object.get("type")?.as_str()? {
        "worker-heartbeat" | "worker-online" => Event::Beat,
        "worker-offline" => Event::Offline,
        _ => return None,
    };
    let worker = object.get("hostname")?.as_str().filter(|name| is_name(name))?.to_owned();
    let number = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0);
    let every_ms = object.get("freq").and_then(Value::as_f64).and_then(milliseconds);
    Some(Happening { worker, event, active: number("active"), processed: number("processed"), every_ms })
}

/// A number of seconds between nothing and a day.
fn milliseconds(seconds: f64) -> Option<u64> {
    const DAY: f64 = 86_400.0;
    let sane = seconds > 0.0 && seconds <= DAY;
    sane.then(|| std::time::Duration::from_secs_f64(seconds).as_millis()).and_then(|ms| ms.try_into().ok())
}

fn parse(body: &[u8]) -> Option<Value> {
    if body.len() > MOST_BYTES { None } else { serde_json::from_slice(body).ok() }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
}

/// So much of an answer as fits into a sentence, and nothing that steers a terminal, of which JSON lets some pass.
pub fn short(answer: &str) -> String {
    const LONGEST: usize = 60;
    let end = answer.char_indices().nth(LONGEST);
    let shown = answer[..end.map_or(answer.len(), |(at, _)| at)].replace(char::is_control, " ");
    if end.is_some() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests;
