//! Values as JSON for people to look at, where JSON says the same as the value.

use std::fmt::Write;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

/// Beyond, a JSONB column writes a number with up to 300 zeros.
const SMALLEST: f64 = 1e-15;
const LARGEST: f64 = 1e17;
/// Deeper values are not for people to look at.
const DEEPEST: usize = 32;

/// The JSON text of a value, or None where JSON or a JSONB column would say something else
/// (other types, tuples, NaN, −0.0, NUL or lone surrogates in text, keys that are no text, whole
/// numbers beyond 64 bits, very large and very small ones) and where the text would have more than `longest` bytes. A value that is
/// too long is not looked at beyond that.
#[pyfunction]
pub fn json(value: &Bound<'_, PyAny>, longest: usize) -> Option<String> {
    let mut out = String::new();
    write(&mut out, value, longest, DEEPEST)?;
    (out.len() <= longest).then_some(out)
}

fn write(out: &mut String, value: &Bound<'_, PyAny>, longest: usize, depth: usize) -> Option<()> {
    if out.len() > longest || depth == 0 {
        return None;
    }
    if value.is_none() {
        out.push_str("null");
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        out.push_str(if value.is_true() { "true" } else { "false" });
    } else if let Ok(value) = value.cast_exact::<PyString>() {
        text(out, value, longest)?;
    } else if let Ok(value) = value.cast_exact::<PyInt>() {
        write!(out, "{}", value.extract::<i64>().ok()?).ok()?;
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        let value = value.value();
        let is_shown = match value.abs() {
            0.0 => value.is_sign_positive(),
            size => (SMALLEST..LARGEST).contains(&size),
        };
        if !is_shown {
            return None;
        }
        write!(out, "{value:?}").ok()?;
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        out.push('[');
        for (index, item) in list.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            write(out, &item, longest, depth - 1)?;
        }
        out.push(']');
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        out.push('{');
        for (index, (key, item)) in dict.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            text(out, key.cast_exact::<PyString>().ok()?, longest)?;
            out.push(':');
            write(out, &item, longest, depth - 1)?;
        }
        out.push('}');
    } else {
        return None;
    }
    Some(())
}

fn text(out: &mut String, value: &Bound<'_, PyString>, longest: usize) -> Option<()> {
    let text = value.to_str().ok()?;
    if text.len() > longest {
        return None;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '\0' => return None,
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).ok()?,
            c => out.push(c),
        }
    }
    out.push('"');
    Some(())
}
