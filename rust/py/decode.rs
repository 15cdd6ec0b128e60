//! From msgpack bytes to the Python objects that `JsonPlusSerializer` makes of them.
//!
//! `None` anywhere means that upstream must read the whole value: it decides about what
//! is odd or broken. Nesting is bounded, and no length is believed before its bytes are
//! there.

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::encode::kind_of;
use super::fits::fits;
use super::messages::{Class, Codec, Shape, CONSTRUCT, SNAPSHOT};
use crate::codec::marker::{is_plain, read, Kind};

const DEEPEST: usize = 100;
/// Keys of dicts come again and again: their strings are shared.
const LONGEST_KEY: usize = 32;
const KEY_SLOTS: usize = 1024;
/// What stands behind a model's fields: the text `model_validate_json`.
const TAIL: &[u8] = b"\xb3model_validate_json";

/// A value; `None` where upstream must read the whole.
type Read<'py> = PyResult<Option<Bound<'py, PyAny>>>;

/// The last key string for each of some hash values.
#[derive(Default)]
pub struct KeyCache(Vec<Option<Py<PyString>>>);

impl KeyCache {
    fn get<'py>(&mut self, py: Python<'py>, key: &str) -> Bound<'py, PyString> {
        if key.len() > LONGEST_KEY {
            return PyString::new(py, key);
        }
        if self.0.is_empty() {
            self.0.resize_with(KEY_SLOTS, || None);
        }
        let mut hash = key.len();
        for byte in key.bytes() {
            hash = hash.wrapping_mul(31).wrapping_add(usize::from(byte));
        }
        let slot = &mut self.0[hash % KEY_SLOTS];
        if let Some(known) = slot {
            if known.bind(py).to_str().is_ok_and(|known| known == key) {
                return known.bind(py).clone();
            }
        }
        let fresh = PyString::new(py, key);
        *slot = Some(fresh.clone().unbind());
        fresh
    }
}

struct Decoder<'a, 'py> {
    codec: &'a Codec,
    py: Python<'py>,
    hook: &'a Bound<'py, PyAny>,
    keys: KeyCache,
    /// Whether all of the bytes were looked at before a hook is called for the first time.
    is_checked: bool,
    bytes: &'a [u8],
    at: usize,
}

/// The value of these bytes; `None` where upstream must read them.
pub fn decode<'py>(
    codec: &Codec,
    py: Python<'py>,
    bytes: &[u8],
    hook: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    // Taken for the time of the call: a hook may decode in turn, and then does without.
    let keys = codec
        .keys
        .try_lock()
        .map(|mut keys| std::mem::take(&mut *keys));
    let mut decoder = Decoder {
        codec,
        py,
        hook,
        keys: keys.unwrap_or_default(),
        is_checked: false,
        bytes,
        at: 0,
    };
    let value = decoder.value(0);
    let is_whole = decoder.at == bytes.len();
    if let Ok(mut keys) = codec.keys.try_lock() {
        *keys = decoder.keys;
    }
    Ok(value?.filter(|_| is_whole))
}

impl<'a, 'py> Decoder<'a, 'py> {
    fn value(&mut self, depth: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(&first) = self.bytes.get(self.at) else {
            return Ok(None);
        };
        // Short texts are most of what there is.
        if first & 0xe0 == 0xa0 {
            let start = self.at + 1;
            let end = start + usize::from(first & 0x1f);
            let text = self.bytes.get(start..end);
            self.at = end;
            let text = text.and_then(|text| PyString::from_bytes(self.py, text).ok());
            return Ok(text.map(Bound::into_any));
        }
        let Some(marker) = read(self.bytes, self.at) else {
            return Ok(None);
        };
        if depth > DEEPEST {
            return Ok(None);
        }
        let start = self.at + marker.header;
        let Some(body) = self.bytes.get(start..start + marker.body) else {
            return Ok(None);
        };
        self.at = start + marker.body;
        let py = self.py;
        let value = match marker.kind {
            Kind::Array(count) => return self.list(count, depth),
            Kind::Map(count) => return self.dict(count, depth),
            Kind::Ext(code) => return self.ext(code, body, depth),
            Kind::Flat => match first {
                0xc0 => py.None().into_bound(py),
                0xc2 | 0xc3 => (first == 0xc3).into_pyobject(py)?.to_owned().into_any(),
                0x00..=0x7f => i64::from(first).into_pyobject(py)?.into_any(),
                0xe0..=0xff => i64::from(first as i8).into_pyobject(py)?.into_any(),
                0xa0..=0xbf | 0xd9..=0xdb => match PyString::from_bytes(py, body) {
                    Ok(text) => text.into_any(),
                    Err(_) => return Ok(None),
                },
                0xc4..=0xc6 => PyBytes::new(py, body).into_any(),
                0xcc..=0xcf => unsigned(body).into_pyobject(py)?.into_any(),
                0xd0..=0xd3 => signed(body).into_pyobject(py)?.into_any(),
                0xcb => f64::from_bits(unsigned(body)).into_pyobject(py)?.into_any(),
                // Upstream widens floats of 32 bits in its own way.
                _ => return Ok(None),
            },
        };
        Ok(Some(value))
    }

    fn list(&mut self, count: u32, depth: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        // No length is believed before its items are there.
        let mut items = Vec::with_capacity((count as usize).min(64));
        for _ in 0..count {
            match self.value(depth + 1)? {
                Some(item) => items.push(item),
                None => return Ok(None),
            }
        }
        Ok(Some(PyList::new(self.py, items)?.into_any()))
    }

    fn key(&mut self, depth: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (header, length) = match self.bytes.get(self.at) {
            Some(first @ 0xa0..=0xbf) => (1, usize::from(first & 0x1f)),
            Some(0xd9..=0xdb) => match read(self.bytes, self.at) {
                Some(marker) => (marker.header, marker.body),
                None => return Ok(None),
            },
            // Which containers and extension objects may be keys is upstream's to say.
            Some(0x80..=0x9f | 0xc7..=0xc9 | 0xd4..=0xd8 | 0xdc..=0xdf) | None => return Ok(None),
            Some(_) => return self.value(depth),
        };
        let start = self.at + header;
        self.at = start + length;
        let text = self
            .bytes
            .get(start..self.at)
            .and_then(|text| std::str::from_utf8(text).ok());
        Ok(text.map(|text| self.keys.get(self.py, text).into_any()))
    }

    fn dict(&mut self, count: u32, depth: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        let dict = PyDict::new(self.py);
        for _ in 0..count {
            let Some(key) = self.key(depth + 1)? else {
                return Ok(None);
            };
            let Some(value) = self.value(depth + 1)? else {
                return Ok(None);
            };
            dict.set_item(key, value)?;
        }
        Ok(Some(dict.into_any()))
    }

    /// Read an extension object's payload, then go on behind it.
    fn inside<T>(
        &mut self,
        payload: &'a [u8],
        at: usize,
        work: impl FnOnce(&mut Self) -> PyResult<T>,
    ) -> PyResult<T> {
        let outer = (self.bytes, self.at);
        (self.bytes, self.at) = (payload, at);
        let done = work(self);
        (self.bytes, self.at) = outer;
        done
    }

    fn ext(&mut self, code: i8, payload: &'a [u8], depth: usize) -> Read<'py> {
        // What upstream must read, it must read before hooks have run: they may be heard.
        if !self.is_checked {
            if !is_plain(self.bytes, DEEPEST, true) {
                return Ok(None);
            }
            self.is_checked = true;
        }
        if code == SNAPSHOT {
            if !is_plain(payload, DEEPEST.saturating_sub(depth), true) {
                return Ok(None);
            }
            let value = self.inside(payload, 0, |inner| inner.value(depth + 1))?;
            let Some(value) = value else {
                return Ok(None);
            };
            return self.called(self.codec.snapshot.bind(self.py).call1((value,)));
        }
        if code == CONSTRUCT {
            if let Some((class, at)) = self.named(payload) {
                if is_plain(payload, DEEPEST / 2, false) {
                    return self.message(class, at, payload);
                }
            }
        }
        self.hooked(code, payload)
    }

    fn hooked(&self, code: i8, payload: &[u8]) -> Read<'py> {
        self.called(self.hook.call1((code, PyBytes::new(self.py, payload))))
    }

    /// What a call gave. How an error in it ends is upstream's to say.
    fn called(&self, result: PyResult<Bound<'py, PyAny>>) -> Read<'py> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_instance_of::<PyException>(self.py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The message that a plain payload describes, built without its class's validators
    /// where that is proven to make no difference.
    fn message(&mut self, class: &'a Class, at: usize, payload: &'a [u8]) -> Read<'py> {
        let py = self.py;
        let state = PyDict::new(py);
        let shape = self.inside(payload, at, |inner| inner.fields(class, &state))?;
        let Some(shape) = shape else {
            return self.hooked(CONSTRUCT, payload);
        };
        match class.builds.get(shape) {
            Some(true) => self.build(class, state).map(Some),
            Some(false) => self.hooked(CONSTRUCT, payload),
            None => {
                // The first of its shape is made both ways.
                let Some(theirs) = self.hooked(CONSTRUCT, payload)? else {
                    return Ok(None);
                };
                let ours = self.build(class, state)?;
                let is_same = theirs.get_type().is(class.class.bind(py))
                    && are_equal(&ours, &theirs).unwrap_or(false);
                class.builds.set(shape, is_same);
                Ok(Some(theirs))
            }
        }
    }

    /// The class that a payload names, and where its fields begin.
    fn named(&self, payload: &[u8]) -> Option<(&'a Class, usize)> {
        if payload.first() != Some(&0x94) {
            return None;
        }
        let mut at = 1;
        let mut text = || {
            let marker = read(payload, at)?;
            let is_text = matches!(payload[at], 0xa0..=0xbf | 0xd9..=0xdb);
            let body = payload.get(at + marker.header..at + marker.header + marker.body)?;
            at += marker.header + marker.body;
            is_text.then(|| std::str::from_utf8(body).ok()).flatten()
        };
        let (module, name) = (text()?, text()?);
        Some((self.codec.class_named(module, name)?, at))
    }

    /// Put exactly the class's fields into `state`, in its order; `None` where they are
    /// others, or where the class would do something about them.
    fn fields(&mut self, class: &Class, state: &Bound<'py, PyDict>) -> PyResult<Option<Shape>> {
        let marker = read(self.bytes, self.at);
        let Some((Kind::Map(count), header)) = marker.map(|m| (m.kind, m.header)) else {
            return Ok(None);
        };
        if count as usize != class.fields.len() {
            return Ok(None);
        }
        self.at += header;
        let mut shape = Shape::default();
        for (at, field) in class.fields.iter().enumerate() {
            // Upstream writes them in this order; a record in another one is not its own.
            let rest = &self.bytes[self.at..];
            if !rest.starts_with(&field.encoded) {
                return Ok(None);
            }
            self.at += field.encoded.len();
            let Some(value) = self.value(1)? else {
                return Ok(None);
            };
            if !fits(class, field.holds, &value, true) {
                return Ok(None);
            }
            shape.note(at, kind_of(&value));
            state.set_item(field.key.bind(self.py), value)?;
        }
        Ok((self.bytes[self.at..] == *TAIL).then_some(shape))
    }

    fn build(&self, class: &Class, state: Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let object = self
            .codec
            .allocate
            .bind(py)
            .call1((class.class.bind(py),))?;
        let set = self.codec.set.bind(py);
        let extra = class.has_extra.then(|| PyDict::new(py));
        set.call1((&object, intern!(py, "__dict__"), state))?;
        let names = class.names.bind(py).call_method0(intern!(py, "copy"))?;
        set.call1((&object, intern!(py, "__pydantic_fields_set__"), names))?;
        set.call1((&object, intern!(py, "__pydantic_extra__"), extra))?;
        set.call1((&object, intern!(py, "__pydantic_private__"), py.None()))?;
        Ok(object)
    }
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

fn unsigned(body: &[u8]) -> u64 {
    body.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn signed(body: &[u8]) -> i64 {
    let shift = 64 - 8 * body.len() as u32;
    ((unsigned(body) << shift) as i64) >> shift
}
