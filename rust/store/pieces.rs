//! Where a value's bytes are cut into leaves.
//!
//! An element of [`SMALLEST`] bytes or more is a leaf of its own, smaller neighbours
//! share one, cut at places that depend on content alone. Headers of opened containers,
//! and short runs beside them, are literals: they stay with the root, so that appending
//! leaves every earlier leaf as it was.

use std::ops::Range;

use fastcdc::v2020::FastCDC;

use crate::codec::scan::{scan, Part};

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
    let mut cutter = Cutter {
        bytes,
        pieces: Vec::new(),
        start: 0,
        last: 0,
    };
    for part in parts {
        match part {
            Part::Element(end) => cutter.element(end),
            Part::Header(end) => cutter.header(end),
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
        let mut out = vec![0xda];
        out.extend_from_slice(&(n as u16).to_be_bytes());
        out.extend((0..n).map(|i| (i as u8).wrapping_mul(seed)));
        out
    }

    fn leaves<'a>(bytes: &'a [u8], pieces: &[Piece]) -> Vec<&'a [u8]> {
        pieces
            .iter()
            .filter_map(|p| match p {
                Piece::Leaf(range) => Some(&bytes[range.clone()]),
                Piece::Literal(_) => None,
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
