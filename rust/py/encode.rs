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

use super::messages::{Class, Codec, Holds, Shape, CONSTRUCT};
use crate::codec::write;

/// Upstream refuses at 255 levels; it shall be the one to do so.
const DEEPEST: usize = 100;

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
    Ok(done.map(|()| out))
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
                Err(_) => return self.upstream(out, object),
            }
        } else if object.is_none() {
            write::nil(out);
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            return self.dict(out, dict, depth);
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            let count = list.len();
            write::array(out, count);
            let mut seen = 0;
            for item in list {
                seen += 1;
                if self.value(out, &item, depth + 1)?.is_none() {
                    return Ok(None);
                }
            }
            if seen != count {
                return Ok(None);
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
            return self.other(out, object);
        }
        OK
    }

    fn dict(&self, out: &mut Vec<u8>, dict: &Bound<'py, PyDict>, depth: usize) -> Done {
        let start = out.len();
        let count = dict.len();
        write::map(out, count);
        let mut seen = 0;
        for (key, value) in dict {
            seen += 1;
            let Some(key) = key
                .cast_exact::<PyString>()
                .ok()
                .and_then(|key| key.to_str().ok())
            else {
                // Upstream knows which keys it takes, and as what.
                out.truncate(start);
                return self.upstream(out, dict);
            };
            write::str(out, key);
            if self.value(out, &value, depth + 1)?.is_none() {
                return Ok(None);
            }
        }
        if seen != count {
            return Ok(None);
        }
        OK
    }

    fn upstream(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>) -> Done {
        let typed = self.codec.dumps.bind(self.py).call1((object,))?;
        let (tag, bytes) = typed.extract::<(Bound<'py, PyString>, Bound<'py, PyBytes>)>()?;
        if tag != "msgpack" {
            return Ok(None);
        }
        out.extend_from_slice(bytes.as_bytes());
        OK
    }

    fn other(&self, out: &mut Vec<u8>, object: &Bound<'py, PyAny>) -> Done {
        let class = self.codec.class_of(object);
        let Some(class) = class else {
            return self.upstream(out, object);
        };
        let mut payload = Vec::with_capacity(1024);
        let Some(shape) = self.message(&mut payload, class, object)? else {
            return self.upstream(out, object);
        };
        let start = out.len();
        write::ext(out, CONSTRUCT, &payload);
        match class.encodes(shape) {
            Some(true) => OK,
            Some(false) => {
                out.truncate(start);
                self.upstream(out, object)
            }
            None => {
                // The first of its shape is made both ways.
                let own = out.split_off(start);
                let done = self.upstream(out, object)?;
                class.learn_encoding(shape, done.is_some() && out[start..] == own[..]);
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
        for (at, field) in class.fields.iter().enumerate() {
            let Some(value) = fields.get_item(field.key.bind(py))? else {
                return Ok(None);
            };
            if !survives_dump(field.holds, &value) {
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

/// Whether `model_dump()` leaves a value as it is: of a `TypedDict` only the keys that it
/// names would survive.
fn survives_dump(holds: Holds, value: &Bound<'_, PyAny>) -> bool {
    match holds {
        Holds::ToolCalls => are_tool_calls(value),
        Holds::InvalidToolCalls => is_empty_list(value),
        Holds::Usage => value.is_none() || is_usage(value),
        _ => true,
    }
}

pub fn is_empty_list(value: &Bound<'_, PyAny>) -> bool {
    value
        .cast_exact::<PyList>()
        .is_ok_and(PyListMethods::is_empty)
}

/// Whether this is a list of dicts of exactly the form of LangChain's `ToolCall`.
pub fn are_tool_calls(value: &Bound<'_, PyAny>) -> bool {
    value.cast_exact::<PyList>().is_ok_and(|calls| {
        calls
            .iter()
            .all(|call| call.cast_exact::<PyDict>().is_ok_and(is_tool_call))
    })
}

fn is_tool_call<'py>(call: &Bound<'py, PyDict>) -> bool {
    let py = call.py();
    let get = |key: &Bound<'py, PyString>| call.get_item(key).ok().flatten();
    call.len() == 4
        && get(intern!(py, "name")).is_some_and(|name| name.is_exact_instance_of::<PyString>())
        && get(intern!(py, "args")).is_some_and(|args| has_text_keys(&args))
        && get(intern!(py, "id"))
            .is_some_and(|id| id.is_none() || id.is_exact_instance_of::<PyString>())
        && get(intern!(py, "type")).is_some_and(|kind| is_text(&kind, "tool_call"))
}

pub fn has_text_keys(value: &Bound<'_, PyAny>) -> bool {
    value.cast_exact::<PyDict>().is_ok_and(|dict| {
        dict.iter()
            .all(|(key, _)| key.is_exact_instance_of::<PyString>())
    })
}

pub fn is_text(value: &Bound<'_, PyAny>, text: &str) -> bool {
    value
        .cast_exact::<PyString>()
        .is_ok_and(|value| value.to_str().is_ok_and(|v| v == text))
}

/// Whether this is a dict of exactly the form of LangChain's `UsageMetadata`.
pub fn is_usage(value: &Bound<'_, PyAny>) -> bool {
    let is_int = |value: &Bound<'_, PyAny>| value.is_exact_instance_of::<PyInt>();
    let Ok(usage) = value.cast_exact::<PyDict>() else {
        return false;
    };
    let mut required = 0;
    usage.iter().all(|(key, value)| {
        let key = key
            .cast_exact::<PyString>()
            .ok()
            .and_then(|key| key.to_str().ok());
        match key {
            Some("input_tokens" | "output_tokens" | "total_tokens") => {
                required += 1;
                is_int(&value)
            }
            Some("input_token_details" | "output_token_details") => {
                value.cast_exact::<PyDict>().is_ok_and(|details| {
                    details.iter().all(|(key, value)| {
                        let key = key
                            .cast_exact::<PyString>()
                            .ok()
                            .and_then(|k| k.to_str().ok());
                        let known = ["audio", "cache_creation", "cache_read", "reasoning"];
                        key.is_some_and(|key| known.contains(&key)) && is_int(&value)
                    })
                })
            }
            _ => false,
        }
    }) && required == 3
}
