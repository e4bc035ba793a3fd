//! The tower layer: what its calls show in the record, and that it passes on all else as it is.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use heartbeat::Heartbeat;
use heartbeat::observe::{Owner, observe};
use heartbeat::record::{Record, Status};
use heartbeat::tower::{TaskLayer, TaskService};
use heartbeat::verdict::Verdict;
use tempfile::TempDir;
use tower::{Layer, Service, service_fn};

const PATIENCE: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_mins(1);

struct Worker {
    heartbeat: Arc<Heartbeat>,
    folder: TempDir,
}

impl Worker {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = Heartbeat::builder().environment(|_| None).file(folder.path().join("beat"));
        let heartbeat = builder.interval(Duration::from_millis(20)).start().unwrap();
        Self { heartbeat: Arc::new(heartbeat), folder }
    }

    /// The first record of which `fact` is true.
    fn record(&self, what: &str, fact: impl Fn(&Record) -> bool) -> Record {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = observe(&self.folder.path().join("beat"), Owner::Own);
            let record = seen.record().expect("a record");
            if fact(record) {
                return record.clone();
            }
            assert!(Instant::now() < end, "{what} did not come: {record:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many tasks ended as done, and as failed, once none runs.
    fn ended(&self, tasks: u64) -> (u64, u64) {
        let record = self.record("the end of all tasks", |record| {
            record.status == Status::Idle && record.tasks.done + record.tasks.failed == tasks
        });
        assert_eq!(record.tasks.running, 0);
        (record.tasks.done, record.tasks.failed)
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_call_is_a_task_until_its_end() {
    let worker = Worker::start();
    let layer = TaskLayer::new(&worker.heartbeat, "resize", MINUTE);
    let mut service = layer.layer(service_fn(|(): ()| {
        let mut turns = 0;
        std::future::poll_fn(move |_| {
            turns += 1;
            if turns == 2 { Poll::Ready(Ok::<_, Infallible>("small")) } else { Poll::Pending }
        })
    }));
    let mut call = pin!(service.call(()));
    assert_eq!(poll(call.as_mut()), Poll::Pending);
    let record = worker.record("the task", |record| record.tasks.running == 1);
    let nearest = record.tasks.nearest.unwrap();
    assert_eq!(nearest.name, "resize");
    assert_eq!(nearest.due_mono_ms.unwrap() - nearest.since_mono_ms, 60_000);
    assert_eq!(poll(call.as_mut()), Poll::Ready(Ok("small")));
    // With its answer, and not with the future's drop.
    assert_eq!(worker.ended(1), (1, 0));
}

#[test]
fn a_call_that_errs_has_failed_and_its_error_passes_through() {
    let worker = Worker::start();
    let layer = TaskLayer::new(&worker.heartbeat, "resize", None);
    let mut service = layer.layer(service_fn(|image: &'static str| ready(Err::<(), _>(image))));
    let mut call = pin!(service.call("broken"));
    assert_eq!(poll(call.as_mut()), Poll::Ready(Err("broken")));
    assert_eq!(worker.ended(1), (0, 1));
}

#[test]
fn a_call_that_is_dropped_ends_its_task_as_failed() {
    let worker = Worker::start();
    let mut service = TaskLayer::new(&worker.heartbeat, "resize", MINUTE)
        .layer(service_fn(|(): ()| pending::<Result<(), Infallible>>()));
    let started = service.call(());
    let never_polled = service.call(());
    worker.record("two tasks", |record| record.tasks.running == 2);
    drop(started);
    drop(never_polled);
    assert_eq!(worker.ended(2), (0, 2));
}

#[test]
fn a_call_that_panics_has_failed() {
    let worker = Worker::start();
    let mut service = TaskLayer::new(&worker.heartbeat, "resize", MINUTE).layer(service_fn(|(): ()| async {
        if true { panic!("the work") } else { Ok::<_, Infallible>(()) }
    }));
    let mut call = Box::pin(service.call(()));
    catch_unwind(AssertUnwindSafe(|| poll(call.as_mut()))).unwrap_err();
    drop(call);
    assert_eq!(worker.ended(1), (0, 1));
}

#[test]
fn a_request_brings_its_own_name_and_deadline() {
    struct Job {
        name: String,
        limit: Option<Duration>,
    }
    let worker = Worker::start();
    let heartbeat = Arc::clone(&worker.heartbeat);
    let layer = TaskLayer::by_request(move |job: &Job| heartbeat.task(&job.name, job.limit));
    let mut service = layer.layer(service_fn(|_: Job| pending::<Result<(), Infallible>>()));
    let _long = service.call(Job { name: "long".to_owned(), limit: None });
    let _short = service.call(Job { name: "short".to_owned(), limit: Some(Duration::from_secs(5)) });
    let nearest = worker.record("both", |record| record.tasks.running == 2).tasks.nearest.unwrap();
    assert_eq!(nearest.name, "short");
    assert_eq!(nearest.due_mono_ms.unwrap() - nearest.since_mono_ms, 5_000);
}

#[test]
fn a_call_past_its_deadline_is_overdue() {
    let worker = Worker::start();
    let mut service = TaskLayer::new(&worker.heartbeat, "resize", Duration::from_millis(50))
        .layer(service_fn(|(): ()| pending::<Result<(), Infallible>>()));
    let _call = service.call(());
    let end = Instant::now() + PATIENCE;
    while observe(&worker.folder.path().join("beat"), Owner::Own).judge(None).verdict != Verdict::Overdue {
        assert!(Instant::now() < end, "overdue did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Not ready, then in error, then ready.
struct Door(u8);

impl Service<()> for Door {
    type Response = ();
    type Error = &'static str;
    type Future = Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Pending,
            2 => Poll::Ready(Err("shut")),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[test]
fn readiness_passes_through_and_is_no_task() {
    let worker = Worker::start();
    let mut service = TaskLayer::new(&worker.heartbeat, "resize", MINUTE).layer(Door(0));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(service.poll_ready(&mut context), Poll::Pending);
    assert_eq!(service.poll_ready(&mut context), Poll::Ready(Err("shut")));
    assert_eq!(service.poll_ready(&mut context), Poll::Ready(Ok(())));
    assert_eq!(worker.ended(0), (0, 0));
}

#[test]
fn the_future_is_send_where_the_inner_one_is_and_need_not_be() {
    fn is_send<F: Send + Unpin>(_: &F) {}
    let worker = Worker::start();
    let layer = TaskLayer::new(&worker.heartbeat, "resize", None);
    let mut threads: TaskService<_> = layer.layer(service_fn(|(): ()| async { Ok::<_, Infallible>(()) }));
    is_send(&threads.call(()));
    let mut one =
        layer.layer(service_fn(|kept: Rc<()>| async move { Ok::<_, Infallible>(Rc::strong_count(&kept)) }));
    assert_eq!(poll(pin!(one.call(Rc::new(())))), Poll::Ready(Ok(1)));
}
