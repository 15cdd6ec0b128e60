//! Where the elements of a msgpack value begin: list items, dict entries, and those
//! of the containers inside that are worth opening.
//!
//! A container's own header changes whenever the container grows. The headers of
//! opened containers are therefore reported apart, so that what follows them can be
//! stored as it was.

use super::ext::is_nested;
use super::marker::{read, skip, Kind};

/// A dict's value is opened from this size on.
const OPEN_ENTRY: usize = 1 << 10;
/// A list's item is opened from this size on: a message is one element.
pub const OPEN_ITEM: usize = 8 << 10;
/// A key that is longer stays with its entry.
const LONGEST_KEY: usize = 64;
/// Each opened container costs some bytes in every root that holds the value.
const MOST_OPENED: usize = 32;
const DEEPEST: usize = 16;

/// A part of the value, in order; parts cover the value without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Header of an opened container, with its key if it is a dict's value, up to here.
    Header(usize),
    /// An element up to here.
    Element(usize),
    /// The next element that was left out.
    LeftOut,
}

struct Scan<'a> {
    bytes: &'a [u8],
    parts: Vec<Part>,
    opened: usize,
}

#[derive(Clone, Copy)]
enum Within {
    List,
    /// The list `[module, name, argument]` of an extension object.
    Arguments,
    Dict,
}

/// The parts of the one msgpack object that `bytes` are; `None` if they are not.
pub fn scan(bytes: &[u8]) -> Option<Vec<Part>> {
    let mut scan = Scan {
        bytes,
        parts: Vec::new(),
        opened: 0,
    };
    let marker = read(bytes, 0)?;
    if matches!(marker.kind, Kind::Flat) || !scan.can_open(0, bytes.len()) {
        if skip(bytes, 0)? != bytes.len() {
            return None;
        }
        return Some(vec![Part::Element(bytes.len())]);
    }
    let end = scan.open(0, bytes.len(), 0)?;
    (end == bytes.len()).then_some(scan.parts)
}

/// The parts of a msgpack list of which some elements were left out: before `gaps`, places in
/// `bytes` in ascending order. `None` if it is no such list.
///
/// They are taken for elements that are not opened.
pub fn scan_around(bytes: &[u8], gaps: impl IntoIterator<Item = usize>) -> Option<Vec<Part>> {
    let marker = read(bytes, 0)?;
    let Kind::Array(count) = marker.kind else {
        return None;
    };
    let mut gaps = gaps.into_iter().peekable();
    let mut at = marker.header;
    let mut scan = Scan {
        bytes,
        parts: vec![Part::Header(at)],
        opened: 1,
    };
    for _ in 0..count {
        if gaps.next_if_eq(&at).is_some() {
            scan.parts.push(Part::LeftOut);
        } else {
            at = scan.items(at, 1, Within::List, 0)?;
        }
    }
    (at == bytes.len() && gaps.next().is_none()).then_some(scan.parts)
}

impl Scan<'_> {
    /// Whether the object at `at`, which ends at `end`, has elements to report.
    fn can_open(&self, at: usize, end: usize) -> bool {
        match read(self.bytes, at).map(|m| (m.kind, at + m.header)) {
            Some((Kind::Array(_) | Kind::Map(_), _)) => true,
            Some((Kind::Ext(code), payload)) if is_nested(code) => {
                matches!(
                    read(self.bytes, payload).map(|m| m.kind),
                    Some(Kind::Array(_) | Kind::Map(_))
                ) && skip(&self.bytes[..end], payload) == Some(end)
            }
            _ => false,
        }
    }

    fn open(&mut self, at: usize, limit: usize, depth: usize) -> Option<usize> {
        let marker = read(self.bytes, at)?;
        self.opened += 1;
        match marker.kind {
            Kind::Flat => None,
            Kind::Array(n) => {
                self.parts.push(Part::Header(at + marker.header));
                self.items(at + marker.header, n, Within::List, depth)
            }
            Kind::Map(n) => {
                self.parts.push(Part::Header(at + marker.header));
                self.entries(at + marker.header, n, depth)
            }
            Kind::Ext(_) => {
                let payload = at + marker.header;
                let inner = read(self.bytes, payload)?;
                self.parts.push(Part::Header(payload + inner.header));
                let end = match inner.kind {
                    Kind::Array(n) => {
                        self.items(payload + inner.header, n, Within::Arguments, depth)?
                    }
                    Kind::Map(n) => self.entries(payload + inner.header, n, depth)?,
                    Kind::Flat | Kind::Ext(_) => return None,
                };
                (end == payload + marker.body && end <= limit).then_some(end)
            }
        }
    }

    fn items(&mut self, mut at: usize, n: u32, within: Within, depth: usize) -> Option<usize> {
        for _ in 0..n {
            let end = skip(self.bytes, at)?;
            if self.worth_opening(at, end, within, depth) {
                self.open(at, end, depth + 1)?;
            } else {
                self.parts.push(Part::Element(end));
            }
            at = end;
        }
        Some(at)
    }

    fn entries(&mut self, mut at: usize, n: u32, depth: usize) -> Option<usize> {
        for _ in 0..n {
            let value = skip(self.bytes, at)?;
            let end = skip(self.bytes, value)?;
            if value - at <= LONGEST_KEY && self.worth_opening(value, end, Within::Dict, depth) {
                self.open(value, end, depth + 1)?;
            } else {
                self.parts.push(Part::Element(end));
            }
            at = end;
        }
        Some(at)
    }

    fn worth_opening(&self, at: usize, end: usize, within: Within, depth: usize) -> bool {
        let smallest = match within {
            Within::List => OPEN_ITEM,
            Within::Arguments | Within::Dict => OPEN_ENTRY,
        };
        if end - at < smallest || self.opened >= MOST_OPENED || depth >= DEEPEST {
            return false;
        }
        let is_message = matches!(within, Within::List)
            && matches!(read(self.bytes, at).map(|m| m.kind), Some(Kind::Ext(_)));
        !is_message && self.can_open(at, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: usize) -> Vec<u8> {
        let mut out = vec![0xda];
        out.extend_from_slice(&(n as u16).to_be_bytes());
        out.extend(std::iter::repeat_n(b'x', n));
        out
    }

    #[test]
    fn list_items_are_elements() {
        let bytes = [0x93, 0x01, 0xa1, b'a', 0x80];
        let parts = scan(&bytes).unwrap();
        assert_eq!(
            parts,
            [
                Part::Header(1),
                Part::Element(2),
                Part::Element(4),
                Part::Element(5)
            ]
        );
    }

    #[test]
    fn a_large_dict_value_is_opened_with_its_key_in_the_header() {
        // {"k": [text, text], "n": 1}
        let mut bytes = vec![0x82, 0xa1, b'k', 0x92];
        bytes.extend(text(700));
        bytes.extend(text(700));
        let behind = bytes.len();
        bytes.extend([0xa1, b'n', 0x01]);
        let parts = scan(&bytes).unwrap();
        assert_eq!(
            parts,
            [
                Part::Header(1),
                Part::Header(4),
                Part::Element(4 + 703),
                Part::Element(behind),
                Part::Element(bytes.len())
            ]
        );
    }

    #[test]
    fn an_extension_is_opened_at_the_top_and_not_in_a_list() {
        // ext 5 [ "m", text ]
        let mut payload = vec![0x92, 0xa1, b'm'];
        payload.extend(text(2000));
        let mut ext = vec![0xc8];
        ext.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        ext.push(5);
        ext.extend(&payload);
        assert_eq!(scan(&ext).unwrap().len(), 3);
        let mut list = vec![0x91];
        list.extend(&ext);
        assert_eq!(
            scan(&list).unwrap(),
            [Part::Header(1), Part::Element(list.len())]
        );
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        assert_eq!(scan(&[]), None);
        assert_eq!(scan(&[0x92, 0x01]), None);
        assert_eq!(scan(&[0x01, 0x02]), None);
        assert_eq!(scan(&[0x90, 0x02]), None);
    }

    #[test]
    fn parts_cover_nested_values_in_order() {
        let mut bytes = vec![0x91];
        for _ in 0..40 {
            bytes.extend([0x81, 0xa1, b'k', 0x91]);
        }
        bytes.extend(text(9000));
        let parts = scan(&bytes).unwrap();
        let ends: Vec<usize> = parts
            .iter()
            .map(|p| match p {
                Part::Header(end) | Part::Element(end) => *end,
                Part::LeftOut => unreachable!("nothing was left out"),
            })
            .collect();
        assert!(ends.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(ends.last(), Some(&bytes.len()));
    }
}
