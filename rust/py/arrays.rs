//! Lists as arrays of Postgres, in the binary format that array_recv reads.

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString};

/// Object ids of the types, the same in every database (pg_type.dat).
const BYTEA: i32 = 17;
const INT8: i32 = 20;
const TEXT: i32 = 25;

/// The array of a list of bytes, `bytea[]`.
#[pyfunction]
pub fn bytea_array<'py>(items: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyBytes>> {
    array(items, BYTEA, |item, out| {
        put(out, item.cast::<PyBytes>()?.as_bytes())
    })
}

/// The array of a list of texts, `text[]`, in UTF-8.
///
/// Raises UnicodeEncodeError for a lone surrogate.
#[pyfunction]
pub fn text_array<'py>(items: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyBytes>> {
    array(items, TEXT, |item, out| {
        put(out, item.cast::<PyString>()?.to_str()?.as_bytes())
    })
}

/// The array of a list of whole numbers, `bigint[]`.
#[pyfunction]
pub fn int8_array<'py>(items: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyBytes>> {
    array(items, INT8, |item, out| {
        let number: i64 = item.cast::<PyInt>()?.extract()?;
        put(out, &number.to_be_bytes())
    })
}

fn array<'py>(
    items: &Bound<'py, PyList>,
    kind: i32,
    mut write: impl FnMut(&Bound<'py, PyAny>, &mut Vec<u8>) -> PyResult<()>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::with_capacity(20 + 24 * items.len());
    // Dimensions, whether there are NULLs, the type; length and first index of the one dimension.
    for word in [1, 0, kind, length(items.len())?, 1] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for item in items {
        write(&item, &mut out)?;
    }
    Ok(PyBytes::new(items.py(), &out))
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> PyResult<()> {
    out.extend_from_slice(&length(bytes.len())?.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn length(length: usize) -> PyResult<i32> {
    i32::try_from(length)
        .map_err(|_| PyOverflowError::new_err("an array of Postgres has less than 2 GiB"))
}
