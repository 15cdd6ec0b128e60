//! What a value was packed to, for a draft: elements that are known need not be written for it.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::store::source::Source;

/// The msgpack bytes of a value.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Packed {
    source: Source<PyBackedBytes>,
    length: usize,
}

impl Packed {
    pub fn of(source: Source<PyBackedBytes>) -> Self {
        let length = source.length();
        Self { source, length }
    }

    pub fn source(&self, py: Python<'_>) -> Source<PyBackedBytes> {
        Source {
            written: self.source.written.clone_ref(py),
            gaps: self.source.gaps.clone(),
        }
    }
}

#[pymethods]
impl Packed {
    /// How many elements were left out.
    #[getter]
    fn left_out(&self) -> usize {
        self.source.gaps.len()
    }

    fn __len__(&self) -> usize {
        self.length
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, self.length, |out| {
            self.source.copy_to(out);
            Ok(())
        })
    }
}
