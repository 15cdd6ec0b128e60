//! The types that upstream calls without a word (`SAFE_MSGPACK_TYPES`).

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFrozenSet, PyModule, PyString};

use super::raw;
use crate::codec::write;

/// Types that are called in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    No,
    Send,
    /// Its method `fromisoformat` may be called.
    DateTime,
}

/// One type that is safe.
pub struct Safe {
    pub module: Py<PyString>,
    pub name: Py<PyString>,
    pub special: Special,
    imported: PyOnceLock<Py<PyModule>>,
}

impl Safe {
    /// What the module has under the name now: someone may have put another thing there.
    pub fn callable<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let import = || py.import(self.module.bind(py)).map(Bound::unbind);
        self.imported
            .get_or_try_init(py, import)?
            .bind(py)
            .getattr(self.name.bind(py))
    }
}

/// The safe types by their module and name as msgpack.
pub struct SafeTypes {
    /// The module `langgraph.checkpoint.serde._msgpack`, and its sets when this was made.
    owner: Py<PyModule>,
    types: Py<PyAny>,
    methods: Py<PyAny>,
    known: HashMap<Vec<u8>, Safe>,
}

impl SafeTypes {
    pub fn new(owner: &Bound<'_, PyModule>) -> PyResult<Self> {
        let types = owner.getattr("SAFE_MSGPACK_TYPES")?;
        let methods = owner.getattr("SAFE_MSGPACK_METHODS")?;
        let mut known = HashMap::new();
        for each in types.cast::<PyFrozenSet>()? {
            let Ok((module, name)) = each.extract::<(Bound<'_, PyString>, Bound<'_, PyString>)>()
            else {
                continue;
            };
            let (texts, mut head) = ((module.to_str()?, name.to_str()?), Vec::new());
            write::str(&mut head, texts.0);
            write::str(&mut head, texts.1);
            let special = match texts {
                ("langgraph.types", "Send") => Special::Send,
                ("datetime", "datetime")
                    if methods.contains(("datetime", "datetime", "fromisoformat"))? =>
                {
                    Special::DateTime
                }
                _ => Special::No,
            };
            let safe = Safe {
                module: module.unbind(),
                name: name.unbind(),
                special,
                imported: PyOnceLock::new(),
            };
            known.insert(head, safe);
        }
        Ok(Self {
            owner: owner.clone().unbind(),
            types: types.unbind(),
            methods: methods.unbind(),
            known,
        })
    }

    /// The type with this module and name, unless upstream's sets are others by now.
    pub fn find(&self, py: Python<'_>, head: &[u8]) -> Option<&Safe> {
        let safe = self.known.get(head)?;
        let owner = self.owner.bind(py);
        let is_same =
            |name: &str, set: &Py<PyAny>| owner.getattr(name).is_ok_and(|now| now.is(set));
        (is_same("SAFE_MSGPACK_TYPES", &self.types)
            && is_same("SAFE_MSGPACK_METHODS", &self.methods))
        .then_some(safe)
    }
}

/// Makes `uuid.UUID` objects as the class does, which is written in Python.
pub struct Uuids {
    class: Py<PyAny>,
    maker: raw::Maker,
    /// What the class puts into `is_safe`.
    unknown: Py<PyAny>,
    /// Whether a sample came out like the class's own.
    is_same: bool,
}

impl Uuids {
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("uuid")?;
        let class = module.getattr("UUID")?;
        let mut made = Self {
            maker: raw::Maker::of(class.cast()?)?,
            class: class.clone().unbind(),
            unknown: module.getattr("SafeUUID")?.getattr("unknown")?.unbind(),
            is_same: true,
        };
        let text = PyString::new(py, "0123456789abcdefABCDEF9876543210");
        let theirs = class.call1((&text,))?;
        let is_same = |ours: Bound<'_, PyAny>| -> PyResult<bool> {
            let is_safe = "is_safe";
            Ok(ours.eq(&theirs)? && ours.getattr(is_safe)?.is(&theirs.getattr(is_safe)?))
        };
        made.is_same = match made.make(&class, text.as_any()) {
            Ok(Some(ours)) => is_same(ours)?,
            Ok(None) | Err(_) => false,
        };
        Ok(made)
    }

    /// The class called with this argument; `None` where it has to be asked.
    pub fn make<'py>(
        &self,
        class: &Bound<'py, PyAny>,
        argument: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = class.py();
        let Ok(text) = argument.cast_exact::<PyString>() else {
            return Ok(None);
        };
        if !self.is_same || !class.is(&self.class) {
            return Ok(None);
        }
        let text = raw::utf8(text.as_borrowed()).filter(|text| text.len() == 32);
        let Some(number) = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        else {
            return Ok(None);
        };
        let Ok(number) = u128::from_str_radix(number, 16) else {
            return Ok(None);
        };
        let made = self.maker.make(py)?;
        let number = number.into_pyobject(py)?;
        raw::set_attribute(&made, pyo3::intern!(py, "int"), &number)?;
        raw::set_attribute(&made, pyo3::intern!(py, "is_safe"), self.unknown.bind(py))?;
        Ok(Some(made))
    }
}
