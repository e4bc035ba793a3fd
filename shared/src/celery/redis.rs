//! Celery's broadcasts over Redis.
//!
//! Questions are published on a channel, and each worker pushes its replies to a list that the question names by way of a
//! binding. Both bring their own end: the binding, so that a worker that wakes up late finds no one to reply to, and the
//! list by holding a last element that is never taken, because a list that is emptied loses its expiry. So nothing is left
//! behind even by an asker that is killed. The price is that the list is looked at again and again, for a blocking read
//! would take that last element.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Connection, Url};
use redis::{Cmd, Value, cmd};

use super::round::Round;
use super::task::{Sent, Task};
use super::{Error, Happening, Names, message, unique};
use crate::glob::literally;

/// The exchange that the bindings are in: nobody else's.
const EXCHANGE: &str = "reply.checker";

/// What parts a binding's routing key, pattern and queue, as Celery writes them.
const SEPARATOR: &str = "\x06\x16";

/// How long what an asker leaves behind may stay, if it is killed.
const EXPIRY: Duration = Duration::from_mins(1);

/// How long the list stays where a reply may just be on its way to it.
const LINGER: Duration = Duration::from_secs(5);

/// How many elements are read at once; one of them is no reply. An answer of Redis is bounded, and the reply of a worker
/// of a hundred queues has 80 KB.
const PAGE: usize = 64;

/// How soon the list is looked at again: sooner while a reply has not been due for long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub struct Line {
    connection: Connection,
    db: u32,
    names: Names,
    /// A task that may stand in its list: a Redis that was frozen does what it was told as soon as it goes on.
    unsure: Option<Sent>,
}

impl Line {
    pub fn new(url: Url, names: Names) -> Self {
        Self { db: url.db(), connection: Connection::new(url), names, unsure: None }
    }

    pub fn ask(&mut self, round: &mut Round<'_>, until: Instant) -> Result<(), Error> {
        let mailbox = Mailbox::new(&self.names.key_prefix)?;
        let mut commands = mailbox.opened();
        let before = commands.len();
        let exchange = format!("{}.pidbox", self.names.exchange);
        let channel = format!("{}/{}.{exchange}", self.names.key_prefix, self.db);
        for (method, ticket) in &round.tickets {
            let body = message::request(*method, ticket, EXCHANGE, &mailbox.id);
            commands
                .push(command("PUBLISH", &[&channel, &message::envelope(&body, &exchange, "")?.to_string()]));
        }
        let answers = self.run(&commands, until)?;
        let listening = answers[before..].iter().filter_map(number).max();
        round.sent(Instant::now(), listening);
        let collected = self.collect(&mailbox, round, until);
        // After a failure this is for the expiry.
        if collected.is_ok() {
            self.run(&mailbox.closed(round.is_complete()), until)?;
        }
        collected
    }

    /// Reads replies until no more are awaited. The last look is at the deadline, less what an answer may take.
    fn collect(&mut self, mailbox: &Mailbox, round: &mut Round<'_>, until: Instant) -> Result<(), Error> {
        let now = Instant::now();
        let last_look = now + until.saturating_duration_since(now) * 4 / 5;
        let mut pause = SHORTEST_PAUSE;
        loop {
            let replies = self.page(mailbox, until)?;
            let now = Instant::now();
            for reply in &replies {
                if let Some(opened) = message::open(reply) {
                    round.take(opened.ticket.as_deref(), &opened.body, now);
                }
            }
            if !replies.is_empty() {
                round.settle();
            }
            let Some(wait) = round.wait(last_look).filter(|wait| *wait > now) else { return Ok(()) };
            if replies.len() + 1 < PAGE {
                thread::sleep(pause.min(wait.saturating_duration_since(now)));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn page(&mut self, mailbox: &Mailbox, until: Instant) -> Result<Vec<Vec<u8>>, Error> {
        let mut answers = self.run(&mailbox.page(), until)?;
        // The transaction's answer is that of its commands, the first of which is the page.
        let Some(Value::Array(mut parts)) = answers.pop() else { return Ok(Vec::new()) };
        let page = if parts.is_empty() { Value::Nil } else { parts.swap_remove(0) };
        let Value::Array(page) = page else { return Ok(Vec::new()) };
        let bytes = |value| match value {
            Value::BulkString(bytes) if !bytes.is_empty() => Some(bytes),
            _ => None,
        };
        Ok(page.into_iter().filter_map(bytes).collect())
    }

    fn run(&mut self, commands: &[Cmd], until: Instant) -> Result<Vec<Value>, Error> {
        let answers = self.connection.ask(commands, until)?;
        Ok(answers.into_iter().collect::<Result<_, _>>()?)
    }

    pub fn listen(
        &mut self,
        quiet: Instant,
        until: Instant,
        each: &mut dyn FnMut(Happening) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let pattern = format!("{}/{}.celeryev/worker.*", literally(&self.names.key_prefix), self.db);
        let heard = |payload: &[u8]| {
            let opened = message::open(payload);
            let happenings = opened.map(|opened| message::happenings(&opened.body)).unwrap_or_default();
            happenings.into_iter().try_for_each(&mut *each)
        };
        Ok(self.connection.listen(&[pattern], quiet, until, heard)?)
    }
}

/// A task stands in the list of its queue until a worker takes it.
impl Line {
    /// Before the next one is sent, the last one is looked for where nobody can tell what became of it.
    pub fn send(&mut self, task: &Task, until: Instant) -> Result<Sent, Error> {
        if let Some(unsure) = self.unsure.take() {
            self.withdraw(&unsure, until)?;
        }
        // What is asked of a connection that was forgotten on the way is asked twice.
        self.connection.prove(until)?;
        let sent = task.sent(until.saturating_duration_since(Instant::now()))?;
        self.run_for(&sent, &command("LPUSH", &[&self.list(&sent), &sent.envelope]), until)?;
        Ok(sent)
    }

    /// Takes a task back that no worker has taken. It stands among the latest, so no more of a long list is looked at; and twice
    /// where the connection ended between the command and its answer.
    pub fn withdraw(&mut self, sent: &Sent, until: Instant) -> Result<(), Error> {
        let list = self.list(sent);
        let look = command("LPOS", &[&list, &sent.envelope, "COUNT", "0", "MAXLEN", "1000"]);
        if let Value::Array(found) = self.run_for(sent, &look, until)?
            && !found.is_empty()
        {
            let copies = found.len().to_string();
            self.run_for(sent, &command("LREM", &[&list, &copies, &sent.envelope]), until)?;
        }
        Ok(())
    }

    /// Runs a command about a task, and remembers that one where no answer came.
    fn run_for(&mut self, sent: &Sent, asked: &Cmd, until: Instant) -> Result<Value, Error> {
        let answers = self.connection.ask(std::slice::from_ref(asked), until);
        let answers = answers.inspect_err(|_| self.unsure = Some(sent.clone()))?;
        Ok(answers.into_iter().next().transpose()?.unwrap_or(Value::Nil))
    }

    fn list(&self, sent: &Sent) -> String {
        format!("{}{}", self.names.key_prefix, sent.queue)
    }
}

/// Where replies to one broadcast come in.
struct Mailbox {
    id: String,
    list: String,
    bindings: String,
    binding: String,
}

impl Mailbox {
    fn new(prefix: &str) -> Result<Self, Error> {
        let id = unique()?;
        let queue = format!("{EXCHANGE}.{id}");
        let binding = format!("{id}{SEPARATOR}{SEPARATOR}{queue}");
        Ok(Self {
            list: format!("{prefix}{queue}"),
            bindings: format!("{prefix}_kombu.binding.{EXCHANGE}"),
            binding,
            id,
        })
    }

    fn opened(&self) -> Vec<Cmd> {
        let expiry = EXPIRY.as_secs().to_string();
        vec![
            command("SADD", &[&self.bindings, &self.binding]),
            command("EXPIRE", &[&self.bindings, &expiry]),
            command("RPUSH", &[&self.list, ""]),
            command("EXPIRE", &[&self.list, &expiry]),
        ]
    }

    /// Takes the oldest replies. Whatever the list holds, afterwards its last element and its expiry are there.
    fn page(&self) -> Vec<Cmd> {
        let (first, rest) = (format!("-{PAGE}"), format!("-{}", PAGE + 1));
        vec![
            command("MULTI", &[]),
            command("LRANGE", &[&self.list, &first, "-1"]),
            command("LTRIM", &[&self.list, "0", &rest]),
            command("RPUSH", &[&self.list, ""]),
            command("EXPIRE", &[&self.list, &EXPIRY.as_secs().to_string()]),
            command("EXEC", &[]),
        ]
    }

    /// A worker looks for the binding and then pushes: in between, a list that is gone would begin anew, without an expiry.
    fn closed(&self, complete: bool) -> Vec<Cmd> {
        let end = if complete {
            command("DEL", &[&self.list])
        } else {
            command("EXPIRE", &[&self.list, &LINGER.as_secs().to_string()])
        };
        vec![command("SREM", &[&self.bindings, &self.binding]), end]
    }
}

fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = cmd(name);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_workers_of_many_queues_fits_into_one_answer() {
        // What a worker tells of one queue, as it stands in Redis: in base64.
        let queue = concat!(
            r#"{"name": "orders-high", "exchange": {"name": "orders-high", "type": "direct", "arguments": null, "#,
            r#""durable": true, "passive": false, "auto_delete": false, "delivery_mode": null, "no_declare": false}, "#,
            r#""routing_key": "orders-high", "queue_arguments": null, "binding_arguments": null, "consumer_arguments": "#,
            r#"null, "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false, "alias": null, "#,
            r#""bindings": [], "no_declare": null, "expires": null, "message_ttl": null, "max_length": null, "#,
            r#""max_length_bytes": null, "max_priority": null}, "#
        );
        assert!(PAGE * 100 * queue.len() * 4 / 3 < 8 << 20);
    }
}
