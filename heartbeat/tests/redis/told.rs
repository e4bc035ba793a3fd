//! What is told through `tracing`: an outage once, its end once, and a password never.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::servers::{SOON, Server, until};
use crate::worker::{Worker, builder};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Those that name this, in their order.
    fn about(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_outage_is_told_once_and_its_end_too_and_never_the_password() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();

    let mut redis = Server::start(&[]);
    redis.ask::<()>("ACL SETUSER me on >S3cret ~* +@all");
    let place = format!("127.0.0.1:{}", redis.port);
    let worker = Worker::with(
        builder().redis(format!("redis://me:S3cret@{place}")).interval(Duration::from_millis(50)),
    );
    worker.wait_published();
    assert_eq!(lines.about(&place), Vec::<String>::new(), "nothing went wrong");
    redis.kill();
    let failures = |n: u64| {
        until("failures", SOON, || (worker.heartbeat.counters().redis_failures > n).then_some(()));
    };
    failures(5);
    // It comes back without the user: the next outage, in other words, is the same one.
    redis.restart();
    failures(worker.heartbeat.counters().redis_failures + 5);
    redis.ask::<()>("ACL SETUSER me on >S3cret ~* +@all");
    worker.wait_published();
    until("its end is told", SOON, || (lines.about(&place).len() >= 2).then_some(()));
    let told = lines.about(&place);
    let [began, ended] = &told[..] else { panic!("{told:#?}") };
    assert!(began.contains("WARN") && began.contains("cannot publish to Redis"), "{began}");
    assert!(ended.contains("INFO") && ended.contains("reached again"), "{ended}");
    assert_eq!(lines.about("S3cret"), Vec::<String>::new());
}
