//! From Python objects to the bytes that `JsonPlusSerializer` makes of them.
//!
//! Most of what is met is written without running Python (`quiet`). Where Python has to run, it
//! may change the containers that are being written. So before it does, what is left of each of
//! them is copied, and from there on the copies are written: the bytes are of what was there.

use std::sync::{Arc, MutexGuard};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

use super::buffer::Buffer;
use super::codec::Codec;
use super::memo::Memo;
use super::raw::{self, Integer};
use super::scalars::{Entries, Items};
use crate::codec::write::{self, Output};
use crate::store::pieces::is_leaf;
use crate::store::source::{Gap, Source};

/// Upstream refuses at 255 levels, and at others where Python's stack ends; it shall be the one
/// to do so.
pub const DEEPEST: usize = 100;
/// Lists of so many items, down to such a depth, are conversations and the like: what is put
/// again and again, longer each time.
const LONG: usize = 8;
const SHALLOW: usize = 2;

/// Why a value is not written.
pub enum Stop {
    /// Upstream must write the whole of it: it decides about limits and errors.
    Doubt,
    /// Python has to run for what is in `Encoder::blocked`.
    Blocked,
    Raised(Box<PyErr>),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(Box::new(error))
    }
}

pub type Done = Result<(), Stop>;

/// What is left to write of something in which Python has to run.
pub enum Rest<'py> {
    Items(Vec<Bound<'py, PyAny>>, usize),
    Entries(Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>, usize),
    /// An extension object that began here.
    Ext(usize, i8),
}

/// One value on its way to bytes.
pub struct Encoder<'a, 'py> {
    pub codec: &'a Codec,
    pub py: Python<'py>,
    pub out: Buffer<'py>,
    /// What Python has to run for, with its depth; nothing for a key.
    pub blocked: Option<(Bound<'py, PyAny>, usize)>,
    /// The innermost first.
    pub rests: Vec<Rest<'py>>,
    /// Elements whose bytes are known; nobody's while another encoder has it.
    memo: Option<MutexGuard<'a, Memo>>,
    /// Known elements of the list at the top that were left out; none where all is written.
    gaps: Option<Vec<Gap>>,
}

/// The bytes of a value; `None` where upstream must make them.
pub fn encode<'py>(
    codec: &Codec,
    object: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut encoder = Encoder::remembering(codec, object.py())?;
    if encoder.whole(object)? {
        encoder.out.finish().map(Some)
    } else {
        Ok(None)
    }
}

/// The bytes of a value, without those of elements that are known; `None` where upstream must
/// make them.
pub fn encode_around(
    codec: &Codec,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<Source<PyBackedBytes>>> {
    let mut encoder = Encoder::remembering(codec, object.py())?;
    encoder.gaps = object.is_exact_instance_of::<PyList>().then(Vec::new);
    if !encoder.whole(object)? {
        return Ok(None);
    }
    Ok(Some(Source {
        gaps: encoder.gaps.unwrap_or_default().into(),
        written: encoder.out.finish()?.into(),
    }))
}

impl<'a, 'py> Encoder<'a, 'py> {
    pub fn new(codec: &'a Codec, py: Python<'py>) -> PyResult<Self> {
        Ok(Self {
            codec,
            py,
            out: Buffer::new(py)?,
            blocked: None,
            rests: Vec::new(),
            memo: None,
            gaps: None,
        })
    }

    /// One that looks for known elements.
    fn remembering(codec: &'a Codec, py: Python<'py>) -> PyResult<Self> {
        let mut encoder = Self::new(codec, py)?;
        let memo = codec.memo.try_lock().ok();
        encoder.memo = memo.and_then(|mut memo| memo.begin().then_some(memo));
        Ok(encoder)
    }

    /// Write the whole value; false where upstream must.
    fn whole(&mut self, object: &Bound<'py, PyAny>) -> PyResult<bool> {
        match self.value(object, 0) {
            // Beyond this a length of four bytes may not have held what was written.
            Ok(()) => Ok(u32::try_from(self.out.len()).is_ok()),
            Err(Stop::Doubt | Stop::Blocked) => Ok(false),
            Err(Stop::Raised(error)) => Err(*error),
        }
    }

    /// Write a value, running Python where it must.
    pub fn value(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        let done = self.quiet(object, depth);
        self.finished(done)
    }

    /// Go on where something stopped because Python has to run.
    pub fn finished(&mut self, done: Done) -> Done {
        if !matches!(done, Err(Stop::Blocked)) {
            return done;
        }
        let rests = std::mem::take(&mut self.rests);
        if let Some((object, depth)) = self.blocked.take() {
            self.aloud(&object, depth)?;
        }
        for rest in rests {
            match rest {
                Rest::Items(items, depth) => {
                    for item in items {
                        self.value(&item, depth)?;
                    }
                }
                Rest::Entries(entries, depth) => {
                    for (key, value) in entries {
                        self.any_key(&key)?;
                        self.value(&value, depth)?;
                    }
                }
                Rest::Ext(start, code) => self.out.end_ext(start, code),
            }
        }
        Ok(())
    }

    /// Write a value without running Python.
    pub fn quiet(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        if let Ok(text) = object.cast_exact::<PyString>() {
            return self.text(text);
        }
        if object.is_none() {
            write::nil(&mut self.out);
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            return self.dict(dict, depth);
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            return self.list(list, depth);
        } else if let Ok(int) = object.cast_exact::<PyInt>() {
            return self.int(int);
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            write::bool(&mut self.out, value.is_true());
        } else if let Ok(float) = object.cast_exact::<PyFloat>() {
            write::float(&mut self.out, float.value());
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return self.tuple(tuple, depth);
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            write::bin(&mut self.out, bytes.as_bytes());
        } else {
            return self.other(object, depth);
        }
        Ok(())
    }

    /// What is none of the plain types, in the order in which ormsgpack asks.
    fn other(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        if let Some(class) = self.codec.message_class(object) {
            return self.message(class, object, depth);
        }
        if !self.codec.classes.is_enum(object) {
            if let Ok(text) = object.cast::<PyString>() {
                return self.text(text);
            } else if let Ok(int) = object.cast::<PyInt>() {
                return self.int(int);
            } else if let Ok(list) = object.cast::<PyList>() {
                return self.list(list, depth);
            } else if let Ok(dict) = object.cast::<PyDict>() {
                return self.dict(dict, depth);
            } else if object.is_exact_instance_of::<PyByteArray>() {
                let written = raw::with_buffer(object, |bytes| write::bin(&mut self.out, bytes));
                return written.ok_or(Stop::Doubt);
            }
        }
        self.typed(object, depth)
    }

    /// Python has to run for an object.
    pub fn block(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Done {
        self.blocked = Some((object.clone(), depth));
        Err(Stop::Blocked)
    }

    pub fn text(&mut self, text: &Bound<'py, PyString>) -> Done {
        if let Some(text) = raw::utf8(text.as_borrowed()) {
            write::str(&mut self.out, text);
            return Ok(());
        }
        // Lone surrogates become question marks. The method is looked up on `str`: a subclass
        // may have its own.
        let encode = self.py.get_type::<PyString>().getattr("encode")?;
        let bytes = encode.call1((text, "utf-8", "replace"))?;
        let bytes = bytes.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes();
        let text = std::str::from_utf8(bytes).map_err(|_| Stop::Doubt)?;
        write::str(&mut self.out, text);
        Ok(())
    }

    fn int(&mut self, int: &Bound<'py, PyInt>) -> Done {
        match raw::integer(int.as_borrowed()) {
            Some(Integer::Signed(n)) => write::signed(&mut self.out, n),
            Some(Integer::Unsigned(n)) => write::unsigned(&mut self.out, n),
            None => return Err(Stop::Doubt),
        }
        Ok(())
    }

    fn list(&mut self, list: &Bound<'py, PyList>, depth: usize) -> Done {
        check(depth)?;
        let count = list.len();
        let mut left = count;
        write::array(&mut self.out, count);
        let is_long = count >= LONG && depth <= SHALLOW;
        let start = self.out.len();
        // Where known elements are left out little is written, mostly.
        let is_whole = is_long && (depth > 0 || self.gaps.is_none());
        if let Some(memo) = self.memo.as_ref().filter(|_| is_whole) {
            self.out.reserve(memo.expected(count));
        }
        let mut items = Items::of(list);
        while let Some(item) = items.write_scalars(&mut self.out, &mut left) {
            left = left.checked_sub(1).ok_or(Stop::Doubt)?;
            let done = if is_long {
                self.element(&item, depth + 1)
            } else {
                self.quiet(&item, depth + 1)
            };
            if matches!(done, Err(Stop::Blocked)) {
                let rest = items.by_ref().collect();
                self.rests.push(Rest::Items(rest, depth + 1));
            }
            done?;
        }
        if let Some(memo) = self.memo.as_mut().filter(|_| is_whole) {
            memo.expect(count, self.out.len() - start);
        }
        // Another number than announced if something ran after all.
        if left == 0 {
            Ok(())
        } else {
            Err(Stop::Doubt)
        }
    }

    /// An element of a long list: mostly one that was written before.
    fn element(&mut self, item: &Bound<'py, PyAny>, depth: usize) -> Done {
        let (codec, start) = (self.codec, self.out.len());
        if let Some(known) = self.memo.as_mut().and_then(|memo| memo.get(codec, item)) {
            match &mut self.gaps {
                Some(gaps) if depth == 1 && is_leaf(known.bytes().len()) => {
                    gaps.push((start, Arc::clone(known)));
                }
                _ => self.out.put(known.bytes()),
            }
            return Ok(());
        }
        self.quiet(item, depth)?;
        if let Some(memo) = &mut self.memo {
            memo.note(codec, item, &self.out.written()[start..]);
        }
        Ok(())
    }

    pub fn tuple(&mut self, tuple: &Bound<'py, PyTuple>, depth: usize) -> Done {
        write::array(&mut self.out, tuple.len());
        self.items(tuple.iter(), depth)
    }

    /// The items of a container that was announced already.
    pub fn items(
        &mut self,
        mut items: impl Iterator<Item = Bound<'py, PyAny>>,
        depth: usize,
    ) -> Done {
        check(depth)?;
        while let Some(item) = items.next() {
            let done = self.quiet(&item, depth + 1);
            if matches!(done, Err(Stop::Blocked)) {
                let rest = items.by_ref().collect();
                self.rests.push(Rest::Items(rest, depth + 1));
            }
            done?;
        }
        Ok(())
    }

    pub fn dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> Done {
        check(depth)?;
        let mut left = dict.len();
        write::map(&mut self.out, left);
        let mut entries = Entries::of(dict);
        while let Some((key, value, is_key_written)) =
            entries.write_scalars(&mut self.out, &mut left)
        {
            left = left.checked_sub(1).ok_or(Stop::Doubt)?;
            let start = self.out.len();
            let mut done = if is_key_written {
                Ok(())
            } else {
                self.key(&key)
            };
            if done.is_ok() {
                done = self.quiet(&value, depth + 1);
                if matches!(done, Err(Stop::Blocked)) {
                    let rest = entries.by_ref().collect();
                    self.rests.push(Rest::Entries(rest, depth + 1));
                }
            } else if matches!(done, Err(Stop::Blocked)) {
                self.out.truncate(start);
                let rest = std::iter::once((key, value)).chain(entries.by_ref());
                self.rests.push(Rest::Entries(rest.collect(), depth + 1));
            }
            done?;
        }
        if left == 0 {
            Ok(())
        } else {
            Err(Stop::Doubt)
        }
    }

    /// A dict's key, if it is one of those that need no Python.
    #[inline]
    fn key(&mut self, key: &Bound<'py, PyAny>) -> Done {
        match key.cast_exact::<PyString>() {
            // Lone surrogates are refused in a key, and replaced elsewhere.
            Ok(text) => match raw::utf8(text.as_borrowed()) {
                Some(text) => write::str(&mut self.out, text),
                None => return Err(Stop::Doubt),
            },
            Err(_) => return self.odd_key(key, 0),
        }
        Ok(())
    }

    fn odd_key(&mut self, key: &Bound<'py, PyAny>, depth: usize) -> Done {
        check(depth)?;
        if let Ok(text) = key.cast_exact::<PyString>() {
            return self.text(text);
        }
        if key.is_none() {
            write::nil(&mut self.out);
        } else if let Ok(int) = key.cast_exact::<PyInt>() {
            return self.int(int);
        } else if let Ok(value) = key.cast_exact::<PyBool>() {
            write::bool(&mut self.out, value.is_true());
        } else if let Ok(float) = key.cast_exact::<PyFloat>() {
            write::float(&mut self.out, float.value());
        } else if let Ok(bytes) = key.cast_exact::<PyBytes>() {
            write::bin(&mut self.out, bytes.as_bytes());
        } else if let Ok(tuple) = key.cast_exact::<PyTuple>() {
            write::array(&mut self.out, tuple.len());
            for item in tuple {
                self.odd_key(&item, depth + 1)?;
            }
        } else if self.codec.classes.is_enum(key) {
            let Some(value) = self.codec.classes.enum_value(key)? else {
                return Err(Stop::Blocked);
            };
            return self.odd_key(&value, depth + 1);
        } else if let Ok(text) = key.cast::<PyString>() {
            return self.text(text);
        } else if let Ok(int) = key.cast::<PyInt>() {
            return self.int(int);
        } else {
            return Err(Stop::Blocked);
        }
        Ok(())
    }

    /// A dict's key of any kind. Upstream knows which ones it takes, and as what.
    fn any_key(&mut self, key: &Bound<'py, PyAny>) -> Done {
        let start = self.out.len();
        let done = self.key(key);
        if !matches!(done, Err(Stop::Blocked)) {
            return done;
        }
        self.out.truncate(start);
        let table = PyDict::new(self.py);
        table.set_item(key, self.py.None())?;
        let bytes = self.codec.pack_upstream(table.as_any())?;
        // Between the header of a dict with one entry and nil.
        let bytes = bytes.as_bytes();
        self.out.put(&bytes[1..bytes.len() - 1]);
        Ok(())
    }
}

pub fn check(depth: usize) -> Done {
    if depth > DEEPEST {
        Err(Stop::Doubt)
    } else {
        Ok(())
    }
}
