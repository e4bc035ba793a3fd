//! A whole worker on apalis, with its jobs in Redis: each job is a task with a deadline, by a tower layer.
//!
//! ```sh
//! cargo run -p heartbeat-queues --example apalis_worker -- push a.png 200 30000 &&
//! HEARTBEAT_WORKER=worker-1 cargo run -p heartbeat-queues --example apalis_worker &
//! cargo run --bin checker -- worker
//! ```

#![expect(clippy::print_stderr, reason = "a program of its own, and no logging crate")]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::*;
use apalis_redis::{Client, Config, ConnectionLike, RedisStorage};
use heartbeat::Heartbeat;
use heartbeat::tower::TaskLayer;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

const QUEUE: &str = "images";
const CONCURRENCY: usize = 4;
const START_DEADLINE: Duration = Duration::from_secs(30);
const DRAIN_DEADLINE: Duration = Duration::from_mins(1);
/// How often an empty queue is looked at, and a Redis that is away.
const PERIOD: Duration = Duration::from_millis(500);

/// Yours: a job knows how long it may take.
#[derive(Debug, Deserialize, Serialize)]
struct Resize {
    image: String,
    milliseconds: u64,
    limit: Duration,
}

/// Yours. A job that can be cancelled is, before the checker calls it overdue.
async fn resize(job: Resize) -> Result<(), BoxDynError> {
    let work = Duration::from_millis(job.milliseconds);
    if job.image == "blocking" {
        // What no job should do: to see what the checker says of it.
        std::thread::sleep(work);
        return Ok(());
    }
    assert!(job.image != "panicking", "an image that nobody can resize");
    Ok(timeout(job.limit, sleep(work)).await?)
}

/// Starts, works, drains, stops.
#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [push, image, milliseconds, limit] = &arguments[..] {
        if push != "push" {
            return Err("usage: apalis_worker [push IMAGE MILLISECONDS LIMIT]".into());
        }
        let limit = Duration::from_millis(limit.parse()?);
        let job = Resize { image: image.clone(), milliseconds: milliseconds.parse()?, limit };
        return Ok(storage().await?.push(job).await?);
    }
    // apalis takes a name that was seen lately for that of another worker, whose jobs it gives to others after a minute. So each
    // run has a name of its own, and no two workers may have the same `HEARTBEAT_WORKER`.
    let name = std::env::var("HEARTBEAT_WORKER").map_err(|error| format!("HEARTBEAT_WORKER: {error}"))?;
    let name = format!("{name}-{}", std::process::id());
    let heartbeat = Heartbeat::builder().queues([QUEUE]).start_deadline(START_DEADLINE).start()?;
    let heartbeat = Arc::new(heartbeat);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut runs = 0;
    // apalis runs its jobs within the future that runs the worker: a job that blocks its thread shows as wedged.
    while let Err(error) =
        heartbeat.pulse_while(work(&heartbeat, &mut terminate, &format!("{name}-{runs}"))).await
    {
        eprintln!("once more in {PERIOD:?}: {error}");
        heartbeat.broker_lost();
        tokio::select! {
            _ = terminate.recv() => break,
            () = sleep(PERIOD) => runs += 1,
        }
    }
    heartbeat.stop_async().await?;
    Ok(())
}

/// One worker of apalis: until SIGTERM and the end of its jobs, or until Redis is away.
async fn work(heartbeat: &Arc<Heartbeat>, terminate: &mut Signal, name: &str) -> Result<(), BoxDynError> {
    let context = WorkerContext::new(name);
    let (tasks, told) = (Arc::clone(heartbeat), Arc::clone(heartbeat));
    let worker = WorkerBuilder::new(context.clone())
        .backend(storage().await?.poll_with_interval(PERIOD))
        .concurrency(CONCURRENCY)
        // Jobs run within one future: one that panics would end all that run beside it, and the worker.
        .catch_panic()
        .layer(TaskLayer::by_request(move |job: &Task<Resize>| tasks.task("resize", job.args.limit + PERIOD)))
        .on_event(move |_, event| {
            // It has told Redis that it is there: at its start, and every 30 s.
            if matches!(event, Event::HeartBeat) {
                told.broker_back();
                told.ready();
            }
        })
        .build(resize);
    let mut worker = pin!(worker.run());
    tokio::select! {
        biased;
        ended = &mut worker => return Ok(ended?),
        _ = terminate.recv() => heartbeat.drain(DRAIN_DEADLINE),
    }
    context.stop()?;
    if timeout(DRAIN_DEADLINE, worker).await.is_err() {
        eprintln!("jobs are left to other workers");
    }
    Ok(())
}

/// Where the jobs are, by a connection that ends with Redis: apalis' own would try again for ten seconds before it tells.
async fn storage()
-> Result<RedisStorage<Resize, impl ConnectionLike + Clone + Send + Sync + Unpin + 'static>, BoxDynError> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
    let connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    let config = Config::default().queue(QUEUE).batch_size(CONCURRENCY);
    Ok(RedisStorage::new(connection).with_config(config))
}
