//! A planned commit, alive until the store has acknowledged it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::core::Shared;
use super::error::guarded;
use super::stored::to_id;
use crate::error::Result;
use crate::store::base::Base;
use crate::store::cache::{Loaded, Scope, Whole};
use crate::store::chunk::{Id, Ref};
use crate::store::draft::{self, Shipment};
use crate::store::manifest::Line;
use crate::store::memo::Outline;
use crate::store::record::Record;

type Place = (Scope, Vec<u8>, Vec<u8>);
type Plan = draft::Draft<PyBackedBytes>;

fn seal_all(
    plan: &Plan,
    shipment: &Shipment,
    shared: &Shared,
    scope: Scope,
) -> Result<Vec<(Id, Vec<u8>)>> {
    let seal = |id: &Id| {
        let known = shared.recent().get(scope, *id).map(<[u8]>::to_vec);
        if let Some(sealed) = known {
            return Ok((*id, sealed));
        }
        let sealed = plan.seal(*id, shared.compression)?;
        shared.recent().keep(scope, *id, &sealed);
        Ok((*id, sealed))
    };
    shipment.chunks.iter().map(seal).collect()
}

/// The record of a draft, to be remembered once it is stored.
pub struct Placed {
    pub place: Place,
    pub record: Record,
    pub entries: Vec<Line>,
    pub base: Option<Arc<Base>>,
}

struct State {
    plan: Plan,
    shipment: Shipment,
    chunks: Vec<(Id, Vec<u8>)>,
    absent: HashSet<Id>,
    memos: Vec<(Place, Outline)>,
    placed: Option<Placed>,
}

/// What a commit sends. The bytes of its values are those of the time of the call.
#[pyclass(frozen, module = "holdfast._core")]
pub struct Draft {
    shared: Arc<Shared>,
    scope: Scope,
    roots: Vec<Ref>,
    sealed: Vec<Vec<u8>>,
    state: Mutex<State>,
}

impl Draft {
    pub fn new(
        shared: Arc<Shared>,
        scope: Scope,
        plan: Plan,
        roots: Vec<Ref>,
        sealed: Vec<Vec<u8>>,
        memos: Vec<(Place, Outline)>,
        placed: Option<Placed>,
    ) -> Result<Self> {
        let absent = HashSet::new();
        let shipment = {
            let mut cache = shared.cache();
            plan.ship(&roots, |id| cache.chunk(scope, id).is_some(), &absent)
        };
        let chunks = seal_all(&plan, &shipment, &shared, scope)?;
        let state = Mutex::new(State {
            plan,
            shipment,
            chunks,
            absent,
            memos,
            placed,
        });
        Ok(Self {
            shared,
            scope,
            roots,
            sealed,
            state,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Draft {
    /// The record, or the pending writes in the order in which they were given.
    #[getter]
    fn sealed<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.sealed
            .iter()
            .map(|stored| PyBytes::new(py, stored))
            .collect()
    }

    /// New chunks: id and bytes, children before parents.
    #[getter]
    fn chunks<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let state = self.state();
        let pair = |(id, chunk): &(Id, Vec<u8>)| (PyBytes::new(py, &id.0), PyBytes::new(py, chunk));
        state.chunks.iter().map(pair).collect()
    }

    /// Ids that are not sent and must be stored already.
    #[getter]
    fn frontier<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.state()
            .shipment
            .frontier
            .iter()
            .map(|id| PyBytes::new(py, &id.0))
            .collect()
    }

    /// The store lacks these: send them, and all that they refer to. Gives back those
    /// whose bytes are not at hand.
    fn resend<'py>(
        &self,
        py: Python<'py>,
        missing: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let ids = missing
            .iter()
            .map(|id| to_id(id))
            .collect::<PyResult<Vec<_>>>()?;
        let unknown = guarded(py, || {
            let state = &mut *self.state();
            state.plan.doubt();
            {
                // What was kept from the parent may still be here, as it was.
                let mut cache = self.shared.cache();
                let mut open = ids.clone();
                while let Some(id) = open.pop() {
                    if state.plan.holds(id) {
                        continue;
                    }
                    if let Some(chunk) = cache.chunk(self.scope, id) {
                        open.extend(chunk.references().iter().map(|reference| reference.id));
                        state.plan.adopt(id, chunk);
                    }
                }
                cache.forget(self.scope);
            }
            let (held, unknown): (Vec<Id>, Vec<Id>) =
                ids.into_iter().partition(|id| state.plan.holds(*id));
            state.absent.extend(held);
            // What else was taken to be stored was verified by the store as well.
            let frontier: HashSet<Id> = state.shipment.frontier.iter().copied().collect();
            let stored = |id| frontier.contains(&id);
            state.shipment = state.plan.ship(&self.roots, stored, &state.absent);
            state.chunks = seal_all(&state.plan, &state.shipment, &self.shared, self.scope)?;
            Ok(unknown)
        })?;
        Ok(unknown.iter().map(|id| PyBytes::new(py, &id.0)).collect())
    }

    /// The store has acknowledged the commit: remember what is there now.
    fn acknowledge(&self, py: Python<'_>) -> PyResult<()> {
        guarded(py, || {
            let state = &mut *self.state();
            let mut cache = self.shared.cache();
            let mut fresh = HashMap::new();
            for id in &state.shipment.chunks {
                if let Some(chunk) = state.plan.load(*id) {
                    if let Loaded::Leaf(bytes) = &chunk {
                        fresh.insert(*id, bytes.clone());
                    }
                    cache.keep_chunk(self.scope, *id, chunk);
                }
            }
            state.plan.believe();
            for (place, outline) in state.memos.drain(..) {
                // What follows it takes its leaves, if nobody else has it.
                cache.discard_memo(&place);
                // Another value, or the cache, may have had a leaf already.
                let memo = outline.into_memo(|id| match fresh.get(&id) {
                    Some(bytes) => Some(bytes.clone()),
                    None => state.plan.load(id)?.into_leaf(),
                });
                if let Some(memo) = memo {
                    cache.keep_memo(place, Arc::new(memo));
                }
            }
            if let Some(Placed {
                place,
                record,
                entries,
                base,
            }) = state.placed.take()
            {
                let whole = Whole::new(record, entries, base, self.sealed[0].len());
                cache.keep_record(place, Arc::new(whole));
            }
            Ok(())
        })
    }
}
