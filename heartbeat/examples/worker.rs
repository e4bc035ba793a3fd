//! A whole worker: it takes jobs from a Redis list, runs several at once, each within its deadline, and on SIGTERM
//! finishes what it has.
//!
//! ```sh
//! redis-cli LPUSH jobs 'first 200' 'second 1500'
//! HEARTBEAT_WORKER=worker-1 cargo run -p heartbeat --features tokio --example worker &
//! cargo run --bin checker -- worker
//! ```
//!
//! A job is moved to a list of its worker's own before it runs, and leaves that only when it has ended, so none is
//! lost however the worker dies: what is found there at the next start goes back to the queue. So a job may run
//! twice, and no two workers may have the same `HEARTBEAT_WORKER`.

#![expect(clippy::print_stderr, reason = "a program of its own, and no logging crate")]

use std::sync::Arc;
use std::time::Duration;

use heartbeat::Heartbeat;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, Direction, RedisResult};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const QUEUE: &str = "jobs";
const RESULTS: &str = "jobs:results";
const FAILED: &str = "jobs:failed";
const CONCURRENCY: usize = 4;
const JOB_DEADLINE: Duration = Duration::from_secs(30);
const DRAIN_DEADLINE: Duration = Duration::from_mins(1);
/// How long the loop waits for anything before it turns again.
const TURN: Duration = Duration::from_secs(1);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Starts, works, drains, stops.
#[tokio::main]
pub async fn main() -> Result<(), Error> {
    // No default: two workers of one name would take each other's jobs for their own.
    let name = std::env::var("HEARTBEAT_WORKER").map_err(|error| format!("HEARTBEAT_WORKER: {error}"))?;
    let heartbeat = Heartbeat::builder()
        .worker(&name)
        .queues([QUEUE])
        .loop_budget(Duration::from_secs(10))
        .start_deadline(Duration::from_secs(30))
        .start()?;
    // Tells of a blocked runtime; the loop's own pulse, below, of a loop that does not turn.
    let _runtime = heartbeat.pulse_from_runtime()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut queue = Queue::open(&name).await?;
    queue.put_back().await?;
    let heartbeat = Arc::new(heartbeat);
    heartbeat.ready();

    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let mut jobs = JoinSet::new();
    let ended = loop {
        heartbeat.pulse();
        while jobs.try_join_next().is_some() {}
        // First the permit: a job that cannot start at once is better off with another worker.
        let permit = tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            permit = Arc::clone(&permits).acquire_owned() => permit?,
            () = sleep(TURN) => continue,
        };
        match queue.take().await {
            Ok(Some(job)) => drop(jobs.spawn(run(job, Arc::clone(&heartbeat), queue.clone(), permit))),
            Ok(None) => {}
            // Whoever supervises this worker starts it again.
            Err(error) => break Err(error.into()),
        }
    };

    heartbeat.drain(DRAIN_DEADLINE);
    let finished = async { while jobs.join_next().await.is_some() {} };
    if timeout(DRAIN_DEADLINE, finished).await.is_err() {
        eprintln!("{} jobs are left to the next start", jobs.len());
    }
    heartbeat.stop_async().await?;
    ended
}

/// Runs one job and says how it ended. `permit` is given back at the end.
async fn run(job: String, heartbeat: Arc<Heartbeat>, mut queue: Queue, permit: OwnedSemaphorePermit) {
    // A job that can be cancelled is, before the checker calls it overdue.
    let task = heartbeat.task("job", JOB_DEADLINE + TURN);
    let outcome = match timeout(JOB_DEADLINE, work(&job)).await {
        Ok(Ok(())) => queue.finish(&job, RESULTS).await,
        Ok(Err(_)) | Err(_) => queue.finish(&job, FAILED).await.inspect(|()| task.fail()),
    };
    if let Err(error) = outcome {
        eprintln!("{job:?} is left to the next start: {error}");
    }
    drop(permit);
}

/// Yours. Here a job's last word is how many milliseconds it takes.
async fn work(job: &str) -> Result<(), Error> {
    let milliseconds = job.rsplit(' ').next().unwrap_or_default().parse()?;
    sleep(Duration::from_millis(milliseconds)).await;
    Ok(())
}

/// The list of jobs, and this worker's own list of those that it has taken.
#[derive(Clone)]
struct Queue {
    /// A taker makes all that is sent after it on its connection wait, so it has one to itself.
    taker: MultiplexedConnection,
    connection: MultiplexedConnection,
    taken: String,
}

impl Queue {
    async fn open(worker: &str) -> RedisResult<Self> {
        let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
        let client = redis::Client::open(url)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TURN * 5));
        let taker = client.get_multiplexed_async_connection_with_config(&config).await?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { taker, connection, taken: format!("{QUEUE}:taken:{worker}") })
    }

    /// Returns what an earlier run of this worker took and did not finish, to be the next in its old order.
    async fn put_back(&mut self) -> RedisResult<()> {
        loop {
            let (from, to) = (Direction::Left, Direction::Right);
            let job: Option<String> = self.connection.lmove(&self.taken, QUEUE, from, to).await?;
            if job.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits for a job, one turn at most. Not to be cancelled: Redis may have moved a job already.
    async fn take(&mut self) -> RedisResult<Option<String>> {
        let (from, to) = (Direction::Right, Direction::Left);
        self.taker.blmove(QUEUE, &self.taken, from, to, TURN.as_secs_f64()).await
    }

    /// Moves a job to where the ended ones are, as one step.
    async fn finish(&mut self, job: &str, ended: &str) -> RedisResult<()> {
        let mut step = redis::pipe();
        step.atomic().lrem(&self.taken, 1, job).ignore().lpush(ended, job).ignore();
        step.query_async(&mut self.connection).await
    }
}
