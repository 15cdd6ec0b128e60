//! The shared part of a saver: its cache, and the way into drafts and reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::channel::{to_seen, Channel, Given, Origin};
use super::draft::{Draft, Placed};
use super::error::{caught, guarded};
use super::reader::Reader;
use super::record::Record;
use super::stored::to_id;
use super::text::to_bytes;
use crate::store::cache::{Cache, Scope};
use crate::store::chunk::Compression;
use crate::store::draft;
use crate::store::manifest::{plan_manifest, Entry};
use crate::store::recent::Recent;
use crate::store::record;
use crate::store::value::{INLINE, INLINE_HEAD};
use crate::store::writes;

/// What a saver's drafts and reads have in common.
pub struct Shared {
    cache: Mutex<Cache>,
    recent: Mutex<Recent>,
    pub compression: Compression,
}

impl Shared {
    /// The cache holds hints alone, so one left by a panic is still good.
    pub fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So is what was sealed.
    pub fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cache's name for a thread.
pub fn scope(thread: &[u8]) -> Scope {
    let mut scope = [0; 16];
    scope.copy_from_slice(&blake3::hash(thread).as_bytes()[..16]);
    scope
}

/// What a serializer's `dumps_typed` gave: tag and bytes.
type Typed<'py> = (Bound<'py, PyString>, PyBackedBytes);

/// Splits, hashes, compresses, and caches what it has seen. One per saver.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Core {
    shared: Arc<Shared>,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (*, cache_bytes, compression))]
    fn new(cache_bytes: usize, compression: &str) -> PyResult<Self> {
        let compression = match compression {
            "zstd" => Compression::Zstd,
            "none" => Compression::None,
            _ => return Err(PyValueError::new_err("compression is \"zstd\" or \"none\"")),
        };
        let cache = Mutex::new(Cache::new(cache_bytes));
        Ok(Self {
            shared: Arc::new(Shared {
                cache,
                recent: Mutex::default(),
                compression,
            }),
        })
    }

    /// Plan the commit of a checkpoint.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (thread_id, checkpoint_ns, checkpoint_id, parent_id, metadata, skeleton, channels, versions_seen, parent, *, may_be_based=true))]
    fn draft_checkpoint(
        &self,
        py: Python<'_>,
        thread_id: &Bound<'_, PyString>,
        checkpoint_ns: &Bound<'_, PyString>,
        checkpoint_id: &Bound<'_, PyString>,
        parent_id: Option<&Bound<'_, PyString>>,
        metadata: Typed<'_>,
        skeleton: Typed<'_>,
        channels: Vec<Given<'_>>,
        versions_seen: Vec<(Bound<'_, PyString>, Bound<'_, PyDict>)>,
        parent: Option<&Record>,
        may_be_based: bool,
    ) -> PyResult<Draft> {
        let scope = scope(&to_bytes(thread_id)?);
        let namespace = to_bytes(checkpoint_ns)?;
        let id = to_bytes(checkpoint_id)?;
        let parent_id = parent_id.map(to_bytes).transpose()?.unwrap_or_default();
        let metadata = (to_bytes(&metadata.0)?, metadata.1);
        let skeleton = (to_bytes(&skeleton.0)?, skeleton.1);
        let channels = channels
            .iter()
            .map(|given| Channel::of(given, parent))
            .collect::<PyResult<Vec<_>>>()?;
        let seen = versions_seen
            .iter()
            .map(|(node, versions)| to_seen(node, versions))
            .collect::<PyResult<Vec<_>>>()?;
        let last = parent.filter(|_| may_be_based).map(Record::whole);
        let last = last.transpose()?.cloned();
        guarded(py, || {
            let mut plan = draft::Draft::default();
            let mut memos = Vec::new();
            let mut entries = Vec::with_capacity(channels.len() + seen.len());
            let (metadata, _) = plan.value(&metadata.0, metadata.1, INLINE_HEAD, None)?;
            let (skeleton, _) = plan.value(&skeleton.0, skeleton.1, INLINE_HEAD, None)?;
            for Channel {
                name,
                version,
                origin,
            } in channels
            {
                let value = match origin {
                    Origin::Empty => None,
                    Origin::Parent(value) => value,
                    Origin::Given(tag, bytes) => {
                        let place = (scope, namespace.clone(), name.clone());
                        let memo = self.shared.cache().memo(&place);
                        let (value, outline) = plan.value(&tag, bytes, INLINE, memo.as_ref())?;
                        if !outline.is_empty() {
                            memos.push((place, outline));
                        }
                        Some(value)
                    }
                };
                entries.push(Arc::new(Entry::Channel {
                    name,
                    version,
                    value,
                }));
            }
            entries.extend(seen.into_iter().map(Arc::new));
            let last = last
                .as_ref()
                .map(|whole| (&whole.entries[..], whole.base.as_ref()));
            let manifest = plan_manifest(&entries, last);
            plan.nodes(manifest.nodes);
            let record = record::Record {
                parent: parent_id,
                metadata,
                skeleton,
                manifest: manifest.manifest,
            };
            let (stored, roots) = record.seal(self.shared.compression)?;
            let placed = Placed {
                place: (scope, namespace, id),
                record,
                entries,
                base: manifest.base,
            };
            Draft::new(
                self.shared.clone(),
                scope,
                plan,
                roots,
                vec![stored],
                memos,
                Some(placed),
            )
        })
    }

    /// Plan the commit of pending writes: channel, task path, and what the serializer gave.
    fn draft_writes(
        &self,
        py: Python<'_>,
        thread_id: &Bound<'_, PyString>,
        entries: Vec<(Bound<'_, PyString>, Bound<'_, PyString>, Typed<'_>)>,
    ) -> PyResult<Draft> {
        let scope = scope(&to_bytes(thread_id)?);
        let entries = entries
            .into_iter()
            .map(|(channel, task_path, (tag, bytes))| {
                Ok((
                    to_bytes(&channel)?,
                    to_bytes(&task_path)?,
                    to_bytes(&tag)?,
                    bytes,
                ))
            })
            .collect::<PyResult<Vec<_>>>()?;
        guarded(py, || {
            let mut plan = draft::Draft::default();
            let mut roots = Vec::new();
            let mut sealed = Vec::with_capacity(entries.len());
            for (channel, task_path, tag, bytes) in entries {
                let (value, _) = plan.value(&tag, bytes, INLINE, None)?;
                let write = writes::Write {
                    task_path,
                    channel,
                    value,
                };
                let (stored, references) = write.seal(self.shared.compression)?;
                roots.extend(references);
                sealed.push(stored);
            }
            Draft::new(
                self.shared.clone(),
                scope,
                plan,
                roots,
                sealed,
                Vec::new(),
                None,
            )
        })
    }

    /// Begin a read of one thread.
    fn reader(&self, thread_id: &Bound<'_, PyString>) -> PyResult<Reader> {
        Ok(Reader::new(
            self.shared.clone(),
            scope(&to_bytes(thread_id)?),
        ))
    }

    /// A record that was put or read here lately.
    fn cached_record(
        &self,
        thread_id: &Bound<'_, PyString>,
        checkpoint_ns: &Bound<'_, PyString>,
        checkpoint_id: &Bound<'_, PyString>,
    ) -> PyResult<Option<Record>> {
        let place = (
            scope(&to_bytes(thread_id)?),
            to_bytes(checkpoint_ns)?,
            to_bytes(checkpoint_id)?,
        );
        Ok(self.shared.cache().record(&place).map(Record::cached))
    }

    /// Forget all of a thread.
    fn forget(&self, thread_id: &Bound<'_, PyString>) -> PyResult<()> {
        self.shared.cache().forget(scope(&to_bytes(thread_id)?));
        Ok(())
    }

    /// Forget chunks that were removed from the store.
    fn discard(
        &self,
        thread_id: &Bound<'_, PyString>,
        ids: Vec<Bound<'_, PyBytes>>,
    ) -> PyResult<()> {
        let scope = scope(&to_bytes(thread_id)?);
        let mut cache = self.shared.cache();
        ids.iter().try_for_each(|id| {
            cache.discard(scope, to_id(id)?);
            Ok(())
        })
    }

    /// Of these ids those that the cache lacks.
    fn lacking<'py>(
        &self,
        thread_id: &Bound<'py, PyString>,
        ids: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let scope = scope(&to_bytes(thread_id)?);
        let mut lacking = Vec::new();
        let mut cache = self.shared.cache();
        for id in ids {
            if cache.chunk(scope, to_id(&id)?).is_none() {
                lacking.push(id);
            }
        }
        Ok(lacking)
    }

    /// The same record with another parent, or none.
    #[pyo3(signature = (record, parent_id))]
    fn with_parent<'py>(
        &self,
        py: Python<'py>,
        record: &[u8],
        parent_id: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut record = caught(|| Ok(record::Record::open(record)?))?;
        record.parent = parent_id.map(to_bytes).transpose()?.unwrap_or_default();
        Ok(PyBytes::new(py, &record.seal(self.shared.compression)?.0))
    }

    /// Bytes that the cache holds, as accounted.
    #[getter]
    fn cache_bytes(&self) -> usize {
        self.shared.cache().cost()
    }
}
