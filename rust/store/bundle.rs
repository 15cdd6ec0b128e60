//! The pending writes of one call as one object, for a store where a row of its own costs each of them
//! more than what it holds.
//!
//! What any of them refers to stands in front once, as in every stored object (`chunk.rs`), so that a
//! store follows it in the same way:
//!
//! ```text
//! u8   format version << 4 | 4 | 8
//! u8   BUNDLE, u16 BE count, count × (u8 level, 16 bytes id)
//! then for each write:
//!   varint  index, zigzag
//!   u8      first byte of its envelope, or 0
//!   if not 0:  varint count, count × varint (place in the list)
//!   field   of its envelope what is between references and checksum; after 0 its bytes as they are
//! 8 bytes BLAKE3 of all before
//! ```

use super::bytes::{put_field, put_signed, put_varint, Input};
use super::chunk::{self, BUNDLE, KEYED};
use super::value::{take_reference, References};
use crate::error::{Error, Result};

/// References of one bundle, and bytes at which another one begins.
const MOST_REFERENCES: usize = u16::MAX as usize;
const LARGE: usize = 16 << 20;
const AS_IT_IS: u8 = 0;

#[derive(Default)]
struct Bundle {
    references: References,
    payload: Vec<u8>,
}

impl Bundle {
    fn into_bytes(self) -> Vec<u8> {
        let mut out = chunk::front(BUNDLE, self.references.list());
        out.extend_from_slice(&self.payload);
        chunk::put_checksum(&mut out);
        out
    }
}

/// Writes, each with its index, as few bundles as hold them; in their order.
pub fn bundled<'a>(writes: impl IntoIterator<Item = (i32, &'a [u8])>) -> Vec<Vec<u8>> {
    let mut done = Vec::new();
    let mut bundle = Bundle::default();
    for (index, stored) in writes {
        let envelope = chunk::references(stored).ok();
        let envelope = envelope
            .filter(|(level, _)| *level == KEYED)
            .zip(chunk::checked(stored));
        let more = envelope.as_ref().map_or(0, |((_, list), _)| list.len());
        let is_full = bundle.references.list().len() + more > MOST_REFERENCES
            || bundle.payload.len() + stored.len() > LARGE;
        if is_full && !bundle.payload.is_empty() {
            done.push(std::mem::take(&mut bundle).into_bytes());
        }
        let Bundle {
            references,
            payload,
        } = &mut bundle;
        put_signed(payload, index.into());
        let Some(((_, list), checked)) = envelope else {
            payload.push(AS_IT_IS);
            put_field(payload, stored);
            continue;
        };
        payload.push(stored[0]);
        put_varint(payload, list.len() as u64);
        for reference in &list {
            references.put(payload, *reference);
        }
        put_field(payload, &checked[chunk::front_length(list.len())..]);
    }
    if !bundle.payload.is_empty() {
        done.push(bundle.into_bytes());
    }
    done
}

/// The writes of a bundle, each with its index, as they were.
pub fn unbundled(bytes: &[u8]) -> Result<Vec<(i32, Vec<u8>)>> {
    let (level, list) = chunk::references(bytes)?;
    if level != BUNDLE {
        return Err(Error::corrupt("the bytes are no pending writes"));
    }
    let payload = chunk::checked(bytes).and_then(|b| b.get(chunk::front_length(list.len())..));
    let payload = payload.ok_or_else(|| Error::corrupt("the checksum differs"))?;
    let mut input = Input::new(payload);
    let mut writes = Vec::new();
    while !input.is_empty() {
        let index =
            i32::try_from(input.signed()?).map_err(|_| Error::corrupt("an index is too large"))?;
        let first = input.byte()?;
        if first == AS_IT_IS {
            writes.push((index, input.field()?.to_vec()));
            continue;
        }
        let references = (0..input.count()?)
            .map(|_| take_reference(&mut input, &list))
            .collect::<Result<Vec<_>>>()?;
        let mut stored = chunk::front(KEYED, &references);
        stored[0] = first;
        stored.extend_from_slice(input.field()?);
        chunk::put_checksum(&mut stored);
        writes.push((index, stored));
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::super::chunk::{seal, Compression, Id, Ref, LEAF};
    use super::*;

    fn refs(ids: impl IntoIterator<Item = u32>) -> Vec<Ref> {
        ids.into_iter()
            .map(|n| {
                let mut id = [0; 16];
                id[..4].copy_from_slice(&n.to_be_bytes());
                Ref {
                    level: (n % 3) as u8,
                    id: Id(id),
                }
            })
            .collect()
    }

    fn write(ids: impl IntoIterator<Item = u32>, payload: &[u8]) -> Vec<u8> {
        seal(KEYED, &refs(ids), payload, Compression::Zstd).unwrap()
    }

    fn all(bundles: &[Vec<u8>]) -> Vec<(i32, Vec<u8>)> {
        bundles
            .iter()
            .flat_map(|bytes| unbundled(bytes).unwrap())
            .collect()
    }

    #[test]
    fn writes_come_back_as_they_were() {
        let writes = vec![
            (0, write([1, 2], b"channel")),
            (-4, write([2, 1, 3], &[7; 500])),
            (i32::MAX, write([], b"")),
            (i32::MIN, write([3], b"again")),
            (1, b"no envelope".to_vec()),
            (2, Vec::new()),
            (3, seal(LEAF, &[], b"a leaf", Compression::None).unwrap()),
        ];
        let bundles = bundled(writes.iter().map(|(index, stored)| (*index, &stored[..])));
        assert_eq!(bundles.len(), 1);
        assert_eq!(all(&bundles), writes);
    }

    #[test]
    fn what_they_refer_to_stands_in_front_once() {
        let writes = [write([1, 2], b"one"), write([2, 3], b"other")];
        let bundles = bundled(writes.iter().map(|stored| (0, &stored[..])));
        let (level, list) = chunk::references(&bundles[0]).unwrap();
        assert_eq!((level, list), (BUNDLE, refs([1, 2, 3])));
        assert!(bundles[0].len() < writes.concat().len());
    }

    #[test]
    fn more_references_than_a_list_has_take_another_bundle() {
        let writes: Vec<_> = (0..3)
            .map(|n| (n, write((0..40_000).map(|m| n as u32 * 40_000 + m), b"")))
            .collect();
        let bundles = bundled(writes.iter().map(|(index, stored)| (*index, &stored[..])));
        assert_eq!(bundles.len(), 3);
        assert_eq!(all(&bundles), writes);
        assert!(bundled([]).is_empty());
    }

    #[test]
    fn a_write_that_is_damaged_already_stays_so() {
        let mut stored = write([1, 2], b"channel");
        *stored.last_mut().unwrap() ^= 1;
        let bundles = bundled([(0, &stored[..])]);
        assert_eq!(all(&bundles), [(0, stored)]);
    }

    #[test]
    fn damage_is_noticed() {
        let stored = write([1, 2], b"channel");
        let bytes = &bundled([(5, &stored[..]), (-1, &stored[..])])[0];
        for short in 0..bytes.len() {
            assert!(unbundled(&bytes[..short]).is_err(), "{short}");
        }
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(unbundled(&changed).is_err(), "{at}");
        }
        assert!(unbundled(&stored).is_err());
    }

    #[test]
    fn lies_in_what_is_signed_are_errors() {
        let stored = write([1], b"");
        let signed = |payload: &[u8]| {
            let mut bytes = chunk::front(BUNDLE, &refs([1]));
            bytes.extend_from_slice(payload);
            chunk::put_checksum(&mut bytes);
            bytes
        };
        assert_eq!(unbundled(&signed(&[])).unwrap(), []);
        for payload in [
            &[0][..],
            &[0, stored[0]],
            &[0, stored[0], 1, 1, 0],
            &[0, stored[0], 200, 0],
            &[0, AS_IT_IS, 5, 1],
            &[0xff, 0xff, 0xff, 0xff, 0x7f, AS_IT_IS, 0],
        ] {
            assert!(unbundled(&signed(payload)).is_err(), "{payload:?}");
        }
    }
}
