//! What this process has read or stored lately: chunks, the leaves of each channel's
//! last value, and records. Bytes only, bounded in bytes.
//!
//! What is here was stored when it was last seen. Nothing relies on that: a commit has
//! the store verify it, and forgets what turns out to be gone.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use super::base::Base;
use super::chunk::{Id, Ref};
use super::manifest::{Entry, Line, Manifest};
use super::memo::Memo;
use super::record::Record;
use super::tree::Page;

/// A hash of the thread id: no thread sees another's chunks.
pub type Scope = [u8; 16];

/// A chunk as it is kept in memory.
#[derive(Debug, Clone)]
pub enum Loaded {
    Leaf(Arc<[u8]>),
    Node(Arc<Page>),
}

impl Loaded {
    pub fn references(&self) -> &[Ref] {
        match self {
            Self::Leaf(_) => &[],
            Self::Node(node) => &node.references,
        }
    }

    pub fn into_leaf(self) -> Option<Arc<[u8]>> {
        match self {
            Self::Leaf(bytes) => Some(bytes),
            Self::Node(_) => None,
        }
    }

    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Leaf(bytes) => bytes.len(),
                Self::Node(node) => node.references.len() * 17 + node.payload.len(),
            }
    }
}

/// A record with its manifest read.
#[derive(Debug)]
pub struct Whole {
    pub record: Record,
    pub entries: Vec<Line>,
    /// What the manifest is told by, and the next one may be.
    pub base: Option<Arc<Base>>,
    /// Where among the entries each channel is; found out when it is first asked for.
    channels: OnceLock<HashMap<Vec<u8>, usize>>,
    pub size: usize,
}

impl Whole {
    pub fn new(
        mut record: Record,
        entries: Vec<Line>,
        base: Option<Arc<Base>>,
        size: usize,
    ) -> Self {
        // The entries are kept beside it.
        record.manifest = Manifest::Inline(Vec::new());
        Self {
            record,
            entries,
            base,
            channels: OnceLock::new(),
            size,
        }
    }

    /// What is said of a channel.
    pub fn channel(&self, name: &[u8]) -> Option<&Entry> {
        let channels = self.channels.get_or_init(|| {
            let named = self.names().map(|(at, name)| (name.to_vec(), at));
            named.collect()
        });
        Some(&self.entries[*channels.get(name)?])
    }

    fn names(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(at, entry)| match &**entry {
            Entry::Channel { name, .. } => Some((at, &name[..])),
            Entry::Seen { .. } => None,
        })
    }

    fn cost(&self) -> usize {
        let of_record = self.record.metadata.heap() + self.record.skeleton.heap();
        let names = self.names().map(|(_, name)| name.len() + OVERHEAD);
        OVERHEAD
            + of_record
            + self.entries.iter().map(|entry| entry.heap()).sum::<usize>()
            + names.sum::<usize>()
            + self.base.as_ref().map_or(0, |base| base.heap())
    }
}

/// What a map entry itself takes, roughly.
pub const OVERHEAD: usize = 96;

/// A map of bounded cost that forgets what has not been used for about half its size.
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_cost: usize,
    old_cost: usize,
    limit: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Generations<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_cost: 0,
            old_cost: 0,
            limit,
        }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, cost) = self.old.remove(key)?;
        self.old_cost -= cost;
        self.insert(key.clone(), value.clone(), cost);
        Some(value)
    }

    fn insert(&mut self, key: K, value: V, cost: usize) {
        if cost > self.limit / 2 {
            self.remove(&key);
            return;
        }
        if self.young_cost + cost > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_cost = std::mem::take(&mut self.young_cost);
        }
        self.remove(&key);
        self.young_cost += cost;
        self.young.insert(key, (value, cost));
    }

    fn remove(&mut self, key: &K) {
        if let Some((_, cost)) = self.young.remove(key) {
            self.young_cost -= cost;
        }
        if let Some((_, cost)) = self.old.remove(key) {
            self.old_cost -= cost;
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        for (map, total) in [
            (&mut self.young, &mut self.young_cost),
            (&mut self.old, &mut self.old_cost),
        ] {
            map.retain(|key, (_, cost)| {
                let kept = keep(key);
                if !kept {
                    *total -= *cost;
                }
                kept
            });
        }
    }
}

/// Namespace and channel, or namespace and checkpoint id.
type Place = (Scope, Vec<u8>, Vec<u8>);

pub struct Cache {
    chunks: Generations<(Scope, Id), Loaded>,
    memos: Generations<Place, Arc<Memo>>,
    records: Generations<Place, Arc<Whole>>,
}

impl Cache {
    /// At most about `limit` bytes: half for chunks, three eighths for the last values,
    /// the rest for records.
    pub fn new(limit: usize) -> Self {
        Self {
            chunks: Generations::new(limit / 2),
            memos: Generations::new(limit / 8 * 3),
            records: Generations::new(limit / 8),
        }
    }

    pub fn chunk(&mut self, scope: Scope, id: Id) -> Option<Loaded> {
        self.chunks.get(&(scope, id))
    }

    pub fn keep_chunk(&mut self, scope: Scope, id: Id, chunk: Loaded) {
        let cost = chunk.cost();
        self.chunks.insert((scope, id), chunk, cost);
    }

    pub fn memo(&mut self, place: &Place) -> Option<Arc<Memo>> {
        self.memos.get(place)
    }

    /// Forget what the next value of a channel would be compared with.
    pub fn discard_memo(&mut self, place: &Place) {
        self.memos.remove(place);
    }

    pub fn keep_memo(&mut self, place: Place, memo: Arc<Memo>) {
        let cost = memo.cost();
        self.memos.insert(place, memo, cost);
    }

    pub fn record(&mut self, place: &Place) -> Option<Arc<Whole>> {
        self.records.get(place)
    }

    pub fn keep_record(&mut self, place: Place, whole: Arc<Whole>) {
        let cost = whole.cost();
        self.records.insert(place, whole, cost);
    }

    pub fn discard(&mut self, scope: Scope, id: Id) {
        self.chunks.remove(&(scope, id));
    }

    /// Forget all of a thread.
    pub fn forget(&mut self, scope: Scope) {
        self.chunks.retain(|(of, _)| *of != scope);
        self.memos.retain(|(of, _, _)| *of != scope);
        self.records.retain(|(of, _, _)| *of != scope);
    }

    /// Bytes kept, as accounted.
    pub fn cost(&self) -> usize {
        self.chunks.young_cost
            + self.chunks.old_cost
            + self.memos.young_cost
            + self.memos.old_cost
            + self.records.young_cost
            + self.records.old_cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(n: usize) -> Loaded {
        Loaded::Leaf(vec![0; n].into())
    }

    fn id(n: u32) -> Id {
        Id::of(0, &[], &n.to_be_bytes())
    }

    #[test]
    fn the_cost_stays_within_the_limit() {
        let mut cache = Cache::new(100_000);
        for n in 0..5_000 {
            cache.keep_chunk([1; 16], id(n), leaf(n as usize % 700));
            assert!(cache.cost() <= 100_000);
        }
        assert!(cache.cost() > 20_000);
    }

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(100_000);
        cache.keep_chunk([1; 16], id(0), leaf(10));
        for n in 1..5_000 {
            cache.keep_chunk([1; 16], id(n), leaf(500));
            assert!(cache.chunk([1; 16], id(0)).is_some(), "gone after {n}");
        }
        assert!(cache.chunk([1; 16], id(1)).is_none());
    }

    #[test]
    fn threads_do_not_see_each_other() {
        let mut cache = Cache::new(100_000);
        cache.keep_chunk([1; 16], id(0), leaf(10));
        assert!(cache.chunk([2; 16], id(0)).is_none());
        cache.forget([1; 16]);
        assert!(cache.chunk([1; 16], id(0)).is_none());
        assert_eq!(cache.cost(), 0);
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let mut cache = Cache::new(0);
        cache.keep_chunk([1; 16], id(0), leaf(10));
        assert!(cache.chunk([1; 16], id(0)).is_none());
    }
}
