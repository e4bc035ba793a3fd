//! Whether a RabbitMQ, or another broker that speaks AMQP 0-9-1, takes and hands out messages: log in, enter the virtual host,
//! look at queues, and see whether an alarm blocks who publishes.
//!
//! How bytes get there is `amqp::wire`'s concern. A broker tells of its alarms nobody but a connection that
//! publishes, and of that one it reads nothing from then on; so a connection that is blocked is not kept.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt as _};
use lapin::options::{BasicPublishOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionStatus, ErrorKind, Event};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{timeout, timeout_at};

use crate::amqp::Url;
use crate::amqp::wire::{self, Grip};
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::net::{Address, Net};
use crate::settings::{Secret, TlsFiles};
use crate::tls::{self, Tls};

/// How long a polite end may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// No queue's name: what is published to it goes nowhere.
const NOWHERE: &str = "checker.nowhere";

/// Whether a RabbitMQ can be logged in to, its queues are as they should be, and no alarm blocks those who publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitMq {
    /// `amqp://[USER:PASSWORD@]HOST[:5672][/VHOST]`, or `amqps://…[:5671]…` over TLS. The virtual host is `/` where none is named,
    /// the user and the password are `guest`.
    url: Secret,
    /// Certificates for `amqps`.
    #[serde(default)]
    tls: TlsFiles,
    /// Queues that must be there, each with its limits.
    #[serde(default)]
    queues: BTreeMap<String, Limits>,
    /// Whether an alarm of the broker (memory, disk) is looked for. It takes one empty message to no queue.
    #[serde(default = "yes")]
    alarms: bool,
}

fn yes() -> bool {
    true
}

/// What a queue's limits are. An empty table asks for its being there alone.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    /// The most messages that may wait in it. Those that are with a consumer do not count.
    max_messages: Option<u32>,
    /// How many consumers it has at least.
    min_consumers: Option<u32>,
}

impl Settings for RabbitMq {
    const KIND: &'static str = "rabbitmq";
    const EXAMPLE: &'static str = "url = \"amqp://shop:S3cret@rabbit.internal/orders\"\n\
         queues = { mail = { max_messages = 1000, min_consumers = 1 } }";
    const CONTRACT: Contract = Contract::Peer("url = \"amqp://me:S3cret@{peer}/\"\nqueues = { mail = {} }");
    const MORE_CONTRACTS: &'static [&'static str] = &["url = \"amqps://me:S3cret@{peer}/\""];
    type Check = RabbitMqCheck;

    fn build(self) -> Result<RabbitMqCheck, Vec<Mistake>> {
        let mut mistakes = Tls::mistakes(&self.tls);
        let fits = |name: &String| (1..=255).contains(&name.len());
        if !self.queues.keys().all(fits) {
            mistakes.push(Mistake::of("queues", "a queue's name has 1 to 255 bytes"));
        }
        let url = match self.url.expose().parse::<Url>() {
            Ok(url) => url,
            Err(invalid) => {
                mistakes.push(Mistake::of("url", format!("the URL cannot be used: {invalid}")));
                return Err(mistakes);
            }
        };
        let tls = match files(&url, self.tls) {
            Ok(files) => files.map(Tls::new),
            Err(mistake) => {
                mistakes.push(mistake);
                None
            }
        };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let queues = self.queues.into_iter().map(|(name, limits)| (name.into(), limits)).collect();
        Ok(RabbitMqCheck {
            url,
            tls,
            queues,
            alarms: self.alarms,
            net: Net::default(),
            kept: Mutex::new(None),
        })
    }
}

/// The certificates, which may stand in the URL as well as beside it.
fn files(url: &Url, beside: TlsFiles) -> Result<Option<TlsFiles>, Mistake> {
    let none = TlsFiles::default();
    let Some(within) = url.tls() else {
        return if beside == none {
            Ok(None)
        } else {
            Err(Mistake::of("tls", "amqp:// is not encrypted; amqps:// is"))
        };
    };
    let (cert, key) = within.client.clone().unzip();
    let within = TlsFiles { ca: within.ca.clone(), cert, key };
    match (within == none, beside == none) {
        (true, _) => Ok(Some(beside)),
        (false, true) => Ok(Some(within)),
        (false, false) => Err(Mistake::of("tls", "the URL names certificates too: name them in one place")),
    }
}

/// Asks, over a connection that is kept.
#[derive(Debug)]
pub struct RabbitMqCheck {
    url: Url,
    tls: Option<Tls>,
    queues: Vec<(ShortString, Limits)>,
    alarms: bool,
    net: Net,
    kept: Mutex<Option<Line>>,
}

/// A connection that is logged in.
struct Line(Option<Link>);

struct Link {
    channel: Channel,
    connection: Connection,
    /// Dropped last: what is above ends by it.
    grip: Grip,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line(…)")
    }
}

/// What was found on a connection that stands to the end: what is wrong, and whether it can be used again.
#[derive(Default)]
struct Found {
    wrong: Vec<String>,
    is_blocked: bool,
}

#[async_trait::async_trait]
impl Check for RabbitMqCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let mut kept = self.kept.lock().await;
        let (mut line, found) = match self.ask_kept(kept.take(), deadline).await {
            Some(told) => told,
            None => self.ask_anew(deadline).await?,
        };
        if found.is_blocked {
            // What it is told to say would only wait.
            line.0 = None;
        } else {
            *kept = Some(line);
        }
        if found.wrong.is_empty() { Ok(()) } else { Err(Failure::failed(found.wrong.join("; "))) }
    }
}

impl RabbitMqCheck {
    /// Over the connection of the last run; nothing where that turns out to be dead. One that does not answer gets a third
    /// of the time.
    async fn ask_kept(&self, kept: Option<Line>, deadline: Instant) -> Option<(Line, Found)> {
        let mut kept = kept?;
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / 3;
        // Who has published before is blocked as soon as there is an alarm: a new connection is told of it anew.
        let is_usable = |status: &ConnectionStatus| status.connected() && !status.blocked();
        let link = kept.0.as_mut().filter(|link| is_usable(link.connection.status()))?;
        link.grip.allow(wire::UNASKED);
        let found = timeout_at(share.into(), self.ask(link)).await.ok()?.ok()?;
        Some((kept, found))
    }

    async fn ask_anew(&self, deadline: Instant) -> Result<(Line, Found), Failure> {
        let mut link = self.connect(deadline).await?;
        let found = self.ask(&mut link).await.map_err(|error| lost(&error))?;
        Ok((Line(Some(link)), found))
    }

    async fn connect(&self, deadline: Instant) -> Result<Link, Failure> {
        let tls = self.tls.as_ref().map(Tls::config).transpose()?;
        let (host, port) = self.url.address();
        let stream = self.net.connect(&Address { host: host.to_owned(), port }, deadline).await?;
        let _ = stream.set_nodelay(true);
        let (stream, grip) = wire::encrypt(&self.url, stream, tls).await.map_err(tls::unencrypted)?;
        let connection = wire::speak(&self.url, stream).await.map_err(|error| no_login(&error))?;
        let channel = connection.create_channel().await.map_err(|error| lost(&error))?;
        Ok(Link { channel, connection, grip })
    }

    async fn ask(&self, link: &mut Link) -> lapin::Result<Found> {
        let mut found = Found::default();
        if self.queues.is_empty() && !self.alarms {
            // A broker that stands still keeps its connections: what is kept tells nothing before it has answered.
            is_there(&link.channel).await?;
        }
        for (name, limits) in &self.queues {
            found.wrong.extend(link.look_at(name, *limits).await?);
        }
        if self.alarms
            && let Some(reason) = link.alarm().await?
        {
            found.is_blocked = true;
            found.wrong.push(blocked(&reason).to_owned());
        }
        Ok(found)
    }
}

impl Link {
    /// What is wrong with a queue.
    async fn look_at(&mut self, name: &ShortString, limits: Limits) -> lapin::Result<Option<String>> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(name.clone(), options, FieldTable::default()).await {
            Ok(queue) => Ok(limits.wrong(name.as_str(), queue.message_count(), queue.consumer_count())),
            Err(error) => {
                reopen(&mut self.channel, &self.connection, &error).await?;
                Ok(Some(format!("queue {name} {}", no_queue(&error))))
            }
        }
    }

    /// Publishes to nobody. A broker with an alarm says so then, and hears nothing after that, not even of a new channel; another
    /// one answers, whether the user may publish or not.
    async fn alarm(&mut self) -> lapin::Result<Option<String>> {
        let blocked = pin!(blockings(&self.connection));
        // Who was blocked before that is not told of it again.
        if self.connection.status().blocked() {
            return Ok(Some(String::new()));
        }
        let answered = pin!(publish_nowhere(&mut self.channel, &self.connection));
        match select(answered, blocked.into_future()).await {
            Either::Left((answered, _)) => answered.map(|()| None),
            Either::Right(((reason, _), _)) => Ok(reason),
        }
    }
}

/// Asks for what every broker answers, whatever the user may do.
async fn is_there(channel: &Channel) -> lapin::Result<()> {
    channel.basic_qos(1, BasicQosOptions::default()).await
}

/// Publishes, and asks for an answer after it.
async fn publish_nowhere(channel: &mut Channel, connection: &Connection) -> lapin::Result<()> {
    let (exchange, options) = (ShortString::default(), BasicPublishOptions::default());
    let sent = channel.basic_publish(exchange, NOWHERE.into(), options, &[], BasicProperties::default());
    let answered = match sent.await {
        Ok(_) => is_there(channel).await,
        Err(refusal) => Err(refusal),
    };
    match answered {
        Err(refusal) => reopen(channel, connection, &refusal).await,
        answered => answered,
    }
}

/// The broker closes a channel over what it refuses: the next question gets a new one, where the connection stands.
async fn reopen(channel: &mut Channel, connection: &Connection, refusal: &lapin::Error) -> lapin::Result<()> {
    if !connection.status().connected() {
        return Err(refusal.clone());
    }
    *channel = connection.create_channel().await?;
    Ok(())
}

/// The words with which the broker blocks the connection, and no end.
fn blockings(connection: &Connection) -> impl Stream<Item = String> {
    let words = connection.events_listener().filter_map(async |event| match event {
        Event::ConnectionBlocked(reason) => Some(reason),
        _ => None,
    });
    words.chain(futures_util::stream::pending())
}

/// Says farewell, where there is a runtime that waits for the broker's: it would log an end without a word as a failure.
impl Drop for Line {
    fn drop(&mut self) {
        let Some(link) = self.0.take() else { return };
        if let (true, Ok(runtime)) = (link.connection.status().connected(), Handle::try_current()) {
            runtime.spawn(async move {
                // All of it, and not its connection alone: without the grip the socket ends.
                let link = link;
                // Whatever comes of it, the connection ends with the socket.
                let _ = timeout(FAREWELL, link.connection.close(200, "OK".into())).await;
            });
        }
    }
}

impl Limits {
    fn wrong(self, name: &str, messages: u32, consumers: u32) -> Option<String> {
        let many = self.max_messages.filter(|max| messages > *max);
        let few = self.min_consumers.filter(|min| consumers < *min);
        let many = many.map(|max| format!("{messages} messages wait, more than {max}"));
        let few = few.map(|min| format!("{consumers} of {min} consumers are there"));
        let wrong: Vec<_> = [many, few].into_iter().flatten().collect();
        (!wrong.is_empty()).then(|| format!("queue {name}: {}", wrong.join(", ")))
    }
}

fn no_queue(error: &lapin::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => "is not there",
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => "is exclusive to another connection",
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => "is not for this user",
            _ => "cannot be asked about",
        },
        _ => "cannot be asked about",
    }
}

/// In fixed words: what the broker says may be anything.
fn blocked(reason: &str) -> &'static str {
    match (reason.contains("memory"), reason.contains("disk")) {
        (true, false) => "the broker blocks publishers: it is low on memory",
        (false, true) => "the broker blocks publishers: it is low on disk",
        (true, true) => "the broker blocks publishers: it is low on memory and disk",
        (false, false) => "the broker blocks publishers",
    }
}

fn no_login(error: &lapin::Error) -> Failure {
    let reason = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => "the user or the password is refused",
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                "the virtual host is not there, or not for this user"
            }
            _ => "the broker refuses the connection",
        },
        ErrorKind::IOError(_) => "the broker closed the connection",
        _ => "what answers is no AMQP 0-9-1 broker",
    };
    Failure::failed(reason).because(plain(error))
}

fn lost(error: &lapin::Error) -> Failure {
    Failure::failed("the broker closed the connection").because(plain(error))
}

/// Without the broker's own words: they may hold what it was told, and there the password is.
fn plain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::ProtocolError(error) => format!("{:?}", error.kind()),
        ErrorKind::ParsingError(_) => "not the protocol".to_owned(),
        _ => "the protocol is not kept to".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn build(settings: Value) -> Result<RabbitMqCheck, Vec<Mistake>> {
        from_value::<RabbitMq>(settings).unwrap().build()
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_part_of_the_url() {
        for (settings, keys) in [
            (json!({ "url": "S3cret" }), vec!["url"]),
            (json!({ "url": "redis://:S3cret@h" }), vec!["url"]),
            (json!({ "url": "amqp://:S3cret@h", "tls": { "ca": "/a" } }), vec!["tls"]),
            (json!({ "url": "amqps://:S3cret@h?ca=/a", "tls": { "ca": "/b" } }), vec!["tls"]),
            (
                json!({ "url": "amqp://:S3cret@h:0", "tls": { "cert": "/a" }, "queues": { "": {} } }),
                vec!["tls", "queues", "url"],
            ),
            (json!({ "url": "amqp://h", "queues": { "q".repeat(256): {} } }), vec!["queues"]),
        ] {
            let mistakes = build(settings).unwrap_err();
            assert_eq!(mistakes.iter().filter_map(|mistake| mistake.key).collect::<Vec<_>>(), keys);
            assert!(!format!("{mistakes:?}").contains("S3cret"));
        }
    }

    #[test]
    fn certificates_stand_in_the_url_or_beside_it() {
        for settings in [
            json!({ "url": "amqps://me:S3cret@h/?ca=/a&cert=/c&key=/k" }),
            json!({ "url": "amqps://me:S3cret@h", "tls": { "ca": "/a", "cert": "/c", "key": "/k" } }),
        ] {
            let check = build(settings).unwrap();
            let shown = format!("{check:?}");
            assert!(shown.contains(r#"ca: Some("/a"), cert: Some("/c"), key: Some("/k")"#), "{shown}");
            assert!(!shown.contains("S3cret"));
        }
        assert!(build(json!({ "url": "amqps://h" })).unwrap().tls.is_some());
        assert!(build(json!({ "url": "amqp://h" })).unwrap().tls.is_none());
    }

    #[test]
    fn each_limit_has_its_border() {
        let limits = |max_messages, min_consumers| Limits { max_messages, min_consumers };
        assert_eq!(Limits::default().wrong("mail", u32::MAX, 0), None);
        assert_eq!(limits(Some(7), Some(2)).wrong("mail", 7, 2), None);
        assert_eq!(
            limits(Some(7), None).wrong("mail", 8, 0).unwrap(),
            "queue mail: 8 messages wait, more than 7"
        );
        assert_eq!(
            limits(Some(7), Some(2)).wrong("mail", 8, 1).unwrap(),
            "queue mail: 8 messages wait, more than 7, 1 of 2 consumers are there"
        );
    }
}
