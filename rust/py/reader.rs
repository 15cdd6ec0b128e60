//! A read of one thread, for Python.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::core::Shared;
use super::error::{caught, guarded};
use super::loading::{joined, Loading};
use super::record::Record;
use super::stored::to_id;
use super::text::{to_bytes, to_text};
use crate::error::Result;
use crate::store::cache::{Scope, Whole};
use crate::store::chunk::Ref;
use crate::store::manifest::Entry;
use crate::store::memo::{Leaf, Memo};
use crate::store::reader::{load, parts, Reader as Chunks};
use crate::store::value::Value;
use crate::store::writes;

/// A pending write.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Write(writes::Write);

#[pymethods]
impl Write {
    #[getter]
    fn channel<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        to_text(py, &self.0.channel)
    }

    #[getter]
    fn task_path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        to_text(py, &self.0.task_path)
    }
}

/// Gathers chunks and joins values.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Reader {
    shared: Arc<Shared>,
    scope: Scope,
    chunks: Mutex<Chunks>,
}

type Joined<'py> = (Bound<'py, PyString>, Bound<'py, PyBytes>);

/// Metadata, channels, pending sends, pending writes.
type Contents<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyDict>,
    Vec<Bound<'py, PyAny>>,
    Vec<Bound<'py, PyAny>>,
);

/// The channels that have a value.
fn filled(whole: &Whole) -> impl Iterator<Item = (&Vec<u8>, &Value)> {
    whole.entries.iter().filter_map(|entry| match &**entry {
        Entry::Channel { name, value, .. } => Some((name, value.as_ref()?)),
        Entry::Seen { .. } => None,
    })
}

impl Reader {
    pub fn new(shared: Arc<Shared>, scope: Scope) -> Self {
        Self {
            shared,
            scope,
            chunks: Mutex::new(Chunks::default()),
        }
    }

    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing_of<'a>(&self, values: impl IntoIterator<Item = &'a Value>) -> Vec<Ref> {
        let spans = values.into_iter().flat_map(Value::spans);
        let wanted: Vec<Ref> = spans.map(|span| span.reference).collect();
        if wanted.is_empty() {
            return wanted;
        }
        let mut chunks = self.chunks();
        let mut cache = self.shared.cache();
        chunks.missing(wanted, |id| cache.chunk(self.scope, id))
    }

    /// Read the manifest if its nodes are here; else say which are not.
    fn settle(&self, py: Python<'_>, record: &Record) -> PyResult<Vec<Ref>> {
        if record.is_whole() {
            return Ok(Vec::new());
        }
        let missing: Vec<Ref> = {
            let mut chunks = self.chunks();
            let mut cache = self.shared.cache();
            let mut missing = Vec::new();
            let mut open = record.manifest_refs();
            let mut seen = HashSet::new();
            while let Some(reference) = open.pop() {
                if !seen.insert(reference) {
                    continue;
                }
                // One step at a time: the values below are not wanted yet.
                match chunks.step(reference, |id| cache.chunk(self.scope, id)) {
                    Some(below) => open.extend(below),
                    None => missing.push(reference),
                }
            }
            missing
        };
        if missing.is_empty() {
            let (entries, base) = guarded(py, || self.chunks().entries(record.head()))?;
            record.complete(entries, base);
        }
        Ok(missing)
    }

    fn join<'py>(&self, py: Python<'py>, value: &Value) -> PyResult<Joined<'py>> {
        let leaves = guarded(py, || self.chunks().value_leaves(value))?;
        Ok((
            to_text(py, &value.tag)?,
            joined(py, &parts(value, &leaves)?)?,
        ))
    }

    /// Remember the leaves of channels' values.
    fn keep_memos<'a>(
        &self,
        namespace: &[u8],
        values: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<Leaf>)>,
    ) {
        let mut cache = self.shared.cache();
        for (name, leaves) in values.filter(|(_, leaves)| !leaves.is_empty()) {
            let place = (self.scope, namespace.to_vec(), name.clone());
            let known = cache.memo(&place);
            // One of the same leaves knows their pages as well.
            if !known.is_some_and(|known| known.is_of(leaves)) {
                cache.keep_memo(place, Arc::new(Memo::new(leaves.clone())));
            }
        }
    }
}

#[pymethods]
impl Reader {
    /// Open the stored bytes of a checkpoint.
    fn record(&self, stored: &[u8]) -> PyResult<Record> {
        caught(|| Ok(Record::open(stored)?))
    }

    /// Open the stored bytes of a pending write.
    fn write(&self, stored: &[u8]) -> PyResult<Write> {
        caught(|| Ok(Write(writes::Write::open(stored)?)))
    }

    /// Ids still to be fetched for a record: all of it, or the given channels alone.
    #[pyo3(signature = (record, channels = None))]
    fn missing<'py>(
        &self,
        py: Python<'py>,
        record: &Record,
        channels: Option<Vec<Bound<'py, PyString>>>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let mut missing = self.settle(py, record)?;
        if missing.is_empty() {
            let whole = record.whole()?;
            let names = match &channels {
                Some(names) => Some(names.iter().map(to_bytes).collect::<PyResult<Vec<_>>>()?),
                None => None,
            };
            let head = [&whole.record.metadata, &whole.record.skeleton];
            let chosen = filled(whole)
                .filter(|(name, _)| names.as_ref().is_none_or(|names| names.contains(name)))
                .map(|(_, value)| value);
            missing =
                self.missing_of(chosen.chain(head.into_iter().filter(|_| channels.is_none())));
        } else if channels.is_none() {
            // As much as is known, so that a store that follows references is asked once.
            missing.extend(self.missing_of(record.own_values()));
        }
        Ok(missing.iter().map(|r| PyBytes::new(py, &r.id.0)).collect())
    }

    /// Ids still to be fetched for a record's metadata.
    fn missing_metadata<'py>(&self, py: Python<'py>, record: &Record) -> Vec<Bound<'py, PyBytes>> {
        let missing = self.missing_of([&record.head().metadata]);
        missing.iter().map(|r| PyBytes::new(py, &r.id.0)).collect()
    }

    /// Ids still to be fetched for a record's skeleton.
    fn missing_skeleton<'py>(&self, py: Python<'py>, record: &Record) -> Vec<Bound<'py, PyBytes>> {
        let missing = self.missing_of([&record.head().skeleton]);
        missing.iter().map(|r| PyBytes::new(py, &r.id.0)).collect()
    }

    /// Ids still to be fetched for pending writes.
    fn missing_writes<'py>(
        &self,
        py: Python<'py>,
        writes: Vec<Bound<'py, Write>>,
    ) -> Vec<Bound<'py, PyBytes>> {
        let missing = self.missing_of(writes.iter().map(|write| &write.get().0.value));
        missing.iter().map(|r| PyBytes::new(py, &r.id.0)).collect()
    }

    /// Give fetched chunks: id and stored bytes. They are proven by their ids.
    fn add(
        &self,
        py: Python<'_>,
        chunks: Vec<(Bound<'_, PyBytes>, PyBackedBytes)>,
    ) -> PyResult<()> {
        let chunks = chunks
            .into_iter()
            .map(|(id, stored)| Ok((to_id(&id)?, stored)))
            .collect::<PyResult<Vec<_>>>()?;
        guarded(py, || {
            let loaded = chunks
                .iter()
                .map(|(id, stored)| Ok((*id, load(*id, stored)?)))
                .collect::<Result<Vec<_>>>()?;
            let mut all = self.chunks();
            let mut cache = self.shared.cache();
            for (id, chunk) in loaded {
                cache.keep_chunk(self.scope, id, chunk.clone());
                all.keep(id, chunk);
            }
            Ok(())
        })
    }

    fn metadata<'py>(&self, py: Python<'py>, record: &Record) -> PyResult<Joined<'py>> {
        self.join(py, &record.head().metadata)
    }

    fn skeleton<'py>(&self, py: Python<'py>, record: &Record) -> PyResult<Joined<'py>> {
        self.join(py, &record.head().skeleton)
    }

    /// Name, tag and bytes of each channel that has a value, or of the given ones.
    #[pyo3(signature = (record, channels = None))]
    fn values<'py>(
        &self,
        py: Python<'py>,
        record: &Record,
        channels: Option<Vec<Bound<'py, PyString>>>,
    ) -> PyResult<Vec<(Bound<'py, PyString>, Joined<'py>)>> {
        let names = match channels {
            Some(names) => Some(names.iter().map(to_bytes).collect::<PyResult<Vec<_>>>()?),
            None => None,
        };
        filled(record.whole()?)
            .filter(|(name, _)| names.as_ref().is_none_or(|names| names.contains(name)))
            .map(|(name, value)| Ok((to_text(py, name)?, self.join(py, value)?)))
            .collect()
    }

    /// What a checkpoint holds, as objects: metadata, channels, and the given pending sends and
    /// writes. All bytes are at hand before the first of them is loaded.
    ///
    /// With a namespace the values of channels are remembered, to compare the next ones with.
    #[pyo3(signature = (record, sends, writes, loading, remember = None))]
    fn load<'py>(
        &self,
        py: Python<'py>,
        record: &Record,
        sends: Vec<Bound<'py, Write>>,
        writes: Vec<Bound<'py, Write>>,
        loading: &Loading,
        remember: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Contents<'py>> {
        let whole = record.whole()?;
        let channels: Vec<_> = filled(whole).collect();
        let values: Vec<&Value> = std::iter::once(&whole.record.metadata)
            .chain(channels.iter().map(|(_, value)| *value))
            .chain(
                sends
                    .iter()
                    .chain(&writes)
                    .map(|write| &write.get().0.value),
            )
            .collect();
        let leaves = guarded(py, || {
            let chunks = self.chunks();
            values
                .iter()
                .map(|value| chunks.value_leaves(value))
                .collect::<Result<Vec<_>>>()
        })?;
        let parts = values
            .iter()
            .zip(&leaves)
            .map(|(value, leaves)| parts(value, leaves))
            .collect::<Result<Vec<_>>>()?;
        if let Some(namespace) = remember {
            let names = channels.iter().map(|(name, _)| *name);
            self.keep_memos(&to_bytes(namespace)?, names.zip(&leaves[1..]));
        }
        let load = |at: usize| loading.load(py, &values[at].tag, &parts[at]);
        let metadata = load(0)?;
        let of_channels = PyDict::new(py);
        for (at, (name, _)) in channels.iter().enumerate() {
            of_channels.set_item(to_text(py, name)?, load(1 + at)?)?;
        }
        let (behind, end) = (1 + channels.len(), values.len() - writes.len());
        let of_sends = (behind..end).map(load).collect::<PyResult<_>>()?;
        let of_writes = (end..values.len()).map(load).collect::<PyResult<_>>()?;
        Ok((metadata, of_channels, of_sends, of_writes))
    }

    fn write_value<'py>(&self, py: Python<'py>, write: &Write) -> PyResult<Joined<'py>> {
        self.join(py, &write.0.value)
    }

    /// Remember a record whose manifest was read, as the parent of what comes next.
    fn remember(
        &self,
        record: &Record,
        checkpoint_ns: &Bound<'_, PyString>,
        checkpoint_id: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let place = (
            self.scope,
            to_bytes(checkpoint_ns)?,
            to_bytes(checkpoint_id)?,
        );
        self.shared
            .cache()
            .keep_record(place, record.whole()?.clone());
        Ok(())
    }
}
