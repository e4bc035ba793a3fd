//! The extension module `heartbeat._checker`: the checker in a Python process, as `heartbeat.django` asks it.
//!
//! It carries questions in and answers out, and decides nothing: an answer is the same to the byte as `checker serve` would
//! give it. No thread here ever waits for the GIL or holds it while it waits, and none is started before the first
//! question: a server that forks its workers afterwards gives each a checker of its own.

mod log;
mod once;
mod question;
mod source;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::{mem, process};

use checker::serve::Board;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use question::{Answer, Question};
use source::{Reading, Source};

/// An answer as Python sees it: status, headers, body.
type Answered<'py> = (u16, Vec<(String, String)>, Bound<'py, PyBytes>);

/// The checks of one configuration, with all that is known of them in this process.
#[pyclass(frozen, module = "heartbeat._checker")]
struct Checker {
    source: Source,
    /// Locked with the GIL held and for a moment only, so that no fork by the interpreter finds it locked.
    engine: Mutex<Option<Arc<Engine>>>,
}

/// What asks the checks: threads of the process that has started them.
struct Engine {
    process: u32,
    board: Arc<Board>,
}

#[pymethods]
impl Checker {
    /// A configuration file, or the text of one: then `folder` is where the paths of secret files in it begin. Nothing is
    /// read before it is asked.
    #[new]
    #[pyo3(signature = (*, file=None, text=None, folder=None))]
    fn new(file: Option<PathBuf>, text: Option<String>, folder: Option<PathBuf>) -> PyResult<Self> {
        let source = match (file, text) {
            (Some(file), None) => Source::File(file),
            (None, Some(text)) => Source::Text { text, folder: folder.unwrap_or_default() },
            _ => return Err(PyValueError::new_err("either a file or a text")),
        };
        Ok(Self { source, engine: Mutex::new(None) })
    }

    /// What `checker validate` says of it now: every problem as `(code, is_warning, line, column, message)`, the names of the subsets
    /// where it can be used, and whether it has a secret path.
    fn read(&self, py: Python<'_>) -> PyResult<Reading> {
        contained(py, || Ok(self.source.describe()))
    }

    /// Asks what `checker serve` answers at a path: `(status, headers, body)`.
    ///
    /// It blocks until there is an answer, for the configuration's `timeout` and a second at most, and lets other threads run.
    /// `ValueError` where the configuration cannot be used.
    #[pyo3(signature = (method, path, *, query="", headers=Vec::new(), client=None, encrypted=false, asked_at=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords, each a part of the question")]
    fn answer<'py>(
        &self,
        py: Python<'py>,
        method: String,
        path: String,
        query: &str,
        headers: Vec<(String, Vec<u8>)>,
        client: Option<String>,
        encrypted: bool,
        asked_at: Option<String>,
    ) -> PyResult<Answered<'py>> {
        let engine = self.engine(py)?;
        let question =
            Question { method, path, query: query.to_owned(), headers, client, encrypted, asked_at };
        let Answer { status, headers, body } = contained(py, || question.ask(&engine.board))?;
        Ok((status, headers, PyBytes::new(py, &body)))
    }

    /// Asks a subset once, as `checker run` does: `(exit status, report, lines for the log)`. What has passed or failed before counts
    /// for nothing. `ValueError` where the configuration cannot be used, there is no such subset, format or time.
    ///
    /// Without `timeout` it may take 5 s.
    #[pyo3(signature = (subset, *, format="text", timeout=None))]
    fn run(
        &self,
        py: Python<'_>,
        subset: &str,
        format: &str,
        timeout: Option<&str>,
    ) -> PyResult<(u8, String, Vec<String>)> {
        contained(py, || once::run(&self.source, subset, format, timeout))
    }
}

impl Checker {
    /// This process's own. What a fork has inherited has lost its threads, and can only be forgotten.
    fn engine(&self, py: Python<'_>) -> PyResult<Arc<Engine>> {
        let process = process::id();
        let kept = || self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = kept().as_ref().filter(|engine| engine.process == process) {
            return Ok(Arc::clone(engine));
        }
        let configuration = contained(py, || self.source.configuration())?;
        // From here on with the GIL, so that of many who ask at once one starts the threads.
        let mut kept = kept();
        if let Some(engine) = kept.as_ref().filter(|engine| engine.process == process) {
            return Ok(Arc::clone(engine));
        }
        log::start();
        let board = Board::new(configuration)
            .map_err(|error| PyRuntimeError::new_err(format!("no thread can be started: {error}")))?;
        let engine = Arc::new(Engine { process, board: Arc::new(board) });
        mem::forget(kept.replace(Arc::clone(&engine)));
        Ok(engine)
    }
}

impl Drop for Checker {
    /// Ends what its checks have started, and lets the interpreter's other threads run meanwhile.
    fn drop(&mut self) {
        let mut engine = self.engine.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if engine.as_ref().is_some_and(|engine| engine.process == process::id()) {
            Python::try_attach(|py| {
                let engine = engine.take();
                py.detach(|| drop(engine));
            });
        }
        mem::forget(engine);
    }
}

/// Does it without the GIL. A panic becomes an ordinary exception: Python's own for panics would end a server's thread.
fn contained<T: Send>(py: Python<'_>, work: impl FnOnce() -> PyResult<T> + Send) -> PyResult<T> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    done.unwrap_or_else(|_| Err(PyRuntimeError::new_err("the checker failed unexpectedly")))
}

/// What has changed since this was last asked: `(level, line)` each, with the level as Python's `logging` numbers it.
#[pyfunction]
fn changes() -> Vec<(u8, String)> {
    log::take()
}

#[pymodule]
fn _checker(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Checker>()?;
    module.add_function(wrap_pyfunction!(changes, module)?)
}
