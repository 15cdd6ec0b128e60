//! Steps for which pyo3 has no safe way, or a slow one. Everything that is `unsafe` in the
//! codec is here, in `scalars.rs` and in `buffer.rs`.
//!
//! All of it runs with the GIL held; the module asks for it on free-threaded Python, too.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PySet, PyString, PyTuple, PyType};

/// The UTF-8 bytes of a text; `None` where it holds lone surrogates.
#[inline]
pub fn utf8<'a>(text: Borrowed<'a, '_, PyString>) -> Option<&'a str> {
    // SAFETY: `text` is a str. It cannot change, and owns the bytes for as long as it lives.
    // ASCII stands behind the head of a compact str, and Python promises UTF-8.
    unsafe {
        #[cfg(not(any(Py_3_14, GraalPy)))]
        if ffi::PyUnicode_IS_COMPACT_ASCII(text.as_ptr()) != 0 {
            let length = ffi::PyUnicode_GET_LENGTH(text.as_ptr()) as usize;
            let bytes = ffi::PyUnicode_1BYTE_DATA(text.as_ptr());
            let bytes = std::slice::from_raw_parts(bytes, length);
            return Some(std::str::from_utf8_unchecked(bytes));
        } else if ffi::PyUnicode_IS_COMPACT(text.as_ptr()) != 0 {
            // What an earlier call left there.
            let text = &*text.as_ptr().cast::<ffi::PyCompactUnicodeObject>();
            if !text.utf8.is_null() {
                let length = text.utf8_length as usize;
                let bytes = std::slice::from_raw_parts(text.utf8.cast::<u8>(), length);
                return Some(std::str::from_utf8_unchecked(bytes));
            }
        }
        let mut length = 0;
        let bytes = ffi::PyUnicode_AsUTF8AndSize(text.as_ptr(), &mut length);
        if bytes.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize);
        Some(std::str::from_utf8_unchecked(bytes))
    }
}

/// A text of these bytes; `None` where they are not UTF-8.
#[inline]
pub fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyString>> {
    if !bytes.is_ascii() {
        return wide_text(py, simdutf8::basic::from_utf8(bytes).ok()?);
    }
    if bytes.len() < 2 {
        return PyString::from_bytes(py, bytes).ok();
    }
    // SAFETY: a new str of that many characters of one byte each is written to before anyone
    // else sees it, with characters below the largest that it was made for.
    unsafe {
        let text = ffi::PyUnicode_New(bytes.len() as ffi::Py_ssize_t, 0x7f);
        let text = Bound::from_owned_ptr_or_opt(py, text)?;
        let data = ffi::PyUnicode_DATA(text.as_ptr()).cast::<u8>();
        ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        Some(text.cast_into_unchecked())
    }
}

/// A text that is not ASCII alone.
fn wide_text<'py>(py: Python<'py>, text: &str) -> Option<Bound<'py, PyString>> {
    /// # Safety
    /// `data` has room for all the characters, and nobody else refers to it.
    #[inline]
    unsafe fn fill<T>(data: *mut T, text: &str, narrow: impl Fn(char) -> T) {
        let mut data = data;
        for each in text.chars() {
            data.write(narrow(each));
            data = data.add(1);
        }
    }
    let length = text.chars().count() as ffi::Py_ssize_t;
    // The largest first byte of a character tells how large characters are.
    let largest = match text.bytes().fold(0, u8::max) {
        0xf0.. => 0x10_ffff,
        0xc4.. => 0xffff,
        _ => 0xff,
    };
    // SAFETY: a str that is made for such a largest character holds so many characters of one,
    // two or four bytes, and nobody else has seen it. It is the narrowest form, as Python wants.
    unsafe {
        let made = Bound::from_owned_ptr_or_opt(py, ffi::PyUnicode_New(length, largest))?;
        let data = ffi::PyUnicode_DATA(made.as_ptr());
        match largest {
            0xff => fill(data.cast::<u8>(), text, |each| each as u8),
            0xffff => fill(data.cast::<u16>(), text, |each| each as u16),
            _ => fill(data.cast::<u32>(), text, |each| each as u32),
        }
        Some(made.cast_into_unchecked())
    }
}

/// An integer that msgpack holds.
pub enum Integer {
    Signed(i64),
    Unsigned(u64),
}

/// The value of an int; `None` beyond 64 bits.
#[inline]
pub fn integer(int: Borrowed<'_, '_, PyInt>) -> Option<Integer> {
    let mut overflow: c_int = 0;
    // SAFETY: `int` is an int, so that neither call runs Python, and the first cannot fail.
    unsafe {
        let n = ffi::PyLong_AsLongLongAndOverflow(int.as_ptr(), &mut overflow);
        if overflow == 0 {
            return Some(Integer::Signed(n));
        }
        if overflow < 0 {
            return None;
        }
        let n = ffi::PyLong_AsUnsignedLongLong(int.as_ptr());
        if n == u64::MAX && !ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(Integer::Unsigned(n))
    }
}

/// Whether an object has an attribute; no error says so of one that has not.
#[inline]
pub fn has_attribute(object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> bool {
    // SAFETY: both are objects; errors are discarded by the call.
    unsafe { ffi::PyObject_HasAttr(object.as_ptr(), name.as_ptr()) != 0 }
}

/// Makes objects of a class with `object.__new__`, as if it were called from Python.
pub struct Maker {
    class: Py<PyType>,
    nothing: Py<PyTuple>,
}

impl Maker {
    /// An error where `object.__new__` refuses the class.
    pub fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let object = py.import("builtins")?.getattr("object")?;
        object.call_method1("__new__", (class,))?;
        Ok(Self {
            class: class.clone().unbind(),
            nothing: PyTuple::empty(py).unbind(),
        })
    }

    #[inline]
    pub fn make<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let class = self.class.bind(py).as_type_ptr();
        // SAFETY: the call was accepted from Python, where it is checked to be right for the
        // class. It is the same one, with the same arguments.
        unsafe {
            let base = &raw const ffi::PyBaseObject_Type;
            let new = (*base)
                .tp_new
                .ok_or_else(|| PyTypeError::new_err("no object.__new__"))?;
            let made = new(class, self.nothing.as_ptr(), ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, made)
        }
    }
}

/// `object.__getattribute__(object, name)`: without asking the class's own `__getattr__`.
#[inline]
pub fn attribute<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both are objects; the call gives a new reference, or an error.
    unsafe {
        let value = ffi::PyObject_GenericGetAttr(object.as_ptr(), name.as_ptr());
        Bound::from_owned_ptr_or_err(object.py(), value)
    }
}

/// `object.__setattr__(object, name, value)`.
#[inline]
pub fn set_attribute(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    // SAFETY: all three are objects; the call takes no reference from its caller.
    let done =
        unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if done == 0 {
        Ok(())
    } else {
        Err(PyErr::fetch(object.py()))
    }
}

/// A new set with the items of one.
pub fn copy_set<'py>(set: &Bound<'py, PySet>) -> PyResult<Bound<'py, PySet>> {
    // SAFETY: the call gives a new set, or an error.
    unsafe {
        let copy = ffi::PySet_New(set.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(set.py(), copy)?.cast_into_unchecked())
    }
}

/// The bytes of a contiguous buffer, as they are; `None` where the object has no such buffer.
pub fn with_buffer<T>(object: &Bound<'_, PyAny>, work: impl FnOnce(&[u8]) -> T) -> Option<T> {
    struct View(ffi::Py_buffer);
    impl Drop for View {
        fn drop(&mut self) {
            // SAFETY: it was filled by `PyObject_GetBuffer`, and is released once.
            unsafe { ffi::PyBuffer_Release(&mut self.0) }
        }
    }
    // SAFETY: `work` runs no Python, so that the exporter's memory stays as it is; a buffer
    // without a length may have no address.
    unsafe {
        let mut view = ffi::Py_buffer::new();
        if ffi::PyObject_GetBuffer(object.as_ptr(), &mut view, ffi::PyBUF_CONTIG_RO) != 0 {
            ffi::PyErr_Clear();
            return None;
        }
        let view = View(view);
        let length = view.0.len as usize;
        let bytes = match length {
            0 => &[][..],
            _ => std::slice::from_raw_parts(view.0.buf.cast::<u8>(), length),
        };
        Some(work(bytes))
    }
}

/// Have the garbage collector not run by itself; whether it would have.
pub fn collect_no_more(_py: Python<'_>) -> bool {
    // SAFETY: called with the GIL held; reads and sets a flag of the interpreter.
    unsafe { ffi::PyGC_Disable() != 0 }
}

/// Have the garbage collector run by itself.
pub fn collect_again(_py: Python<'_>) {
    // SAFETY: as above.
    unsafe { ffi::PyGC_Enable() };
}
