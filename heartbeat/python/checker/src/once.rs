//! A subset asked once, as `checker run` shows it.

use std::time::Duration;

use checker::{Format, Once};
use clap::ValueEnum as _;
use heartbeat::duration;
use pyo3::PyResult;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use shared::hidden::hide;
use shared::runner::Warnings;

use crate::source::Source;

/// What every command of the checker takes at most, where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks it: the exit status, the report, and what is for the log alone.
pub fn run(
    source: &Source,
    subset: &str,
    format: &str,
    timeout: Option<&str>,
) -> PyResult<(u8, String, Vec<String>)> {
    let format =
        Format::from_str(format, false).map_err(|_| PyValueError::new_err("there is no such format"))?;
    let timeout = timeout.map_or(Ok(TIMEOUT), |text| {
        let parsed = duration::parse(text).map_err(|invalid| invalid.to_string());
        parsed.and_then(
            |time| if time.is_zero() { Err("a timeout is 1ms at least".to_owned()) } else { Ok(time) },
        )
    });
    let timeout = timeout.map_err(PyValueError::new_err)?;
    let configuration = source.configuration()?;
    let checks = configuration.subset(subset).map_err(PyValueError::new_err)?;
    // What a check has left behind may still tell of it when this is over.
    hide(configuration.secrets()).for_good();
    let warnings = if configuration.server.warnings_fail { Warnings::Fail } else { Warnings::Pass };
    let asked = Once { subset, warnings, format, timeout }.ask(&checks);
    let report =
        asked.map_err(|error| PyRuntimeError::new_err(format!("no thread can be started: {error}")))?;
    Ok((report.exit.code(), report.shown, report.log))
}
