//! A whole worker on lapin, with its jobs in a queue of RabbitMQ: each delivery is a task with a deadline, and is acknowledged
//! once it has ended, so that none is lost however the worker dies.
//!
//! ```sh
//! cargo run -p heartbeat-queues --example lapin_worker &
//! cargo run --bin checker -- worker
//! ```

#![expect(clippy::print_stderr, reason = "a program of its own, and no logging crate")]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use heartbeat::{Heartbeat, Task};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const QUEUE: &str = "letters";
const CONCURRENCY: u16 = 4;
const START_DEADLINE: Duration = Duration::from_secs(30);
const JOB_DEADLINE: Duration = Duration::from_secs(3);
const DRAIN_DEADLINE: Duration = Duration::from_mins(1);
/// How long a broker may take to answer, and how long to wait for one that is away.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Starts, works, drains, stops. All on one thread: a job that blocks it blocks the pulse too, and shows as wedged.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let heartbeat = Heartbeat::builder().queues([QUEUE]).start_deadline(START_DEADLINE).start()?;
    let _runtime = heartbeat.pulse_from_runtime()?;
    let heartbeat = Arc::new(heartbeat);
    let mut terminate = signal(SignalKind::terminate())?;
    while let Err(error) = work(&heartbeat, &mut terminate).await {
        eprintln!("once more in {PAUSE:?}: {error}");
        heartbeat.broker_lost();
        tokio::select! {
            _ = terminate.recv() => break,
            () = sleep(PAUSE) => {}
        }
    }
    heartbeat.stop_async().await?;
    Ok(())
}

/// One connection: until SIGTERM and the end of the jobs, or until the broker is away.
async fn work(heartbeat: &Arc<Heartbeat>, terminate: &mut Signal) -> Result<(), Error> {
    // With `?heartbeat=10` a broker that is silent is given up after twice as many seconds.
    let url =
        std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672/%2f?heartbeat=10".to_owned());
    let connection = timeout(PATIENCE, Connection::connect(&url, ConnectionProperties::default())).await??;
    let channel = connection.create_channel().await?;
    // No more than can start at once: all others are better off with another worker.
    channel.basic_qos(CONCURRENCY, BasicQosOptions::default()).await?;
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    let consume =
        channel.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = consume.await?;
    heartbeat.broker_back();
    heartbeat.ready();

    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            Some(_) = jobs.join_next() => {}
            // Where the connection is lost, so are its jobs: the broker gives them to another worker.
            delivery = deliveries.next() => match delivery {
                Some(delivery) => drop(jobs.spawn(run(delivery?, Arc::clone(heartbeat)))),
                None => return Err("the broker hands out no more".into()),
            },
        }
    }

    heartbeat.drain(DRAIN_DEADLINE);
    let finished = async {
        channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()).await?;
        while jobs.join_next().await.is_some() {}
        connection.close(200, "".into()).await
    };
    match timeout(DRAIN_DEADLINE, finished).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("jobs may be left to other workers: {error}"),
        Err(_) => eprintln!("jobs are left to other workers"),
    }
    Ok(())
}

/// Runs one job and tells the broker how it ended.
async fn run(delivery: Delivery, heartbeat: Arc<Heartbeat>) {
    // A job that can be cancelled is, before the checker calls it overdue.
    let task = Running(Some(heartbeat.task("letter", JOB_DEADLINE + PAUSE)));
    // One that panics is told of too: its delivery would take a place of this worker's until that ends.
    let work = AssertUnwindSafe(send(&delivery.data)).catch_unwind();
    let told = if let Ok(Ok(Ok(()))) = timeout(JOB_DEADLINE, work).await {
        task.done();
        delivery.ack(BasicAckOptions::default()).await
    } else {
        drop(task);
        delivery.nack(BasicNackOptions { requeue: false, ..BasicNackOptions::default() }).await
    };
    if let Err(error) = told {
        eprintln!("the broker will give it to another worker: {error}");
    }
}

/// A task that has failed where nobody says that it is done: one that is given up with its connection is not.
struct Running(Option<Task>);

impl Running {
    fn done(mut self) {
        self.0.take();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.fail();
        }
    }
}

/// Yours. Here a job's last word is how many milliseconds it takes.
async fn send(letter: &[u8]) -> Result<(), Error> {
    let (text, milliseconds) = std::str::from_utf8(letter)?.rsplit_once(' ').ok_or("no number")?;
    let work = Duration::from_millis(milliseconds.parse()?);
    if text == "blocking" {
        // What no job should do: to see what the checker says of it.
        std::thread::sleep(work);
    } else if text == "panicking" {
        panic!("a letter that nobody can send");
    } else {
        sleep(work).await;
    }
    Ok(())
}
