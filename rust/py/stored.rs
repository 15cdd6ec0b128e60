//! What is asked of stored bytes alone, without a saver.

use std::collections::HashSet;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::error::caught;
use crate::store::bundle;
use crate::store::chunk::{self, Id, Ref};

/// The level and the id of a chunk.
type Reference<'py> = (u8, Bound<'py, PyBytes>);

/// The id of a chunk.
pub fn to_id(bytes: &Bound<'_, PyBytes>) -> PyResult<Id> {
    let id = bytes.as_bytes().try_into();
    id.map(Id)
        .map_err(|_| PyValueError::new_err("a chunk id has 16 bytes"))
}

/// The level of a stored object and what it refers to, as pairs of level and id.
#[pyfunction]
pub fn references<'py>(py: Python<'py>, stored: &[u8]) -> PyResult<(u8, Vec<Reference<'py>>)> {
    let (level, references) = caught(|| Ok(chunk::references(stored)?))?;
    Ok((level, listed(py, &references)))
}

/// What a page refers to, once its bytes have been found to be those of this id.
#[pyfunction]
pub fn children<'py>(
    py: Python<'py>,
    id: &Bound<'py, PyBytes>,
    stored: &[u8],
) -> PyResult<Vec<Reference<'py>>> {
    let id = to_id(id)?;
    let page = caught(|| Ok(chunk::open_chunk(id, stored)?))?;
    Ok(listed(py, &page.references))
}

fn listed<'py>(py: Python<'py>, references: &[Ref]) -> Vec<Reference<'py>> {
    references
        .iter()
        .map(|r| (r.level, PyBytes::new(py, &r.id.0)))
        .collect()
}

/// The ids of all that stored objects refer to, each once.
#[pyfunction]
pub fn referred<'py>(
    py: Python<'py>,
    stored: Vec<PyBackedBytes>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let mut seen = HashSet::new();
    let mut ids = Vec::new();
    for bytes in &stored {
        let (_, references) = caught(|| Ok(chunk::references(bytes)?))?;
        let new = references.iter().filter(|r| seen.insert(r.id));
        ids.extend(new.map(|r| PyBytes::new(py, &r.id.0)));
    }
    Ok(ids)
}

/// The level of a stored object, from its first two bytes.
#[pyfunction]
pub fn level(start: &[u8]) -> PyResult<u8> {
    caught(|| Ok(chunk::level(start)?))
}

/// Pending writes, each with its index, as few objects as hold them.
#[pyfunction]
pub fn bundled<'py>(
    py: Python<'py>,
    writes: Vec<(i32, PyBackedBytes)>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let writes = writes.iter().map(|(index, stored)| (*index, &stored[..]));
    let bundles = caught(|| Ok(bundle::bundled(writes)))?;
    Ok(bundles
        .iter()
        .map(|bytes| PyBytes::new(py, bytes))
        .collect())
}

/// What `bundled` was given.
#[pyfunction]
pub fn unbundled<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Vec<(i32, Bound<'py, PyBytes>)>> {
    let writes = caught(|| Ok(bundle::unbundled(bytes)?))?;
    Ok(writes
        .iter()
        .map(|(index, stored)| (*index, PyBytes::new(py, stored)))
        .collect())
}
