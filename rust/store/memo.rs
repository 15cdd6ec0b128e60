//! A channel's last value, as far as the next one is compared with it: most begin with what the last
//! one was, and for that much nothing has to be looked at again.

use std::sync::Arc;

use super::cache::OVERHEAD;
use super::chunk::{Id, Ref, LEAF};
use super::tree::{Growing, Grown, Page, Pages, Span};

/// A leaf: its id and its bytes.
pub type Leaf = (Id, Arc<[u8]>);

/// The span of a leaf of so many bytes.
pub fn span(id: Id, length: usize) -> Span {
    Span {
        reference: Ref { level: LEAF, id },
        length: length as u64,
    }
}

/// The trees over all leaves of a value, and over all but the last, which an append may replace.
#[derive(Debug, Default, Clone)]
pub struct Trees {
    pub whole: Growing,
    /// None where it is not known.
    but_last: Option<Growing>,
}

impl Trees {
    /// Add leaves; as [`Growing::push`].
    pub fn push(
        &mut self,
        leaves: impl ExactSizeIterator<Item = Span>,
        known: Option<&Pages>,
        pages: &mut Vec<Grown>,
    ) {
        let last = leaves.len().wrapping_sub(1);
        for (at, leaf) in leaves.enumerate() {
            if at == last {
                self.but_last = Some(self.whole.clone());
            }
            self.whole.push(leaf, known, pages);
        }
    }
}

/// What a value is remembered by.
#[derive(Debug, Default)]
pub struct Outline {
    /// The last value, and how many of its leaves this one begins with.
    pub base: Option<(Arc<Memo>, usize)>,
    /// The leaves behind these, with their bytes where they were known.
    pub leaves: Vec<(Id, Option<Arc<[u8]>>)>,
    /// The pages over them, at least.
    pub pages: Vec<Arc<Page>>,
    /// Over all leaves.
    pub trees: Trees,
}

impl Outline {
    /// Whether the value has no leaves.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.base.as_ref().is_none_or(|(_, shared)| *shared == 0)
    }

    /// What the next value is compared with; None where the bytes of a leaf are not to be had.
    /// `loaded` gives those of leaves that were not known.
    pub fn into_memo(self, mut loaded: impl FnMut(Id) -> Option<Arc<[u8]>>) -> Option<Memo> {
        let leaves = self.leaves.into_iter();
        let leaves = leaves.map(|(id, known)| Some((id, known.or_else(|| loaded(id))?)));
        let leaves = leaves.collect::<Option<_>>()?;
        let mut memo = match self.base {
            // Mostly nobody else has it.
            Some((base, shared)) => {
                let mut memo = Arc::unwrap_or_clone(base);
                memo.truncate(shared);
                memo
            }
            None => Memo::default(),
        };
        memo.extend(leaves);
        memo.shrink();
        memo.trees = Some(self.trees);
        self.pages
            .into_iter()
            .for_each(|page| memo.pages.insert(page));
        if memo.pages.len() > memo.leaves.len() / 2 + 16 {
            memo.drop_old_pages();
        }
        Some(memo)
    }
}

/// The leaves of a channel's last value.
#[derive(Debug, Default, Clone)]
pub struct Memo {
    pub leaves: Vec<Leaf>,
    /// For each leaf the number of leaf bytes before it.
    starts: Vec<u64>,
    total: u64,
    /// Pages over the leaves, and perhaps some over leaves that the value has no more.
    pub pages: Pages,
    /// None where they were not grown here.
    trees: Option<Trees>,
}

impl Memo {
    /// Of leaves that were read.
    pub fn new(leaves: Vec<Leaf>) -> Self {
        let mut memo = Self::default();
        memo.extend(leaves);
        memo
    }

    fn truncate(&mut self, count: usize) {
        if let Some(start) = self.starts.get(count) {
            self.total = *start;
        }
        self.leaves.truncate(count);
        self.starts.truncate(count);
    }

    fn extend(&mut self, leaves: Vec<Leaf>) {
        for (id, bytes) in leaves {
            self.starts.push(self.total);
            self.total += bytes.len() as u64;
            self.leaves.push((id, bytes));
        }
    }

    /// Give back what a much longer value needed.
    fn shrink(&mut self) {
        if self.leaves.capacity() > 2 * self.leaves.len() + 16 {
            self.leaves.shrink_to_fit();
            self.starts.shrink_to_fit();
        }
    }

    fn drop_old_pages(&mut self) {
        self.pages = self.pages_over(self.leaves.len()).collect();
    }

    /// The pages over the first leaves.
    pub fn pages_over(&self, count: usize) -> impl Iterator<Item = Arc<Page>> {
        let mut pages = Vec::new();
        self.grow(count, &mut pages);
        pages.into_iter().map(|grown| grown.page)
    }

    /// The trees over the first leaves. Where they have to be grown, their pages go to `pages`; else
    /// these are among the memo's.
    pub fn trees(&self, count: usize, pages: &mut Vec<Grown>) -> Trees {
        let known = self.trees.as_ref();
        if count == self.leaves.len() {
            if let Some(trees) = known {
                return trees.clone();
            }
        } else if count + 1 == self.leaves.len() {
            if let Some(but_last) = known.and_then(|trees| trees.but_last.clone()) {
                return Trees {
                    whole: but_last,
                    but_last: None,
                };
            }
        }
        self.grow(count, pages)
    }

    fn grow(&self, count: usize, pages: &mut Vec<Grown>) -> Trees {
        let mut trees = Trees::default();
        let leaves = self.leaves[..count].iter();
        let spans = leaves.map(|(id, bytes)| span(*id, bytes.len()));
        trees.push(spans, Some(&self.pages), pages);
        trees
    }

    /// Whether these are the leaves.
    pub fn is_of(&self, leaves: &[Leaf]) -> bool {
        self.leaves
            .iter()
            .map(|(id, _)| id)
            .eq(leaves.iter().map(|(id, _)| id))
    }

    /// The leaf that begins as many bytes before the end.
    pub fn from_end(&self, distance: u64) -> Option<usize> {
        let start = self.total.checked_sub(distance)?;
        self.starts.binary_search(&start).ok()
    }

    /// Bytes in memory, roughly.
    pub fn cost(&self) -> usize {
        OVERHEAD + self.leaves.len() * 48 + self.total as usize + self.pages.len() * 400
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::draft::Draft;
    use super::*;

    /// A list of elements of 300 bytes.
    fn list(items: &[u32]) -> Vec<u8> {
        let mut out = vec![0xdd];
        out.extend_from_slice(&(items.len() as u32).to_be_bytes());
        for n in items {
            out.extend([0xda, 0x01, 0x2c]);
            out.extend((0..300u32).map(|i| (i.wrapping_mul(n + 1) >> 3) as u8));
        }
        out
    }

    #[test]
    fn a_value_is_the_same_whatever_came_before() {
        let mut random = 11u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        let mut items: Vec<u32> = (0..60).collect();
        let mut memo: Option<Arc<Memo>> = None;
        for step in 0..600 {
            let new = 1000 + step;
            let end = items.len() as u32;
            match next(9) {
                0..=3 => items.extend([new, new + 1000]),
                4 => items[end as usize - 1] = new,
                5 => items.truncate(end as usize - 1),
                6 => items[next(end) as usize] = new,
                7 => items.insert(next(end) as usize, new),
                _ if end > 300 => items.truncate(20),
                _ => {}
            }
            let (mut after, mut alone) = (Draft::default(), Draft::default());
            let bytes = list(&items);
            let (value, outline) = after
                .value(b"msgpack", bytes.clone(), 0, memo.as_ref())
                .unwrap();
            let (expected, of_expected) = alone.value(b"msgpack", bytes, 0, None).unwrap();
            assert_eq!(value, expected, "step {step}");
            after.doubt();
            // What the last value had besides is not this one's.
            let ids = |draft: &Draft<Vec<u8>>| draft.ids().collect::<HashSet<_>>();
            assert_eq!(ids(&after), ids(&alone), "step {step}");
            let roots: Vec<Ref> = value.spans().iter().map(|span| span.reference).collect();
            let sent = |draft: &Draft<Vec<u8>>| {
                let shipment = draft.ship(&roots, |_| false, &HashSet::new());
                assert_eq!(shipment.frontier, []);
                shipment.chunks.into_iter().collect::<HashSet<_>>()
            };
            assert_eq!(sent(&after), sent(&alone));
            after.believe();
            let of_expected = of_expected
                .into_memo(|id| alone.load(id)?.into_leaf())
                .unwrap();
            let found = outline.into_memo(|id| after.load(id)?.into_leaf()).unwrap();
            assert!(found.is_of(&of_expected.leaves));
            assert_eq!(
                (&found.starts, found.total),
                (&of_expected.starts, of_expected.total)
            );
            assert!(found.pages.len() <= found.leaves.len() / 2 + 16);
            assert!(found.leaves.capacity() <= 2 * found.leaves.len() + 16);
            memo = (next(8) > 0).then(|| Arc::new(found));
            if next(5) == 0 {
                memo = memo.map(|memo| Arc::new(Memo::new(memo.leaves.clone())));
            }
        }
    }
}
