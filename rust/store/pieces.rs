//! Where a value's bytes are cut into leaves.
//!
//! An element of [`SMALLEST`] bytes or more is a leaf of its own, smaller neighbours
//! share one, cut at places that depend on content alone. Headers of opened containers,
//! and short runs beside them, are literals: they stay with the root, so that appending
//! leaves every earlier leaf as it was.

use std::ops::Range;

use fastcdc::v2020::FastCDC;

use crate::codec::scan::{scan, scan_around, Part, OPEN_ITEM};
use crate::error::{Error, Result};

/// The least that closes a leaf. Larger leaves were measured and lose: every append
/// rewrites the open one.
const SMALLEST: usize = 256;
/// Small elements share a leaf up to this size.
const LARGEST_SHARED: usize = 1 << 10;
/// Of the small elements, one in so many closes a leaf.
const CLOSING_MASK: u64 = 3;
/// An element beyond this size is cut inside.
const LARGEST: usize = 64 << 10;
/// A run this short beside a header is kept with the header.
const SHORTEST: usize = 64;

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Kept in the root.
    Literal(Range<usize>),
    /// A chunk.
    Leaf(Range<usize>),
    /// A chunk of a run, mostly empty, and of the element of this number that was left out behind it.
    LeftOut(Range<usize>, usize),
}

impl Piece {
    /// Bytes that are kept in the root.
    pub fn literal(&self) -> usize {
        match self {
            Self::Literal(range) => range.len(),
            Self::Leaf(_) | Self::LeftOut(..) => 0,
        }
    }
}

/// Whether an element of so many bytes is a leaf, or the end of one, whatever it is.
pub fn is_leaf(length: usize) -> bool {
    (SMALLEST..OPEN_ITEM).contains(&length)
}

/// Minimum, average and maximum of content-defined chunks, in bytes.
#[derive(Clone, Copy)]
struct Sizes(usize, usize, usize);

const INSIDE_ELEMENTS: Sizes = Sizes(4 << 10, 16 << 10, LARGEST);
const OPAQUE: Sizes = Sizes(512, 2 << 10, 16 << 10);

/// Cut what the serializer tags as msgpack; bytes that are none are cut as opaque ones.
pub fn cut_msgpack(bytes: &[u8]) -> Vec<Piece> {
    let Some(parts) = scan(bytes) else {
        return cut_opaque(bytes);
    };
    cut(bytes, parts)
}

/// Cut a list as [`cut_msgpack`] would cut the whole of it, of which elements were left out before
/// `gaps`, each of them a leaf by [`is_leaf`].
pub fn cut_around(bytes: &[u8], gaps: impl IntoIterator<Item = usize>) -> Result<Vec<Piece>> {
    match scan_around(bytes, gaps) {
        Some(parts) => Ok(cut(bytes, parts)),
        None => Err(Error::corrupt("elements were left out of what is no list")),
    }
}

fn cut(bytes: &[u8], parts: Vec<Part>) -> Vec<Piece> {
    let mut cutter = Cutter {
        bytes,
        pieces: Vec::with_capacity(parts.len()),
        start: 0,
        last: 0,
        left_out: 0,
    };
    for part in parts {
        match part {
            Part::Element(end) => cutter.element(end),
            Part::Header(end) => cutter.header(end),
            Part::LeftOut => cutter.left_out(),
        }
    }
    cutter.finish()
}

/// Cut bytes of unknown structure by content alone.
pub fn cut_opaque(bytes: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    cut_by_content(bytes, 0..bytes.len(), OPAQUE, &mut pieces);
    pieces
}

fn cut_by_content(bytes: &[u8], range: Range<usize>, sizes: Sizes, pieces: &mut Vec<Piece>) {
    let Sizes(smallest, average, largest) = sizes;
    for chunk in FastCDC::new(&bytes[range.clone()], smallest, average, largest) {
        let start = range.start + chunk.offset;
        pieces.push(Piece::Leaf(start..start + chunk.length));
    }
}

struct Cutter<'a> {
    bytes: &'a [u8],
    pieces: Vec<Piece>,
    /// Start of the run that has not become a piece.
    start: usize,
    /// End of the last element or header.
    last: usize,
    /// Elements that were left out so far.
    left_out: usize,
}

impl Cutter<'_> {
    fn element(&mut self, end: usize) {
        let length = end - self.last;
        if length > LARGEST {
            self.close(self.last);
            cut_by_content(
                self.bytes,
                self.last..end,
                INSIDE_ELEMENTS,
                &mut self.pieces,
            );
            self.start = end;
        } else {
            let shared = end - self.start;
            if shared >= SMALLEST
                && (length >= SMALLEST
                    || shared >= LARGEST_SHARED
                    || content_hash(&self.bytes[self.last..end]) & CLOSING_MASK == 0)
            {
                self.close(end);
            }
        }
        self.last = end;
    }

    fn left_out(&mut self) {
        let run = self.start..self.last;
        self.start = self.last;
        self.pieces.push(Piece::LeftOut(run, self.left_out));
        self.left_out += 1;
    }

    fn header(&mut self, end: usize) {
        if self.last - self.start > SHORTEST {
            self.close(self.last);
        }
        self.literal(end);
        self.last = end;
    }

    fn literal(&mut self, end: usize) {
        match self.pieces.last_mut() {
            Some(Piece::Literal(range)) => range.end = end,
            _ => self.pieces.push(Piece::Literal(self.start..end)),
        }
        self.start = end;
    }

    fn close(&mut self, end: usize) {
        if end > self.start {
            self.pieces.push(Piece::Leaf(self.start..end));
            self.start = end;
        }
    }

    fn finish(mut self) -> Vec<Piece> {
        let end = self.bytes.len();
        if end > self.start && end - self.start <= SHORTEST {
            self.literal(end);
        } else {
            self.close(end);
        }
        self.pieces
    }
}

/// A cheap hash that decides boundaries; ids are BLAKE3.
fn content_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(piece: &Piece) -> &Range<usize> {
        match piece {
            Piece::Literal(range) | Piece::Leaf(range) => range,
            Piece::LeftOut(..) => unreachable!("nothing was left out"),
        }
    }

    fn check(bytes: &[u8], pieces: &[Piece]) {
        let mut at = 0;
        for piece in pieces {
            assert_eq!(range(piece).start, at);
            assert!(range(piece).end > at);
            at = range(piece).end;
        }
        assert_eq!(at, bytes.len());
    }

    fn list(items: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0xdd];
        out.extend_from_slice(&(items.len() as u32).to_be_bytes());
        items.iter().for_each(|item| out.extend(item));
        out
    }

    fn text(n: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0xdb];
        out.extend_from_slice(&(n as u32).to_be_bytes());
        out.extend((0..n).map(|i| (i as u8).wrapping_mul(seed)));
        out
    }

    fn leaves<'a>(bytes: &'a [u8], pieces: &[Piece]) -> Vec<&'a [u8]> {
        pieces
            .iter()
            .filter_map(|p| match p {
                Piece::Leaf(range) => Some(&bytes[range.clone()]),
                Piece::Literal(_) | Piece::LeftOut(..) => None,
            })
            .collect()
    }

    #[test]
    fn appending_messages_leaves_earlier_leaves() {
        let items: Vec<_> = (0..50).map(|n| text(300 + n * 7, n as u8)).collect();
        let (short, long) = (list(&items[..40]), list(&items));
        let (a, b) = (cut_msgpack(&short), cut_msgpack(&long));
        check(&short, &a);
        check(&long, &b);
        let (a, b) = (leaves(&short, &a), leaves(&long, &b));
        assert_eq!(a.len(), 40);
        assert_eq!(a, b[..40]);
    }

    #[test]
    fn small_elements_share_leaves_that_survive_an_insertion() {
        let items: Vec<_> = (0..2000u32)
            .map(|n| {
                n.to_be_bytes().iter().fold(vec![0xce], |mut v, b| {
                    v.push(*b);
                    v
                })
            })
            .collect();
        let mut other = items.clone();
        other.insert(700, vec![0xc0]);
        let (one, two) = (list(&items), list(&other));
        let (a, b) = (cut_msgpack(&one), cut_msgpack(&two));
        check(&one, &a);
        check(&two, &b);
        let (a, b) = (leaves(&one, &a), leaves(&two, &b));
        let same = a.iter().filter(|leaf| b.contains(leaf)).count();
        assert!(a.len() > 10 && same + 4 >= a.len(), "{same} of {}", a.len());
        assert!(a.iter().all(|leaf| leaf.len() <= LARGEST_SHARED + 16));
    }

    /// The bytes of each piece, and whether it is a leaf.
    fn parts(bytes: &[u8], pieces: &[Piece], left_out: &[&Vec<u8>]) -> Vec<(bool, Vec<u8>)> {
        let part = |piece: &Piece| match piece {
            Piece::Literal(range) => (false, bytes[range.clone()].to_vec()),
            Piece::Leaf(range) => (true, bytes[range.clone()].to_vec()),
            Piece::LeftOut(run, at) => (true, [&bytes[run.clone()], left_out[*at]].concat()),
        };
        pieces.iter().map(part).collect()
    }

    #[test]
    fn what_is_left_out_changes_no_cut() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        for round in 0..300 {
            let sizes = [20, 100, 250, 260, 700, 5_000, 9_000, 70_000];
            let items: Vec<_> = (0..next(40))
                .map(|n| text(sizes[next(8) as usize] + next(9) as usize, n as u8))
                .collect();
            let mut around = list(&[]);
            around[1..].copy_from_slice(&(items.len() as u32).to_be_bytes());
            let (mut gaps, mut left_out) = (Vec::new(), Vec::new());
            for item in &items {
                if is_leaf(item.len()) && next(3) > 0 {
                    gaps.push(around.len());
                    left_out.push(item);
                } else {
                    around.extend(item);
                }
            }
            let whole = list(&items);
            let pieces = cut_around(&around, gaps).unwrap();
            assert_eq!(
                parts(&around, &pieces, &left_out),
                parts(&whole, &cut_msgpack(&whole), &[]),
                "round {round}"
            );
        }
    }

    #[test]
    fn nothing_is_left_out_of_anything_but_a_list() {
        let item = text(300, 3);
        for (bytes, gaps) in [
            (vec![0x91], vec![]),
            (vec![0x91], vec![0]),
            (vec![0x91], vec![2]),
            (vec![0x90], vec![1]),
            (vec![0x92, 0x01], vec![1, 2, 2]),
            (vec![0x81, 0x01], vec![2]),
            (item.clone(), vec![1]),
            (vec![], vec![0]),
            (list(&[item]), vec![6]),
        ] {
            assert!(cut_around(&bytes, gaps.clone()).is_err(), "{gaps:?}");
        }
    }

    #[test]
    fn a_large_element_is_cut_inside() {
        let mut big = vec![0xc6];
        big.extend_from_slice(&300_000u32.to_be_bytes());
        big.extend((0..300_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8));
        let bytes = list(&[text(300, 3), big, text(300, 5)]);
        let pieces = cut_msgpack(&bytes);
        check(&bytes, &pieces);
        assert!(leaves(&bytes, &pieces)
            .iter()
            .all(|leaf| leaf.len() <= LARGEST));
    }

    #[test]
    fn foreign_bytes_are_cut_too() {
        for n in [0usize, 1, 100, 5_000, 200_000] {
            let bytes: Vec<u8> = (0..n).map(|i| ((i * i) >> 5) as u8).collect();
            check(&bytes, &cut_opaque(&bytes));
            check(&bytes, &cut_msgpack(&bytes));
        }
    }
}
