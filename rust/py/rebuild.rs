//! Extension objects that are built without upstream's hook.
//!
//! Of those that name a class only safe ones are, in the hook's sense (`SAFE_MSGPACK_TYPES`):
//! for them it emits no event, says nothing, and calls what the module has under the name.
//! What a call refuses ends as in the hook, with its own warning.

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::decode::{Decoder, Read, Stop};
use super::fits::{fits, Holds};
use super::messages::{kind_of, Class, Shape};
use super::safe::{Safe, Special};
use crate::codec::ext::{CALL_ARGUMENTS, CALL_KEYWORDS, CALL_METHOD, MODEL};
use crate::codec::marker::{is_text, read, skip, Kind};

/// What stands behind a model's fields: the text `model_validate_json`.
const MODEL_TAIL: &[u8] = b"\xb3model_validate_json";
/// What stands behind the argument of the only method that is called.
const METHOD_TAIL: &[u8] = b"\xadfromisoformat";

impl<'a, 'py> Decoder<'a, 'py> {
    pub fn snapshot(&mut self, payload: &'a [u8], depth: usize) -> Read<'py> {
        let value = self.inside(payload, depth + 1, |inner| inner.value(depth + 1))?;
        let snapshot = self.codec.snapshot.bind(self.py);
        // What `__new__` of a named tuple does.
        let new_tuple = self.codec.new_tuple.bind(self.py);
        let made = self.pause.lifted(|| new_tuple.call1((snapshot, (value,))));
        self.result(made)
    }

    /// `[module, name, argument …]`: something is called.
    pub fn called(&mut self, code: i8, payload: &'a [u8], depth: usize) -> Read<'py> {
        let codec = self.codec;
        let items = if code == CALL_METHOD { 0x94 } else { 0x93 };
        let head = head(payload)
            .filter(|_| payload.first() == Some(&items))
            .ok_or(Stop::Doubt)?;
        let safe = codec
            .safe
            .find(self.py, &payload[1..head])
            .ok_or(Stop::Doubt)?;
        let kind = read(payload, head).ok_or(Stop::Doubt)?.kind;
        let fits = match (code, kind) {
            // The hook calls these in a way of its own.
            (CALL_ARGUMENTS, Kind::Array(count)) if safe.special == Special::Send => count == 2,
            (CALL_ARGUMENTS, Kind::Array(_)) | (CALL_KEYWORDS, Kind::Map(_)) => true,
            (CALL_ARGUMENTS | CALL_KEYWORDS, _) => false,
            (CALL_METHOD, _) => {
                let tail = skip(payload, head).and_then(|at| payload.get(at..));
                safe.special == Special::DateTime && tail == Some(METHOD_TAIL)
            }
            _ => true,
        };
        if !fits {
            return Err(Stop::Doubt);
        }
        let argument = self.inside(payload, depth + 1, |inner| {
            inner.at = head;
            let argument = inner.value(depth + 2)?;
            if code == CALL_METHOD {
                inner.at += METHOD_TAIL.len();
            }
            Ok(argument)
        })?;
        match self.pause.lifted(|| self.call(code, safe, &argument)) {
            Ok(made) => Ok(made),
            Err(error) if error.is_instance_of::<PyException>(self.py) => {
                let parts = PyList::new(
                    self.py,
                    [safe.module.bind(self.py), safe.name.bind(self.py)],
                )?;
                parts.append(argument)?;
                let fallback = codec
                    .upstream
                    .bind(self.py)
                    .getattr("_reconstruction_fallback")?;
                let value = error.into_value(self.py);
                Ok(self.pause.lifted(|| fallback.call1((parts, value)))?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn call(
        &self,
        code: i8,
        safe: &Safe,
        argument: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let callable = safe.callable(py)?;
        match code {
            CALL_METHOD => callable
                .getattr(intern!(py, "fromisoformat"))?
                .call1((argument,)),
            CALL_ARGUMENTS => callable.call1(argument.cast::<PyList>()?.to_tuple()),
            CALL_KEYWORDS => {
                let keywords = argument.cast::<PyDict>()?;
                if keywords
                    .keys()
                    .iter()
                    .any(|key| !key.is_instance_of::<PyString>())
                {
                    return Err(PyTypeError::new_err("keywords must be strings"));
                }
                callable.call((), Some(keywords))
            }
            _ => {
                if let Some(made) = self.codec.uuids.make(&callable, argument)? {
                    return Ok(made);
                }
                callable.call1((argument,))
            }
        }
    }

    /// `[dtype, shape, order, bytes]`
    pub fn array(&mut self, payload: &'a [u8]) -> Read<'py> {
        let (Some(0x94), Some((dtype, at))) = (payload.first(), text(payload, 1)) else {
            return Err(Stop::Doubt);
        };
        let py = self.py;
        let mut order = None;
        let mut buffer = None;
        let shape = self.inside(payload, 0, |inner| {
            inner.at = at;
            let shape = inner.strictly(|inner| inner.value(0))?;
            let (name, at) = text(payload, inner.at).ok_or(Stop::Doubt)?;
            let marker = read(payload, at).ok_or(Stop::Doubt)?;
            order = Some(name);
            buffer = payload
                .get(at + marker.header..)
                .filter(|rest| matches!(payload[at], 0xc4..=0xc6) && rest.len() == marker.body);
            inner.at = payload.len();
            Ok(shape)
        })?;
        let (Some(order), Some(buffer)) = (order, buffer) else {
            return Err(Stop::Doubt);
        };
        let Ok(numpy) = self.pause.lifted(|| py.import(intern!(py, "numpy"))) else {
            return Err(Stop::Doubt);
        };
        let made = || -> PyResult<_> {
            let dtype = numpy.call_method1(intern!(py, "dtype"), (dtype,))?;
            let keywords = PyDict::new(py);
            keywords.set_item(intern!(py, "dtype"), dtype)?;
            let bytes = (PyBytes::new(py, buffer),);
            let flat = numpy.call_method(intern!(py, "frombuffer"), bytes, Some(&keywords))?;
            let keywords = PyDict::new(py);
            keywords.set_item(intern!(py, "order"), order)?;
            flat.call_method(intern!(py, "reshape"), (shape,), Some(&keywords))
        };
        match self.pause.lifted(made) {
            // As in the hook.
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(py.None().into_bound(py)),
            made => Ok(made?),
        }
    }

    /// A message, built without its class's validators where that is proven to make no
    /// difference.
    pub fn message(&mut self, payload: &'a [u8], depth: usize) -> Read<'py> {
        let codec = self.codec;
        let rest = payload.strip_prefix(&[0x94]).ok_or(Stop::Doubt)?;
        let class = codec.message_headed(rest).ok_or(Stop::Doubt)?;
        let mut shape = Shape::default();
        let state = class.template.bind(self.py).copy()?;
        self.inside(payload, depth, |inner| {
            inner.at = 1 + class.head.len();
            shape = inner.strictly(|inner| inner.fields(class, &state))?;
            inner.at = payload.len();
            Ok(inner.py.None().into_bound(inner.py))
        })?;
        match class.builds.get(shape) {
            Some(true) => Ok(class.build(&state)?),
            Some(false) => Err(Stop::Doubt),
            None => {
                // The first of its shape is made both ways.
                let theirs = self.hooked(MODEL, payload)?;
                let ours = class.build(&state)?;
                let is_same = theirs.get_type().is(&class.class)
                    && self
                        .pause
                        .lifted(|| are_equal(&ours, &theirs))
                        .unwrap_or(false);
                class.builds.set(shape, is_same);
                Ok(theirs)
            }
        }
    }

    /// Put the values of exactly the class's fields into `state`, unless they are others, or
    /// the class would do something about them.
    fn fields(&mut self, class: &Class, state: &Bound<'py, PyDict>) -> Result<Shape, Stop> {
        let marker = read(self.bytes, self.at).ok_or(Stop::Doubt)?;
        if marker.kind != Kind::Map(class.fields.len() as u32) {
            return Err(Stop::Doubt);
        }
        self.at += marker.header;
        let mut shape = Shape::default();
        for (at, field) in class.fields.iter().enumerate() {
            // Upstream writes them in this order; a record in another one is not its own.
            let rest = self.bytes[self.at..]
                .strip_prefix(&*field.encoded)
                .ok_or(Stop::Doubt)?;
            self.at += field.encoded.len();
            match (&class.kind, field.holds, rest.first()) {
                (Some((_, kind)), Holds::Kind, _) if rest.starts_with(kind) => {
                    self.at += kind.len();
                    shape.note(at, 1);
                    continue;
                }
                (_, holds, Some(0xc0)) if holds.takes_none() => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let value = self.value(FIELDS_DEPTH)?;
            if !fits(class, field.holds, &value, true) {
                return Err(Stop::Doubt);
            }
            shape.note(at, kind_of(&value));
            state.set_item(&field.key, value)?;
        }
        if self.bytes[self.at..] == *MODEL_TAIL {
            Ok(shape)
        } else {
            Err(Stop::Doubt)
        }
    }
}

/// Half of what is left is enough for what messages hold.
const FIELDS_DEPTH: usize = super::decode::DEEPEST / 2;

/// The text at an offset, and the offset behind it.
fn text(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    let marker = read(bytes, at)?;
    let start = at + marker.header;
    let body = bytes.get(start..start + marker.body)?;
    let text = is_text(bytes[at])
        .then(|| std::str::from_utf8(body).ok())
        .flatten()?;
    Some((text, start + marker.body))
}

/// Where the two texts end that a payload begins with.
fn head(payload: &[u8]) -> Option<usize> {
    let (_, at) = text(payload, 1)?;
    Some(text(payload, at)?.1)
}

/// Whether two objects of one class have the same state.
fn are_equal(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    // Of plain values the representation tells all: types, order, and NaN, which equals
    // nothing.
    let fields = |object: &Bound<'_, PyAny>| -> PyResult<String> {
        Ok(object.getattr("__dict__")?.repr()?.to_string())
    };
    if fields(one)? != fields(other)? {
        return Ok(false);
    }
    for part in [
        "__pydantic_fields_set__",
        "__pydantic_extra__",
        "__pydantic_private__",
    ] {
        if !one.getattr(part)?.eq(other.getattr(part)?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
