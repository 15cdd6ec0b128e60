//! The first bytes of a msgpack object: what it is and how far it reaches.
//!
//! Source of the format: <https://github.com/msgpack/msgpack/blob/master/spec.md>

/// What follows a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A scalar, string or binary: nothing nested.
    Flat,
    /// So many items follow.
    Array(u32),
    /// So many pairs of key and value follow.
    Map(u32),
    /// An extension object with this code.
    Ext(i8),
}

/// A marker with its length fields read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub kind: Kind,
    /// Bytes of the marker and its length fields.
    pub header: usize,
    /// Bytes of content that belong to the object itself; 0 for containers.
    pub body: usize,
}

fn be(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().fold(0, |n, b| (n << 8) | usize::from(*b)))
}

/// Read the marker at `at`; `None` where the bytes end too early or are no msgpack.
///
/// The content is not checked to be there: see [`skip`].
#[inline]
pub fn read(bytes: &[u8], at: usize) -> Option<Marker> {
    let first = *bytes.get(at)?;
    let flat = |header, body| Marker {
        kind: Kind::Flat,
        header,
        body,
    };
    let array = |header, n: usize| Marker {
        kind: Kind::Array(n as u32),
        header,
        body: 0,
    };
    let map = |header, n: usize| Marker {
        kind: Kind::Map(n as u32),
        header,
        body: 0,
    };
    let ext = |header: usize, body| {
        let code = *bytes.get(at + header - 1)?;
        Some(Marker {
            kind: Kind::Ext(code as i8),
            header,
            body,
        })
    };
    Some(match first {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => flat(1, 0),
        0x80..=0x8f => map(1, usize::from(first & 0x0f)),
        0x90..=0x9f => array(1, usize::from(first & 0x0f)),
        0xa0..=0xbf => flat(1, usize::from(first & 0x1f)),
        0xc1 => return None,
        0xc4 | 0xd9 => flat(2, be(bytes, at + 1, 1)?),
        0xc5 | 0xda => flat(3, be(bytes, at + 1, 2)?),
        0xc6 | 0xdb => flat(5, be(bytes, at + 1, 4)?),
        0xc7 => return ext(3, be(bytes, at + 1, 1)?),
        0xc8 => return ext(4, be(bytes, at + 1, 2)?),
        0xc9 => return ext(6, be(bytes, at + 1, 4)?),
        0xcc | 0xd0 => flat(1, 1),
        0xcd | 0xd1 => flat(1, 2),
        0xca | 0xce | 0xd2 => flat(1, 4),
        0xcb | 0xcf | 0xd3 => flat(1, 8),
        0xd4..=0xd8 => return ext(2, 1 << (first - 0xd4)),
        0xdc => array(3, be(bytes, at + 1, 2)?),
        0xdd => array(5, be(bytes, at + 1, 4)?),
        0xde => map(3, be(bytes, at + 1, 2)?),
        0xdf => map(5, be(bytes, at + 1, 4)?),
    })
}

/// The offset just behind the object at `at`; `None` where it is not whole.
///
/// Iterative, so nesting cannot exhaust the stack; every object takes at least a
/// byte, so lying lengths end at the end of the bytes.
#[inline]
pub fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut open: u64 = 1;
    while open > 0 {
        let marker = read(bytes, at)?;
        at = at.checked_add(marker.header)?.checked_add(marker.body)?;
        if at > bytes.len() {
            return None;
        }
        open -= 1;
        open += match marker.kind {
            Kind::Array(n) => u64::from(n),
            Kind::Map(n) => 2 * u64::from(n),
            Kind::Flat | Kind::Ext(_) => 0,
        };
    }
    Some(at)
}

/// Whether these bytes are one whole object, with nothing in it that only upstream knows how
/// to read: keys that are not flat, floats of 32 bits, text that is not UTF-8, and containers
/// within each other beyond `depth`. What extension objects hold is not looked into.
pub fn is_plain(bytes: &[u8], depth: usize) -> bool {
    let mut at = 0;
    // Objects still to come at each open level, and whether they are a map's.
    let mut open: Vec<(u64, bool)> = vec![(1, false)];
    while let Some((left, is_map)) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        let is_key = *is_map && *left % 2 == 0;
        *left -= 1;
        let Some(marker) = read(bytes, at) else {
            return false;
        };
        let first = bytes[at];
        let start = at + marker.header;
        let Some(body) = bytes.get(start..start + marker.body) else {
            return false;
        };
        if first == 0xca || (is_key && marker.kind != Kind::Flat) {
            return false;
        }
        if is_text(first) && std::str::from_utf8(body).is_err() {
            return false;
        }
        match marker.kind {
            Kind::Array(n) => open.push((u64::from(n), false)),
            Kind::Map(n) => open.push((2 * u64::from(n), true)),
            Kind::Flat | Kind::Ext(_) => {}
        }
        if open.len() > depth + 1 {
            return false;
        }
        at = start + marker.body;
    }
    at == bytes.len()
}

/// So many items are believed without harm.
const HARMLESS: u64 = 1 << 16;

/// Whether an array, or one in what an extension object holds, says that it has many items, and
/// more than there are bytes left for.
pub fn overstates(bytes: &[u8]) -> bool {
    let mut payloads = vec![bytes];
    while let Some(bytes) = payloads.pop() {
        let mut at = 0;
        let mut open: u64 = 1;
        while open > 0 {
            let Some(marker) = read(bytes, at) else {
                break;
            };
            at += marker.header;
            let Some(body) = bytes.get(at..at + marker.body) else {
                break;
            };
            at += marker.body;
            let left = (bytes.len() - at) as u64;
            open -= 1;
            match marker.kind {
                Kind::Array(n) if u64::from(n) > left.max(HARMLESS) => return true,
                Kind::Array(n) => open += u64::from(n),
                Kind::Map(n) => open += 2 * u64::from(n),
                Kind::Ext(_) => payloads.push(body),
                Kind::Flat => {}
            }
        }
    }
    false
}

/// Whether an object with this first byte is text.
pub fn is_text(first: u8) -> bool {
    matches!(first, 0xa0..=0xbf | 0xd9..=0xdb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_what_can_be_read_without_doubt() {
        assert!(is_plain(&[0x82, 0xa1, b'a', 0x90, 0x01, 0xc0], 10));
        assert!(!is_plain(&[0x81, 0x90, 0x01], 10), "a list as key");
        assert!(!is_plain(&[0xca, 0, 0, 0, 0], 10), "a short float");
        assert!(is_plain(&[0x91, 0xd4, 5, 0xff], 10));
        assert!(!is_plain(&[0x81, 0xd4, 5, 0, 0], 10), "an extension as key");
        assert!(is_plain(&[0x91, 0x91, 0x91, 0x90], 4));
        assert!(!is_plain(&[0x91, 0x91, 0x91, 0x90], 3), "too deep");
        assert!(!is_plain(&[0x92, 0x01], 10), "cut");
        assert!(!is_plain(&[0xa2, b'a'], 10), "cut");
        assert!(!is_plain(&[0x01, 0x01], 10), "two objects");
        assert!(!is_plain(&[0xa1, 0xff], 10), "no UTF-8");
        assert!(is_plain(&[0xc4, 1, 0xff], 10));
    }

    #[test]
    fn overstating_is_found_in_extension_objects_too() {
        assert!(!overstates(&[0x92, 0x01, 0x81, 0xa1, b'a', 0x90]));
        assert!(overstates(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1]));
        assert!(overstates(&[0x91, 0xdd, 0, 2, 0, 0, 1]));
        assert!(!overstates(&[0xdf, 0xff, 0xff, 0xff, 0xff, 1]), "a map");
        assert!(overstates(&[0x91, 0xc7, 5, 0, 0xdd, 0xff, 0, 0, 0]));
        assert!(!overstates(&[0x92]), "harmless");
        assert!(!overstates(&[0x91, 0xc7, 3, 0, 0xc4, 1, 0xdd]));
    }

    #[test]
    fn skips_each_kind_of_object() {
        for whole in [
            &[0x00][..],
            &[0xc0],
            &[0xff],
            &[0xa2, b'h', b'i'],
            &[0xc4, 1, 9],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xd4, 5, 1],
            &[0xd8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xc7, 2, 5, 1, 2],
            &[0x92, 0x81, 0xa1, b'k', 0x90, 0x01],
            &[0xdc, 0, 2, 1, 2],
            &[0xdf, 0, 0, 0, 1, 1, 2],
        ] {
            assert_eq!(skip(whole, 0), Some(whole.len()), "{whole:x?}");
            for short in 0..whole.len() {
                assert_eq!(skip(&whole[..short], 0), None, "{whole:x?} cut at {short}");
            }
        }
        assert_eq!(skip(&[0xc1], 0), None);
    }

    #[test]
    fn a_million_nested_arrays_do_not_recurse() {
        let mut deep = vec![0x91; 1_000_000];
        assert_eq!(skip(&deep, 0), None);
        deep.push(0xc0);
        assert_eq!(skip(&deep, 0), Some(deep.len()));
    }

    #[test]
    fn a_lying_length_is_found_at_once() {
        assert_eq!(skip(&[0xdd, 0xff, 0xff, 0xff, 0xff], 0), None);
        assert_eq!(skip(&[0xc6, 0xff, 0xff, 0xff, 0xff, 0], 0), None);
    }
}
