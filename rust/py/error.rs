//! The core's errors as Python exceptions; `holdfast.errors` turns them into public ones.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{Error, Result};

pyo3::create_exception!(
    _core,
    CoreError,
    PyException,
    "Something that the core refuses."
);
pyo3::create_exception!(
    _core,
    IntegrityError,
    CoreError,
    "Stored bytes are not what was written."
);
pyo3::create_exception!(
    _core,
    FormatError,
    CoreError,
    "Stored bytes are of a newer format."
);
pyo3::create_exception!(
    _core,
    MissingChunk,
    IntegrityError,
    "A chunk that is referred to was not found; its id is the second argument."
);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Corrupt(_) => IntegrityError::new_err(message),
            Error::FormatTooNew { .. } => FormatError::new_err(message),
            Error::Missing(id) => Python::attach(|py| {
                MissingChunk::new_err((message, PyBytes::new(py, &id.0).unbind()))
            }),
            Error::TooLarge(_) => CoreError::new_err(message),
        }
    }
}

/// Run something that holds the GIL. A panic becomes an exception that callers can catch.
pub fn caught<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(failed(&*panic)))
}

fn failed(panic: &(dyn Any + Send)) -> PyErr {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    CoreError::new_err(format!(
        "the core failed, which is a bug in holdfast: {what}"
    ))
}

/// Run the core without the GIL. A panic becomes an exception that callers can catch.
pub fn guarded<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    match done {
        Ok(result) => Ok(result?),
        Err(panic) => Err(failed(&*panic)),
    }
}
