//! What is known of the classes that were met.
//!
//! The first object of each class that is not of the standard
//! library's compiled ones is made both ways, and the short way is taken only if the bytes are
//! the same.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType, PyWeakrefMethods, PyWeakrefReference};

use super::raw;
use super::ways::{Types, Way, METHODS};
use crate::codec::write;

/// Whether the short way gave the same bytes.
const UNTRIED: u8 = 0;
const SAME: u8 = 1;
const OTHER: u8 = 2;

/// A class, and what is known of it.
pub struct Known {
    class: Py<PyWeakrefReference>,
    pub way: Way,
    /// The class's module and name as msgpack.
    pub head: Vec<u8>,
    /// Attributes that the hook asks for first: an object that has one is the hook's.
    earlier: Vec<Py<PyString>>,
    tried: AtomicU8,
}

impl Known {
    fn is_of(&self, class: &Bound<'_, PyType>) -> bool {
        let known = self.class.bind(class.py()).upgrade();
        known.is_some_and(|known| known.is(class))
    }

    pub fn is_untried(&self) -> bool {
        self.tried.load(Ordering::Relaxed) == UNTRIED
    }

    pub fn is_same(&self) -> bool {
        self.tried.load(Ordering::Relaxed) == SAME
    }

    pub fn note(&self, is_same: bool) {
        let tried = if is_same { SAME } else { OTHER };
        self.tried.store(tried, Ordering::Relaxed);
    }

    /// Whether nothing about this object sets it apart from others of its class.
    pub fn is_usual(&self, object: &Bound<'_, PyAny>) -> bool {
        let py = object.py();
        let mut earlier = self.earlier.iter();
        !earlier.any(|name| raw::has_attribute(object, name.bind(py)))
    }
}

/// Addresses of classes need no more than to be spread.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23);
    }
}

type ByAddress<T> = HashMap<usize, T, BuildHasherDefault<AddressHasher>>;

/// As many classes are remembered.
const MOST: usize = 2048;

/// The classes met so far.
pub struct Classes {
    types: Types,
    known: Mutex<ByAddress<Arc<Known>>>,
}

impl Classes {
    pub fn new(types: Types) -> Self {
        Self {
            types,
            known: Mutex::default(),
        }
    }

    /// Whether ormsgpack takes an object for an enum's member.
    #[inline]
    pub fn is_enum(&self, object: &Bound<'_, PyAny>) -> bool {
        self.types.is_enum(object)
    }

    /// What is known of an object's class, if it was met before.
    pub fn known(&self, object: &Bound<'_, PyAny>) -> Option<Arc<Known>> {
        let class = object.get_type();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&(class.as_ptr() as usize))?;
        known.is_of(&class).then(|| known.clone())
    }

    /// The value of an enum's member; `None` where only upstream knows.
    pub fn enum_value<'py>(
        &self,
        object: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let known = self.known(object).filter(|known| {
            matches!(known.way, Way::Enum) && known.is_same() && known.is_usual(object)
        });
        let value = known.map(|_| object.getattr(intern!(object.py(), "_value_")));
        value.transpose()
    }

    /// Find out about an object's class; this runs Python.
    pub fn learn(&self, object: &Bound<'_, PyAny>) -> PyResult<Arc<Known>> {
        let class = object.get_type();
        let way = self.types.way_of(object, &class)?;
        let exact = self.types.is_exact(&class);
        let asked = match &way {
            Way::Upstream | Way::Array | Way::Uuid | Way::Path | Way::Pattern => 0,
            _ if exact => 0,
            Way::Method(method) => METHODS.iter().take_while(|m| m.name != method.name).count(),
            Way::NamedTuple(_) | Way::Snapshot => 3,
            _ => 4,
        };
        let mut earlier: Vec<_> = METHODS[..asked].iter().map(|method| method.name).collect();
        if matches!(way, Way::Dataclass(_)) {
            // What has this and another attribute passes for a `Send`.
            earlier.push("node");
        }
        let mut head = Vec::new();
        for name in ["__module__", "__name__"] {
            match class.getattr(name)?.extract::<String>() {
                Ok(name) => write::str(&mut head, &name),
                Err(_) => return self.remember(&class, Way::Upstream, head, &[], false),
            }
        }
        if matches!(way, Way::Pattern) {
            head.clear();
            write::str(&mut head, "re");
            write::str(&mut head, "compile");
        }
        self.remember(&class, way, head, &earlier, exact)
    }

    fn remember(
        &self,
        class: &Bound<'_, PyType>,
        way: Way,
        head: Vec<u8>,
        earlier: &[&str],
        is_same: bool,
    ) -> PyResult<Arc<Known>> {
        let py = class.py();
        let made = Arc::new(Known {
            class: PyWeakrefReference::new(class)?.unbind(),
            way,
            head,
            earlier: earlier
                .iter()
                .map(|name| PyString::intern(py, name).unbind())
                .collect(),
            tried: AtomicU8::new(if is_same { SAME } else { UNTRIED }),
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = if known.len() >= MOST {
            std::mem::take(&mut *known)
        } else {
            Default::default()
        };
        known.insert(class.as_ptr() as usize, made.clone());
        // Only now: dropping references may run Python, which may come here again.
        drop(known);
        drop(forgotten);
        Ok(made)
    }
}
