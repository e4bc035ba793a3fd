//! The extension module `heartbeat._heartbeat`: `Heartbeat` and `Task` as Python sees them.
//!
//! It carries arguments in and sentences out, and decides nothing: what a setting means, and when it cannot be, the library
//! says. The publisher's threads are the library's and know of no interpreter, so nothing that holds the GIL delays a beat.

mod argument;
mod told;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use argument::{FileArgument, Seconds, Strings};

pyo3::create_exception!(
    heartbeat,
    Error,
    PyException,
    "A heartbeat that cannot start or cannot stop cleanly; its text says why."
);

fn error(error: &heartbeat::Error) -> PyErr {
    Error::new_err(error.to_string())
}

/// A worker's heartbeat: it beats from here on until it is stopped or its process ends.
///
/// What is not given is taken from the environment (`HEARTBEAT_FILE`, `_CLUSTER`, `_WORKER`, `_QUEUES`, `_REDIS_URL`, `_INTERVAL`,
/// `_PROMISE`, `_LOOP_BUDGET`), read once, else it is the default. Durations are seconds or a `datetime.timedelta`.
/// In a forked child the inherited object does nothing; a child that is a worker itself makes its own.
#[pyclass(frozen, weakref, module = "heartbeat")]
#[derive(Debug)]
struct Heartbeat {
    /// Always there until it is dropped.
    inner: Option<heartbeat::Heartbeat>,
}

impl Heartbeat {
    fn inner(&self) -> PyResult<&heartbeat::Heartbeat> {
        self.inner.as_ref().ok_or_else(|| Error::new_err("heartbeat: it is no more"))
    }
}

impl Drop for Heartbeat {
    /// Waits for the publisher, and lets the other threads of the interpreter run meanwhile.
    fn drop(&mut self) {
        let mut inner = self.inner.take();
        Python::try_attach(|py| {
            let inner = inner.take();
            py.detach(|| drop(inner));
        });
    }
}

#[pymethods]
impl Heartbeat {
    #[new]
    #[pyo3(signature = (*, file=None, file_mode=None, redis=None, cluster=None, worker=None, queues=None, version=None, interval=None,
        promise=None, loop_budget=None, start_deadline=None, drain_deadline=None, endpoint=None, file_may_wait=false))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords, each one a setting")]
    fn new(
        py: Python<'_>,
        file: Option<FileArgument>,
        file_mode: Option<argument::Mode>,
        redis: Option<String>,
        cluster: Option<String>,
        worker: Option<String>,
        queues: Option<Strings>,
        version: Option<String>,
        interval: Option<Seconds>,
        promise: Option<Seconds>,
        loop_budget: Option<Seconds>,
        start_deadline: Option<Seconds>,
        drain_deadline: Option<Seconds>,
        endpoint: Option<argument::Address>,
        file_may_wait: bool,
    ) -> PyResult<Self> {
        // Read while no other thread of the interpreter can change it.
        let environment = environment();
        let start = move || {
            let mut builder =
                heartbeat::Heartbeat::builder().environment(move |name| environment.get(name).cloned());
            builder = match file {
                Some(FileArgument::Path(path)) => builder.file(path),
                Some(FileArgument::None) => builder.no_file(),
                None => builder,
            };
            if file_may_wait {
                builder = builder.file_may_wait();
            }
            builder = with(builder, file_mode.map(|mode| mode.0), heartbeat::Builder::file_mode);
            builder = with(builder, redis, heartbeat::Builder::redis);
            builder = with(builder, cluster, heartbeat::Builder::cluster);
            builder = with(builder, worker, heartbeat::Builder::worker);
            builder = with(builder, queues.map(|queues| queues.0), heartbeat::Builder::queues);
            builder = with(builder, version, heartbeat::Builder::version);
            builder = with(builder, interval.map(|d| d.0), heartbeat::Builder::interval);
            builder = with(builder, promise.map(|d| d.0), heartbeat::Builder::promise);
            builder = with(builder, loop_budget.map(|d| d.0), heartbeat::Builder::loop_budget);
            builder = with(builder, start_deadline.map(|d| d.0), heartbeat::Builder::start_deadline);
            builder = with(builder, drain_deadline.map(|d| d.0), heartbeat::Builder::drain_deadline);
            builder = with(builder, endpoint.map(|address| address.0), heartbeat::Builder::endpoint);
            builder.start()
        };
        told::listen();
        let inner = py.detach(start).map_err(|e| error(&e))?;
        told::pass_on(py)?;
        Ok(Self { inner: Some(inner) })
    }

    /// Marks the worker's loop alive for its default budget.
    fn pulse(&self, py: Python<'_>) -> PyResult<()> {
        self.inner()?.pulse();
        told::pass_on(py)
    }

    /// Marks the worker's loop alive, and says that its next pulse may take up to `budget`.
    fn pulse_within(&self, py: Python<'_>, budget: Seconds) -> PyResult<()> {
        self.inner()?.pulse_within(budget.0);
        told::pass_on(py)
    }

    /// Starts a task: it is overdue where it has not ended within its deadline; without one it may take as long as it takes.
    ///
    /// The name is cut to 64 bytes. It goes into the record, so it carries no arguments and no secrets.
    #[pyo3(signature = (name, deadline=None))]
    fn task(&self, name: &Bound<'_, PyString>, deadline: Option<Seconds>) -> PyResult<Task> {
        // A name that is no Unicode keeps no work from being done.
        let task = self.inner()?.task(&name.to_string_lossy(), deadline.map(|d| d.0));
        told::pass_on(name.py())?;
        Ok(Task(Mutex::new(Some(task))))
    }

    /// Leaves `starting`.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.inner()?.ready();
        told::pass_on(py)
    }

    /// The worker finishes what it has and takes no more, by `deadline` at the latest.
    #[pyo3(signature = (deadline=None))]
    fn drain(&self, py: Python<'_>, deadline: Option<Seconds>) -> PyResult<()> {
        self.inner()?.drain(deadline.map(|d| d.0));
        told::pass_on(py)
    }

    /// The queues that the worker takes work from, from now on.
    fn set_queues(&self, py: Python<'_>, queues: Strings) -> PyResult<()> {
        self.inner()?.set_queues(queues.0).map_err(|e| error(&e))?;
        told::pass_on(py)
    }

    /// The worker does not reach where its work comes from, from now on; said again, the first moment counts.
    fn broker_lost(&self) -> PyResult<()> {
        self.inner()?.broker_lost();
        Ok(())
    }

    /// The worker reaches where its work comes from again.
    fn broker_back(&self) -> PyResult<()> {
        self.inner()?.broker_back();
        Ok(())
    }

    /// Ends the beats and removes the beat file; waits for that, 2 s at most.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner()?;
        let stopped = py.detach(|| inner.stop());
        told::pass_on(py)?;
        stopped.map_err(|e| error(&e))
    }

    /// What the next beat will say: `starting`, `idle`, `busy`, `draining` or `stopped`.
    #[getter]
    fn status(&self) -> PyResult<&'static str> {
        Ok(self.inner()?.status().as_str())
    }

    /// Where the endpoint listens; `None` without one.
    #[getter]
    fn endpoint_address(&self) -> PyResult<Option<(String, u16)>> {
        Ok(self.inner()?.endpoint_address().map(|address| (address.ip().to_string(), address.port())))
    }

    /// The last thing that went wrong in a sink, as a sentence.
    #[getter]
    fn last_error(&self) -> PyResult<Option<String>> {
        Ok(self.inner()?.last_error())
    }

    /// What keeps the beat file from being a new one, as a sentence; `None` where the last beat became one.
    #[getter]
    fn file_failure(&self) -> PyResult<Option<String>> {
        Ok(self.inner()?.file_failure())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyType>>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, value, traceback);
        match self.stop(py) {
            // How the worker ends is its own: a file that cannot be removed takes the place of no exception, nor of a good end.
            Err(error) if error.is_instance_of::<Error>(py) => {
                error.write_unraisable(py, None);
                Ok(())
            }
            ended => ended,
        }
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("<heartbeat.Heartbeat {}>", self.status()?))
    }
}

fn with<T>(
    builder: heartbeat::Builder,
    value: Option<T>,
    set: impl FnOnce(heartbeat::Builder, T) -> heartbeat::Builder,
) -> heartbeat::Builder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// The variables that are the library's, and those of systemd that it obeys.
fn environment() -> HashMap<String, OsString> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| {
            ["HEARTBEAT_", "NOTIFY_", "WATCHDOG_"].iter().any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

/// One unit of work, from `Heartbeat.task()` until it is done or has failed. As a context manager it fails with an exception.
///
/// The first end counts. A task that nobody ends and that is no longer referred to counts as failed.
#[pyclass(frozen, weakref, module = "heartbeat")]
#[derive(Debug)]
struct Task(Mutex<Option<heartbeat::Task>>);

impl Task {
    fn lock(&self) -> MutexGuard<'_, Option<heartbeat::Task>> {
        // Nothing panics under the lock, and no other thread can hold it while this process forks: it would need the GIL.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<heartbeat::Task> {
        self.lock().take()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.fail();
    }
}

#[pymethods]
impl Task {
    /// Ends the task, as done.
    fn done(&self) {
        if let Some(task) = self.take() {
            task.done();
        }
    }

    /// Names the process that does the work: once that is stopped or gone, the task is overdue without waiting for its deadline.
    fn held_by(&self, pid: u32) {
        if let Some(task) = &*self.lock() {
            task.held_by(pid);
        }
    }

    /// Gives it another deadline, from now on; none: it may take as long as it takes.
    #[pyo3(signature = (deadline=None))]
    fn due_within(&self, deadline: Option<Seconds>) {
        if let Some(task) = &*self.lock() {
            task.due_within(deadline.map(|d| d.0));
        }
    }

    /// Ends the task, as failed.
    fn fail(&self) {
        if let Some(task) = self.take() {
            task.fail();
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, value, traceback, /))]
    fn __exit__(
        &self,
        kind: Option<&Bound<'_, PyType>>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let _ = (value, traceback);
        if kind.is_some() { self.fail() } else { self.done() }
    }
}

/// What the package `heartbeat` is made of.
#[pymodule]
mod _heartbeat {
    #[pymodule_export]
    use super::{Error, Heartbeat, Task};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
