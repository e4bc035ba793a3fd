//! What Python passes in, made into what the library takes. A wrong type is a `TypeError`, a number or text that nothing could
//! mean a `ValueError`; whether a setting can be is for the library to say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyString};

/// A duration: seconds as a number, or a `datetime.timedelta`. More than the library waits for is left to it.
#[derive(Clone, Copy)]
pub struct Seconds(pub Duration);

impl FromPyObject<'_, '_> for Seconds {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let wrong =
            |text: &str| PyValueError::new_err(format!("a duration is {text}, not {}", shown(object)));
        if object.is_instance_of::<PyDelta>() {
            return object.extract().map(Self).map_err(|_| wrong("not negative"));
        }
        let seconds = if object.is_instance_of::<PyBool>() { None } else { Some(object.extract::<f64>()) };
        match seconds {
            Some(Ok(seconds)) if !seconds.is_finite() => Err(wrong("a finite number of seconds")),
            Some(Ok(seconds)) if seconds < 0.0 => Err(wrong("not negative")),
            // What is too large for it is too large for all settings.
            Some(Ok(seconds)) => Ok(Self(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))),
            Some(Err(error)) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Err(PyValueError::new_err("a duration is a number of seconds that is not as large as this"))
            }
            Some(Err(error)) if !error.is_instance_of::<PyTypeError>(object.py()) => Err(error),
            _ => Err(PyTypeError::new_err(format!(
                "a duration is seconds as a number, or a datetime.timedelta, not {}",
                kind(object)
            ))),
        }
    }
}

/// A path, or `False` for no file.
pub enum FileArgument {
    Path(PathBuf),
    None,
}

impl FromPyObject<'_, '_> for FileArgument {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match object.cast::<PyBool>() {
            Ok(no) if !no.is_true() => Ok(Self::None),
            Ok(_) => Err(PyTypeError::new_err("a file is a path, or False for none, not True")),
            Err(_) => object.extract().map(Self::Path),
        }
    }
}

/// Permission bits. What is out of their range is no mode for the library to take, which says so.
pub struct Mode(pub u32);

impl FromPyObject<'_, '_> for Mode {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match object.extract::<u32>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => Ok(Self(u32::MAX)),
            mode => mode.map(Self),
        }
    }
}

/// Texts from any iterable but a text, which is one of single characters.
pub struct Strings(pub Vec<String>);

impl FromPyObject<'_, '_> for Strings {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("queues are several names, not one: write [name]"));
        }
        object.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>().map(Self)
    }
}

/// `ADDRESS:PORT`.
pub struct Address(pub SocketAddr);

impl FromPyObject<'_, '_> for Address {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let text: String = object.extract()?;
        text.parse().map(Self).map_err(|_| {
            PyValueError::new_err(format!(
                "an endpoint is an IP address and a port, as 127.0.0.1:8090, not {text:?}"
            ))
        })
    }
}

fn shown(object: Borrowed<'_, '_, PyAny>) -> String {
    object.repr().map_or_else(|_| kind(object), |text| text.to_string_lossy().into_owned())
}

fn kind(object: Borrowed<'_, '_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string_lossy().into_owned())
}
