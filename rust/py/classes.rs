//! What is known of a class: how upstream's hook (`_msgpack_default`) treats its objects.
//!
//! The hook is followed in its own order of questions, once for each class. Where its answer
//! may depend on the single object, or on Python that a class brings along, objects of the
//! class are left to the hook. The first object of each class that is not of the standard
//! library's compiled ones is made both ways, and the short way is taken only if the bytes are
//! the same.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType, PyWeakrefMethods, PyWeakrefReference};

use super::raw;
use crate::codec::ext;
use crate::codec::write;

/// How an object becomes an extension object.
#[derive(Debug)]
pub enum Way {
    /// Only upstream knows.
    Upstream,
    /// By what a method of it returns.
    Method(Method),
    Snapshot,
    Dataclass(Vec<Py<PyString>>),
    NamedTuple(Vec<Py<PyString>>),
    Enum,
    Send,
    Path,
    Pattern,
    Uuid,
    Decimal,
    /// A set, frozenset or deque.
    Items,
    DateTime,
    TimeDelta,
    Date,
    Time,
    TimeZone,
    ZoneInfo,
    /// A numpy array.
    Array,
}

#[derive(Debug, Clone, Copy)]
pub struct Method {
    pub name: &'static str,
    pub code: i8,
    /// What stands behind the result.
    pub tail: Option<&'static str>,
}

/// In the order in which the hook asks for them.
pub const METHODS: [Method; 4] = [
    Method {
        name: "model_dump",
        code: ext::MODEL,
        tail: Some("model_validate_json"),
    },
    Method {
        name: "get_secret_value",
        code: ext::CALL_ONE,
        tail: None,
    },
    Method {
        name: "dict",
        code: ext::MODEL_V1,
        tail: None,
    },
    Method {
        name: "_asdict",
        code: ext::CALL_KEYWORDS,
        tail: None,
    },
];

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

type MakeWay = fn() -> Way;

/// As many classes are remembered.
const MOST: usize = 2048;

/// The classes met so far, and the types that the hook asks for.
pub struct Classes {
    known: Mutex<ByAddress<Arc<Known>>>,
    exact: Vec<(Py<PyAny>, MakeWay)>,
    /// Subclasses of these are the hook's.
    families: Py<PyTuple>,
    snapshot: Py<PyType>,
    send: Py<PyAny>,
    paths: [Py<PyAny>; 2],
    enum_meta: Py<PyAny>,
    enum_class: Py<PyAny>,
    /// The `_asdict` that `collections.namedtuple` gives a class.
    as_dict: Py<PyAny>,
}

impl Classes {
    /// `send` is the protocol of objects like `Send`.
    pub fn new(py: Python<'_>, snapshot: Py<PyType>, send: Py<PyAny>) -> PyResult<Self> {
        let of = |module: &str, name: &str| py.import(module)?.getattr(name);
        let exact: Vec<(_, MakeWay)> = vec![
            (of("builtins", "set")?, || Way::Items),
            (of("builtins", "frozenset")?, || Way::Items),
            (of("collections", "deque")?, || Way::Items),
            (of("datetime", "datetime")?, || Way::DateTime),
            (of("datetime", "timedelta")?, || Way::TimeDelta),
            (of("datetime", "date")?, || Way::Date),
            (of("datetime", "time")?, || Way::Time),
            (of("datetime", "timezone")?, || Way::TimeZone),
            (of("zoneinfo", "ZoneInfo")?, || Way::ZoneInfo),
            (of("decimal", "Decimal")?, || Way::Decimal),
            (of("re", "Pattern")?, || Way::Pattern),
        ];
        let mut families: Vec<_> = exact.iter().map(|(class, _)| class.clone()).collect();
        families.push(of("uuid", "UUID")?);
        families.push(of("pathlib", "Path")?);
        for name in ["Address", "Interface", "Network"] {
            families.push(of("ipaddress", &format!("IPv4{name}"))?);
            families.push(of("ipaddress", &format!("IPv6{name}"))?);
        }
        let sample = of("collections", "namedtuple")?.call1(("Sample", "a"))?;
        Ok(Self {
            known: Mutex::default(),
            exact: exact
                .into_iter()
                .map(|(class, way)| (class.unbind(), way))
                .collect(),
            families: PyTuple::new(py, families)?.unbind(),
            snapshot,
            send,
            paths: [
                of("pathlib", "PosixPath")?.unbind(),
                of("pathlib", "WindowsPath")?.unbind(),
            ],
            enum_meta: of("enum", "EnumMeta")?.unbind(),
            enum_class: of("enum", "Enum")?.unbind(),
            as_dict: sample.getattr("_asdict")?.getattr("__code__")?.unbind(),
        })
    }

    /// Whether ormsgpack takes an object for an enum's member.
    pub fn is_enum(&self, object: &Bound<'_, PyAny>) -> bool {
        object.get_type().get_type().is(&self.enum_meta)
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
        let way = self.way_of(object, &class)?;
        let exact = self.exact.iter().any(|(exact, _)| class.is(exact));
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

    fn way_of(&self, object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> PyResult<Way> {
        let py = class.py();
        if let Some((_, way)) = self.exact.iter().find(|(exact, _)| class.is(exact)) {
            return Ok(way());
        }
        if is_named(class, "uuid", "UUID")? {
            return Ok(Way::Uuid);
        }
        if is_array(class)? {
            return Ok(Way::Array);
        }
        if object.is_instance(self.snapshot.bind(py))? {
            return Ok(if class.is(&self.snapshot) {
                Way::Snapshot
            } else {
                Way::Upstream
            });
        }
        if !is_frank(class)? {
            return Ok(Way::Upstream);
        }
        for method in METHODS {
            if !raw::has_attribute(object, &PyString::new(py, method.name)) {
                continue;
            }
            if !class.hasattr(method.name)? || !object.getattr(method.name)?.is_callable() {
                return Ok(Way::Upstream);
            }
            if method.name == "_asdict" {
                if let Some(fields) = self.named_tuple(class)? {
                    return Ok(Way::NamedTuple(fields));
                }
            }
            return Ok(Way::Method(method));
        }
        if class.hasattr("__getattr__")? {
            // The hook's questions reach it.
            return Ok(Way::Upstream);
        }
        if self.paths.iter().any(|path| class.is(path)) {
            return Ok(Way::Path);
        }
        if object.is_instance(self.families.bind(py))? {
            return Ok(Way::Upstream);
        }
        if object.is_instance(self.enum_class.bind(py))? {
            let usual = self
                .enum_class
                .bind(py)
                .getattr("__dict__")?
                .get_item("value")?;
            let is_usual =
                self.is_enum(object) && found(class, "value")?.is_some_and(|own| own.is(&usual));
            return Ok(if is_usual { Way::Enum } else { Way::Upstream });
        }
        if object.is_instance(self.send.bind(py))? {
            let is_send = is_named(class, "langgraph.types", "Send")?;
            return Ok(if is_send { Way::Send } else { Way::Upstream });
        }
        if class.hasattr("__dataclass_fields__")? {
            let fields = py
                .import("dataclasses")?
                .getattr("fields")?
                .call1((object,))?;
            let names = fields.try_iter()?.map(|field| field?.getattr("name"));
            return dataclass(class, names);
        }
        Ok(Way::Upstream)
    }

    /// The fields of a class that `collections.namedtuple` made, or that inherits of one.
    fn named_tuple(&self, class: &Bound<'_, PyType>) -> PyResult<Option<Vec<Py<PyString>>>> {
        let py = class.py();
        let iter = py.get_type::<PyTuple>().getattr("__iter__")?;
        let method = class.getattr("_asdict")?;
        let code = method.getattr_opt(intern!(py, "__code__"))?;
        if !class.is_subclass_of::<PyTuple>()?
            || !code.is_some_and(|code| code.is(&self.as_dict))
            || !class.getattr("__iter__")?.is(&iter)
        {
            return Ok(None);
        }
        let fields = class.getattr("_fields")?;
        let names = fields
            .try_iter()?
            .map(|name| Ok(name?.cast_into::<PyString>()?.unbind()));
        Ok(names.collect::<PyResult<_>>().ok())
    }
}

/// A dataclass, unless reading one of its fields runs what a class brings along.
fn dataclass<'py>(
    class: &Bound<'py, PyType>,
    names: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Way> {
    let slot = class
        .py()
        .import("types")?
        .getattr("MemberDescriptorType")?;
    let mut fields = Vec::new();
    for name in names {
        let name = name?.cast_into::<PyString>()?;
        if let Some(own) = found(class, name.to_str()?)? {
            if own.get_type().hasattr("__set__")? && !own.get_type().is(&slot) {
                return Ok(Way::Upstream);
            }
        }
        fields.push(name.unbind());
    }
    Ok(Way::Dataclass(fields))
}

/// What a class and those that it inherits of have under a name, as it stands there.
fn found<'py>(class: &Bound<'py, PyType>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    for base in class.mro() {
        let table = base.getattr("__dict__")?;
        if table.contains(name)? {
            return table.get_item(name).map(Some);
        }
    }
    Ok(None)
}

/// Whether attributes of a class's objects are found in the usual way, and their class is the
/// one that they name.
fn is_frank(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let object = class.py().import("builtins")?.getattr("object")?;
    let usual = object.getattr("__getattribute__")?;
    let named = object.getattr("__dict__")?.get_item("__class__")?;
    Ok(class.getattr("__getattribute__")?.is(&usual)
        && found(class, "__class__")?.is_some_and(|own| own.is(&named)))
}

/// Whether this is the class that stands in a module under a name.
fn is_named(class: &Bound<'_, PyType>, module: &str, name: &str) -> PyResult<bool> {
    let modules = class.py().import("sys")?.getattr("modules")?;
    let modules = modules.cast::<PyDict>()?;
    match modules.get_item(module)? {
        Some(module) => Ok(module
            .getattr_opt(name)?
            .is_some_and(|found| found.is(class))),
        None => Ok(false),
    }
}

fn is_array(class: &Bound<'_, PyType>) -> PyResult<bool> {
    is_named(class, "numpy", "ndarray")
}
