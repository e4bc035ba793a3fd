//! A cache that is a Redis.

use std::time::Instant;

use redis::Value;

use super::{Entry, Expiry, Found, Read};
use crate::check::Failure;
use crate::redis::{GARBLED, Redis, command, reason, text};

/// Sets, reads, looks for the expiry, deletes, and reads once more.
pub async fn ask(server: &Redis, entry: &Entry, deadline: Instant) -> Result<Found, Failure> {
    let expire = entry.expire.as_millis().to_string();
    let asked = [
        command("SET", &[&entry.key, &entry.value, "PX", &expire]),
        command("GET", &[&entry.key]),
        command("PTTL", &[&entry.key]),
        command("DEL", &[&entry.key]),
        command("GET", &[&entry.key]),
    ];
    let mut values = Vec::with_capacity(asked.len());
    for (answer, name) in
        server.ask(asked.into(), deadline).await?.into_iter().zip(["SET", "GET", "PTTL", "DEL", "GET"])
    {
        values.push(
            answer.map_err(|error| Failure::failed(format!("{}: {name}", reason(&error))).because(error))?,
        );
    }
    found(entry, &values).ok_or_else(|| Failure::failed(GARBLED))
}

/// `None` for what no Redis answers.
fn found(entry: &Entry, values: &[Value]) -> Option<Found> {
    let [Value::Okay, before, Value::Int(expiry), Value::Int(deleted), after] = values else { return None };
    Some(Found {
        read: read(entry, before)?,
        expiry: match expiry {
            -2 => Expiry::Gone,
            -1 => Expiry::Never,
            ms if u128::try_from(*ms).ok()? <= entry.expire.as_millis() => Expiry::Set,
            _ => Expiry::Late,
        },
        deleted: *deleted == 1,
        after: read(entry, after)?,
    })
}

fn read(entry: &Entry, value: &Value) -> Option<Read> {
    match value {
        Value::Nil => Some(Read::Nothing),
        Value::BulkString(_) if text(value) == Some(&entry.value) => Some(Read::Same),
        Value::BulkString(_) => Some(Read::Other),
        _ => None,
    }
}
