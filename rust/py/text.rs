//! Python text to bytes and back: UTF-8, or WTF-8 where it holds lone surrogates.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::raw;

/// The bytes of a text.
pub fn to_bytes(text: &Bound<'_, PyString>) -> PyResult<Vec<u8>> {
    if let Ok(utf8) = text.to_str() {
        return Ok(utf8.as_bytes().to_vec());
    }
    let encoded = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
    Ok(encoded.cast_into::<PyBytes>()?.as_bytes().to_vec())
}

/// The text that [`to_bytes`] was given.
pub fn to_text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    if let Some(text) = raw::text(py, bytes) {
        return Ok(text);
    }
    let decoded = PyBytes::new(py, bytes).call_method1("decode", ("utf-8", "surrogatepass"))?;
    Ok(decoded.cast_into::<PyString>()?)
}
