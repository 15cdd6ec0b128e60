//! A bytes object that is written to while it is made: what is encoded is not copied again.
#![allow(unsafe_code)]

use std::ptr;

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::ffi::compat::{
    PyBytesWriter, PyBytesWriter_Create, PyBytesWriter_Discard, PyBytesWriter_FinishWithSize,
    PyBytesWriter_GetData, PyBytesWriter_Resize,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::codec::write::{ext_header, Output};

/// What fits without asking for memory again.
const FIRST: usize = 1024;
const MANY: usize = 256 << 10;
/// Room left for the header of an extension object until its length is known.
const HEADER: usize = 4;

pub struct Buffer<'py> {
    py: Python<'py>,
    writer: *mut PyBytesWriter,
    /// Where the writer's bytes are. `length` of them are written, `capacity` are there.
    data: *mut u8,
    length: usize,
    capacity: usize,
    /// Whether memory ran out: what is written since is not kept.
    has_failed: bool,
}

impl<'py> Buffer<'py> {
    pub fn new(py: Python<'py>) -> PyResult<Self> {
        // SAFETY: the writer is this buffer's own until it is finished or discarded.
        unsafe {
            let writer = PyBytesWriter_Create(FIRST as ffi::Py_ssize_t);
            if writer.is_null() {
                return Err(PyErr::fetch(py));
            }
            Ok(Self {
                py,
                writer,
                data: PyBytesWriter_GetData(writer).cast(),
                length: 0,
                capacity: FIRST,
                has_failed: false,
            })
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn written(&self) -> &[u8] {
        // SAFETY: so many bytes were written.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }

    /// Forget what was written behind `length`.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// The bytes written.
    pub fn finish(mut self) -> PyResult<Bound<'py, PyBytes>> {
        if self.has_failed {
            return Err(PyMemoryError::new_err("out of memory"));
        }
        let writer = std::mem::replace(&mut self.writer, ptr::null_mut());
        // SAFETY: the writer is not used again, and gives a new bytes object or an error.
        unsafe {
            let bytes = PyBytesWriter_FinishWithSize(writer, self.length as ffi::Py_ssize_t);
            Ok(Bound::from_owned_ptr_or_err(self.py, bytes)?.cast_into_unchecked())
        }
    }

    /// Begin an extension object; its payload follows, then [`Self::end_ext`].
    pub fn begin_ext(&mut self) -> usize {
        let start = self.length;
        self.put(&[0; HEADER]);
        start
    }

    /// Put the header in front of what was written since `start`, moving it where the header
    /// does not take the room that was left.
    pub fn end_ext(&mut self, start: usize, code: i8) {
        if self.has_failed {
            return;
        }
        let payload = self.length - start - HEADER;
        let (header, taken) = ext_header(code, payload);
        if taken > HEADER {
            self.put(&[0; HEADER]);
        }
        if self.has_failed {
            return;
        }
        // SAFETY: the payload is within what was written, and so is where it goes: the longest
        // header takes less than the room left and that just added.
        unsafe {
            let from = self.data.add(start + HEADER);
            ptr::copy(from, self.data.add(start + taken), payload);
            ptr::copy_nonoverlapping(header.as_ptr(), self.data.add(start), taken);
        }
        self.length = start + taken + payload;
    }

    /// Make room for so many bytes more at once.
    pub fn reserve(&mut self, more: usize) {
        if self.capacity - self.length < more {
            self.grow_to(self.length.saturating_add(more));
        }
    }

    /// Make room for so many bytes more, and for others; false where there is no memory.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) -> bool {
        // Each time what was written may be copied: seldom, as long as little is at stake.
        let times = if self.capacity < MANY { 4 } else { 2 };
        let wanted = self.length.saturating_add(more);
        self.grow_to(wanted.max(times * self.capacity))
    }

    fn grow_to(&mut self, wanted: usize) -> bool {
        if self.has_failed {
            return false;
        }
        // SAFETY: the writer moves what it has, so its address is asked for again.
        unsafe {
            let done = isize::try_from(wanted)
                .is_ok_and(|wanted| PyBytesWriter_Resize(self.writer, wanted) == 0);
            if !done {
                ffi::PyErr_Clear();
                self.has_failed = true;
                return false;
            }
            self.data = PyBytesWriter_GetData(self.writer).cast();
        }
        self.capacity = wanted;
        true
    }
}

/// Copy bytes, few of them without a call.
///
/// # Safety
/// `to` has room for them, and nobody else refers to it.
#[inline(always)]
unsafe fn copy(bytes: &[u8], to: *mut u8) {
    /// Copy `N` bytes from the front, and the `N` bytes at the end, which may be the same ones.
    #[inline(always)]
    unsafe fn ends<const N: usize>(bytes: &[u8], to: *mut u8) {
        let first = bytes.as_ptr().cast::<[u8; N]>().read();
        let last = bytes.as_ptr().add(bytes.len() - N).cast::<[u8; N]>().read();
        to.cast::<[u8; N]>().write(first);
        to.add(bytes.len() - N).cast::<[u8; N]>().write(last);
    }
    match bytes.len() {
        0 => {}
        1..4 => {
            // The front, the middle and the end of three bytes at most.
            let middle = bytes.len() / 2;
            *to = bytes[0];
            *to.add(middle) = bytes[middle];
            *to.add(bytes.len() - 1) = bytes[bytes.len() - 1];
        }
        4..8 => ends::<4>(bytes, to),
        8..16 => ends::<8>(bytes, to),
        16..=32 => ends::<16>(bytes, to),
        length => ptr::copy_nonoverlapping(bytes.as_ptr(), to, length),
    }
}

impl Output for Buffer<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if self.capacity - self.length < bytes.len() && !self.grow(bytes.len()) {
            return;
        }
        // SAFETY: there is room for them behind what was written, and nobody else refers to it.
        unsafe {
            copy(bytes, self.data.add(self.length));
        }
        self.length += bytes.len();
    }

    #[inline]
    fn put_both<const N: usize>(&mut self, head: [u8; N], body: &[u8]) {
        let more = N + body.len();
        if self.capacity - self.length < more && !self.grow(more) {
            return;
        }
        // SAFETY: as above, for both.
        unsafe {
            let end = self.data.add(self.length);
            ptr::copy_nonoverlapping(head.as_ptr(), end, N);
            copy(body, end.add(N));
        }
        self.length += more;
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: a writer that is not finished is discarded once; of none there is nothing to do.
        unsafe { PyBytesWriter_Discard(self.writer) }
    }
}
