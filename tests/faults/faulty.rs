//! A worker that breaks on its standard input's word, in the ways in which workers break.
//!
//! `faulty thread|tokio [MILLISECONDS]`: what its loop is, and the deadline of its start where it has one. Where it beats comes
//! from the environment (`HEARTBEAT_*`). One order a line; it ends cleanly when its input does.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use heartbeat::Heartbeat;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

type Failure = Box<dyn std::error::Error>;

/// Between two turns of the loop that has nothing to do.
const TURN: Duration = Duration::from_millis(50);

/// What is put to the loop itself.
enum Order {
    /// It stands for so long; on tokio it awaits, and the runtime turns.
    Stand(Duration),
    /// It keeps the thread of its runtime from turning for so long.
    Block(Duration),
    /// It takes a lock whose holder waits for one that the loop has.
    Deadlock,
    End,
}

/// Works, and breaks as it is told.
pub fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let driver = arguments.next().unwrap_or_default();
    let mut builder = Heartbeat::builder();
    if let Some(deadline) = arguments.next() {
        builder = builder.start_deadline(Duration::from_millis(deadline.parse()?));
    }
    let heartbeat = Arc::new(builder.start()?);
    writeln!(io::stdout(), "beating {}", std::process::id())?;
    match driver.as_str() {
        "thread" => {
            let (orders, taken) = channel();
            let listener = Arc::clone(&heartbeat);
            thread::spawn(move || listen(&listener, |order| drop(orders.send(order))));
            turn_in_a_thread(&heartbeat, &taken);
        }
        "tokio" => {
            let (orders, taken) = unbounded_channel();
            let listener = Arc::clone(&heartbeat);
            thread::spawn(move || listen(&listener, |order| drop(orders.send(order))));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            runtime.block_on(turn_on_tokio(&heartbeat, taken))?;
        }
        other => return Err(format!("neither thread nor tokio: {other:?}").into()),
    }
    Ok(heartbeat.stop()?)
}

/// Obeys what is no business of the loop, and hands on what is.
fn listen(heartbeat: &Arc<Heartbeat>, hand_on: impl Fn(Order)) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let times: Vec<_> = words.filter_map(|word| word.parse().ok()).map(Duration::from_millis).collect();
        match (command, times.as_slice()) {
            ("stand", [time]) => hand_on(Order::Stand(*time)),
            ("block", [time]) => hand_on(Order::Block(*time)),
            ("deadlock", []) => hand_on(Order::Deadlock),
            ("task", [deadline, length]) => work(heartbeat, *deadline, *length),
            ("drain", [deadline]) => heartbeat.drain(*deadline),
            ("ready", []) => heartbeat.ready(),
            ("eat", []) => drop(thread::spawn(eat)),
            _ => drop(writeln!(io::stderr(), "no such order: {line:?}")),
        }
    }
    hand_on(Order::End);
}

/// One task, elsewhere than in the loop.
fn work(heartbeat: &Arc<Heartbeat>, deadline: Duration, length: Duration) {
    let task = heartbeat.task("work", deadline);
    thread::spawn(move || {
        thread::sleep(length);
        task.done();
    });
}

/// Takes all the memory that there is, a little at a time.
fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
        thread::sleep(Duration::from_millis(2));
    }
}

fn turn_in_a_thread(heartbeat: &Heartbeat, orders: &Receiver<Order>) {
    loop {
        heartbeat.pulse();
        match orders.recv_timeout(TURN) {
            Ok(Order::Stand(time) | Order::Block(time)) => thread::sleep(time),
            Ok(Order::Deadlock) => deadlock(),
            Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The loop marks each of its turns, and the runtime its own.
async fn turn_on_tokio(
    heartbeat: &Heartbeat,
    mut orders: UnboundedReceiver<Order>,
) -> Result<(), heartbeat::Error> {
    let _pulse = heartbeat.pulse_from_runtime()?;
    loop {
        heartbeat.pulse();
        match tokio::time::timeout(TURN, orders.recv()).await {
            Ok(Some(Order::Stand(time))) => tokio::time::sleep(time).await,
            Ok(Some(Order::Block(time))) => thread::sleep(time),
            Ok(Some(Order::Deadlock)) => deadlock(),
            Ok(Some(Order::End) | None) => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Two threads, two locks, each of which the other has. Never returns.
fn deadlock() {
    let locks = [(); 2].map(|()| Arc::new(Mutex::new(())));
    let both_have_one = Arc::new(Barrier::new(2));
    let take = |first: &Mutex<()>, second: &Mutex<()>, barrier: &Barrier| {
        let _first = first.lock().unwrap_or_else(PoisonError::into_inner);
        barrier.wait();
        drop(second.lock());
    };
    let ([one, other], barrier) = (locks.clone(), Arc::clone(&both_have_one));
    thread::spawn(move || take(&other, &one, &barrier));
    take(&locks[0], &locks[1], &both_have_one);
}
