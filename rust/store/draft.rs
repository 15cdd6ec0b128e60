//! What a commit sends: the sealed record or writes, the chunks that the store lacks,
//! and the frontier that the store must verify.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::cache::Loaded;
use super::chunk::{seal, Compression, Id, Ref, LEAF};
use super::matcher::{Candidate, Matcher};
use super::memo::{span, Memo, Outline, Trees};
use super::pieces::{cut_around, cut_msgpack, cut_opaque, Piece};
use super::reader::LONGEST_VALUE;
use super::source::{Gap, Source};
use super::tree::{Grown, Page, Span};
use super::value::{Body, Root, Value};
use crate::error::{Error, Result};

const MSGPACK: &[u8] = b"msgpack";

#[derive(Debug, Clone)]
enum Planned {
    /// A leaf in a value's own bytes: source and place.
    Given(usize, Range<usize>),
    /// A leaf whose bytes are known.
    Leaf(Arc<[u8]>),
    Node(Arc<Page>),
}

/// Chunks of the values of one commit, kept with their bytes until it is acknowledged.
pub struct Draft<S> {
    sources: Vec<S>,
    planned: HashMap<Id, Planned>,
    /// What the values have in common with the last ones: not sent unless the store asks.
    known: Vec<(Id, Planned)>,
    /// Last values, and with how many of their leaves, and the pages over these, values begin: as
    /// `known`.
    begun: Vec<(Arc<Memo>, usize)>,
}

/// Which chunks to send to the store, and which it must have.
#[derive(Debug, Default)]
pub struct Shipment {
    /// Children before parents.
    pub chunks: Vec<Id>,
    pub frontier: Vec<Id>,
}

/// What a value is cut into.
#[derive(Default)]
struct Leaves {
    /// How many the value begins with that the last value begins with, too.
    shared: usize,
    /// Those behind them, with their bytes where the last value has them somewhere.
    known: Vec<(Id, Option<Arc<[u8]>>)>,
    spans: Vec<Span>,
    literals: Vec<(u64, Vec<u8>)>,
}

impl<S: AsRef<[u8]>> Default for Draft<S> {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            planned: HashMap::new(),
            known: Vec::new(),
            begun: Vec::new(),
        }
    }
}

impl<S: AsRef<[u8]>> Draft<S> {
    /// Plan a value of these bytes; also gives its outline, empty where it has no leaves.
    ///
    /// `memo` holds the leaves of the channel's last value: what equals one of them is
    /// not hashed. Up to `inline` bytes stay where they are referred to.
    pub fn value(
        &mut self,
        tag: &[u8],
        source: impl Into<Source<S>>,
        inline: usize,
        memo: Option<&Arc<Memo>>,
    ) -> Result<(Value, Outline)> {
        let source = source.into();
        let size = source.length();
        if size as u64 > LONGEST_VALUE {
            return Err(Error::TooLarge(format!(
                "a value of {size} bytes, at most {LONGEST_VALUE} are possible"
            )));
        }
        if size <= inline {
            let body = Body::Inline(source.to_vec());
            let value = Value {
                tag: tag.to_vec().into(),
                body,
            };
            return Ok((value, Outline::default()));
        }
        let Source { written, gaps } = source;
        let pieces = cut(tag, written.as_ref(), &gaps)?;
        let Leaves {
            shared,
            known,
            spans,
            literals,
        } = self.leaves(written.as_ref(), &gaps, pieces, size, memo);
        self.sources.push(written);
        let (trees, pages) = self.pages(spans, shared, memo);
        let base = memo.map(|memo| (memo.clone(), shared));
        self.begun.extend(base.clone());
        let value = Value {
            tag: tag.to_vec().into(),
            body: Body::Tree(Root {
                literals,
                spans: trees.whole.root(),
            }),
        };
        let outline = Outline {
            base,
            leaves: known,
            pages,
            trees,
        };
        Ok((value, outline))
    }

    /// Plan the leaves of a value of `size` bytes, `bytes` of which are the next source.
    fn leaves(
        &mut self,
        bytes: &[u8],
        gaps: &[Gap],
        pieces: Vec<Piece>,
        size: usize,
        memo: Option<&Arc<Memo>>,
    ) -> Leaves {
        let at = self.sources.len();
        let literal: usize = pieces.iter().map(Piece::literal).sum();
        let mut matcher = Matcher::new(memo.map(|memo| &**memo), (size - literal) as u64);
        let mut leaves = Leaves::default();
        let mut offset = 0u64;
        for piece in pieces {
            let joined;
            let leaf = match &piece {
                Piece::Literal(range) => {
                    leaves
                        .literals
                        .push((offset, bytes[range.clone()].to_vec()));
                    continue;
                }
                Piece::Leaf(range) => Candidate::Bytes(&bytes[range.clone()]),
                Piece::LeftOut(run, gap) if run.is_empty() => Candidate::Known(&gaps[*gap].1),
                Piece::LeftOut(run, gap) => {
                    joined = [&bytes[run.clone()], gaps[*gap].1.bytes()].concat();
                    Candidate::Bytes(&joined)
                }
            };
            if leaves.known.is_empty() && matcher.goes_on(leaf) {
                leaves.shared += 1;
                offset += leaf.length() as u64;
                continue;
            }
            let (id, known) = matcher.identify(offset, leaf);
            match &known {
                Some(bytes) => self.known.push((id, Planned::Leaf(bytes.clone()))),
                None => {
                    let plan = || match (piece, leaf) {
                        (Piece::Leaf(range), _) => Planned::Given(at, range),
                        (_, Candidate::Known(known)) => Planned::Leaf(known.bytes().clone()),
                        (_, Candidate::Bytes(bytes)) => Planned::Leaf(bytes.into()),
                    };
                    self.planned.entry(id).or_insert_with(plan);
                }
            }
            leaves.known.push((id, known));
            leaves.spans.push(span(id, leaf.length()));
            offset += leaf.length() as u64;
        }
        leaves
    }

    /// Plan the pages over leaves, which follow the first `shared` of `memo`.
    fn pages(
        &mut self,
        spans: Vec<Span>,
        shared: usize,
        memo: Option<&Arc<Memo>>,
    ) -> (Trees, Vec<Arc<Page>>) {
        let mut grown = Vec::new();
        let mut trees = match memo {
            Some(memo) => memo.trees(shared, &mut grown),
            None => Trees::default(),
        };
        trees.push(spans.into_iter(), memo.map(|memo| &memo.pages), &mut grown);
        let mut pages = Vec::with_capacity(grown.len());
        for Grown { page, is_known } in grown {
            let planned = Planned::Node(page.clone());
            if is_known {
                self.known.push((page.id, planned));
            } else {
                self.planned.entry(page.id).or_insert(planned);
            }
            pages.push(page);
        }
        (trees, pages)
    }

    /// Add nodes of a manifest, that were planned elsewhere.
    pub fn nodes(&mut self, nodes: Vec<Arc<Page>>) {
        for node in nodes {
            self.planned.entry(node.id).or_insert(Planned::Node(node));
        }
    }

    /// From now on treat as planned what was taken to be stored: the store lacks some of it.
    pub fn doubt(&mut self) {
        for (id, planned) in self.known.drain(..) {
            self.planned.entry(id).or_insert(planned);
        }
        for (memo, shared) in self.begun.drain(..) {
            for (id, bytes) in &memo.leaves[..shared] {
                let leaf = || Planned::Leaf(bytes.clone());
                self.planned.entry(*id).or_insert_with(leaf);
            }
            for page in memo.pages_over(shared) {
                let node = || Planned::Node(page.clone());
                self.planned.entry(page.id).or_insert_with(node);
            }
        }
    }

    /// Let go of what was taken to be stored: it was.
    pub fn believe(&mut self) {
        self.known.clear();
        self.begun.clear();
    }

    /// Plan a chunk from elsewhere, so that it can be sent.
    pub fn adopt(&mut self, id: Id, chunk: Loaded) {
        self.planned.entry(id).or_insert(match chunk {
            Loaded::Leaf(bytes) => Planned::Leaf(bytes),
            Loaded::Node(node) => Planned::Node(node),
        });
    }

    /// Whether the bytes of this chunk are at hand, after a `doubt`.
    pub fn holds(&self, id: Id) -> bool {
        self.planned.contains_key(&id)
    }

    #[cfg(test)]
    pub fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.planned.keys().copied()
    }

    /// Everything below `roots` that is not `stored`, and the frontier: what is not sent,
    /// but referred to by a root or by a page that is. What is `absent` from the store is
    /// sent with all that it refers to.
    pub fn ship(
        &self,
        roots: &[Ref],
        mut stored: impl FnMut(Id) -> bool,
        absent: &HashSet<Id>,
    ) -> Shipment {
        let mut done: HashMap<Id, bool> = HashMap::new();
        let mut frontier: Vec<Id> = Vec::new();
        let mut order: Vec<Id> = Vec::new();
        let mut open: Vec<(Id, bool)> = roots.iter().rev().map(|r| (r.id, false)).collect();
        while let Some((id, whole)) = open.pop() {
            let whole = whole || absent.contains(&id);
            match done.get(&id) {
                Some(true) => continue,
                Some(false) if !whole => continue,
                _ => {}
            }
            let Some(planned) = self.planned.get(&id) else {
                done.insert(id, true);
                frontier.push(id);
                continue;
            };
            if !whole && stored(id) {
                done.insert(id, false);
                frontier.push(id);
                continue;
            }
            done.insert(id, true);
            order.push(id);
            if let Planned::Node(node) = planned {
                open.extend(node.references.iter().rev().map(|r| (r.id, whole)));
            }
        }
        let sent: HashSet<Id> = order.iter().copied().collect();
        frontier.retain(|id| !sent.contains(id));
        order.sort_by_key(|id| self.level(*id));
        Shipment {
            chunks: order,
            frontier,
        }
    }

    fn level(&self, id: Id) -> u8 {
        match &self.planned[&id] {
            Planned::Given(..) | Planned::Leaf(_) => LEAF,
            Planned::Node(node) => node.level,
        }
    }

    /// The bytes to store for a planned chunk.
    pub fn seal(&self, id: Id, compression: Compression) -> Result<Vec<u8>> {
        match &self.planned[&id] {
            Planned::Given(source, range) => {
                seal(LEAF, &[], self.given(*source, range), compression)
            }
            Planned::Leaf(bytes) => seal(LEAF, &[], bytes, compression),
            Planned::Node(node) => seal(node.level, &node.references, &node.payload, compression),
        }
    }

    fn given(&self, source: usize, range: &Range<usize>) -> &[u8] {
        &self.sources[source].as_ref()[range.clone()]
    }

    /// A chunk as the cache keeps it.
    pub fn load(&self, id: Id) -> Option<Loaded> {
        Some(match self.planned.get(&id)? {
            Planned::Given(source, range) => Loaded::Leaf(self.given(*source, range).into()),
            Planned::Leaf(bytes) => Loaded::Leaf(bytes.clone()),
            Planned::Node(node) => Loaded::Node(node.clone()),
        })
    }
}

fn cut(tag: &[u8], bytes: &[u8], gaps: &[Gap]) -> Result<Vec<Piece>> {
    if !gaps.is_empty() {
        cut_around(bytes, gaps.iter().map(|(at, _)| *at))
    } else if tag == MSGPACK {
        Ok(cut_msgpack(bytes))
    } else {
        Ok(cut_opaque(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::references;
    use super::super::reader::{load, parts, Reader};
    use super::super::source::Known;
    use super::*;

    fn message(n: u32) -> Vec<u8> {
        let mut out = vec![0xda, 0x01, 0x2c];
        out.extend((0..300u32).map(|i| (i.wrapping_mul(n + 1) >> 3) as u8));
        out
    }

    fn list(items: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let items: Vec<_> = items.into_iter().map(message).collect();
        let mut out = vec![0xdd];
        out.extend_from_slice(&(items.len() as u32).to_be_bytes());
        items.into_iter().for_each(|item| out.extend(item));
        out
    }

    fn roots(value: &Value) -> Vec<Ref> {
        value.spans().iter().map(|span| span.reference).collect()
    }

    /// Ship to `store`, verify the frontier there, read back.
    fn commit(
        store: &mut HashMap<Id, Vec<u8>>,
        bytes: Vec<u8>,
        memo: Option<&Arc<Memo>>,
        mut stored: impl FnMut(Id) -> bool,
    ) -> (usize, Arc<Memo>) {
        let mut draft = Draft::default();
        let (value, outline) = draft.value(MSGPACK, bytes.clone(), 100, memo).unwrap();
        let mut absent = HashSet::new();
        let mut sent = 0;
        loop {
            let shipment = draft.ship(&roots(&value), &mut stored, &absent);
            let missing: Vec<Id> = shipment
                .frontier
                .iter()
                .filter(|id| !store.contains_key(id))
                .copied()
                .collect();
            if missing.is_empty() {
                sent += shipment.chunks.len();
                for id in shipment.chunks {
                    let chunk = draft.seal(id, Compression::Zstd).unwrap();
                    for reference in references(&chunk).unwrap().1 {
                        assert!(store.contains_key(&reference.id), "a parent came first");
                    }
                    store.insert(id, chunk);
                }
                break;
            }
            draft.doubt();
            assert!(missing.iter().all(|id| draft.holds(*id)));
            assert!(missing.iter().any(|id| absent.insert(*id)), "no progress");
        }
        let mut reader = Reader::default();
        let missing = reader.missing(roots(&value), |id| load(id, store.get(&id)?).ok());
        assert_eq!(missing, []);
        let leaves = reader.value_leaves(&value).unwrap();
        assert_eq!(parts(&value, &leaves).unwrap().concat(), bytes);
        let known: HashMap<_, _> = leaves.iter().cloned().collect();
        let next = outline.into_memo(|id| known.get(&id).cloned()).unwrap();
        assert!(next.is_of(&leaves));
        (sent, Arc::new(next))
    }

    #[test]
    fn an_append_sends_what_is_new() {
        let mut store = HashMap::new();
        let (_, memo) = commit(&mut store, list(0..500), None, |_| false);
        let known: HashSet<Id> = store.keys().copied().collect();
        let (sent, _) = commit(&mut store, list(0..502), Some(&memo), |id| {
            known.contains(&id)
        });
        assert!((2..=4).contains(&sent), "{sent}");
    }

    #[test]
    fn an_unchanged_value_sends_nothing() {
        let mut store = HashMap::new();
        let (_, memo) = commit(&mut store, list(0..100), None, |_| false);
        let known: HashSet<Id> = store.keys().copied().collect();
        let (sent, _) = commit(&mut store, list(0..100), Some(&memo), |id| {
            known.contains(&id)
        });
        assert_eq!(sent, 0);
    }

    #[test]
    fn edits_anywhere_are_found_without_hashing_the_rest() {
        let mut store = HashMap::new();
        let (_, memo) = commit(&mut store, list(0..100), None, |_| false);
        for edited in [
            list((0..100).filter(|n| *n != 50)),
            list(std::iter::once(777).chain(0..100)),
            list((0..100).map(|n| if n == 20 { 888 } else { n })),
            list(50..100),
        ] {
            let known: HashSet<Id> = store.keys().copied().collect();
            let (sent, _) = commit(&mut store, edited, Some(&memo), |id| known.contains(&id));
            assert!(sent <= 6, "{sent}");
        }
    }

    #[test]
    fn a_value_is_the_same_whatever_was_left_out() {
        let known: Vec<_> = (0..100)
            .map(|n| Arc::new(Known::new(&message(n))))
            .collect();
        let (_, memo) = commit(&mut HashMap::new(), list(0..90), None, |_| false);
        for memo in [None, Some(&memo)] {
            for left_out in [0..100, 0..1, 40..99] {
                let written: Vec<_> = (0..100).filter(|n| !left_out.contains(n)).collect();
                let mut bytes = list(written);
                bytes[1..5].copy_from_slice(&100u32.to_be_bytes());
                let at = 5 + left_out.start as usize * message(0).len();
                let gaps: Vec<Gap> = left_out.map(|n| (at, known[n as usize].clone())).collect();
                let source = Source {
                    written: bytes,
                    gaps: gaps.into(),
                };
                assert_eq!(source.to_vec(), list(0..100));
                let (mut one, mut other) = (Draft::default(), Draft::default());
                let (value, outline) = one.value(MSGPACK, source, 100, memo).unwrap();
                let (same, expected) = other.value(MSGPACK, list(0..100), 100, memo).unwrap();
                assert_eq!(value, same);
                let bytes = |id: Id| {
                    let of_id = |known: &&Arc<Known>| known.id() == id;
                    known.iter().find(of_id).map(|known| known.bytes().clone())
                };
                let expected = expected.into_memo(bytes).unwrap();
                assert!(outline.into_memo(bytes).unwrap().is_of(&expected.leaves));
                let sent = |draft: &Draft<Vec<u8>>| {
                    let shipment = draft.ship(&roots(&same), |_| false, &HashSet::new());
                    let seal = |id: &Id| draft.seal(*id, Compression::None).unwrap();
                    (
                        shipment.frontier,
                        shipment.chunks.iter().map(seal).collect::<Vec<_>>(),
                    )
                };
                assert_eq!(sent(&one), sent(&other));
            }
        }
    }

    #[test]
    fn what_the_store_lost_is_sent_again() {
        let mut store = HashMap::new();
        let (_, memo) = commit(&mut store, list(0..300), None, |_| false);
        let all = store.len();
        store.clear();
        let (sent, _) = commit(&mut store, list(0..300), Some(&memo), |_| true);
        assert_eq!(sent, all);
    }

    #[test]
    fn foreign_values_round_trip() {
        for n in [0usize, 5, 101, 3000, 100_000] {
            let bytes: Vec<u8> = (0..n).map(|i| ((i * 31) >> 4) as u8).collect();
            let mut draft = Draft::default();
            let (value, _) = draft.value(b"custom", bytes.clone(), 100, None).unwrap();
            let mut reader = Reader::default();
            assert_eq!(reader.missing(roots(&value), |id| draft.load(id)), []);
            let leaves = reader.value_leaves(&value).unwrap();
            assert_eq!(parts(&value, &leaves).unwrap().concat(), bytes);
        }
    }
}
