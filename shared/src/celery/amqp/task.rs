//! A task over AMQP: sent to a queue that somebody takes from, and its result where that comes back as a message (`rpc://`).
//!
//! The broker itself drops a task that nobody has taken in time.

use std::time::Instant;

use futures_util::StreamExt as _;
use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use lapin::{BasicProperties, ErrorKind};
use serde_json::Value;

use super::super::task::{self, End, Sent, Task};
use super::{Error, Line, Link, explain, publish};
use crate::amqp::Url;

impl Line {
    pub fn send(&mut self, task: &Task, until: Instant) -> Result<Sent, Error> {
        self.with_link(until, |place, link| link.send(place, task, until))?
    }

    /// The result that comes to the queue of the connection over which the task was sent.
    pub fn result(&mut self, sent: &Sent, until: Instant) -> Result<Option<End>, Error> {
        match &mut self.link {
            Some(link) => link.result(&self.url, sent, until),
            None => Err(Error::unreachable(&self.url, "the connection was closed")),
        }
    }
}

impl Link {
    /// What is wrong with the queue is no fault of the connection: that is the inner error.
    fn send(&mut self, url: &Url, task: &Task, until: Instant) -> Result<Result<Sent, Error>, Error> {
        let queue = ShortString::from(task.queue.as_str());
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(queue.clone(), options, FieldTable::default());
        let consumers = match self.ground.wait(until, asked) {
            None => return Err(Error::timed_out(url)),
            Some(Ok(found)) => found.consumer_count(),
            Some(Err(error)) if self.is_missing() => {
                self.reopen(url, until)?;
                return Ok(Err(explain(url, &error).about(format!("queue {queue} {}", no_queue(&error)))));
            }
            Some(Err(error)) => return Err(self.ground.explain(url, &error)),
        };
        if consumers == 0 {
            return Ok(Err(
                Error::refused(url, "0 consumers").about(format!("queue {queue} has no consumer"))
            ));
        }
        let sent = task.sent(until.saturating_duration_since(Instant::now()))?;
        let properties = self.properties(&sent, until);
        let published = publish(&self.channel, ShortString::default(), queue, task::BODY, properties);
        self.ground.result(url, until, published)?;
        Ok(Ok(sent))
    }

    fn properties(&self, sent: &Sent, until: Instant) -> BasicProperties {
        let left = until.saturating_duration_since(Instant::now()).as_millis().max(1);
        super::json()
            .with_headers(table(&sent.headers))
            .with_correlation_id(sent.id.as_str().into())
            .with_reply_to(self.queue.clone())
            .with_expiration(left.to_string().into())
    }

    fn result(&mut self, url: &Url, sent: &Sent, until: Instant) -> Result<Option<End>, Error> {
        while let Some(next) = self.ground.wait(until, self.consumer.next()) {
            let delivery = next.ok_or_else(|| Error::unreachable(url, "the queue was taken away"))?;
            let delivery = delivery.map_err(|error| self.ground.explain(url, &error))?;
            let of = delivery.properties.correlation_id().as_ref();
            if of.is_none_or(|id| id.as_str() != sent.id) {
                continue;
            }
            let end =
                task::end(&delivery.data).map_err(|task::Unread| Error::garbled(url, "no result in JSON"))?;
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }
}

fn no_queue(error: &lapin::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ProtocolError(error) if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
            "is not there"
        }
        _ => "cannot be asked about",
    }
}

/// Headers as AMQP writes them.
fn table(headers: &Value) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers.as_object().into_iter().flatten() {
        table.insert(name.as_str().into(), field(value));
    }
    table
}

fn field(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(is) => AMQPValue::Boolean(*is),
        Value::Number(number) => AMQPValue::LongLongInt(number.as_i64().unwrap_or_default()),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => {
            AMQPValue::FieldArray(FieldArray::from(items.iter().map(field).collect::<Vec<_>>()))
        }
        Value::Object(_) => AMQPValue::FieldTable(table(value)),
    }
}
