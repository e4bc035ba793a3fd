//! The kind `rabbitmq`, asked of a real RabbitMQ. It takes seconds to start, so all of it is one story with one broker.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::time::{Duration, Instant};

use async_rs::{Runtime, Tokio};
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use nix::sys::signal::Signal;
use serde_json::json;
use servers::{RabbitMq, SOON, ask, ask_briefly, ask_within, check};
use shared::celery::{Celery, Method, Names, Replies};
use shared::check::Check;

/// How long after its deadline a question may end.
const LATE: Duration = Duration::from_millis(50);

const PROBE: &str = "probe:S3cret%2F";

async fn client(rabbit: &RabbitMq) -> (Connection, Channel) {
    let url = rabbit.url("guest:guest", "shop");
    let runtime = Runtime::new(Tokio::current());
    let connection =
        Connection::connect_with_runtime(&url, ConnectionProperties::default(), runtime).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, queue: &str) {
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), queue.into(), options, b"S3cret", BasicProperties::default());
    sent.await.unwrap().await.unwrap();
}

/// Asks until the answer is this one: what one connection does another one may see a moment later.
async fn becomes(check: &dyn Check, answer: Result<(), &str>) {
    let begun = Instant::now();
    loop {
        let told = ask(check).await;
        if told.as_ref().map_err(String::as_str) == answer.as_ref().map_err(|why| *why).map(|()| &()) {
            return;
        }
        assert!(begun.elapsed() < SOON, "{told:?} instead of {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rabbitmq_passes_fails_freezes_and_comes_back() {
    let mut rabbit = RabbitMq::start();
    queues_have_limits(&rabbit).await;
    who_is_refused_is_told_why(&rabbit).await;
    it_is_reached_over_tls(&rabbit).await;
    one_connection_is_kept(&rabbit).await;
    an_alarm_is_told_for_as_long_as_it_lasts(&rabbit).await;
    a_frozen_one_is_told_in_time(&rabbit).await;
    celerys_question_holds_its_deadline_to_the_end(&rabbit);
    a_dead_connection_is_replaced_within_the_same_run(&mut rabbit).await;
}

async fn queues_have_limits(rabbit: &RabbitMq) {
    // This user may read and write nothing: to look at a queue takes no right.
    let url = rabbit.url(PROBE, "shop");
    let full =
        check("rabbitmq", json!({ "url": url, "queues": { "mail": { "max_messages": 1 }, "pdf": {} } }));
    let manned = check("rabbitmq", json!({ "url": url, "queues": { "mail": { "min_consumers": 1 } } }));
    assert_eq!(ask(&*full).await, Ok(()));
    assert_eq!(ask(&*manned).await, Err("queue mail: 0 of 1 consumers are there".to_owned()));

    let (connection, channel) = client(rabbit).await;
    publish(&channel, "mail").await;
    publish(&channel, "mail").await;
    becomes(&*full, Err("queue mail: 2 messages wait, more than 1")).await;
    channel.queue_purge("mail".into(), QueuePurgeOptions::default()).await.unwrap();
    becomes(&*full, Ok(())).await;

    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume("mail".into(), "c".into(), options, arguments).await.unwrap();
    becomes(&*manned, Ok(())).await;
    drop(consumer);

    let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("own".into(), own, FieldTable::default()).await.unwrap();
    let missing =
        check("rabbitmq", json!({ "url": url, "queues": { "gone": {}, "mail": {}, "own": {}, "zip": {} } }));
    let reason =
        "queue gone is not there; queue own is exclusive to another connection; queue zip is not there";
    assert_eq!(ask(&*missing).await, Err(reason.to_owned()));
    assert_eq!(ask(&*missing).await, Err(reason.to_owned()));
    connection.close(200, "OK".into()).await.unwrap();
    becomes(&*manned, Err("queue mail: 0 of 1 consumers are there")).await;
}

async fn who_is_refused_is_told_why(rabbit: &RabbitMq) {
    for (user, vhost, reason) in [
        ("probe:S3cret", "shop", "the user or the password is refused"),
        ("nobody:S3cret", "shop", "the user or the password is refused"),
        (PROBE, "nowhere", "the virtual host is not there, or not for this user"),
        (PROBE, "", "the virtual host is not there, or not for this user"),
    ] {
        let told = ask(&*check("rabbitmq", json!({ "url": rabbit.url(user, vhost) }))).await.unwrap_err();
        assert!(told.starts_with(reason) && !told.contains("S3cret"), "{told}");
    }
}

async fn it_is_reached_over_tls(rabbit: &RabbitMq) {
    let url = format!("amqps://guest:guest@localhost:{}/shop", rabbit.tls);
    let file = |name| rabbit.file(name);
    let own = json!({ "ca": file("ca.pem"), "cert": file("cert.pem"), "key": file("key.pem") });
    assert_eq!(ask(&*check("rabbitmq", json!({ "url": url, "tls": own }))).await, Ok(()));
    let options = format!("?ca={}&cert={}&key={}", file("ca.pem"), file("cert.pem"), file("key.pem"));
    assert_eq!(ask(&*check("rabbitmq", json!({ "url": format!("{url}{options}") }))).await, Ok(()));
    let told = ask(&*check("rabbitmq", json!({ "url": url }))).await.unwrap_err();
    assert!(told.starts_with("the connection could not be encrypted: invalid peer certificate"), "{told}");
    let stranger = json!({ "url": url, "tls": { "ca": file("ca.pem") } });
    assert!(ask(&*check("rabbitmq", stranger)).await.is_err(), "the broker asks for a certificate");
    let missing = json!({ "url": url, "tls": { "ca": file("no-such-file") } });
    let told = ask(&*check("rabbitmq", missing)).await.unwrap_err();
    assert!(told.starts_with("the file of `ca` cannot be used"), "{told}");
    let plain = json!({ "url": format!("amqp://guest:guest@localhost:{}/shop", rabbit.tls) });
    assert!(ask(&*check("rabbitmq", plain)).await.is_err());
}

async fn one_connection_is_kept(rabbit: &RabbitMq) {
    let kept = check("rabbitmq", json!({ "url": rabbit.url(PROBE, "shop"), "queues": { "gone": {} } }));
    for _ in 0..20 {
        ask(&*kept).await.unwrap_err();
    }
    let begun = Instant::now();
    // Those of the tests before say farewell and go.
    loop {
        let connections = rabbit.ctl(&["list_connections", "user", "channels"]);
        let of_probe: Vec<_> = connections.lines().filter(|line| line.starts_with("probe")).collect();
        if of_probe == ["probe\t1"] {
            break;
        }
        assert!(begun.elapsed() < SOON, "{connections}");
    }
    let ended = || rabbit.said().matches("client unexpectedly closed TCP connection").count();
    let before = ended();
    drop(kept);
    while rabbit.ctl(&["list_connections", "user"]).lines().any(|line| line == "probe") {
        assert!(begun.elapsed() < SOON, "{}", rabbit.said());
    }
    assert_eq!(ended(), before, "no farewell was said: {}", rabbit.said());
    assert!(!rabbit.said().contains("S3cret"));
    // One that turned its connection on a runtime of its own panicked where it was dropped on another.
    let celery = check("celery", json!({ "broker": rabbit.url(PROBE, "shop"), "min": 0 }));
    let told = ask(&*celery).await;
    assert!(told.is_err(), "this user may not make a queue for replies");
    let celery = check("celery", json!({ "broker": rabbit.url("guest:guest", "shop"), "min": 0 }));
    assert_eq!(ask(&*celery).await, Ok(()));
    drop(celery);
}

async fn an_alarm_is_told_for_as_long_as_it_lasts(rabbit: &RabbitMq) {
    let settings =
        |user, alarms| json!({ "url": rabbit.url(user, "shop"), "queues": { "mail": {} }, "alarms": alarms });
    let checks = ["guest:guest", PROBE].map(|user| check("rabbitmq", settings(user, true)));
    let blind = check("rabbitmq", settings(PROBE, false));
    for check in &checks {
        assert_eq!(ask(&**check).await, Ok(()));
    }
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    for check in &checks {
        becomes(&**check, Err("the broker blocks publishers: it is low on memory")).await;
        // Who may not publish is refused and blocked at once, in either order.
        for _ in 0..50 {
            let told = ask(&**check).await;
            assert_eq!(told, Err("the broker blocks publishers: it is low on memory".to_owned()));
        }
    }
    assert_eq!(ask(&*blind).await, Ok(()), "it was not to look");
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.9"]);
    for check in &checks {
        becomes(&**check, Ok(())).await;
    }
    rabbit.ctl(&["set_disk_free_limit", "9000GB"]);
    becomes(&*checks[0], Err("the broker blocks publishers: it is low on disk")).await;
    rabbit.ctl(&["set_disk_free_limit", "1MB"]);
    becomes(&*checks[0], Ok(())).await;
    // Nothing is left behind.
    let queues = rabbit.ctl(&["list_queues", "-p", "shop", "--no-table-headers", "name", "messages"]);
    let mut queues: Vec<_> = queues.lines().collect();
    queues.sort_unstable();
    assert_eq!(queues, ["mail\t0", "pdf\t0"]);
}

async fn a_frozen_one_is_told_in_time(rabbit: &RabbitMq) {
    let [kept, new] = [(); 2].map(|()| check("rabbitmq", json!({ "url": rabbit.url(PROBE, "shop") })));
    // Of one that looks at nothing else, it is asked all the same.
    let bare = check("rabbitmq", json!({ "url": rabbit.url(PROBE, "shop"), "alarms": false }));
    for check in [&kept, &bare] {
        assert_eq!(ask(&**check).await, Ok(()));
    }
    rabbit.signal(Signal::SIGSTOP);
    for check in [&kept, &new, &bare] {
        assert_eq!(ask_briefly(&**check).await, Err("timed out".to_owned()));
    }
    rabbit.signal(Signal::SIGCONT);
    for check in [&kept, &new, &bare] {
        becomes(&**check, Ok(())).await;
    }
}

/// On a thread of its own: it blocks, and says farewell only where no runtime turns.
fn celerys_question_holds_its_deadline_to_the_end(rabbit: &RabbitMq) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let url = rabbit.url("guest:guest", "shop").parse().unwrap();
            let nobody = |_: &Replies| true;
            let ask = |celery: &mut Celery, until| celery.ask(&[Method::Ping], until, nobody).map(drop);
            // One connection stands and has been asked before, the other one has just answered.
            let [mut kept, mut answered] = [(); 2].map(|()| Celery::new(&url, &Names::default()));
            ask(&mut kept, Instant::now() + SOON).unwrap();
            let until = Instant::now() + Duration::from_secs(2);
            ask(&mut answered, until).unwrap();
            rabbit.signal(Signal::SIGSTOP);
            std::thread::sleep(until.saturating_duration_since(Instant::now() + Duration::from_millis(100)));
            drop(answered);
            let farewell = Instant::now().saturating_duration_since(until);
            let until = Instant::now() + Duration::from_millis(700);
            let told = ask(&mut kept, until);
            let late = Instant::now().saturating_duration_since(until);
            rabbit.signal(Signal::SIGCONT);
            assert_eq!(told.unwrap_err().reason(), "the broker did not answer in time");
            assert!(farewell < LATE && late < LATE, "{farewell:?} and {late:?} late");
            ask(&mut kept, Instant::now() + SOON).unwrap();
        });
    });
}

async fn a_dead_connection_is_replaced_within_the_same_run(rabbit: &mut RabbitMq) {
    let kept = check("rabbitmq", json!({ "url": rabbit.url(PROBE, "shop"), "queues": { "mail": {} } }));
    let celery = check("celery", json!({ "broker": rabbit.url("guest:guest", "shop"), "min": 0 }));
    for check in [&kept, &celery] {
        assert_eq!(ask(&**check).await, Ok(()));
    }
    rabbit.program.kill();
    let begun = Instant::now();
    loop {
        let told = ask_within(&*kept, Duration::from_secs(5)).await.unwrap_err();
        if told.starts_with("no connection is accepted") {
            break;
        }
        // Its port may be a moment behind the script that was waited for.
        assert!(begun.elapsed() < SOON, "{told}");
    }
    let told = ask_within(&*celery, Duration::from_secs(5)).await.unwrap_err();
    assert!(told.starts_with("the broker cannot be reached"), "{told}");
    rabbit.program.restart();
    rabbit.wait();
    becomes(&*kept, Ok(())).await;
    becomes(&*celery, Ok(())).await;
    rabbit.restart();
    for check in [&kept, &celery] {
        assert_eq!(ask(&**check).await, Ok(()), "the connection that was kept is dead");
    }
}
