//! From Python objects to the bytes that `JsonPlusSerializer` makes of them.
//!
//! Plain values and LangChain's messages are read here; whatever else is met is given to
//! the upstream serializer, and its bytes are taken as they are. `None` anywhere means
//! that upstream must do the whole value: it decides about limits and errors.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

use super::fits::{fits, is_text};
use super::messages::{Class, Codec, Shape, CONSTRUCT};
use crate::codec::marker::nesting;
use crate::codec::write;

/// Upstream refuses at 255 levels; it shall be the one to do so.
const DEEPEST: usize = 100;
/// Down to here a container is tried as a plain one first: what is found not to be one is
/// read again.
const TRIED: usize = 1;

/// One value on its way to bytes.
struct Encoder<'a, 'py> {
    codec: &'a Codec,
    py: Python<'py>,
}

/// The bytes of a value; `None` where upstream must make them.
pub fn encode(codec: &Codec, object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    let mut out = Vec::with_capacity(256);
    let done = Encoder {
        codec,
        py: object.py(),
    }
    .value(&mut out, object, 0)?;
    // Beyond this a length of four bytes may not have held what was written.
    Ok(done
        .map(|()| out)
        .filter(|out| u32::try_from(out.len()).is_ok()))
}

/// Done, or not to be done here.
type Done = PyResult<Option<()>>;

const OK: Done = Ok(Some(()));

impl<'py> Encoder<'_, 'py> {
    fn value(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        if depth > DEEPEST {
            return Ok(None);
        }
        if let Ok(text) = object.cast_exact::<PyString>() {
            match text.to_str() {
                Ok(text) => write::str(out, text),
                Err(_) => return self.upstream(out, object, depth),
            }
        } else if object.is_none() {
            write::nil(out);
        } else if depth <= TRIED && self.is_done_plainly(out, object) {
            return OK;
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            return self.dict(out, dict, depth);
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            // A copy: what upstream calls for an item may change the list.
            let items: Vec<_> = list.iter().collect();
            write::array(out, items.len());
            for item in items {
                if self.value(out, &item, depth + 1)?.is_none() {
                    return Ok(None);
                }
            }
        } else if let Ok(int) = object.cast_exact::<PyInt>() {
            if let Ok(n) = int.extract::<i64>() {
                write::signed(out, n);
            } else if let Ok(n) = int.extract::<u64>() {
                write::unsigned(out, n);
            } else {
                return Ok(None);
            }
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            write::bool(out, value.is_true());
        } else if let Ok(float) = object.cast_exact::<PyFloat>() {
            write::float(out, float.value());
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            write::array(out, tuple.len());
            for item in tuple {
                if self.value(out, &item, depth + 1)?.is_none() {
                    return Ok(None);
                }
            }
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            write::bin(out, bytes.as_bytes());
        } else if let Ok(bytes) = object.cast_exact::<PyByteArray>() {
            write::bin(out, &bytes.to_vec());
        } else {
            return self.other(out, object, depth);
        }
        OK
    }

    fn dict(&self, out: &mut Vec<u8>, dict: &Bound<'py, PyDict>, depth: usize) -> Done {
        let start = out.len();
        // A copy, as of lists.
        let entries: Vec<_> = dict.iter().collect();
        write::map(out, entries.len());
        for (key, value) in entries {
            let key = key.cast_exact::<PyString>().ok();
            let Some(key) = key.and_then(|key| key.to_str().ok()) else {
                // Upstream knows which keys it takes, and as what.
                out.truncate(start);
                return self.upstream(out, dict, depth);
            };
            write::str(out, key);
            if self.value(out, &value, depth + 1)?.is_none() {
                return Ok(None);
            }
        }
        OK
    }

    fn upstream(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        let typed = self.codec.dumps.bind(self.py).call1((object,))?;
        let (tag, bytes) = typed.extract::<(Bound<'py, PyString>, Bound<'py, PyBytes>)>()?;
        // Called for a part, upstream does not know how deep that part lies.
        if tag != "msgpack" || depth + nesting(bytes.as_bytes()) > DEEPEST {
            return Ok(None);
        }
        out.extend_from_slice(bytes.as_bytes());
        OK
    }

    fn other(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        let class = self.codec.class_of(object);
        let Some(class) = class else {
            return self.upstream(out, object, depth);
        };
        let mut payload = Vec::with_capacity(1024);
        let Some(shape) = self.message(&mut payload, class, object)? else {
            return self.upstream(out, object, depth);
        };
        let start = out.len();
        write::ext(out, CONSTRUCT, &payload);
        match class.encodes.get(shape) {
            Some(true) => OK,
            Some(false) => {
                out.truncate(start);
                self.upstream(out, object, depth)
            }
            None => {
                // The first of its shape is made both ways.
                let own = out.split_off(start);
                let done = self.upstream(out, object, depth)?;
                class
                    .encodes
                    .set(shape, done.is_some() && out[start..] == own[..]);
                Ok(done)
            }
        }
    }

    /// `[module, name, fields, "model_validate_json"]`, if the fields are plain enough for
    /// `model_dump()` to leave them as they are.
    fn message(
        &self,
        out: &mut Vec<u8>,
        class: &Class,
        object: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Shape>> {
        let py = self.py;
        let fields = object.getattr(intern!(py, "__dict__"))?;
        let Ok(fields) = fields.cast_exact::<PyDict>() else {
            return Ok(None);
        };
        let extra = object.getattr(intern!(py, "__pydantic_extra__"))?;
        let has_extra = match extra.cast_exact::<PyDict>() {
            Ok(extra) => !extra.is_empty(),
            Err(_) => !extra.is_none(),
        };
        if has_extra || fields.len() != class.fields.len() {
            return Ok(None);
        }
        let mut shape = Shape::default();
        write::array(out, 4);
        write::str(out, &class.module);
        write::str(out, &class.name);
        write::map(out, fields.len());
        // Nothing in this loop calls into Python, so the dict stays as it is. `model_dump()`
        // follows its order.
        for (at, ((key, value), field)) in fields.iter().zip(&class.fields).enumerate() {
            let is_next = key.is(field.key.bind(py)) || is_text(&key, &field.name);
            if !is_next || !fits(class, field.holds, &value, false) {
                return Ok(None);
            }
            write::str(out, &field.name);
            if self.plain(out, &value, 0).is_none() {
                return Ok(None);
            }
            shape.note(at, kind_of(&value));
        }
        write::str(out, "model_validate_json");
        Ok(Some(shape))
    }

    /// Write a container that holds plain values alone, which needs no copy of it.
    fn is_done_plainly(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>) -> bool {
        let start = out.len();
        let is_container =
            object.is_exact_instance_of::<PyDict>() || object.is_exact_instance_of::<PyList>();
        let is_done = is_container && self.plain(out, object, 0).is_some();
        if !is_done {
            out.truncate(start);
        }
        is_done
    }

    /// A value of plain types only; nothing here calls into Python.
    fn plain(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>, depth: usize) -> Option<()> {
        if depth > DEEPEST / 2 {
            return None;
        }
        if let Ok(text) = object.cast_exact::<PyString>() {
            write::str(out, text.to_str().ok()?);
        } else if object.is_none() {
            write::nil(out);
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            write::map(out, dict.len());
            for (key, value) in dict {
                write::str(out, key.cast_exact::<PyString>().ok()?.to_str().ok()?);
                self.plain(out, &value, depth + 1)?;
            }
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            write::array(out, list.len());
            for item in list {
                self.plain(out, &item, depth + 1)?;
            }
        } else if let Ok(int) = object.cast_exact::<PyInt>() {
            write::signed(out, int.extract::<i64>().ok()?);
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            write::bool(out, value.is_true());
        } else if let Ok(float) = object.cast_exact::<PyFloat>() {
            write::float(out, float.value());
        } else {
            return None;
        }
        Some(())
    }
}

/// What of a field's value decides how a message is treated: empty, a list, or other.
pub fn kind_of(value: &Bound<'_, PyAny>) -> u8 {
    if value.is_none() {
        0
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        if list.is_empty() {
            0
        } else {
            2
        }
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        if dict.is_empty() {
            0
        } else {
            1
        }
    } else {
        1
    }
}
