//! Key names for Python.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::text::{to_bytes, to_text};
use crate::store::key;

/// Escape an id for use in a key.
#[pyfunction]
pub fn escape<'py>(py: Python<'py>, id: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &key::escape(&to_bytes(id)?)))
}

/// The id that was escaped, or None for what `escape` never gives.
#[pyfunction]
pub fn unescape<'py>(py: Python<'py>, escaped: &[u8]) -> PyResult<Option<Bound<'py, PyString>>> {
    key::unescape(escaped)
        .map(|id| to_text(py, &id))
        .transpose()
}

/// The key names below one prefix.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Keys(key::Keys);

#[pymethods]
impl Keys {
    #[new]
    #[pyo3(signature = (prefix, *, cluster = false))]
    fn new(prefix: &Bound<'_, PyString>, cluster: bool) -> PyResult<Self> {
        let form = if cluster {
            key::Form::Cluster
        } else {
            key::Form::Plain
        };
        Ok(Self(key::Keys::new(&to_bytes(prefix)?, form)))
    }

    fn checkpoint<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
        checkpoint_ns: &Bound<'py, PyString>,
        checkpoint_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (t, n, c) = (
            to_bytes(thread_id)?,
            to_bytes(checkpoint_ns)?,
            to_bytes(checkpoint_id)?,
        );
        Ok(PyBytes::new(py, &self.0.checkpoint(&t, &n, &c)))
    }

    fn writes<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
        checkpoint_ns: &Bound<'py, PyString>,
        checkpoint_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (t, n, c) = (
            to_bytes(thread_id)?,
            to_bytes(checkpoint_ns)?,
            to_bytes(checkpoint_id)?,
        );
        Ok(PyBytes::new(py, &self.0.writes(&t, &n, &c)))
    }

    fn checkpoints<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.checkpoints(&to_bytes(thread_id)?)))
    }

    fn all_writes<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.all_writes(&to_bytes(thread_id)?)))
    }

    fn index<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
        checkpoint_ns: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(
            py,
            &self
                .0
                .index(&to_bytes(thread_id)?, &to_bytes(checkpoint_ns)?),
        ))
    }

    fn blobs<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.blobs(&to_bytes(thread_id)?)))
    }

    fn meta<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.meta(&to_bytes(thread_id)?)))
    }

    fn threads<'py>(
        &self,
        py: Python<'py>,
        thread_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.threads(&to_bytes(thread_id)?)))
    }

    fn run<'py>(
        &self,
        py: Python<'py>,
        run_id: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.run(&to_bytes(run_id)?)))
    }

    fn runs<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.runs())
    }

    fn format<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.format())
    }
}
