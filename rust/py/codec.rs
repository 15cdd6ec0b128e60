//! What Python calls to encode and decode, and what is remembered from call to call.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule, PyTuple, PyType};

use super::classes::Classes;
use super::decode::decode;
use super::encode::{encode, encode_around};
use super::error::caught;
use super::memo::Memo;
use super::messages::Class;
use super::packed::Packed;
use super::safe::{SafeTypes, Uuids};
use super::shared_keys::SharedKeys;
use super::ways::Types;
use crate::codec::marker::overstates;

/// Encodes and decodes; one for each process.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Codec {
    pack: Py<PyAny>,
    messages: Vec<Class>,
    by_type: Vec<usize>,
    pub classes: Classes,
    pub snapshot: Py<PyType>,
    /// `tuple.__new__`.
    pub new_tuple: Py<PyAny>,
    pub safe: SafeTypes,
    pub uuids: Uuids,
    /// Upstream's module.
    pub upstream: Py<PyModule>,
    pub keys: Mutex<SharedKeys>,
    pub memo: Mutex<Memo>,
}

impl Codec {
    #[inline]
    pub fn message_class(&self, object: &Bound<'_, PyAny>) -> Option<&Class> {
        let address = object.get_type_ptr() as usize;
        // Few classes: comparing beats hashing.
        let at = self.by_type.iter().position(|known| *known == address)?;
        self.messages.get(at)
    }

    /// The class whose module and name, as msgpack, these bytes begin with.
    #[inline]
    pub fn message_headed(&self, bytes: &[u8]) -> Option<&Class> {
        self.messages
            .iter()
            .find(|class| bytes.starts_with(&class.head))
    }

    /// What upstream makes of an object.
    pub fn pack_upstream<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.pack.bind(object.py()).call1((object,))?;
        Ok(bytes.cast_into::<PyBytes>()?)
    }
}

#[pymethods]
impl Codec {
    /// `messages` are classes that may be read and built directly.
    #[new]
    fn new(py: Python<'_>, messages: Vec<Bound<'_, PyType>>) -> PyResult<Self> {
        let serde = "langgraph.checkpoint.serde";
        let upstream = py.import(format!("{serde}.jsonplus"))?;
        let types = py.import(format!("{serde}.types"))?;
        let snapshot = types
            .getattr("_DeltaSnapshot")?
            .cast_into::<PyType>()?
            .unbind();
        let send = types.getattr("SendProtocol")?.unbind();
        let known: Vec<_> = messages.iter().map(Class::of).collect::<PyResult<_>>()?;
        let known: Vec<_> = known.into_iter().flatten().collect();
        Ok(Self {
            pack: upstream.getattr("_msgpack_enc")?.unbind(),
            by_type: known
                .iter()
                .map(|class| class.class.as_ptr() as usize)
                .collect(),
            messages: known,
            classes: Classes::new(Types::new(py, snapshot.clone_ref(py), send)?),
            snapshot,
            new_tuple: py.get_type::<PyTuple>().getattr("__new__")?.unbind(),
            safe: SafeTypes::new(&py.import(format!("{serde}._msgpack"))?)?,
            uuids: Uuids::new(py)?,
            upstream: upstream.unbind(),
            keys: Mutex::default(),
            memo: Mutex::default(),
        })
    }

    /// The msgpack bytes of a value; None where upstream must make them.
    fn encode<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        caught(|| encode(self, object))
    }

    /// The msgpack bytes of a value for a draft, which need not be in one piece; None where
    /// upstream must make them.
    fn pack(&self, object: &Bound<'_, PyAny>) -> PyResult<Option<Packed>> {
        let source = caught(|| encode_around(self, object))?;
        Ok(source.map(Packed::of))
    }

    /// The value of msgpack bytes; `unread` where upstream must read them.
    ///
    /// `hook` is called for extension objects that are not built here.
    fn decode<'py>(
        &self,
        data: &Bound<'py, PyBytes>,
        hook: &Bound<'py, PyAny>,
        unread: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let value = caught(|| decode(self, data.as_bytes(), hook))?;
        Ok(value.unwrap_or_else(|| unread.clone()))
    }

    /// Whether an array in msgpack bytes says that it has far more items than they hold.
    #[staticmethod]
    fn overstates(data: &[u8]) -> bool {
        overstates(data)
    }
}
