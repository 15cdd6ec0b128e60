//! From msgpack bytes to the Python objects that `JsonPlusSerializer` makes of them.
//!
//! What is odd or broken is left to upstream: as a whole, or, within an extension object, as
//! that object's payload. Upstream's hook may be heard (it logs, emits events, calls classes),
//! so before it is called, all bytes around the object are looked at: nothing that was heard
//! is done a second time. Nesting is bounded, and no length is believed before its bytes are
//! there.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList};

use super::codec::Codec;
use super::pause::Pause;
use super::raw;
use super::shared_keys::SharedKeys;
use crate::codec::ext;
use crate::codec::marker::{is_plain, read, Kind};

/// Containers and extension objects within each other.
pub const DEEPEST: usize = 100;

/// Why a value is not read.
pub enum Stop {
    /// Upstream must read it.
    Doubt,
    /// Upstream's hook raised an exception. How it ends is upstream's to say.
    Failed,
    Raised(Box<PyErr>),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(Box::new(error))
    }
}

pub type Read<'py> = Result<Bound<'py, PyAny>, Stop>;

/// Bytes that are being read: a whole value, or what an extension object holds.
struct Level<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// Whether all of it is known to be sound.
    is_checked: bool,
}

/// An item of a list, unless reading it stopped.
struct Item<'py>(Option<Bound<'py, PyAny>>);

impl<'py> IntoPyObject<'py> for Item<'py> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    #[inline]
    fn into_pyobject(self, _: Python<'py>) -> PyResult<Self::Output> {
        self.0.ok_or_else(|| PyException::new_err(()))
    }
}

pub struct Decoder<'a, 'py> {
    pub codec: &'a Codec,
    pub py: Python<'py>,
    hook: &'a Bound<'py, PyAny>,
    pub pause: Pause<'py>,
    keys: SharedKeys,
    /// How many items lists may still have.
    room: usize,
    pub bytes: &'a [u8],
    pub at: usize,
    /// The depth at which these bytes begin.
    base: usize,
    is_checked: bool,
    outer: Vec<Level<'a>>,
    /// Whether extension objects are left to upstream, with all that is around them.
    is_strict: bool,
}

/// The value of these bytes; `None` where upstream must read them.
pub fn decode<'py>(
    codec: &Codec,
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
        py: hook.py(),
        hook,
        pause: Pause::new(hook.py()),
        keys: keys.unwrap_or_default(),
        room: bytes.len(),
        bytes,
        at: 0,
        base: 0,
        is_checked: false,
        outer: Vec::new(),
        is_strict: false,
    };
    let value = decoder.value(0);
    let is_whole = decoder.at == bytes.len();
    let keys = decoder.keys;
    if let Ok(mut shared) = codec.keys.try_lock() {
        *shared = keys;
    }
    match value {
        Ok(value) => Ok(Some(value).filter(|_| is_whole)),
        Err(Stop::Doubt | Stop::Failed) => Ok(None),
        Err(Stop::Raised(error)) => Err(*error),
    }
}

impl<'a, 'py> Decoder<'a, 'py> {
    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(length).ok_or(Stop::Doubt)?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Doubt)?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    fn take_exactly<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let rest = self.bytes.get(self.at..).ok_or(Stop::Doubt)?;
        let taken = rest.first_chunk::<N>().ok_or(Stop::Doubt)?;
        self.at += N;
        Ok(*taken)
    }

    pub fn value(&mut self, depth: usize) -> Read<'py> {
        let first = *self.bytes.get(self.at).ok_or(Stop::Doubt)?;
        match first {
            // Short texts and small numbers are most of what there is.
            0xa0..=0xbf => {
                self.at += 1;
                let text = self.take(usize::from(first & 0x1f))?;
                self.text(text)
            }
            0x00..=0x7f => {
                self.at += 1;
                self.int(i64::from(first))
            }
            0x80..=0x8f => {
                self.at += 1;
                self.dict(u32::from(first & 0x0f), depth)
            }
            0x90..=0x9f => {
                self.at += 1;
                self.list(u32::from(first & 0x0f), depth)
            }
            0xc0 => {
                self.at += 1;
                Ok(self.py.None().into_bound(self.py))
            }
            0xc2 | 0xc3 => {
                self.at += 1;
                Ok(PyBool::new(self.py, first == 0xc3).to_owned().into_any())
            }
            0xe0..=0xff => {
                self.at += 1;
                self.int(i64::from(first as i8))
            }
            0xd9 => {
                let [_, length] = self.take_exactly()?;
                let text = self.take(usize::from(length))?;
                self.text(text)
            }
            0xcb => {
                let [_, bits @ ..]: [u8; 9] = self.take_exactly()?;
                Ok(PyFloat::new(self.py, f64::from_be_bytes(bits)).into_any())
            }
            0xcd => {
                let [_, a, b] = self.take_exactly()?;
                self.int(i64::from(u16::from_be_bytes([a, b])))
            }
            _ => self.long(first, depth),
        }
    }

    /// A value with a header of more than a byte.
    fn long(&mut self, first: u8, depth: usize) -> Read<'py> {
        let marker = read(self.bytes, self.at).ok_or(Stop::Doubt)?;
        self.at += marker.header;
        let body = self.take(marker.body)?;
        let py = self.py;
        match marker.kind {
            Kind::Array(count) => self.list(count, depth),
            Kind::Map(count) => self.dict(count, depth),
            Kind::Ext(code) => self.ext(code, body, depth),
            Kind::Flat => match first {
                0xd9..=0xdb => self.text(body),
                0xc4..=0xc6 => Ok(PyBytes::new(py, body).into_any()),
                0xcc..=0xce | 0xd0..=0xd3 => self.int(signed(body, first >= 0xd0)),
                0xcf => Ok(unsigned(body)
                    .into_pyobject(py)
                    .map_err(PyErr::from)?
                    .into_any()),
                // Upstream widens floats of 32 bits in its own way.
                _ => Err(Stop::Doubt),
            },
        }
    }

    #[inline]
    fn text(&self, bytes: &[u8]) -> Read<'py> {
        Ok(raw::text(self.py, bytes).ok_or(Stop::Doubt)?.into_any())
    }

    #[inline]
    fn int(&self, n: i64) -> Read<'py> {
        Ok(n.into_pyobject(self.py).map_err(PyErr::from)?.into_any())
    }

    fn list(&mut self, count: u32, depth: usize) -> Read<'py> {
        check(depth)?;
        if count == 0 {
            return Ok(PyList::empty(self.py).into_any());
        }
        // An item takes a byte at least, so all lists together have no more than there are bytes.
        self.room = self.room.checked_sub(count as usize).ok_or(Stop::Doubt)?;
        let py = self.py;
        let mut stop = None;
        let items = (0..count).map(|_| match self.value(depth + 1) {
            Ok(item) => Item(Some(item)),
            Err(why) => {
                stop = Some(why);
                Item(None)
            }
        });
        let list = PyList::new(py, items);
        match stop {
            Some(stop) => Err(stop),
            None => Ok(list?.into_any()),
        }
    }

    fn dict(&mut self, count: u32, depth: usize) -> Read<'py> {
        check(depth)?;
        let dict = PyDict::new(self.py);
        for _ in 0..count {
            let key = self.key(depth + 1)?;
            let value = self.value(depth + 1)?;
            dict.set_item(key, value)?;
        }
        Ok(dict.into_any())
    }

    #[inline]
    fn key(&mut self, depth: usize) -> Read<'py> {
        let first = *self.bytes.get(self.at).ok_or(Stop::Doubt)?;
        let (header, length) = match first {
            0xa0..=0xbf => (1, usize::from(first & 0x1f)),
            0xd9..=0xdb => {
                let marker = read(self.bytes, self.at).ok_or(Stop::Doubt)?;
                (marker.header, marker.body)
            }
            // Which containers and extension objects may be keys is upstream's to say.
            0x80..=0x9f | 0xc7..=0xc9 | 0xd4..=0xd8 | 0xdc..=0xdf => return Err(Stop::Doubt),
            _ => return self.value(depth),
        };
        self.at += header;
        let bytes = self.take(length)?;
        Ok(self.keys.get(self.py, bytes).ok_or(Stop::Doubt)?.into_any())
    }

    /// Read what an extension object holds, then go on behind it.
    pub fn inside(
        &mut self,
        payload: &'a [u8],
        depth: usize,
        work: impl FnOnce(&mut Self) -> Read<'py>,
    ) -> Read<'py> {
        self.outer.push(Level {
            bytes: self.bytes,
            at: self.at,
            depth: self.base,
            is_checked: self.is_checked,
        });
        (self.bytes, self.at, self.base, self.is_checked) = (payload, 0, depth, false);
        let done = work(self);
        let is_whole = self.at == payload.len();
        if let Some(outer) = self.outer.pop() {
            (self.bytes, self.at) = (outer.bytes, outer.at);
            (self.base, self.is_checked) = (outer.depth, outer.is_checked);
        }
        if is_whole {
            done
        } else {
            done.and(Err(Stop::Doubt))
        }
    }

    fn ext(&mut self, code: i8, payload: &'a [u8], depth: usize) -> Read<'py> {
        if self.is_strict {
            return Err(Stop::Doubt);
        }
        let made = match code {
            _ if depth + 1 >= DEEPEST => Err(Stop::Doubt),
            ext::MODEL => self.message(payload, depth),
            ext::CALL_ONE..=ext::CALL_METHOD => self.called(code, payload, depth),
            ext::SNAPSHOT => self.snapshot(payload, depth),
            ext::ARRAY => self.array(payload),
            _ => Err(Stop::Doubt),
        };
        match made {
            Err(Stop::Doubt) => self.hooked(code, payload),
            // In a snapshot it ends that, too; other objects catch it.
            Err(Stop::Failed) if code != ext::SNAPSHOT => self.hooked(code, payload),
            made => made,
        }
    }

    /// Read within extension objects that are part of the object, or not at all.
    pub fn strictly<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.is_strict = true;
        let done = work(self);
        self.is_strict = false;
        done
    }

    /// What upstream's hook makes of an extension object.
    pub fn hooked(&mut self, code: i8, payload: &[u8]) -> Read<'py> {
        self.check_all()?;
        let payload = PyBytes::new(self.py, payload);
        let made = self.pause.lifted(|| self.hook.call1((code, payload)));
        self.result(made)
    }

    /// See that upstream will not have to read again, because of what is still to come, what
    /// it is heard reading now.
    pub fn check_all(&mut self) -> Result<(), Stop> {
        let is_sound = |bytes, depth| is_plain(bytes, DEEPEST.saturating_sub(depth));
        for level in &mut self.outer {
            level.is_checked = level.is_checked || is_sound(level.bytes, level.depth);
            if !level.is_checked {
                return Err(Stop::Doubt);
            }
        }
        self.is_checked = self.is_checked || is_sound(self.bytes, self.base);
        if self.is_checked {
            Ok(())
        } else {
            Err(Stop::Doubt)
        }
    }

    /// What a call gave.
    pub fn result(&self, result: PyResult<Bound<'py, PyAny>>) -> Read<'py> {
        result.map_err(|error| {
            if error.is_instance_of::<PyException>(self.py) {
                Stop::Failed
            } else {
                Stop::from(error)
            }
        })
    }
}

fn check(depth: usize) -> Result<(), Stop> {
    if depth < DEEPEST {
        Ok(())
    } else {
        Err(Stop::Doubt)
    }
}

fn unsigned(body: &[u8]) -> u64 {
    body.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn signed(body: &[u8], has_sign: bool) -> i64 {
    let shift = if has_sign {
        64 - 8 * body.len() as u32
    } else {
        0
    };
    ((unsigned(body) << shift) as i64) >> shift
}
