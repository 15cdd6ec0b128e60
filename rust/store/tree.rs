//! A sequence of leaves as a tree of pages.
//!
//! Pages end where a child's id says so, so equal runs of leaves give equal pages
//! wherever they stand. What has not filled a page yet stays in the root: appending
//! writes a page only when one is complete, and no page is ever replaced by a longer
//! version of itself.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::{put_varint, Input};
use super::chunk::{Id, Ref, MANIFEST};
use crate::error::{Error, Result};

/// One in so many ids ends a page that has its least size: pages hold 5 on average and
/// vary little, so that few children wait in the root. Pages of 9 made each record of a
/// long chat 60 bytes longer, pages of 16 300; with shorter ones than these the pages
/// take what the records save.
const PAGE_MASK: u8 = 0x01;
const SMALLEST_PAGE: usize = 4;
const LARGEST_PAGE: usize = 32;
/// Pages above pages, at most: 4³¹ leaves.
const HIGHEST: u8 = 0x1f;

/// A subtree and how many bytes of the value it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub reference: Ref,
    pub length: u64,
}

/// A page, not yet sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub id: Id,
    pub level: u8,
    pub references: Vec<Ref>,
    pub payload: Vec<u8>,
}

impl Page {
    pub fn new(level: u8, references: Vec<Ref>, payload: Vec<u8>) -> Self {
        Self {
            id: Id::of(level, &references, &payload),
            level,
            references,
            payload,
        }
    }

    pub fn reference(&self) -> Ref {
        Ref {
            level: self.level,
            id: self.id,
        }
    }
}

pub(super) fn page(level: u8, spans: &[Span]) -> Page {
    let references: Vec<Ref> = spans.iter().map(|span| span.reference).collect();
    let mut payload = Vec::with_capacity(spans.len() * 2);
    for span in spans {
        put_varint(&mut payload, span.length);
    }
    Page::new(level, references, payload)
}

/// Pages that were made before, found by their children: what equals one is not hashed.
#[derive(Debug, Default, Clone)]
pub struct Pages(HashMap<u64, Arc<Page>>);

/// Few pages have the same one: ids are random.
fn key(children: impl Iterator<Item = Ref>) -> u64 {
    children.fold(0, |key, child| {
        let (start, _) = child.id.0.split_first_chunk().expect("ids have 16 bytes");
        key.rotate_left(7) ^ u64::from_le_bytes(*start)
    })
}

impl Pages {
    pub fn insert(&mut self, page: Arc<Page>) {
        self.0.insert(key(page.references.iter().copied()), page);
    }

    /// The page over exactly these children. Equal ids have equal lengths.
    fn over(&self, spans: &[Span]) -> Option<&Arc<Page>> {
        let children = spans.iter().map(|span| span.reference);
        let page = self.0.get(&key(children.clone()))?;
        page.references.iter().copied().eq(children).then_some(page)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Arc<Page>> for Pages {
    fn from_iter<T: IntoIterator<Item = Arc<Page>>>(pages: T) -> Self {
        let mut known = Self::default();
        pages.into_iter().for_each(|page| known.insert(page));
        known
    }
}

/// A page of a tree, and whether it was known.
#[derive(Debug)]
pub struct Grown {
    pub page: Arc<Page>,
    pub is_known: bool,
}

/// A tree to which leaves are added at its end.
#[derive(Debug, Clone, Default)]
pub struct Growing {
    /// Of each level, the lowest first, the children that have not filled a page.
    tails: Vec<Vec<Span>>,
}

impl Growing {
    /// Add a leaf. The pages that it completes go to `pages`, children before parents.
    pub fn push(&mut self, leaf: Span, known: Option<&Pages>, pages: &mut Vec<Grown>) {
        let mut span = leaf;
        for level in 0.. {
            if level == self.tails.len() {
                self.tails.push(Vec::new());
            }
            let tail = &mut self.tails[level];
            tail.push(span);
            let closes = span.reference.id.0[0] & PAGE_MASK == 0;
            let is_whole = (tail.len() >= SMALLEST_PAGE && closes) || tail.len() >= LARGEST_PAGE;
            if !is_whole || level == usize::from(HIGHEST) {
                return;
            }
            let grown = match known.and_then(|pages| pages.over(tail)) {
                Some(page) => Grown {
                    page: page.clone(),
                    is_known: true,
                },
                None => Grown {
                    page: Arc::new(page(span.reference.level + 1, tail)),
                    is_known: false,
                },
            };
            span = Span {
                reference: grown.page.reference(),
                length: tail.iter().map(|span| span.length).sum(),
            };
            tail.clear();
            pages.push(grown);
        }
    }

    /// What remains for the root: the highest pages first, the open tail of the leaves last.
    pub fn root(&self) -> Vec<Span> {
        self.tails.iter().rev().flatten().copied().collect()
    }
}

/// The pages over `spans`, children before parents, and what remains for the root.
pub fn grow(spans: Vec<Span>, known: Option<&Pages>) -> (Vec<Grown>, Vec<Span>) {
    let mut pages = Vec::new();
    let mut tree = Growing::default();
    for span in spans {
        tree.push(span, known, &mut pages);
    }
    (pages, tree.root())
}

/// How much a span holds. None holds nothing: pages of nothing could be nested without end.
pub fn length(input: &mut Input) -> Result<u64> {
    match input.varint()? {
        0 => Err(Error::corrupt("a span holds nothing")),
        length => Ok(length),
    }
}

/// The spans that a page lists. Levels fall strictly, so no page can contain itself.
pub fn children(level: u8, references: &[Ref], payload: &[u8]) -> Result<Vec<Span>> {
    let base = level & MANIFEST;
    if level <= base || level - base > HIGHEST {
        return Err(Error::corrupt("a page stands on no page's level"));
    }
    let mut input = Input::new(payload);
    let spans = references
        .iter()
        .map(|reference| {
            if reference.level < base || reference.level >= level {
                return Err(Error::corrupt("a page refers to its own level or above"));
            }
            Ok(Span {
                reference: *reference,
                length: length(&mut input)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if !input.is_empty() {
        return Err(Error::corrupt("a page holds more lengths than references"));
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::super::chunk::LEAF;
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn leaves(n: u32) -> Vec<Span> {
        (0..n)
            .map(|i| Span {
                reference: Ref {
                    level: LEAF,
                    id: Id::of(LEAF, &[], &i.to_be_bytes()),
                },
                length: u64::from(i) + 1,
            })
            .collect()
    }

    fn flatten(pages: &HashMap<Id, Page>, spans: &[Span], out: &mut Vec<Span>) {
        for span in spans {
            if span.reference.level == LEAF {
                out.push(*span);
            } else {
                let page = &pages[&span.reference.id];
                assert_eq!(page.level, span.reference.level);
                let below = children(page.level, &page.references, &page.payload).unwrap();
                assert_eq!(below.iter().map(|s| s.length).sum::<u64>(), span.length);
                flatten(pages, &below, out);
            }
        }
    }

    #[test]
    fn the_leaves_come_back_in_order() {
        for n in [0, 1, 3, 17, 100, 5000] {
            let (pages, root) = grow(leaves(n), None);
            let pages = pages
                .into_iter()
                .map(|g| (g.page.id, (*g.page).clone()))
                .collect();
            let mut out = Vec::new();
            flatten(&pages, &root, &mut out);
            assert_eq!(out, leaves(n));
        }
    }

    #[test]
    fn equal_leaves_make_bounded_pages() {
        let same = vec![leaves(2)[1]; 10_000];
        let (pages, root) = grow(same, None);
        assert!(pages
            .iter()
            .all(|grown| grown.page.references.len() <= LARGEST_PAGE));
        assert!(root.len() < 3 * LARGEST_PAGE);
    }

    #[test]
    fn appending_replaces_no_page() {
        let mut before: HashSet<Id> = HashSet::new();
        let mut written = 0;
        for n in 0..2000 {
            let (pages, root) = grow(leaves(n), None);
            let now: HashSet<Id> = pages.iter().map(|grown| grown.page.id).collect();
            assert!(before.is_subset(&now), "a page was replaced at {n}");
            written += now.difference(&before).count();
            assert!(root.len() < 200);
            before = now;
        }
        assert!(written < 2000 / 3, "{written}");
    }

    #[test]
    fn an_edit_changes_only_the_pages_around_it() {
        let mut edited = leaves(2000);
        edited.remove(1000);
        let before: HashSet<Id> = grow(leaves(2000), None)
            .0
            .iter()
            .map(|g| g.page.id)
            .collect();
        let after: HashSet<Id> = grow(edited, None).0.iter().map(|g| g.page.id).collect();
        assert!(after.difference(&before).count() <= 9);
    }

    #[test]
    fn known_pages_are_taken_only_where_they_are_the_same() {
        let (first, _) = grow(leaves(2000), None);
        let known: Pages = first.into_iter().map(|grown| grown.page).collect();
        let mut edited = leaves(2100);
        edited.swap(700, 900);
        for spans in [leaves(2000), leaves(2100), edited] {
            let (with, root) = grow(spans.clone(), Some(&known));
            let (without, expected) = grow(spans, None);
            let ids = |pages: &[Grown]| pages.iter().map(|g| g.page.id).collect::<Vec<_>>();
            assert_eq!(ids(&with), ids(&without));
            assert_eq!(root, expected);
            assert!(with.iter().filter(|grown| grown.is_known).count() > 200);
        }
    }

    #[test]
    fn hostile_pages_are_refused() {
        let own = [Ref {
            level: 1,
            id: Id([0; 16]),
        }];
        assert!(children(1, &own, &[0]).is_err());
        assert!(children(0, &own, &[0]).is_err());
        assert!(children(0x3f, &own, &[0]).is_err());
        let leaf = [Ref {
            level: 0,
            id: Id([0; 16]),
        }];
        assert!(children(1, &leaf, &[]).is_err());
        assert!(children(1, &leaf, &[0, 0]).is_err());
        assert!(children(1, &leaf, &[0]).is_err(), "a span of nothing");
        assert!(children(1, &leaf, &[7]).is_ok());
    }
}
