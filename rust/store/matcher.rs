//! Which leaves of a value are those of the channel's last one.

use std::collections::HashMap;
use std::sync::Arc;

use super::chunk::{Id, LEAF};
use super::memo::Memo;
use super::source::Known;

/// A leaf to be looked for.
#[derive(Clone, Copy)]
pub enum Candidate<'a> {
    Bytes(&'a [u8]),
    Known(&'a Known),
}

impl Candidate<'_> {
    pub fn length(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Known(known) => known.bytes().len(),
        }
    }

    fn id(self) -> Id {
        match self {
            Self::Bytes(bytes) => Id::of(LEAF, &[], bytes),
            Self::Known(known) => known.id(),
        }
    }

    fn is(self, (id, bytes): &(Id, Arc<[u8]>)) -> bool {
        match self {
            Self::Bytes(own) => **bytes == *own,
            Self::Known(known) => known.id() == *id,
        }
    }
}

/// Finds the leaves that a value has in common with the channel's last one.
pub struct Matcher<'a> {
    memo: Option<&'a Memo>,
    /// The leaf that comes next if nothing changed.
    next: usize,
    /// Bytes of all leaves of the value.
    total: u64,
    index: Option<HashMap<Id, usize>>,
}

impl<'a> Matcher<'a> {
    pub fn new(memo: Option<&'a Memo>, total: u64) -> Self {
        Self {
            memo,
            next: 0,
            total,
            index: None,
        }
    }

    /// Whether a leaf is the one that comes next if nothing changed.
    pub fn goes_on(&mut self, leaf: Candidate<'_>) -> bool {
        let is_next = |memo: &Memo| {
            memo.leaves
                .get(self.next)
                .is_some_and(|known| leaf.is(known))
        };
        let goes_on = self.memo.is_some_and(is_next);
        self.next += usize::from(goes_on);
        goes_on
    }

    /// The id of a leaf with so many leaf bytes before it, and its bytes in the memo if they were
    /// found equal there.
    pub fn identify(&mut self, offset: u64, leaf: Candidate<'_>) -> (Id, Option<Arc<[u8]>>) {
        let Some(memo) = self.memo else {
            return (leaf.id(), None);
        };
        let found = |at: usize| memo.leaves.get(at).filter(|known| leaf.is(known));
        let place = if found(self.next).is_some() {
            Some(self.next)
        } else {
            memo.from_end(self.total - offset)
                .filter(|at| found(*at).is_some())
        };
        if let Some(at) = place {
            let (id, bytes) = &memo.leaves[at];
            self.next = at + 1;
            return (*id, Some(bytes.clone()));
        }
        let id = leaf.id();
        // The one that comes next is another.
        if self.next + 1 < memo.leaves.len() {
            let index = self.index.get_or_insert_with(|| {
                let ids = memo.leaves.iter().map(|(id, _)| *id);
                ids.enumerate().map(|(at, id)| (id, at)).collect()
            });
            if let Some(at) = index.get(&id) {
                self.next = at + 1;
                return (id, Some(memo.leaves[*at].1.clone()));
            }
        }
        (id, None)
    }
}
