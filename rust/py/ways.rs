//! How upstream's hook (`_msgpack_default`) treats the objects of a class.
//!
//! The hook is followed in its own order of questions, once for each class. Where its answer
//! may depend on the single object, or on Python that a class brings along, objects of the
//! class are left to the hook.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use super::raw;
use crate::codec::ext;

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

type MakeWay = fn() -> Way;

/// The types that the hook asks for.
pub struct Types {
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

impl Types {
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

    /// Whether this is one of the standard library's compiled classes.
    pub fn is_exact(&self, class: &Bound<'_, PyType>) -> bool {
        self.exact.iter().any(|(exact, _)| class.is(exact))
    }

    /// How the objects of a class are treated, of which this is one; this runs Python.
    pub fn way_of(&self, object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> PyResult<Way> {
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
            if found(class, method.name)?.is_none() || !object.getattr(method.name)?.is_callable() {
                return Ok(Way::Upstream);
            }
            if method.name == "_asdict" {
                if let Some(fields) = self.named_tuple(class)? {
                    return Ok(Way::NamedTuple(fields));
                }
            }
            return Ok(Way::Method(method));
        }
        if found(class, "__getattr__")?.is_some() {
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

/// Builtins that find attributes as `object` does.
const FRANK: [&str; 6] = ["object", "tuple", "int", "str", "float", "bytes"];

/// Whether attributes of a class's objects are found in the usual way, and their class is the
/// one that they name.
fn is_frank(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let builtins = class.py().import("builtins")?;
    let Some(own) = found(class, "__getattribute__")? else {
        return Ok(false);
    };
    let mut is_usual = false;
    for name in FRANK {
        is_usual |= own.is(&builtins.getattr(name)?.getattr("__getattribute__")?);
    }
    let named = builtins
        .getattr("object")?
        .getattr("__dict__")?
        .get_item("__class__")?;
    Ok(is_usual && found(class, "__class__")?.is_some_and(|own| own.is(&named)))
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
