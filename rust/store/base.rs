//! A manifest told by what has changed since an earlier one, its base.
//!
//! A step of a graph of 30 nodes and 50 channels changes a handful of 80 lines. The base is a chunk
//! like a leaf of a manifest, shared by the records that follow; each of them says what it takes
//! from the base, in order, and has the rest itself. It is one chunk away from its lines, however
//! many steps lie between: a base has no base.

use std::sync::Arc;

use super::bytes::{put_varint, Input};
use super::chunk::{Ref, MANIFEST};
use super::manifest::{written, written_size, Entry, Line};
use super::tree::Page;
use super::value::References;
use crate::error::{Error, Result};

/// Below this many bytes a base is not worth the chunk.
const SMALLEST_BASE: usize = 512;
/// A value that may be longer stands in each record: a base keeps what it refers to from being
/// removed, and has a read fetch it, also when it is the value no more.
const LONGEST_SHARED: u64 = 4 << 10;
/// A base is made where a step changes no more than a quarter of it.
const WORTH_A_BASE: usize = 4;
/// A base serves until three tenths of it have changed. In a graph of 30 nodes and 50 channels the
/// bytes of a step, with its share of the base, are within 6 % of the least from a quarter to a half.
const WORN: (usize, usize) = (3, 10);

/// An earlier manifest, without the lines that each record has itself.
#[derive(Debug, PartialEq)]
pub struct Base {
    pub page: Arc<Page>,
    pub entries: Vec<Line>,
    size: usize,
}

/// Lines of a manifest: some of the base's, or one of its own, behind some of the base's that are
/// left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    Take { skip: usize, count: usize },
    Put { skip: usize, entry: Line },
}

const TAKE: u64 = 0;
const PUT: u64 = 1;

impl Base {
    /// A base for manifests that are much like this one, if it is worth it: `last` is the one
    /// before.
    pub fn plan(entries: &[Line], last: &[Line]) -> Option<Self> {
        let short = || entries.iter().filter(|e| is_short(e));
        let (references, payload) = written(short());
        let size = payload.len() + references.len() * Ref::LEN;
        if size < SMALLEST_BASE {
            return None;
        }
        let changed = compared(last, short()).filter(|of| !of.is_same);
        if written_size(changed.map(|of| of.entry)) * WORTH_A_BASE > size {
            return None;
        }
        Some(Self {
            page: Arc::new(Page::new(MANIFEST, references, payload)),
            entries: short().cloned().collect(),
            size,
        })
    }

    pub fn open(page: Arc<Page>) -> Result<Self> {
        let entries = Entry::take_all(&page.payload, &page.references)?;
        let size = page.payload.len() + page.references.len() * Ref::LEN;
        Ok(Self {
            page,
            entries,
            size,
        })
    }

    pub fn reference(&self) -> Ref {
        self.page.reference()
    }

    /// What makes these lines of the base's; `None` where too much has changed, or where that takes
    /// more than `most` bytes.
    pub fn edits(&self, entries: &[Line], most: usize) -> Option<Vec<Edit>> {
        let edits = edits(&self.entries, entries);
        let (of, among) = WORN;
        let is_worn = written_size(put(&edits).filter(|e| is_short(e))) * among > self.size * of;
        (!is_worn && written_size(put(&edits)) <= most).then_some(edits)
    }

    /// The lines that edits make of the base's.
    pub fn edited(&self, edits: &[Edit]) -> Result<Vec<Line>> {
        let mut rest = &self.entries[..];
        let mut entries = Vec::new();
        for edit in edits {
            let (Edit::Take { skip, .. } | Edit::Put { skip, .. }) = edit;
            rest = rest.get(*skip..).ok_or_else(too_short)?;
            match edit {
                Edit::Take { count, .. } => {
                    let (taken, behind) = rest.split_at_checked(*count).ok_or_else(too_short)?;
                    entries.extend_from_slice(taken);
                    rest = behind;
                }
                Edit::Put { entry, .. } => entries.push(entry.clone()),
            }
        }
        Ok(entries)
    }

    /// Bytes in memory, roughly.
    pub fn heap(&self) -> usize {
        self.size + self.entries.iter().map(|entry| entry.heap()).sum::<usize>()
    }
}

fn too_short() -> Error {
    Error::corrupt("a manifest takes more of its base than there is")
}

impl Edit {
    pub fn put(&self, out: &mut Vec<u8>, references: &mut References) {
        match self {
            Self::Take { skip, count } => {
                put_varint(out, (*skip as u64) << 1 | TAKE);
                put_varint(out, *count as u64);
            }
            Self::Put { skip, entry } => {
                put_varint(out, (*skip as u64) << 1 | PUT);
                entry.put(out, references);
            }
        }
    }

    pub fn take(input: &mut Input, references: &[Ref]) -> Result<Self> {
        let first = input.varint()?;
        let skip = usize::try_from(first >> 1).map_err(|_| too_short())?;
        Ok(if first & 1 == TAKE {
            let count = usize::try_from(input.varint()?).map_err(|_| too_short())?;
            if count == 0 {
                return Err(Error::corrupt("a manifest takes nothing of its base"));
            }
            Self::Take { skip, count }
        } else {
            let entry = Arc::new(Entry::take(input, references)?);
            Self::Put { skip, entry }
        })
    }
}

/// Whether a line may stand in a base.
fn is_short(entry: &Entry) -> bool {
    match entry {
        Entry::Channel {
            value: Some(value), ..
        } => value.length() <= LONGEST_SHARED,
        _ => true,
    }
}

/// The lines that are not the base's.
fn put(edits: &[Edit]) -> impl Iterator<Item = &Line> {
    edits.iter().filter_map(|edit| match edit {
        Edit::Put { entry, .. } => Some(entry),
        Edit::Take { .. } => None,
    })
}

/// A line beside others.
struct Compared<'a> {
    entry: &'a Line,
    /// How many of the others' are left out before the one of the same channel or node, if there is
    /// one.
    skip: Option<usize>,
    is_same: bool,
}

/// Each of `entries` beside those of `from` that are behind the one before. Lines mostly keep their
/// order, and where they do not less is found than there is.
fn compared<'a>(
    from: &'a [Line],
    entries: impl IntoIterator<Item = &'a Line>,
) -> impl Iterator<Item = Compared<'a>> {
    let mut rest = from;
    entries.into_iter().map(move |entry| {
        let skip = rest.iter().position(|old| old.is_of_same(entry));
        let is_same = skip.is_some_and(|at| rest[at] == *entry);
        rest = &rest[skip.map_or(0, |at| at + 1)..];
        Compared {
            entry,
            skip,
            is_same,
        }
    })
}

/// What makes `entries` of others.
fn edits(from: &[Line], entries: &[Line]) -> Vec<Edit> {
    let mut edits = Vec::new();
    for of in compared(from, entries) {
        match (of.skip.filter(|_| of.is_same), edits.last_mut()) {
            (Some(0), Some(Edit::Take { count, .. })) => *count += 1,
            (Some(skip), _) => edits.push(Edit::Take { skip, count: 1 }),
            (None, _) => edits.push(Edit::Put {
                skip: of.skip.map_or(0, |at| at + 1),
                entry: of.entry.clone(),
            }),
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::super::chunk::{Id, LEAF};
    use super::super::tree::Span;
    use super::super::value::{Body, Root, Value};
    use super::super::version::Version;
    use super::*;

    const MOST: usize = 4 << 10;

    /// A channel that holds one leaf of so many bytes.
    fn channel(name: usize, version: i64, length: u64) -> Line {
        let spans = vec![Span {
            reference: Ref {
                level: LEAF,
                id: Id::of(LEAF, &[], format!("{name} {version}").as_bytes()),
            },
            length,
        }];
        Arc::new(Entry::Channel {
            name: format!("channel {name}").into_bytes(),
            version: Some(Version::Int(version)),
            value: Some(Value {
                tag: b"msgpack".into(),
                body: Body::Tree(Root {
                    literals: Vec::new(),
                    spans,
                }),
            }),
        })
    }

    fn seen(name: usize, version: i64) -> Line {
        Arc::new(Entry::Seen {
            node: format!("channel {name}").into_bytes(),
            versions: vec![(b"trigger".to_vec(), Version::Int(version))],
        })
    }

    fn wide() -> Vec<Line> {
        (0..20)
            .map(|name| channel(name, 1, 500))
            .chain((0..20).map(|name| seen(name, 1)))
            .collect()
    }

    fn read_back(base: &Base, edits: &[Edit]) -> Vec<Edit> {
        let mut references = References::default();
        references.put(&mut Vec::new(), base.reference());
        let mut out = Vec::new();
        edits.iter().for_each(|e| e.put(&mut out, &mut references));
        let references = references.into_list();
        let mut input = Input::new(&out);
        let mut read = Vec::new();
        while !input.is_empty() {
            read.push(Edit::take(&mut input, &references).unwrap());
        }
        read
    }

    #[test]
    fn edits_make_any_lines_of_any_others() {
        let mut random = 7u64;
        let mut below = |n: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 33) as usize % n
        };
        for _ in 0..2000 {
            let mut entries = wide();
            for _ in 0..below(12) {
                let at = below(entries.len());
                match below(5) {
                    0 => drop(entries.remove(at)),
                    1 => entries.insert(at, channel(100 + below(9), 1, 10)),
                    2 => entries.swap(at, 0),
                    3 => entries.insert(at, entries[0].clone()),
                    _ => entries[at] = channel(at, 2, LONGEST_SHARED + below(2) as u64),
                }
            }
            let mut base = Base::plan(&wide(), &wide()).unwrap();
            // Whatever its lines, those of others are made of them.
            for _ in 0..2 {
                let edits = edits(&base.entries, &entries);
                assert_eq!(base.edited(&edits).unwrap(), entries);
                assert_eq!(read_back(&base, &edits), edits);
                base.entries = Vec::new();
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_put() {
        let base = Base::plan(&wide(), &wide()).unwrap();
        assert_eq!(base.edits(&wide(), MOST).unwrap().len(), 1);
        let mut changed = wide();
        changed[3] = channel(3, 2, 500);
        let edits = base.edits(&changed, MOST).unwrap();
        let [Edit::Take { skip: 0, count: 3 }, Edit::Put { skip: 1, entry }, Edit::Take { skip: 0, count: 36 }] =
            &edits[..]
        else {
            panic!("{edits:?}");
        };
        assert_eq!(*entry, changed[3]);
    }

    #[test]
    fn a_base_is_made_where_little_changes_and_left_where_much_has() {
        let mut changed = wide();
        for (at, entry) in changed.iter_mut().enumerate().take(4) {
            *entry = channel(at, 2, 500);
        }
        let base = Base::plan(&changed, &wide()).unwrap();
        assert!(base.edits(&wide(), MOST).is_some());
        for (at, entry) in changed.iter_mut().enumerate().take(15) {
            *entry = channel(at, 3, 500);
        }
        assert_eq!(Base::plan(&changed, &wide()), None);
        assert_eq!(base.edits(&changed, MOST), None);
        assert_eq!(Base::plan(&wide()[..3], &wide()[..3]), None);
    }

    #[test]
    fn a_long_value_stands_in_each_record() {
        let mut entries = wide();
        entries[5] = channel(5, 1, LONGEST_SHARED + 1);
        let base = Base::plan(&entries, &entries).unwrap();
        assert!(!base.entries.contains(&entries[5]));
        for version in 2..100 {
            entries[5] = channel(5, version, LONGEST_SHARED + 1);
            let edits = base.edits(&entries, MOST).unwrap();
            assert_eq!(base.edited(&edits).unwrap(), entries);
        }
    }

    #[test]
    fn more_than_there_is_cannot_be_taken() {
        let base = Base::plan(&wide(), &wide()).unwrap();
        for (skip, count) in [(0, 41), (41, 0), (1, 40), (usize::MAX, 1), (1, usize::MAX)] {
            assert!(base.edited(&[Edit::Take { skip, count }]).is_err());
        }
        let entry = seen(0, 1);
        assert!(base.edited(&[Edit::Put { skip: 41, entry }]).is_err());
        let twice = Edit::Take { skip: 0, count: 21 };
        assert!(base.edited(&[twice.clone(), twice]).is_err());
    }

    #[test]
    fn a_base_is_opened_as_it_was_made() {
        let base = Base::plan(&wide(), &wide()).unwrap();
        assert_eq!(Base::open(base.page.clone()).unwrap(), base);
    }

    #[test]
    fn many_long_values_do_not_stand_in_each_record() {
        let mut entries = wide();
        let base = Base::plan(&entries, &entries).unwrap();
        let long = |n: usize| channel(100 + n, 1, LONGEST_SHARED + 1);
        entries.extend((0..50).map(long));
        assert!(base.edits(&entries, MOST).is_some());
        entries.extend((50..200).map(long));
        assert_eq!(base.edits(&entries, MOST), None);
    }
}
