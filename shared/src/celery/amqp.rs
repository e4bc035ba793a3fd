//! Celery's broadcasts over AMQP.
//!
//! Replies come to a queue of the broker's own naming that belongs to this connection alone and ends with it. Nothing else is
//! declared: where nobody has made the exchange of the broadcasts, no worker is there. The broker does not tell how many
//! workers it has handed a message to, only whether there was any.
//!
//! `lapin` turns in a thread of its own and on the reactor of the runtime that is kept here. It knows no deadlines, so every
//! wait has one here; and where one has passed, socket and runtime are closed below it, which ends its thread.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer, ErrorKind};
use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout_at;

use super::round::Round;
use super::{Error, Happening, Names, broker, message};
use crate::amqp::Url;
use crate::amqp::wire::{self, Grip};
use crate::node::solo::Solo;

mod socket;
mod task;

/// How long a polite end may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// What of a queue's messages the broker keeps at most.
const MOST_QUEUED_BYTES: i64 = 64 << 20;

/// What it may send in answer to a question, which is looked at as it comes: the replies of 100,000 workers, of one queue
/// each, have 100 MB.
const ANSWERS: usize = 128 << 20;

/// How many replies are taken before they are judged, at most.
const AT_ONCE: usize = 1_000;

#[derive(Debug)]
pub struct Line {
    url: Url,
    names: Names,
    lookups: Solo,
    link: Option<Link>,
}

/// A connection with a queue of its own.
struct Link {
    channel: Channel,
    connection: Connection,
    queue: ShortString,
    consumer: Consumer,
    /// Until when the question that it was used for last had time, its end included.
    until: Instant,
    /// Dropped last: what is above ends by it.
    ground: Ground,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Line {
    pub fn new(url: Url, names: Names) -> Self {
        Self { url, names, lookups: Solo::default(), link: None }
    }

    pub fn ask(&mut self, round: &mut Round<'_>, until: Instant) -> Result<(), Error> {
        let exchange = ShortString::from(format!("{}.pidbox", self.names.exchange));
        self.with_link(until, |place, link| link.ask(place, &exchange, round, until))
    }

    pub fn listen(
        &mut self,
        quiet: Instant,
        until: Instant,
        each: &mut dyn FnMut(Happening) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let heard = self.with_link(until, |place, link| link.listen(place, quiet, until, each));
        // Its queue would go on filling.
        self.link = None;
        heard
    }

    /// Over the connection that is kept, and where that turns out to be dead, once more over a new one. Its broker has a third of
    /// the time to say that it is there.
    fn with_link<T>(
        &mut self,
        until: Instant,
        mut work: impl FnMut(&Url, &mut Link) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut was_kept = self.link.is_some();
        loop {
            let link = match self.link.take() {
                Some(link) => link,
                None => Link::open(&self.url, &self.lookups, until)?,
            };
            let link = self.link.insert(link);
            let there = if was_kept { link.is_still_there(&self.url, until) } else { Ok(()) };
            let done = there.and_then(|()| {
                link.begin(until);
                work(&self.url, link)
            });
            match done {
                Ok(value) => return Ok(value),
                Err(error) => {
                    self.link = None;
                    if !was_kept {
                        return Err(error);
                    }
                    was_kept = false;
                }
            }
        }
    }
}

impl Link {
    fn open(url: &Url, lookups: &Solo, until: Instant) -> Result<Self, Error> {
        let ground = Ground::new()?;
        let tls = url.tls().map(broker::tls).transpose()?;
        let (stream, grip) = match ground.wait(until, socket::connect(url, lookups, until, tls)) {
            Some(connected) => connected.map_err(|error| Error::io(url, &error))?,
            None => return Err(Error::timed_out(url)),
        };
        let ground = ground.with(grip);
        let (connection, channel) = ground.result(url, until, async {
            let connection = wire::speak(url, stream).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok((connection, channel))
        })?;
        let (queue, consumer) = ground.result(url, until, inbox(&channel))?;
        Ok(Self { channel, connection, queue, consumer, until, ground })
    }

    /// Something is asked by it, which may take time and bytes of its own.
    fn begin(&mut self, until: Instant) {
        self.until = until;
        self.ground.allow(wire::UNASKED);
    }

    fn ask(
        &mut self,
        url: &Url,
        exchange: &ShortString,
        round: &mut Round<'_>,
        until: Instant,
    ) -> Result<(), Error> {
        let mut reached = true;
        for (method, ticket) in &round.tickets {
            let body = message::request(*method, ticket, "", self.queue.as_str());
            let published = publish(&self.channel, exchange.clone(), ShortString::default(), &body, json());
            let published = self.ground.result(url, until, published);
            match published {
                Ok(routed) => reached &= routed,
                Err(_) if self.is_missing() => reached = false,
                Err(error) => return Err(error),
            }
            if !reached {
                break;
            }
        }
        round.sent(Instant::now(), if reached { None } else { Some(0) });
        self.collect(url, round, until)?;
        if self.is_missing() {
            // The broker closes a channel over it; the next question gets a new one.
            self.reopen(url, until)?;
        }
        Ok(())
    }

    /// Whether the channel was closed because what was named is not there.
    fn is_missing(&self) -> bool {
        !self.channel.status().connected() && self.connection.status().connected()
    }

    fn reopen(&mut self, url: &Url, until: Instant) -> Result<(), Error> {
        let connection = &self.connection;
        let (channel, (queue, consumer)) = self.ground.result(url, until, async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let inbox = inbox(&channel).await?;
            Ok((channel, inbox))
        })?;
        (self.channel, self.queue, self.consumer) = (channel, queue, consumer);
        Ok(())
    }

    /// Reads replies until no more are awaited; where that was the deadline, the broker must still be there.
    fn collect(&mut self, url: &Url, round: &mut Round<'_>, until: Instant) -> Result<(), Error> {
        self.ground.allow(ANSWERS);
        let now = Instant::now();
        let last_look = now + until.saturating_duration_since(now) * 4 / 5;
        while let Some(wait) = round.wait(last_look) {
            let Some(mut next) = self.ground.wait(wait, self.consumer.next()) else {
                return if wait < last_look { Ok(()) } else { self.is_there(url, until) };
            };
            // All that is there by now is judged at once: that looks at all workers.
            for taken in 1.. {
                let delivery = next.ok_or_else(|| Error::unreachable(url, "the queue was taken away"))?;
                let delivery = delivery.map_err(|error| self.ground.explain(url, &error))?;
                let ticket = ticket(&delivery.properties);
                round.take(ticket.as_deref(), &delivery.data, Instant::now());
                if taken == AT_ONCE {
                    break;
                }
                let Some(more) = self.consumer.next().now_or_never() else { break };
                next = more;
            }
            round.settle();
        }
        Ok(())
    }

    /// After a time in which nothing was said, in which the connection may have been forgotten on the way.
    fn is_still_there(&mut self, url: &Url, until: Instant) -> Result<(), Error> {
        let now = Instant::now();
        let share = now + until.saturating_duration_since(now) / 3;
        self.begin(share);
        self.is_there(url, share)
    }

    /// Asks for what only a broker that is there answers.
    fn is_there(&self, url: &Url, until: Instant) -> Result<(), Error> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(self.queue.clone(), options, FieldTable::default());
        self.ground.result(url, until, asked).map(drop)
    }

    fn listen(
        &mut self,
        url: &Url,
        quiet: Instant,
        until: Instant,
        each: &mut dyn FnMut(Happening) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let bound = self.channel.queue_bind(
            self.queue.clone(),
            "celeryev".into(),
            "worker.#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        match self.ground.result(url, until, bound) {
            Ok(()) => {}
            // No worker has ever said anything here.
            Err(_) if self.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        }
        self.ground.allow(ANSWERS);
        while let Some(next) = self.ground.wait(quiet, self.consumer.next()) {
            let delivery = next.ok_or_else(|| Error::unreachable(url, "the queue was taken away"))?;
            let delivery = delivery.map_err(|error| self.ground.explain(url, &error))?;
            for happening in message::happenings(&delivery.data) {
                if each(happening).is_break() {
                    return Ok(());
                }
            }
        }
        self.is_there(url, until)
    }
}

/// Says farewell, where the broker takes it in what time is left: it would log an end without a word as a failure of this
/// side.
impl Drop for Link {
    fn drop(&mut self) {
        // On a thread of another runtime nothing may wait; there it ends without a word.
        if self.connection.status().connected() && Handle::try_current().is_err() {
            let farewell = self.connection.close(200, "OK".into());
            // Whatever comes of it, the connection ends with the socket.
            let _ = self.ground.wait(self.until.min(Instant::now() + FAREWELL), farewell);
        }
    }
}

/// The queue that replies come to, and what arrives in it.
async fn inbox(channel: &Channel) -> lapin::Result<(ShortString, Consumer)> {
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut bounds = FieldTable::default();
    bounds.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MOST_QUEUED_BYTES));
    let queue = channel.queue_declare(ShortString::default(), options, bounds).await?;
    let queue = queue.name().clone();
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let tag = ShortString::from("checker");
    let consumer = channel.basic_consume(queue.clone(), tag, options, FieldTable::default()).await?;
    Ok((queue, consumer))
}

/// Publishes; whether there was any queue for it.
async fn publish(
    channel: &Channel,
    exchange: ShortString,
    routing_key: ShortString,
    body: &str,
    properties: BasicProperties,
) -> lapin::Result<bool> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish(exchange, routing_key, options, body.as_bytes(), properties).await?;
    Ok(sent.await?.take_message().is_none())
}

/// What Celery's messages are, and that they need not outlast the broker.
fn json() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(1)
}

fn ticket(properties: &BasicProperties) -> Option<String> {
    match properties.headers().as_ref()?.inner().get("ticket")? {
        AMQPValue::LongString(ticket) => Some(String::from_utf8_lossy(ticket.as_bytes()).into_owned()),
        AMQPValue::ShortString(ticket) => Some(ticket.as_str().to_owned()),
        _ => None,
    }
}

/// The runtime that a connection lives on, and what ends it.
struct Ground {
    runtime: Option<Runtime>,
    grip: Option<Grip>,
}

impl Ground {
    fn new() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Error::local("no runtime for the broker's connection", error))?;
        Ok(Self { runtime: Some(runtime), grip: None })
    }

    fn with(mut self, grip: Grip) -> Self {
        self.grip = Some(grip);
        self
    }

    /// How much may come from here on.
    fn allow(&self, bytes: usize) {
        if let Some(grip) = &self.grip {
            grip.allow(bytes);
        }
    }

    /// What comes of it until then.
    fn wait<T>(&self, until: Instant, work: impl Future<Output = T>) -> Option<T> {
        let runtime = self.runtime.as_ref()?;
        runtime.block_on(async { timeout_at(until.into(), work).await.ok() })
    }

    fn result<T>(
        &self,
        url: &Url,
        until: Instant,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Error> {
        match self.wait(until, work) {
            Some(outcome) => outcome.map_err(|error| self.explain(url, &error)),
            None => Err(Error::timed_out(url)),
        }
    }

    /// What fails once the peer has sent too much fails over that, whatever it says.
    fn explain(&self, url: &Url, error: &lapin::Error) -> Error {
        match &self.grip {
            Some(grip) if grip.is_spent() => Error::flooded(url),
            _ => explain(url, error),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.grip = None;
        // What still runs in it must hold up nobody.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// In our words: the broker's own may hold what it was told, and there the password is.
fn explain(url: &Url, error: &lapin::Error) -> Error {
    match error.kind() {
        ErrorKind::IOError(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
            Error::unreachable(url, "the connection was closed")
        }
        ErrorKind::IOError(error) => Error::io(url, error),
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                Error::denied(url, "the user, the password or the right is refused (ACCESS_REFUSED)")
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                Error::denied(url, "the virtual host is not there, or not for this user (NOT_ALLOWED)")
            }
            kind => Error::refused(url, format!("{kind:?}")),
        },
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            Error::garbled(url, "no answer of an AMQP 0-9-1 broker")
        }
        ErrorKind::InvalidConnectionState(_) | ErrorKind::InvalidChannelState(..) => {
            Error::unreachable(url, "the connection was closed")
        }
        _ => Error::garbled(url, "the broker does not keep to the protocol"),
    }
}
