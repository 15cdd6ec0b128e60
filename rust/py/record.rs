//! The record of a checkpoint, for Python.

use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::text::{to_bytes, to_text};
use super::version::{from_version, to_version};
use crate::error::Result;
use crate::store::base::{Base, Edit};
use crate::store::cache::Whole;
use crate::store::chunk::Ref;
use crate::store::manifest::{Entry, Line, Manifest};
use crate::store::record;
use crate::store::value::Value;

/// A checkpoint's record.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Record {
    record: OnceLock<record::Record>,
    size: usize,
    whole: OnceLock<Arc<Whole>>,
}

impl Record {
    /// Open the stored bytes of a checkpoint.
    pub fn open(stored: &[u8]) -> Result<Self> {
        let mut record = record::Record::open(stored)?;
        if let Manifest::Inline(entries) = &mut record.manifest {
            let entries = std::mem::take(entries);
            let whole = Whole::new(record, entries, None, stored.len());
            return Ok(Self::cached(Arc::new(whole)));
        }
        Ok(Self {
            record: OnceLock::from(record),
            size: stored.len(),
            whole: OnceLock::new(),
        })
    }

    /// One that is cached, whole.
    pub fn cached(whole: Arc<Whole>) -> Self {
        Self {
            record: OnceLock::new(),
            size: whole.size,
            whole: OnceLock::from(whole),
        }
    }

    /// What the record itself holds.
    pub fn head(&self) -> &record::Record {
        match self.whole.get() {
            Some(whole) => &whole.record,
            None => self
                .record
                .get()
                .expect("a record without its manifest was just read"),
        }
    }

    /// Whether its manifest was read.
    pub fn is_whole(&self) -> bool {
        self.whole.get().is_some()
    }

    /// Take what its manifest lists, and the base that it was read with.
    pub fn complete(&self, entries: Vec<Line>, base: Option<Arc<Base>>) {
        let whole = Whole::new(self.head().clone(), entries, base, self.size);
        let _ = self.whole.set(Arc::new(whole));
    }

    /// The record with its manifest.
    pub fn whole(&self) -> PyResult<&Arc<Whole>> {
        self.whole
            .get()
            .ok_or_else(|| PyValueError::new_err("the record's manifest was not read"))
    }

    /// The values of which the record itself says what they are.
    pub fn own_values(&self) -> Vec<&Value> {
        let record = self.head();
        let mut values = vec![&record.metadata, &record.skeleton];
        if let Manifest::Based(_, edits) = &record.manifest {
            values.extend(edits.iter().filter_map(|edit| match edit {
                Edit::Put { entry, .. } => entry.value(),
                Edit::Take { .. } => None,
            }));
        }
        values
    }

    /// The roots of its manifest.
    pub fn manifest_refs(&self) -> Vec<Ref> {
        match &self.head().manifest {
            Manifest::Inline(_) => Vec::new(),
            Manifest::Based(base, _) => vec![*base],
            Manifest::Tree(spans) => spans.iter().map(|span| span.reference).collect(),
        }
    }
}

#[pymethods]
impl Record {
    #[getter]
    fn parent_id<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        let parent = &self.head().parent;
        (!parent.is_empty())
            .then(|| to_text(py, parent))
            .transpose()
    }

    /// Whether the manifest lists this channel in this version, with or without a value.
    fn holds(&self, channel: &Bound<'_, PyString>, version: &Bound<'_, PyAny>) -> PyResult<bool> {
        let whole = self.whole()?;
        let Some(entry) = whole.channel(&to_bytes(channel)?) else {
            return Ok(false);
        };
        let wanted = to_version(version)?;
        Ok(matches!(entry,
            Entry::Channel { version: Some(version), .. } if *version == wanted))
    }

    /// Channel versions, in the order in which they were put.
    fn versions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let versions = PyDict::new(py);
        for entry in &self.whole()?.entries {
            if let Entry::Channel {
                name,
                version: Some(version),
                ..
            } = &**entry
            {
                versions.set_item(to_text(py, name)?, from_version(py, version)?)?;
            }
        }
        Ok(versions)
    }

    fn versions_seen<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let seen = PyDict::new(py);
        for entry in &self.whole()?.entries {
            if let Entry::Seen { node, versions } = &**entry {
                let of = PyDict::new(py);
                for (channel, version) in versions {
                    of.set_item(to_text(py, channel)?, from_version(py, version)?)?;
                }
                seen.set_item(to_text(py, node)?, of)?;
            }
        }
        Ok(seen)
    }

    /// Names of the channels that have a value.
    fn filled<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyString>>> {
        let filled = self
            .whole()?
            .entries
            .iter()
            .filter_map(|entry| match &**entry {
                Entry::Channel {
                    name,
                    value: Some(_),
                    ..
                } => Some(to_text(py, name)),
                _ => None,
            });
        filled.collect()
    }
}
