//! How stored values become objects again.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::codec::Codec;
use super::decode::decode;
use super::error::caught;
use super::text::to_text;

/// What a saver's serializer reads, read by the core where that is sure to give the same: a call
/// of Python for each small value takes five times as long as reading it.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Loading {
    /// The serializer's `loads_typed`.
    loads: Py<PyAny>,
    /// The codec that it uses for msgpack, with its hook.
    own: Option<(Py<Codec>, Py<PyAny>)>,
}

#[pymethods]
impl Loading {
    #[new]
    #[pyo3(signature = (loads, codec = None, hook = None))]
    fn new(loads: Py<PyAny>, codec: Option<Py<Codec>>, hook: Option<Py<PyAny>>) -> Self {
        Self {
            loads,
            own: codec.zip(hook),
        }
    }
}

impl Loading {
    /// The value of a tag and bytes, which come in parts.
    pub fn load<'py>(
        &self,
        py: Python<'py>,
        tag: &[u8],
        parts: &[&[u8]],
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some((codec, hook)) = self.own.as_ref().filter(|_| tag == b"msgpack") else {
            return self.ask(tag, joined(py, parts)?);
        };
        let read = |bytes| caught(|| decode(codec.get(), bytes, hook.bind(py)));
        if let [bytes] = parts {
            return match read(bytes)? {
                Some(value) => Ok(value),
                None => self.ask(tag, PyBytes::new(py, bytes)),
            };
        }
        let bytes = joined(py, parts)?;
        match read(bytes.as_bytes())? {
            Some(value) => Ok(value),
            None => self.ask(tag, bytes),
        }
    }

    /// What the serializer makes of it.
    fn ask<'py>(&self, tag: &[u8], bytes: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        let py = bytes.py();
        self.loads.bind(py).call1(((to_text(py, tag)?, bytes),))
    }
}

/// Bytes in one piece.
pub fn joined<'py>(py: Python<'py>, parts: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    let length = parts.iter().map(|part| part.len()).sum();
    PyBytes::new_with(py, length, |out| {
        let mut at = 0;
        for part in parts {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    })
}
