//! From stored bytes back to values: which chunks are still needed, and what they say.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::base::Base;
use super::cache::Loaded;
use super::chunk::{open_chunk, Id, Ref, KEYED, LEAF, MANIFEST};
use super::manifest::{Entry, Line, Manifest};
use super::record::Record;
use super::tree::{children, Page, Span};
use super::value::{Body, Value};
use crate::error::{Error, Result};

/// What a value may add up to: msgpack itself cannot say more.
pub const LONGEST_VALUE: u64 = u32::MAX as u64;

/// Leaves that a value has at most, and so many bytes more for each further one, a quarter of what
/// `pieces.rs` makes of the smallest elements: few stored bytes can refer to very many.
const FEW_LEAVES: u64 = 64;
const SMALL_LEAF: u64 = 32;

/// Entries of a manifest: far more than any graph has channels and nodes.
const LONGEST_MANIFEST: u64 = 1 << 24;

/// The chunks gathered for one read.
#[derive(Default)]
pub struct Reader {
    loaded: HashMap<Id, Loaded>,
    /// Those that were opened: many records have the same one.
    bases: HashMap<Id, Arc<Base>>,
    /// The lines of each leaf of a manifest that was opened, as well.
    lines: HashMap<Id, Vec<Line>>,
}

/// The chunk that stored bytes are, proven by its id.
pub fn load(id: Id, stored: &[u8]) -> Result<Loaded> {
    let object = open_chunk(id, stored)?;
    Ok(if object.level == LEAF {
        Loaded::Leaf(object.payload.into_owned().into())
    } else {
        Loaded::Node(Arc::new(Page {
            id,
            level: object.level,
            references: object.references,
            payload: object.payload.into_owned(),
        }))
    })
}

impl Reader {
    pub fn keep(&mut self, id: Id, chunk: Loaded) {
        self.loaded.insert(id, chunk);
    }

    /// What of `wanted`, and of all that it refers to, is neither here nor found.
    pub fn missing(
        &mut self,
        wanted: impl IntoIterator<Item = Ref>,
        mut find: impl FnMut(Id) -> Option<Loaded>,
    ) -> Vec<Ref> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        let mut open: Vec<Ref> = wanted.into_iter().collect();
        open.reverse();
        while let Some(reference) = open.pop() {
            if !seen.insert(reference) {
                continue;
            }
            if let Some(chunk) = self.loaded.get(&reference.id) {
                open.extend(chunk.references().iter().rev());
            } else if let Some(chunk) = find(reference.id) {
                open.extend(chunk.references().iter().rev());
                self.loaded.insert(reference.id, chunk);
            } else {
                missing.push(reference);
            }
        }
        missing
    }

    /// What a node of a manifest refers to within the manifest; `None` if it is not found.
    pub fn step(
        &mut self,
        reference: Ref,
        find: impl FnOnce(Id) -> Option<Loaded>,
    ) -> Option<Vec<Ref>> {
        let below = match self.loaded.entry(reference.id) {
            MapEntry::Occupied(chunk) => chunk.into_mut(),
            MapEntry::Vacant(place) => place.insert(find(reference.id)?),
        }
        .references();
        Some(
            below
                .iter()
                .copied()
                .filter(|r| r.level >= MANIFEST && r.level < KEYED)
                .collect(),
        )
    }

    fn node(&self, reference: Ref) -> Result<&Arc<Page>> {
        match self.loaded.get(&reference.id) {
            Some(Loaded::Node(node)) if node.level == reference.level => Ok(node),
            Some(_) => Err(Error::corrupt(format!(
                "chunk {} is not what is referred to",
                reference.id
            ))),
            None => Err(Error::Missing(reference.id)),
        }
    }

    /// Walk the leaves below `spans` in order.
    fn leaves(
        &self,
        spans: &[Span],
        base: u8,
        visit: &mut impl FnMut(Ref, u64) -> Result<()>,
    ) -> Result<()> {
        for span in spans {
            if span.reference.level == base {
                visit(span.reference, span.length)?;
                continue;
            }
            let node = self.node(span.reference)?;
            let below = children(node.level, &node.references, &node.payload)?;
            let length = below
                .iter()
                .fold(0u64, |sum, span| sum.saturating_add(span.length));
            if length != span.length {
                return Err(Error::corrupt(format!(
                    "page {} is of another length",
                    node.id
                )));
            }
            self.leaves(&below, base, visit)?;
        }
        Ok(())
    }

    /// The leaves of a value, in order.
    pub fn value_leaves(&self, value: &Value) -> Result<Vec<(Id, Arc<[u8]>)>> {
        let total = value
            .spans()
            .iter()
            .fold(0u64, |sum, span| sum.saturating_add(span.length));
        if total > LONGEST_VALUE {
            return Err(Error::corrupt("a value is too long"));
        }
        let most = FEW_LEAVES + total / SMALL_LEAF;
        let mut leaves = Vec::new();
        self.leaves(value.spans(), LEAF, &mut |reference, length| {
            let bytes = match self.loaded.get(&reference.id) {
                Some(Loaded::Leaf(bytes)) if bytes.len() as u64 == length && length > 0 => bytes,
                Some(_) => {
                    return Err(Error::corrupt(format!(
                        "chunk {} is not what is referred to",
                        reference.id
                    )))
                }
                None => return Err(Error::Missing(reference.id)),
            };
            if leaves.len() as u64 >= most || leaves.try_reserve(1).is_err() {
                return Err(Error::corrupt("a value has too many leaves"));
            }
            leaves.push((reference.id, bytes.clone()));
            Ok(())
        })?;
        Ok(leaves)
    }

    /// The entries of a record's manifest, and its base if it has one.
    pub fn entries(&mut self, record: &Record) -> Result<(Vec<Line>, Option<Arc<Base>>)> {
        match &record.manifest {
            Manifest::Inline(entries) => Ok((entries.clone(), None)),
            Manifest::Based(reference, edits) => {
                let base = self.base(*reference)?;
                Ok((base.edited(edits)?, Some(base)))
            }
            Manifest::Tree(spans) => Ok((self.tree_entries(spans)?, None)),
        }
    }

    fn base(&mut self, reference: Ref) -> Result<Arc<Base>> {
        let node = self.node(reference)?.clone();
        Ok(match self.bases.entry(reference.id) {
            MapEntry::Occupied(base) => base.get().clone(),
            MapEntry::Vacant(place) => place.insert(Arc::new(Base::open(node)?)).clone(),
        })
    }

    fn tree_entries(&mut self, spans: &[Span]) -> Result<Vec<Line>> {
        let total = spans
            .iter()
            .fold(0u64, |sum, span| sum.saturating_add(span.length));
        if total > LONGEST_MANIFEST {
            return Err(Error::corrupt("a manifest is too long"));
        }
        let mut leaves = Vec::new();
        self.leaves(spans, MANIFEST, &mut |reference, length| {
            leaves.push((reference, length));
            Ok(())
        })?;
        let mut entries = Vec::new();
        for (reference, length) in leaves {
            let lines = self.lines_of(reference)?;
            if lines.len() as u64 != length {
                return Err(Error::corrupt("a manifest has another number of entries"));
            }
            entries.extend_from_slice(lines);
        }
        Ok(entries)
    }

    fn lines_of(&mut self, reference: Ref) -> Result<&[Line]> {
        let node = self.node(reference)?.clone();
        Ok(match self.lines.entry(reference.id) {
            MapEntry::Occupied(lines) => lines.into_mut(),
            MapEntry::Vacant(place) => {
                place.insert(Entry::take_all(&node.payload, &node.references)?)
            }
        })
    }
}

/// The parts that a value's bytes are joined from, in order.
pub fn parts<'a>(value: &'a Value, leaves: &'a [(Id, Arc<[u8]>)]) -> Result<Vec<&'a [u8]>> {
    let root = match &value.body {
        Body::Inline(bytes) => return Ok(vec![bytes]),
        Body::Tree(root) => root,
    };
    let mut parts = Vec::with_capacity(leaves.len() + root.literals.len());
    let mut literals = root.literals.iter().peekable();
    let mut at = 0u64;
    for (_, bytes) in leaves {
        while let Some((_, literal)) = literals.next_if(|(before, _)| *before <= at) {
            parts.push(&literal[..]);
        }
        parts.push(bytes);
        at += bytes.len() as u64;
    }
    for (before, literal) in literals {
        if *before > at {
            return Err(Error::corrupt(
                "a literal stands behind the end of its value",
            ));
        }
        parts.push(literal);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tree::page;
    use crate::store::value::Root;

    /// A value of pages that list one child again and again, above a leaf of so many bytes.
    fn repeated(leaf: usize, times: usize, levels: u8) -> (Reader, Value) {
        let mut reader = Reader::default();
        let reference = Ref {
            level: LEAF,
            id: Id([1; 16]),
        };
        reader.keep(reference.id, Loaded::Leaf(vec![b'x'; leaf].into()));
        let mut span = Span {
            reference,
            length: leaf as u64,
        };
        for level in 1..=levels {
            let page = page(level, &vec![span; times]);
            span = Span {
                reference: page.reference(),
                length: span.length * times as u64,
            };
            reader.keep(page.id, Loaded::Node(Arc::new(page)));
        }
        let root = Root {
            literals: Vec::new(),
            spans: vec![span],
        };
        let value = Value {
            tag: b"msgpack".into(),
            body: Body::Tree(root),
        };
        (reader, value)
    }

    #[test]
    fn leaves_may_be_the_same() {
        let (reader, value) = repeated(256, 40, 2);
        assert_eq!(reader.value_leaves(&value).unwrap().len(), 1600);
    }

    #[test]
    fn few_bytes_that_say_very_much_are_refused() {
        let (reader, value) = repeated(1, 44, 5);
        let refused = Error::corrupt("a value has too many leaves");
        assert_eq!(reader.value_leaves(&value), Err(refused));
    }
}
