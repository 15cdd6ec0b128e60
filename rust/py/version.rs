//! Channel versions, to and from Python.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyString};

use super::text::{to_bytes, to_text};
use crate::store::version::Version;

/// A channel's version from what Python has for it.
pub fn to_version(version: &Bound<'_, PyAny>) -> PyResult<Version> {
    if let Ok(text) = version.cast_exact::<PyString>() {
        Ok(match text.to_str() {
            Ok(utf8) => Version::of_text(utf8.as_bytes()),
            Err(_) => Version::of_text(&to_bytes(text)?),
        })
    } else if let Ok(int) = version.cast_exact::<PyInt>() {
        Ok(Version::Int(int.extract()?))
    } else if let Ok(float) = version.cast_exact::<PyFloat>() {
        Ok(Version::Float(float.value()))
    } else {
        Err(PyTypeError::new_err(
            "a channel version is a str, an int or a float",
        ))
    }
}

/// What [`to_version`] was given.
pub fn from_version<'py>(py: Python<'py>, version: &Version) -> PyResult<Bound<'py, PyAny>> {
    match version {
        Version::Int(n) => Ok(n.into_pyobject(py)?.into_any()),
        Version::Float(x) => Ok(x.into_pyobject(py)?.into_any()),
        Version::Counted(counted) => counted.with_text(|text| Ok(to_text(py, text)?.into_any())),
        Version::Text(text) => Ok(to_text(py, text)?.into_any()),
    }
}
