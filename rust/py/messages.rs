//! The classes that are read and built without calling into them: LangChain's messages
//! and documents.
//!
//! Nothing is believed of a class. The first object of each shape is made both ways, by
//! the class and without it; only where the results are equal is the short way taken.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMapping, PySet, PyString, PyTuple, PyType};

use super::decode::{decode, KeyCache};
use super::encode::encode;
use super::error::caught;
use super::fits::Holds;
use crate::codec::write;

/// The extension code of a pydantic model: `[module, name, fields, "model_validate_json"]`.
pub const CONSTRUCT: i8 = 5;
/// The extension code of a delta channel's snapshot.
pub const SNAPSHOT: i8 = 7;

/// Two bits for each of a class's fields.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape(u64);

impl Shape {
    pub fn note(&mut self, field: usize, kind: u8) {
        self.0 |= u64::from(kind) << (2 * field);
    }
}

fn encoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::str(&mut out, text);
    out
}

/// As many fields as a shape has room for.
const MOST_FIELDS: usize = 31;

pub struct Field {
    pub name: String,
    /// The name as msgpack.
    pub encoded: Vec<u8>,
    pub key: Py<PyString>,
    pub holds: Holds,
}

/// For each shape met so far, whether both ways gave the same.
#[derive(Default)]
pub struct Learned(Mutex<HashMap<Shape, bool>>);

impl Learned {
    pub fn get(&self, shape: Shape) -> Option<bool> {
        self.shapes().get(&shape).copied()
    }

    pub fn set(&self, shape: Shape, is_equal: bool) {
        self.shapes().insert(shape, is_equal);
    }

    fn shapes(&self) -> MutexGuard<'_, HashMap<Shape, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A class, and what was learned of it.
pub struct Class {
    pub module: String,
    pub name: String,
    pub fields: Vec<Field>,
    pub class: Py<PyType>,
    /// Whether unknown fields are kept, in a dict beside the known ones.
    pub has_extra: bool,
    /// The names of all fields.
    pub names: Py<PySet>,
    /// The only value that the field `type` takes.
    pub kind: Option<String>,
    pub encodes: Learned,
    pub builds: Learned,
}

/// Encodes and decodes; one for each process.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Codec {
    pub dumps: Py<PyAny>,
    pub snapshot: Py<PyType>,
    /// `object.__new__` and `object.__setattr__`.
    pub allocate: Py<PyAny>,
    pub set: Py<PyAny>,
    classes: Vec<Class>,
    by_type: HashMap<usize, usize>,
    pub keys: Mutex<KeyCache>,
}

impl Codec {
    pub fn class_of(&self, object: &Bound<'_, PyAny>) -> Option<&Class> {
        let address = object.get_type().as_ptr() as usize;
        self.by_type.get(&address).map(|at| &self.classes[*at])
    }

    pub fn class_named(&self, module: &str, name: &str) -> Option<&Class> {
        // Few classes: comparing beats making a key.
        self.classes
            .iter()
            .find(|class| class.name == name && class.module == module)
    }
}

#[pymethods]
impl Codec {
    /// `dumps` is upstream's `dumps_typed`; `classes` may be read and built directly.
    #[new]
    fn new(
        py: Python<'_>,
        dumps: Py<PyAny>,
        snapshot: Py<PyType>,
        classes: Vec<Bound<'_, PyType>>,
    ) -> PyResult<Self> {
        let object = py.import("builtins")?.getattr("object")?;
        let mut known = Vec::new();
        let mut by_type = HashMap::new();
        for class in classes {
            let fields = class.getattr("model_fields")?.cast_into::<PyMapping>()?;
            let names = fields.keys()?.extract::<Vec<String>>()?;
            let kind = match fields.get_item("type") {
                Ok(field) => field.getattr("default")?.extract::<String>().ok(),
                Err(_) => None,
            };
            if names.len() > MOST_FIELDS {
                continue;
            }
            let module = class.getattr("__module__")?.extract::<String>()?;
            let name = class.getattr("__name__")?.extract::<String>()?;
            let config = class.getattr("model_config")?;
            let extra = config.call_method1("get", ("extra",))?;
            let has_extra = extra.eq("allow")?;
            let all = PySet::new(py, &names)?.unbind();
            let fields = names
                .into_iter()
                .map(|name| Field {
                    key: PyString::intern(py, &name).unbind(),
                    holds: Holds::of(&name),
                    encoded: encoded(&name),
                    name,
                })
                .collect();
            by_type.insert(class.as_ptr() as usize, known.len());
            known.push(Class {
                module,
                name,
                fields,
                class: class.unbind(),
                has_extra,
                names: all,
                kind,
                encodes: Learned::default(),
                builds: Learned::default(),
            });
        }
        Ok(Self {
            dumps,
            snapshot,
            allocate: object.getattr("__new__")?.unbind(),
            set: object.getattr("__setattr__")?.unbind(),
            classes: known,
            by_type,
            keys: Mutex::default(),
        })
    }

    /// The msgpack bytes of a value; None where upstream must make them.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        object: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        caught(|| Ok(encode(self, object)?.map(|bytes| PyBytes::new(py, &bytes))))
    }

    /// The value of msgpack bytes, and whether it is one; upstream must read others.
    ///
    /// `hook` is called for extension objects that are not built here.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        hook: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let value = caught(|| decode(self, py, data.as_bytes(), hook))?;
        let is_one = value.is_some();
        (value, is_one).into_pyobject(py)
    }
}
