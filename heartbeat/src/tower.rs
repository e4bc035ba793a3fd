//! For queues whose workers take tower layers: each call of a service is a task.
//!
//! It marks and passes on; it ends no call. A call that is to end at its deadline needs a layer that does that.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower_layer::Layer;
use tower_service::Service;

use crate::duration::millis;
use crate::heartbeat::Heartbeat;
use crate::publisher::Shared;
use crate::tasks::Task;

/// A layer that makes each call of a service a [`Task`]: from the call until its future has ended or was dropped.
///
/// A call that errs, panics, or is dropped before its end counts as failed, every other as done. Requests, responses, errors
/// and readiness pass through as they are. A call costs what [`Heartbeat::task`] costs, and one allocation.
///
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use heartbeat::Heartbeat;
/// use heartbeat::tower::TaskLayer;
/// use tower::{Service, ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heartbeat = Heartbeat::builder()
/// #   .no_file()
///     .start()?;
/// let mut resize = ServiceBuilder::new()
///     .layer(TaskLayer::new(&heartbeat, "resize", Duration::from_secs(60)))
///     .service_fn(|image: &'static str| async move { Ok::<_, Infallible>(image.len()) });
///
/// assert_eq!(resize.ready().await?.call("a.png").await?, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TaskLayer<S = Same> {
    starts: S,
}

impl TaskLayer {
    /// Every call is a task of this name and with this deadline; `None`: it may take as long as it takes.
    ///
    /// The name is cut to 64 bytes. It goes into the record, so it carries no arguments and no secrets.
    pub fn new(
        heartbeat: &Heartbeat,
        name: impl Into<Arc<str>>,
        deadline: impl Into<Option<Duration>>,
    ) -> Self {
        let shared = Arc::clone(&heartbeat.shared);
        Self { starts: Same { shared, name: name.into(), deadline_ms: deadline.into().map(millis) } }
    }
}

impl<F> TaskLayer<F> {
    /// Each call is the task that `start` makes of its request: for names and deadlines that jobs bring with them.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use heartbeat::{Heartbeat, tower::TaskLayer};
    /// struct Job {
    ///     kind: String,
    ///     limit: Duration,
    /// }
    ///
    /// # let heartbeat = Heartbeat::builder().no_file().start()?;
    /// let heartbeat = Arc::new(heartbeat);
    /// let layer = TaskLayer::by_request(move |job: &Job| heartbeat.task(&job.kind, job.limit));
    /// # drop(layer);
    /// # Ok::<(), heartbeat::Error>(())
    /// ```
    pub fn by_request<Request>(start: F) -> Self
    where
        F: Fn(&Request) -> Task,
    {
        Self { starts: start }
    }
}

impl<F> fmt::Debug for TaskLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLayer").finish_non_exhaustive()
    }
}

impl<Inner, F: Clone> Layer<Inner> for TaskLayer<F> {
    type Service = TaskService<Inner, F>;

    fn layer(&self, inner: Inner) -> Self::Service {
        TaskService { inner, starts: self.starts.clone() }
    }
}

/// How a request's task is started. Sealed: by [`TaskLayer::new`] or [`TaskLayer::by_request`].
pub trait StartTask<Request>: sealed::Sealed<Request> {}

mod sealed {
    use crate::tasks::Task;

    pub trait Sealed<Request> {
        fn start(&self, request: &Request) -> Task;
    }
}

/// The same name and deadline for every request: from [`TaskLayer::new`].
#[derive(Clone)]
pub struct Same {
    shared: Arc<Shared>,
    name: Arc<str>,
    deadline_ms: Option<u64>,
}

impl fmt::Debug for Same {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Same").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<Request> sealed::Sealed<Request> for Same {
    fn start(&self, _: &Request) -> Task {
        self.shared.task(&self.name, self.deadline_ms)
    }
}

impl<Request, F: Fn(&Request) -> Task> sealed::Sealed<Request> for F {
    fn start(&self, request: &Request) -> Task {
        self(request)
    }
}

impl<Request, S: sealed::Sealed<Request>> StartTask<Request> for S {}

/// A service whose calls are tasks: from [`TaskLayer`].
#[derive(Clone)]
pub struct TaskService<Inner, S = Same> {
    inner: Inner,
    starts: S,
}

impl<Inner: fmt::Debug, S> fmt::Debug for TaskService<Inner, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<Request, Inner, S> Service<Request> for TaskService<Inner, S>
where
    Inner: Service<Request>,
    S: StartTask<Request>,
{
    type Response = Inner::Response;
    type Error = Inner::Error;
    type Future = TaskFuture<Inner::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let task = Running(Some(self.starts.start(&request)));
        TaskFuture { call: Box::pin(self.inner.call(request)), task }
    }
}

/// A call that is a task: from [`TaskService`].
#[must_use = "futures do nothing unless polled"]
pub struct TaskFuture<Call> {
    // Dropped first: while it is dropped, the task still runs.
    call: Pin<Box<Call>>,
    task: Running,
}

impl<Call> fmt::Debug for TaskFuture<Call> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskFuture").finish_non_exhaustive()
    }
}

impl<Call, Response, Error> Future for TaskFuture<Call>
where
    Call: Future<Output = Result<Response, Error>>,
{
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.call.as_mut().poll(context);
        match &answer {
            Poll::Ready(Ok(_)) => self.task.done(),
            Poll::Ready(Err(_)) => self.task.fail(),
            Poll::Pending => {}
        }
        answer
    }
}

/// A task that has failed where nobody says that it is done.
struct Running(Option<Task>);

impl Running {
    fn done(&mut self) {
        if let Some(task) = self.0.take() {
            task.done();
        }
    }

    fn fail(&mut self) {
        if let Some(task) = self.0.take() {
            task.fail();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.fail();
    }
}
