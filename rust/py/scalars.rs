//! Text, numbers and the like, written where they lie in a container: most of what there is.
//!
//! Nothing is owned here but what is given back, and nothing here runs Python, so that what is
//! borrowed stays in its container.
#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::buffer::Buffer;
use super::raw::{self, Integer};
use crate::codec::write;

/// Write an object, if it is a scalar that msgpack holds.
///
/// # Safety
/// `object` is an object.
#[inline]
unsafe fn is_written(out: &mut Buffer<'_>, py: Python<'_>, object: *mut ffi::PyObject) -> bool {
    let kind = ffi::Py_TYPE(object).cast_const();
    let borrowed = Borrowed::<PyAny>::from_ptr(py, object);
    if kind == &raw const ffi::PyUnicode_Type {
        let Some(text) = raw::utf8(borrowed.cast_unchecked()) else {
            return false;
        };
        write::str(out, text);
    } else if object == ffi::Py_None() {
        write::nil(out);
    } else if kind == &raw const ffi::PyLong_Type {
        match raw::integer(borrowed.cast_unchecked()) {
            Some(Integer::Signed(n)) => write::signed(out, n),
            Some(Integer::Unsigned(n)) => write::unsigned(out, n),
            None => return false,
        }
    } else if kind == &raw const ffi::PyBool_Type {
        write::bool(out, object == ffi::Py_True());
    } else if kind == &raw const ffi::PyFloat_Type {
        write::float(out, ffi::PyFloat_AS_DOUBLE(object));
    } else {
        return false;
    }
    true
}

/// Goes over a dict, whatever becomes of it meanwhile.
pub struct Entries<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    at: ffi::Py_ssize_t,
}

impl<'a, 'py> Entries<'a, 'py> {
    pub fn of(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { dict, at: 0 }
    }

    /// Write entries of text and scalars, counting them down, up to one that is another; give
    /// that one, and whether its key was written.
    #[inline]
    pub fn write_scalars(
        &mut self,
        out: &mut Buffer<'_>,
        left: &mut usize,
    ) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>, bool)> {
        let py = self.dict.py();
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the position is one that the call gave, and is held against the dict as it
        // is now. Key and value are the dict's, which stays as it is until they are given back.
        unsafe {
            while ffi::PyDict_Next(self.dict.as_ptr(), &mut self.at, &mut key, &mut value) != 0 {
                let mut is_key_written = false;
                if ffi::PyUnicode_CheckExact(key) != 0 {
                    let key = Borrowed::<PyAny>::from_ptr(py, key);
                    if let Some(text) = raw::utf8(key.cast_unchecked()) {
                        write::str(out, text);
                        is_key_written = true;
                    }
                }
                if *left > 0 && is_key_written && is_written(out, py, value) {
                    *left -= 1;
                    continue;
                }
                return Some((
                    Bound::from_borrowed_ptr(py, key),
                    Bound::from_borrowed_ptr(py, value),
                    is_key_written,
                ));
            }
        }
        None
    }
}

impl<'py> Iterator for Entries<'_, 'py> {
    type Item = (Bound<'py, PyAny>, Bound<'py, PyAny>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let py = self.dict.py();
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as above; key and value are owned at once.
        unsafe {
            let dict = self.dict.as_ptr();
            (ffi::PyDict_Next(dict, &mut self.at, &mut key, &mut value) != 0).then(|| {
                (
                    Bound::from_borrowed_ptr(py, key),
                    Bound::from_borrowed_ptr(py, value),
                )
            })
        }
    }
}

/// Whether all entries of a dict are as they should be, whatever becomes of it meanwhile; what is
/// lent may be gone when Python has run.
#[inline]
pub fn all_entries(
    dict: &Bound<'_, PyDict>,
    mut is_right: impl FnMut(Borrowed<'_, '_, PyAny>, Borrowed<'_, '_, PyAny>) -> bool,
) -> bool {
    let py = dict.py();
    let (mut at, mut key, mut value) = (0, ptr::null_mut(), ptr::null_mut());
    // SAFETY: as above; the dict holds both when they are lent.
    unsafe {
        while ffi::PyDict_Next(dict.as_ptr(), &mut at, &mut key, &mut value) != 0 {
            if !is_right(Borrowed::from_ptr(py, key), Borrowed::from_ptr(py, value)) {
                return false;
            }
        }
    }
    true
}

/// Goes over a list, whatever becomes of it meanwhile.
pub struct Items<'a, 'py> {
    list: &'a Bound<'py, PyList>,
    at: usize,
}

impl<'a, 'py> Items<'a, 'py> {
    pub fn of(list: &'a Bound<'py, PyList>) -> Self {
        Self { list, at: 0 }
    }

    /// Write scalars, counting them down, up to an item that is none; give that one.
    #[inline]
    pub fn write_scalars(
        &mut self,
        out: &mut Buffer<'_>,
        left: &mut usize,
    ) -> Option<Bound<'py, PyAny>> {
        let py = self.list.py();
        while self.at < self.list.len() {
            let at = self.at;
            self.at += 1;
            // SAFETY: the list has an item there, and stays as it is until that is given back.
            unsafe {
                let item = ffi::PyList_GET_ITEM(self.list.as_ptr(), at as ffi::Py_ssize_t);
                if *left == 0 || !is_written(out, py, item) {
                    return Some(Bound::from_borrowed_ptr(py, item));
                }
            }
            *left -= 1;
        }
        None
    }
}

impl<'py> Iterator for Items<'_, 'py> {
    type Item = Bound<'py, PyAny>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.list.get_item(self.at).ok()?;
        self.at += 1;
        Some(item)
    }
}
