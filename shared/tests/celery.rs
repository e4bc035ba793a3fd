//! Celery's workers over AMQP, where a real broker cannot show it: what exactly is sent, and a broker that floods who asks;
//! and over Redis what exactly is sent, and a task that is taken when nobody waits for it any more.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

#[path = "celery/broker.rs"]
mod broker;
#[allow(dead_code, reason = "this test program uses its part")]
#[path = "servers/program.rs"]
mod program;
#[path = "servers/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "this test program uses its part")]
#[path = "servers/redis.rs"]
mod redis;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use broker::{Broker, Message, Order, Published};
use nix::sys::signal::Signal;
use program::{Program, SOON, free_port, until};
use proxy::Proxy;
use redis::Redis;
use serde_json::{Value, json};
use shared::celery::task::Task;
use shared::celery::{Celery, Method, Names};

/// What Celery's own `app.control.ping` (kombu 5.7.0) and a worker said to each other over a real RabbitMQ, frame by frame.
const FRAMES: &str = include_str!("fixtures/celery_ping_amqp_frames.txt");

/// The same over a real Redis (Celery 5.7.0), as its MONITOR told it.
const MONITOR: &str = include_str!("fixtures/celery_ping_redis_monitor.txt");

/// How much the process may grow by while a broker floods.
const MEMORY_KIB: usize = 200 * 1024;

fn celery(broker: &Broker) -> Celery {
    Celery::new(&format!("amqp://{}//", broker.address).parse().unwrap(), &Names::default())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn ticket(published: &Published) -> String {
    let body: Value = serde_json::from_str(&published.body).unwrap();
    body["ticket"].as_str().unwrap().to_owned()
}

/// The `n`th frame with these words, behind them.
fn frame(words: &str, n: usize) -> &'static str {
    FRAMES.lines().filter_map(|line| line.split_once(words)).nth(n).unwrap().1
}

/// The text of a message's body, written as Python writes bytes.
fn body(n: usize) -> &'static str {
    frame(" Body ", n).strip_prefix("b'").unwrap().strip_suffix('\'').unwrap()
}

#[test]
fn a_ping_is_what_celerys_own_is_on_the_wire_and_a_workers_reply_is_taken() {
    let reply = body(1);
    let broker = Broker::start(Order::AnswersFirst, move |published| {
        [Message { ticket: Some(ticket(published)), body: reply.as_bytes().to_vec() }]
    });
    let replies = celery(&broker).ask(&[Method::Ping], soon(), |replies| replies.workers.len() == 1).unwrap();
    let pongs: BTreeMap<_, _> =
        replies.workers.into_iter().map(|(name, worker)| (name, worker.pong)).collect();
    assert_eq!(pongs, [("wa@anchor".to_owned(), Some(Ok(())))].into());

    let ours = broker.published.recv_timeout(Duration::from_secs(30)).unwrap();
    let (published, header) = (frame(" Basic.Publish ", 0), frame(" ContentHeader ", 0));
    for part in [format!("'exchange': '{}'", ours.exchange), format!("'routing_key': '{}'", ours.routing_key)]
    {
        assert!(published.contains(&part), "{part}: {published}");
    }
    for part in [
        format!("'content_type': '{}'", ours.content_type),
        format!("'content_encoding': '{}'", ours.content_encoding),
    ] {
        assert!(header.contains(&part), "{part}: {header}");
    }
    let theirs: Value = serde_json::from_str(body(0)).unwrap();
    let mut ours: Value = serde_json::from_str(&ours.body).unwrap();
    assert_eq!(ours["reply_to"], json!({ "exchange": "", "routing_key": "own" }), "no exchange of its own");
    ours["reply_to"] = theirs["reply_to"].clone();
    ours["ticket"] = theirs["ticket"].clone();
    assert_eq!(ours, theirs);
}

/// What follows these words of MONITOR's, which quotes each of a command's words.
fn captured(words: &str) -> &'static str {
    MONITOR.lines().find_map(|line| Some(line.split_once(words)?.1)).unwrap()
}

/// Hears what is published on this channel, first.
fn first_published(redis: &Redis, channel: &str) -> thread::JoinHandle<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(format!("SUBSCRIBE {channel}\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == ":1"), "subscribed");
    // A message is the one line that is JSON.
    thread::spawn(move || lines.find(|line| line.starts_with('{')).unwrap())
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn opened(envelope: &Value) -> Value {
    read(&String::from_utf8(BASE64.decode(envelope["body"].as_str().unwrap()).unwrap()).unwrap())
}

#[test]
fn a_ping_over_redis_is_what_celerys_own_is_and_a_workers_reply_is_taken() {
    let redis = Redis::start(&[]);
    let (channel, theirs) = captured(r#""PUBLISH" "#).split_once(' ').unwrap();
    let published = first_published(&redis, channel);
    let asked = thread::spawn({
        let mut celery = Celery::new(&redis.url().parse().unwrap(), &Names::default());
        move || celery.ask(&[Method::Ping], soon(), |replies| replies.workers.len() == 1)
    });
    let mut ours = read(&published.join().unwrap());
    let (mut theirs, ours_asks) = (read(read(theirs).as_str().unwrap()), opened(&ours));

    // The worker's reply as MONITOR quoted it, which is how a command may be written; but to this question.
    let to = &ours_asks["reply_to"];
    let list = format!("{}.{}", to["exchange"].as_str().unwrap(), to["routing_key"].as_str().unwrap());
    let theirs_asks = opened(&theirs);
    let ticket = |asks: &Value| asks["ticket"].as_str().unwrap().to_owned();
    let (_, reply) = captured(r#""LPUSH" "#).split_once(' ').unwrap();
    let reply = reply.replace(&ticket(&theirs_asks), &ticket(&ours_asks));
    redis.ask(&format!("LPUSH {list} {reply}"));
    let workers = asked.join().unwrap().unwrap().workers;
    let pongs: Vec<_> = workers.into_iter().map(|(name, worker)| (name, worker.pong)).collect();
    assert_eq!(pongs, [("w1@anchor".to_owned(), Some(Ok(())))]);

    // One question differs from another one by its ticket, where replies go to, and its tag.
    let mut as_theirs = ours_asks;
    for part in ["ticket", "reply_to"] {
        assert!(as_theirs[part] != theirs_asks[part]);
        as_theirs[part] = theirs_asks[part].clone();
    }
    assert_eq!(as_theirs, theirs_asks);
    // Ours has no end by the asker's clock; workers do not look at it.
    assert!(theirs["headers"].as_object_mut().unwrap().remove("expires").is_some());
    for envelope in [&mut ours, &mut theirs] {
        let tag = envelope["properties"]["delivery_tag"].take();
        assert!(tag.is_string());
        envelope["body"].take();
    }
    assert_eq!(ours, theirs);
}

/// Replies to nothing that was asked, of this size, without end.
fn flood(order: Order, size: usize) -> Broker {
    Broker::start(order, move |_| {
        std::iter::repeat_with(move || Message { ticket: None, body: vec![b' '; size] })
    })
}

#[test]
fn a_broker_that_floods_ends_the_question_and_does_not_fill_the_memory() {
    // The smaller the messages, the more is made of each of their bytes; and until it is confirmed, nobody takes any.
    for (order, size) in [(Order::AnswersFirst, 1), (Order::ConfirmsFirst, 2_000)] {
        let broker = flood(order, size);
        let (before, begun) = (peak_kib(), Instant::now());
        let told = celery(&broker).ask(&[Method::Ping], begun + Duration::from_mins(5), |_| false);
        let grown = peak_kib().saturating_sub(before);
        println!("{order:?}: {grown} KiB more after {:?}", begun.elapsed());
        let told = told.unwrap_err();
        assert_eq!(told.reason(), "the broker sent too much");
        let says = format!("amqp://{}/: more than it may in answer to one question", broker.address);
        assert_eq!(told.to_string(), says);
        assert!(begun.elapsed() < Duration::from_mins(4), "not for want of time");
        assert!(grown < MEMORY_KIB, "{order:?}: {grown} KiB more");
    }
}

#[test]
fn what_a_broker_may_send_is_for_each_question_anew() {
    // 50 MB: four of them are more than one may have.
    const MANY: usize = 100_000;
    let broker = Broker::start(Order::ConfirmsFirst, |published| {
        let reply = Message { ticket: Some(ticket(published)), body: br#"{"w@h": {"ok": "pong"}}"#.to_vec() };
        (0..MANY).map(|_| Message { ticket: None, body: vec![b' '; 450] }).chain([reply])
    });
    let mut celery = celery(&broker);
    for _ in 0..4 {
        let replies = celery.ask(&[Method::Ping], soon(), |replies| replies.workers.len() == 1).unwrap();
        assert_eq!(replies.workers.len(), 1);
    }
}

#[test]
fn a_kept_connection_that_was_forgotten_on_the_way_is_replaced_within_the_same_question() {
    let broker = Broker::start(Order::AnswersFirst, |published| {
        [Message { ticket: Some(ticket(published)), body: br#"{"w@h": {"ok": "pong"}}"#.to_vec() }]
    });
    let proxy = Proxy::to(broker.address.port());
    let address = format!("amqp://127.0.0.1:{}//", proxy.port);
    let mut celery = Celery::new(&address.parse().unwrap(), &Names::default());
    for taken in 1..=3 {
        for _ in 0..2 {
            let until = Instant::now() + Duration::from_secs(3);
            let replies = celery.ask(&[Method::Ping], until, |replies| replies.workers.len() == 1).unwrap();
            assert_eq!((replies.workers.len(), proxy.taken()), (1, taken));
        }
        proxy.forget();
    }
}

#[test]
fn a_task_that_a_frozen_redis_takes_later_is_taken_back_before_the_next_one_is_sent() {
    let server = Redis::start(&[]);
    let mut celery = Celery::new(&server.url().parse().unwrap(), &Names::default());
    let task = Task { name: "t".to_owned(), queue: "q".to_owned() };
    let sent = celery.send(&task, soon()).unwrap();
    celery.withdraw(&sent, soon()).unwrap();
    server.program.freeze();
    let told = celery.send(&task, Instant::now() + Duration::from_millis(300)).unwrap_err();
    assert_eq!(told.reason(), "Redis did not answer in time");
    server.program.signal(Signal::SIGCONT);
    until("the task that nobody waits for", || (server.ask("LLEN q") == ":1").then_some(()));
    let sent = celery.send(&task, soon()).unwrap();
    assert_eq!(server.ask("LLEN q"), ":1", "the new one alone");
    celery.withdraw(&sent, soon()).unwrap();
    assert_eq!(server.ask("LLEN q"), ":0");
}

/// A way to a Redis on which what is said and what is answered alternate. Where it is told to, it passes the next `LPUSH` on,
/// and closes in place of its answer.
fn way_that_closes(server: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let closes = Arc::<AtomicBool>::default();
    let told = Arc::clone(&closes);
    thread::spawn(move || {
        for mut near in listener.incoming().map_while(Result::ok) {
            let mut far = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(said @ 1..) = near.read(&mut bytes) {
                far.write_all(&bytes[..said]).unwrap();
                let is_push = bytes[..said].windows(5).any(|word| word == b"LPUSH");
                let answered = far.read(&mut bytes).unwrap();
                if is_push && told.swap(false, Ordering::SeqCst) {
                    break;
                }
                near.write_all(&bytes[..answered]).unwrap();
            }
        }
    });
    (port, closes)
}

#[test]
fn a_task_whose_connection_ends_before_the_answer_does_not_stay_in_its_list() {
    let server = Redis::start(&[]);
    let (port, closes) = way_that_closes(server.port);
    let mut celery = Celery::new(&format!("redis://127.0.0.1:{port}").parse().unwrap(), &Names::default());
    let task = Task { name: "t".to_owned(), queue: "q".to_owned() };
    server.ask("LPUSH q theirs");
    let sent = celery.send(&task, soon()).unwrap();
    celery.withdraw(&sent, soon()).unwrap();
    for idle in [Duration::ZERO, Duration::from_millis(600)] {
        thread::sleep(idle);
        closes.store(true, Ordering::SeqCst);
        let sent = celery.send(&task, soon()).unwrap();
        assert!(!closes.load(Ordering::SeqCst), "it has closed");
        assert_eq!(server.ask("LLEN q"), ":3", "it was sent again");
        celery.withdraw(&sent, soon()).unwrap();
        assert_eq!(server.ask("LLEN q"), ":1", "theirs alone");
    }
}

/// The most that the process has had.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.split_whitespace().next().unwrap().parse().unwrap()
}
