//! Elements of long lists whose bytes are known: a put of a conversation writes what is new.
//!
//! Where an object lies says where to look, and nothing more: an element is taken as known only
//! if everything in it is the very same immutable object as when its bytes were made, in the
//! same containers. These objects are kept, so that no other one can come to lie in their place.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::slice::Iter;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use super::codec::Codec;
use super::raw;
use super::scalars::{self, Entries};
use crate::store::source::Known;

/// Bytes that are kept, with a word for each object; and what one element may have.
const MOST: usize = 16 << 20;
const LONGEST: usize = 64 << 10;
/// Below this writing is as fast as comparing.
const SHORTEST: usize = 128;
/// What was not met in so many values is dropped when room is needed.
const OLD: u32 = 256;
/// Addresses that were met once.
const MET: usize = 1 << 16;
const WORD: usize = 16;
/// So many elements more that were kept and never met again than were met again, and nothing is
/// kept or looked for in so many values: where each has objects of its own, it costs for nothing.
const VAIN: usize = 32;
const PAUSE: u32 = 64;
/// Items for which there is room beside those of a list: the last two may be long.
const SPARE: usize = 4;

/// Addresses are hashed by their middle bits: they are multiples of 16.
#[derive(Default, Clone, Copy)]
struct ByAddress(u64);

impl Hasher for ByAddress {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // Fibonacci hashing.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(20)
    }
}

type Hashing = BuildHasherDefault<ByAddress>;

enum Token {
    /// A class, a key, or a value that cannot change.
    Same(Py<PyAny>),
    Dict(usize),
    List(usize),
}

struct Element {
    tokens: Vec<Token>,
    known: Arc<Known>,
    met: u32,
    /// Whether it was ever met again.
    is_useful: bool,
}

impl Element {
    fn size(&self) -> usize {
        self.known.bytes().len() + self.tokens.len() * WORD
    }
}

#[derive(Default)]
pub struct Memo {
    elements: HashMap<usize, Element, Hashing>,
    /// Most elements are met again or never: what is met for the first time is not yet kept.
    once: HashSet<usize, Hashing>,
    size: usize,
    /// Counts the values that were written.
    now: u32,
    cleaned: u32,
    vain: usize,
    paused: u32,
    /// Items and bytes of the last long list.
    last: (usize, usize),
}

impl Memo {
    /// Another value begins; whether to look for its elements here.
    pub fn begin(&mut self) -> bool {
        self.now = self.now.wrapping_add(1);
        self.paused = self.paused.saturating_sub(1);
        self.paused == 0
    }

    /// How many bytes so many items will take, if they are like those of the last list.
    pub fn expected(&self, items: usize) -> usize {
        let (of, bytes) = self.last;
        match bytes.checked_mul(items + SPARE) {
            Some(bytes) if of > 0 => (bytes / of).min(MOST),
            _ => 0,
        }
    }

    /// Note that so many items took so many bytes.
    pub fn expect(&mut self, items: usize, bytes: usize) {
        self.last = (items, bytes);
    }

    /// The bytes of an element, if it is as it was.
    pub fn get(&mut self, codec: &Codec, object: &Bound<'_, PyAny>) -> Option<&Arc<Known>> {
        let address = object.as_ptr() as usize;
        let element = self.elements.get(&address)?;
        let mut tokens = element.tokens.iter();
        if !is_same(codec, object.as_borrowed(), &mut tokens) || tokens.next().is_some() {
            self.forget(address);
            return None;
        }
        let element = self.elements.get_mut(&address)?;
        element.met = self.now;
        element.is_useful = true;
        self.vain = self.vain.saturating_sub(1);
        Some(&element.known)
    }

    /// Another object has come to lie there, or this one has changed.
    fn forget(&mut self, address: usize) {
        if let Some(element) = self.elements.remove(&address) {
            self.size -= element.size();
            self.vain += usize::from(!element.is_useful);
        }
    }

    /// Note the bytes of an element, if it was met before and can be kept.
    pub fn note(&mut self, codec: &Codec, object: &Bound<'_, PyAny>, bytes: &[u8]) {
        if self.vain >= VAIN {
            self.vain = 0;
            self.paused = PAUSE;
        }
        if self.paused > 0 || !(SHORTEST..=LONGEST).contains(&bytes.len()) {
            return;
        }
        let address = object.as_ptr() as usize;
        if !self.once.remove(&address) {
            if self.once.len() >= MET {
                self.once.clear();
            }
            self.once.insert(address);
            return;
        }
        let mut tokens = Vec::new();
        if tokenize(codec, object, &mut tokens).is_none() {
            return;
        }
        let element = Element {
            tokens,
            known: Arc::new(Known::new(bytes)),
            met: self.now,
            is_useful: false,
        };
        if self.size + element.size() > MOST {
            self.clean();
        }
        if self.size + element.size() <= MOST {
            self.forget(address);
            self.size += element.size();
            self.elements.insert(address, element);
        }
    }

    /// Drop what was not met for long; not again before that can have changed.
    fn clean(&mut self) {
        if self.now.wrapping_sub(self.cleaned) < OLD / 4 {
            return;
        }
        self.cleaned = self.now;
        self.elements
            .retain(|_, element| self.now.wrapping_sub(element.met) < OLD);
        self.size = self.elements.values().map(Element::size).sum();
    }
}

/// The fields of a message that has no others.
fn fields_of<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    let py = object.py();
    let extra = raw::attribute(object, intern!(py, "__pydantic_extra__")).ok()?;
    let is_bare = extra.is_none() || extra.cast_exact::<PyDict>().is_ok_and(|e| e.is_empty());
    let fields = raw::attribute(object, intern!(py, "__dict__")).ok()?;
    fields.cast_into_exact().ok().filter(|_| is_bare)
}

/// Whether an object is what these tokens begin with, which are taken. Most of it lies in no
/// cache of the processor: scalars are told by their addresses, and not touched.
fn is_same(codec: &Codec, object: Borrowed<'_, '_, PyAny>, tokens: &mut Iter<'_, Token>) -> bool {
    let token = match tokens.next() {
        Some(Token::Same(known)) if known.is(object) => return true,
        Some(token) => token,
        None => return false,
    };
    // Owned, whatever becomes of what holds it.
    let object = object.to_owned();
    match token {
        // A class: the message's own, then its fields.
        Token::Same(known) => {
            known.as_ptr() == object.get_type_ptr().cast()
                && codec.message_class(&object).is_some()
                && fields_of(&object)
                    .is_some_and(|fields| is_same(codec, fields.as_any().as_borrowed(), tokens))
        }
        Token::Dict(length) => object.cast_exact::<PyDict>().is_ok_and(|dict| {
            dict.len() == *length
                && scalars::all_entries(dict, |key, value| {
                    matches!(tokens.next(), Some(Token::Same(known)) if known.is(key))
                        && is_same(codec, value, tokens)
                })
        }),
        Token::List(length) => object.cast_exact::<PyList>().is_ok_and(|list| {
            list.len() == *length
                && list
                    .iter()
                    .all(|item| is_same(codec, item.as_borrowed(), tokens))
        }),
    }
}

/// What an element consists of; `None` where something in it could change unseen.
fn tokenize(codec: &Codec, object: &Bound<'_, PyAny>, tokens: &mut Vec<Token>) -> Option<()> {
    if object.is_exact_instance_of::<PyString>()
        || object.is_none()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_exact_instance_of::<PyFloat>()
    {
        tokens.push(Token::Same(object.clone().unbind()));
    } else if let Ok(dict) = object.cast_exact::<PyDict>() {
        tokens.push(Token::Dict(dict.len()));
        for (key, value) in Entries::of(dict) {
            key.cast_exact::<PyString>().ok()?;
            tokens.push(Token::Same(key.unbind()));
            tokenize(codec, &value, tokens)?;
        }
    } else if let Ok(list) = object.cast_exact::<PyList>() {
        tokens.push(Token::List(list.len()));
        for item in list {
            tokenize(codec, &item, tokens)?;
        }
    } else {
        codec.message_class(object)?;
        tokens.push(Token::Same(object.get_type().into_any().unbind()));
        tokenize(codec, fields_of(object)?.as_any(), tokens)?;
    }
    Some(())
}
