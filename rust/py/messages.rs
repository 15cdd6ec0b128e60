//! The classes that are read and built without calling into them: LangChain's messages
//! and documents.
//!
//! Nothing is believed of a class. The first object of each shape is made both ways, by
//! the class and without it; only where the results are equal is the short way taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PySet, PyString, PyType};

use super::encode::{Done, Encoder, Stop, DEEPEST};
use super::fits::{fits, is_text, Holds};
use super::raw::{self, Integer};
use super::scalars::Entries;
use super::ways::METHODS;
use crate::codec::ext::MODEL;
use crate::codec::write::{self, Output};

/// Two bits for each of a class's fields.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Shape(u64);

impl Shape {
    pub fn note(&mut self, field: usize, kind: u8) {
        self.0 |= u64::from(kind) << (2 * field);
    }
}

/// What of a field's value decides how a message is treated: empty, a list, or other.
pub fn kind_of(value: &Bound<'_, PyAny>) -> u8 {
    if value.is_none() {
        0
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        2 * u8::from(!list.is_empty())
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        u8::from(!dict.is_empty())
    } else {
        1
    }
}

fn encoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::str(&mut out, text);
    out
}

/// As many fields as a shape has room for.
const MOST_FIELDS: usize = 31;
/// No shape: fields take two bits less.
const NONE: u64 = u64::MAX;

pub struct Field {
    pub name: String,
    /// The name as msgpack.
    pub encoded: Vec<u8>,
    pub key: Py<PyString>,
    pub holds: Holds,
}

/// For each shape met so far, whether both ways gave the same.
pub struct Learned {
    /// The last one asked for that did: messages of one shape follow each other.
    last: AtomicU64,
    shapes: Mutex<Vec<(Shape, bool)>>,
}

impl Learned {
    fn new() -> Self {
        Self {
            last: AtomicU64::new(NONE),
            shapes: Mutex::default(),
        }
    }

    #[inline]
    pub fn get(&self, shape: Shape) -> Option<bool> {
        if self.last.load(Ordering::Relaxed) == shape.0 {
            return Some(true);
        }
        let shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shapes.iter().find(|(known, _)| *known == shape);
        let is_equal = found.map(|(_, is_equal)| *is_equal);
        if is_equal == Some(true) {
            self.last.store(shape.0, Ordering::Relaxed);
        }
        is_equal
    }

    pub fn set(&self, shape: Shape, is_equal: bool) {
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        match shapes.iter_mut().find(|(known, _)| *known == shape) {
            // Of two threads that were at it, the one that found a difference is right.
            Some((_, known)) => *known &= is_equal,
            None => shapes.push((shape, is_equal)),
        }
        self.last.store(NONE, Ordering::Relaxed);
    }
}

/// A class, and what was learned of it.
pub struct Class {
    pub module: String,
    pub name: String,
    /// The module and the name as msgpack, one behind the other.
    pub head: Vec<u8>,
    pub fields: Vec<Field>,
    pub class: Py<PyType>,
    /// Whether unknown fields are kept, in a dict beside the known ones.
    pub has_extra: bool,
    /// The names of all fields.
    pub names: Py<PySet>,
    /// The only value that the field `type` takes, and as msgpack.
    pub kind: Option<(String, Vec<u8>)>,
    /// All fields in their order: `type` as it always is, the others empty.
    pub template: Py<PyDict>,
    maker: raw::Maker,
    pub encodes: Learned,
    pub builds: Learned,
}

impl Class {
    /// `None` for a class with more fields than a shape has room for.
    pub fn of(class: &Bound<'_, PyType>) -> PyResult<Option<Self>> {
        let py = class.py();
        let table = class.getattr("model_fields")?.cast_into::<PyMapping>()?;
        let names = table.keys()?.extract::<Vec<String>>()?;
        if names.len() > MOST_FIELDS {
            return Ok(None);
        }
        let kind = match table.get_item("type") {
            Ok(field) => field.getattr("default")?.extract::<String>().ok(),
            Err(_) => None,
        };
        let module = class.getattr("__module__")?.extract::<String>()?;
        let name = class.getattr("__name__")?.extract::<String>()?;
        let extra = class
            .getattr("model_config")?
            .call_method1("get", ("extra",))?;
        let all = PySet::new(py, &names)?;
        let fields: Vec<_> = names
            .into_iter()
            .map(|name| Field {
                key: PyString::intern(py, &name).unbind(),
                holds: Holds::of(&name),
                encoded: encoded(&name),
                name,
            })
            .collect();
        let template = PyDict::new(py);
        for field in &fields {
            match &kind {
                Some(kind) if field.holds == Holds::Kind => {
                    template.set_item(&field.key, PyString::intern(py, kind))?;
                }
                _ => template.set_item(&field.key, py.None())?,
            }
        }
        Ok(Some(Self {
            head: [encoded(&module), encoded(&name)].concat(),
            module,
            name,
            fields,
            class: class.clone().unbind(),
            has_extra: extra.eq("allow")?,
            names: all.unbind(),
            kind: kind
                .map(|kind| (encoded(&kind), kind))
                .map(|(bytes, kind)| (kind, bytes)),
            template: template.unbind(),
            maker: raw::Maker::of(class)?,
            encodes: Learned::new(),
            builds: Learned::new(),
        }))
    }

    /// An object with this state, without the class's own doing.
    pub fn build<'py>(&self, state: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let py = state.py();
        let object = self.maker.make(py)?;
        let names = raw::copy_set(self.names.bind(py))?;
        let none = py.None().into_bound(py);
        raw::set_attribute(&object, intern!(py, "__dict__"), state)?;
        raw::set_attribute(&object, intern!(py, "__pydantic_fields_set__"), &names)?;
        let key = intern!(py, "__pydantic_extra__");
        if self.has_extra {
            raw::set_attribute(&object, key, &PyDict::new(py))?;
        } else {
            raw::set_attribute(&object, key, &none)?;
        }
        raw::set_attribute(&object, intern!(py, "__pydantic_private__"), &none)?;
        Ok(object)
    }
}

impl<'py> Encoder<'_, 'py> {
    /// Write a message whose class has nothing to do about it.
    pub fn message(&mut self, class: &Class, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        let start = self.out.begin_ext();
        if let Some(shape) = self.fields(class, object)? {
            if class.encodes.get(shape) == Some(true) {
                self.out.end_ext(start, MODEL);
                return Ok(());
            }
        }
        self.out.truncate(start);
        self.block(object, depth)
    }

    /// Write a message of which the class must be asked.
    pub fn message_aloud(
        &mut self,
        class: &Class,
        object: &Bound<'py, PyAny>,
        depth: usize,
    ) -> Done {
        let start = self.out.begin_ext();
        let shape = self.fields(class, object)?;
        let Some(shape) = shape.filter(|shape| class.encodes.get(*shape).is_none()) else {
            self.out.truncate(start);
            return self.method(METHODS[0], &class.head, object, depth);
        };
        // The first of its shape is made both ways.
        self.out.end_ext(start, MODEL);
        let theirs = self.codec.pack_upstream(object)?;
        let is_same = self.out.written()[start..] == *theirs.as_bytes();
        class.encodes.set(shape, is_same);
        self.out.truncate(start);
        self.out.put(theirs.as_bytes());
        Ok(())
    }

    /// `[module, name, fields, "model_validate_json"]`, if the fields are plain enough for
    /// `model_dump()` to leave them as they are.
    fn fields(&mut self, class: &Class, object: &Bound<'py, PyAny>) -> PyResult<Option<Shape>> {
        let py = self.py;
        let fields = raw::attribute(object, intern!(py, "__dict__"))?;
        let Ok(fields) = fields.cast_exact::<PyDict>() else {
            return Ok(None);
        };
        let extra = raw::attribute(object, intern!(py, "__pydantic_extra__"))?;
        let has_extra = match extra.cast_exact::<PyDict>() {
            Ok(extra) => !extra.is_empty(),
            Err(_) => !extra.is_none(),
        };
        if has_extra || fields.len() != class.fields.len() {
            return Ok(None);
        }
        let mut shape = Shape::default();
        write::array(&mut self.out, 4);
        self.out.put(&class.head);
        write::map(&mut self.out, class.fields.len());
        let mut entries = Entries::of(fields);
        // `model_dump()` follows the dict's order.
        for (at, field) in class.fields.iter().enumerate() {
            let Some((key, value)) = entries.next() else {
                return Ok(None);
            };
            let is_next = key.is(&field.key) || is_text(&key, &field.name);
            if !is_next || !fits(class, field.holds, &value, false) {
                return Ok(None);
            }
            self.out.put(&field.encoded);
            if self.plain(&value, 0).is_err() {
                return Ok(None);
            }
            shape.note(at, kind_of(&value));
        }
        write::str(&mut self.out, "model_validate_json");
        Ok(Some(shape))
    }

    /// A value that `model_dump()` leaves as it is.
    fn plain(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        if depth > DEEPEST / 2 {
            return Err(Stop::Doubt);
        }
        let out = &mut self.out;
        if let Ok(text) = object.cast_exact::<PyString>() {
            write::str(out, raw::utf8(text.as_borrowed()).ok_or(Stop::Doubt)?);
        } else if object.is_none() {
            write::nil(out);
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            write::map(out, dict.len());
            let mut left = dict.len();
            for (key, value) in Entries::of(dict) {
                left = left.checked_sub(1).ok_or(Stop::Doubt)?;
                let key = key
                    .cast_exact::<PyString>()
                    .ok()
                    .and_then(|key| raw::utf8(key.as_borrowed()));
                write::str(&mut self.out, key.ok_or(Stop::Doubt)?);
                self.plain(&value, depth + 1)?;
            }
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            write::array(out, list.len());
            for item in list {
                self.plain(&item, depth + 1)?;
            }
        } else if let Ok(int) = object.cast_exact::<PyInt>() {
            match raw::integer(int.as_borrowed()) {
                Some(Integer::Signed(n)) => write::signed(out, n),
                _ => return Err(Stop::Doubt),
            }
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            write::bool(out, value.is_true());
        } else if let Ok(float) = object.cast_exact::<PyFloat>() {
            write::float(out, float.value());
        } else {
            return Err(Stop::Doubt);
        }
        Ok(())
    }
}
