//! The channels of a checkpoint that is put, as Python gives them.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PyString};

use super::packed::Packed;
use super::record::Record;
use super::text::to_bytes;
use super::version::to_version;
use crate::store::manifest::Entry;
use crate::store::source::Source;
use crate::store::value::Value;
use crate::store::version::Version;

/// Where the value of a channel comes from.
pub enum Origin {
    Empty,
    Parent(Option<Value>),
    Given(Vec<u8>, Source<PyBackedBytes>),
}

/// A channel, its version, and its value.
pub struct Channel {
    pub name: Vec<u8>,
    pub version: Option<Version>,
    pub origin: Origin,
}

/// Name; version or `None`; and `True` for the parent's value, `None`, or what a serializer gave.
pub type Given<'py> = (Bound<'py, PyString>, Bound<'py, PyAny>, Bound<'py, PyAny>);

impl Channel {
    /// Read a channel; what is kept is looked up in the parent, which must have it.
    pub fn of(given: &Given<'_>, parent: Option<&Record>) -> PyResult<Self> {
        let (name, version, value) = given;
        let name = to_bytes(name)?;
        let version = (!version.is_none())
            .then(|| to_version(version))
            .transpose()?;
        let origin = to_origin(value, &name, parent)?;
        Ok(Self {
            name,
            version,
            origin,
        })
    }
}

fn to_origin(value: &Bound<'_, PyAny>, name: &[u8], parent: Option<&Record>) -> PyResult<Origin> {
    if value.is_none() {
        return Ok(Origin::Empty);
    }
    if let Ok(keep) = value.extract::<bool>() {
        if !keep {
            return Err(PyValueError::new_err(
                "a channel is kept, or has a value, or None",
            ));
        }
        let whole = parent.map(Record::whole).transpose()?;
        return match whole.and_then(|whole| whole.channel(name)) {
            Some(Entry::Channel { value, .. }) => Ok(Origin::Parent(value.clone())),
            _ => Err(PyValueError::new_err(
                "the parent has no such channel to keep",
            )),
        };
    }
    let (tag, data) = value.extract::<(Bound<'_, PyString>, Bound<'_, PyAny>)>()?;
    let bytes = match data.cast::<Packed>() {
        Ok(packed) => packed.get().source(value.py()),
        Err(_) => data.extract::<PyBackedBytes>()?.into(),
    };
    Ok(Origin::Given(to_bytes(&tag)?, bytes))
}

/// The versions that a node has seen.
pub fn to_seen(node: &Bound<'_, PyString>, versions: &Bound<'_, PyDict>) -> PyResult<Entry> {
    let versions = versions
        .iter()
        .map(|(channel, version)| {
            Ok((
                to_bytes(channel.cast::<PyString>()?)?,
                to_version(&version)?,
            ))
        })
        .collect::<PyResult<_>>()?;
    Ok(Entry::Seen {
        node: to_bytes(node)?,
        versions,
    })
}
