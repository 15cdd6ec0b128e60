//! Chunks: their ids, and the envelope that every stored object wears.
//!
//! An object is a leaf (bytes of a value), a node (a page of a tree, or entries of a
//! manifest), a record or a pending write. What an object refers to stands in front
//! of its payload, uncompressed, so that a store or a script can follow references
//! without understanding anything else:
//!
//! ```text
//! u8   format version << 4 | flags (1 compressed, 2 foreign, 4 references, 8 checksum)
//! if references:  u8 level of the object, u16 BE count, count × (u8 level, 16 bytes id)
//! if compressed:  varint length of the plain payload
//! payload         (a zstd frame, from format 2 on without its magic number and with the
//!                  dictionary of the format; where it is foreign, with that of format 2)
//! if checksum:    8 bytes BLAKE3 of all before
//! ```

use std::borrow::Cow;
use std::fmt;

use super::bytes::{put_varint, Input};
use super::compression::{compress, decompress, Dictionary};
use crate::error::{Error, Result};

/// The newest format that this version writes, and the newest that it reads.
pub const FORMAT: u8 = 4;

const COMPRESSED: u8 = 1;
/// From format 3 on: the frame needs the dictionary of format 2.
const FOREIGN: u8 = 2;
const FOREIGN_FRAME: u8 = COMPRESSED | FOREIGN;
const REFERENCES: u8 = 4;
const CHECKSUM: u8 = 8;
const CHECKSUM_LEN: usize = 8;
/// What a leaf may unpack to; splitting makes none beyond 64 KiB.
pub const LONGEST_LEAF: usize = 1 << 20;
/// What any other payload may unpack to.
const LONGEST_PAYLOAD: usize = 64 << 20;

/// Level of a value's own bytes.
pub const LEAF: u8 = 0;
/// Level of the manifest's leaves; its pages lie above.
pub const MANIFEST: u8 = 0x40;
/// Level given to records and pending writes, which are found by key and have no id.
pub const KEYED: u8 = 0xff;
/// Level given to several pending writes in one object (`bundle.rs`).
pub const BUNDLE: u8 = 0xfe;

/// BLAKE3 of the level and the plain bytes, cut to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// The level is part of what is hashed: a value's bytes cannot pass for a page.
    pub fn of(level: u8, references: &[Ref], payload: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[level]);
        if level != LEAF {
            let mut head = Vec::with_capacity(4 + references.len() * Ref::LEN);
            put_references(&mut head, level, references);
            hasher.update(&head);
        }
        hasher.update(payload);
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A reference from one object to a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ref {
    pub level: u8,
    pub id: Id,
}

impl Ref {
    /// Bytes in front of an object.
    pub const LEN: usize = 17;
}

/// How payloads are written; reading takes either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    None,
    #[default]
    Zstd,
}

/// An object as it was before it was sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// [`LEAF`] where the object refers to nothing.
    pub level: u8,
    pub references: Vec<Ref>,
    pub payload: Cow<'a, [u8]>,
}

impl Object<'_> {
    pub fn id(&self) -> Id {
        Id::of(self.level, &self.references, &self.payload)
    }
}

fn put_references(out: &mut Vec<u8>, level: u8, references: &[Ref]) {
    out.push(level);
    out.extend_from_slice(&(references.len() as u16).to_be_bytes());
    for reference in references {
        out.push(reference.level);
        out.extend_from_slice(&reference.id.0);
    }
}

/// What stands in front of an object that has a checksum, and is not compressed as a whole.
pub fn front(level: u8, references: &[Ref]) -> Vec<u8> {
    let mut out = Vec::with_capacity(front_length(references.len()) + 64);
    out.push(FORMAT << 4 | REFERENCES | CHECKSUM);
    put_references(&mut out, level, references);
    out
}

/// The bytes up to the end of what an object refers to.
pub fn front_length(references: usize) -> usize {
    4 + references * Ref::LEN
}

/// The bytes to store for an object.
///
/// Compression is kept only where it saves. `KEYED` objects get a checksum; chunks are
/// checked by their id.
pub fn seal(
    level: u8,
    references: &[Ref],
    payload: &[u8],
    compression: Compression,
) -> Result<Vec<u8>> {
    if references.len() > usize::from(u16::MAX) {
        return Err(Error::TooLarge(format!(
            "{} references from one object, at most {} are possible",
            references.len(),
            u16::MAX
        )));
    }
    let most = if level == LEAF {
        LONGEST_LEAF
    } else {
        LONGEST_PAYLOAD
    };
    if payload.len() > most {
        return Err(Error::TooLarge(format!(
            "{} bytes in one object, at most {most} are possible",
            payload.len()
        )));
    }
    let packed = match compression {
        Compression::Zstd => compress(payload).filter(|(p, _)| p.len() + 3 < payload.len()),
        Compression::None => None,
    };
    let body = packed.as_ref().map_or(payload, |(frame, _)| frame);
    let mut out = Vec::with_capacity(16 + references.len() * Ref::LEN + body.len());
    let mut first = FORMAT << 4;
    match packed {
        Some((_, Dictionary::Language)) => first |= COMPRESSED,
        Some(_) => first |= FOREIGN_FRAME,
        None => {}
    }
    if level != LEAF {
        first |= REFERENCES;
    }
    if level == KEYED {
        first |= CHECKSUM;
    }
    out.push(first);
    if level != LEAF {
        put_references(&mut out, level, references);
    }
    if packed.is_some() {
        put_varint(&mut out, payload.len() as u64);
    }
    out.extend_from_slice(body);
    if level == KEYED {
        put_checksum(&mut out);
    }
    Ok(out)
}

pub fn put_checksum(out: &mut Vec<u8>) {
    let sum = blake3::hash(out);
    out.extend_from_slice(&sum.as_bytes()[..CHECKSUM_LEN]);
}

/// What stands in front of the checksum at the end of bytes; None where it is another one's.
pub fn checked(stored: &[u8]) -> Option<&[u8]> {
    let (checked, sum) = stored.split_at_checked(stored.len().checked_sub(CHECKSUM_LEN)?)?;
    (sum == &blake3::hash(checked).as_bytes()[..CHECKSUM_LEN]).then_some(checked)
}

/// What stands in front of a payload.
struct Head<'a> {
    /// None where the payload is not compressed.
    dictionary: Option<Dictionary>,
    flags: u8,
    level: u8,
    references: Vec<Ref>,
    /// What follows.
    rest: Input<'a>,
}

fn head(stored: &[u8]) -> Result<Head<'_>> {
    if stored.is_empty() {
        return Err(Error::corrupt(
            "it is named, but gone. If this is Redis, look at the server's eviction policy",
        ));
    }
    let mut input = Input::new(stored);
    let first = input.byte()?;
    let (format, flags) = (first >> 4, first & 0x0f);
    if format > FORMAT {
        return Err(Error::FormatTooNew {
            found: format,
            supported: FORMAT,
        });
    }
    let dictionary = match (format, flags & (COMPRESSED | FOREIGN)) {
        (1.., 0) => None,
        (1, COMPRESSED) => Some(Dictionary::None),
        (2, COMPRESSED) | (3.., FOREIGN_FRAME) => Some(Dictionary::Structure),
        (3.., COMPRESSED) => Some(Dictionary::Language),
        _ => return Err(Error::corrupt("unknown envelope")),
    };
    if flags & REFERENCES == 0 {
        return Ok(Head {
            dictionary,
            flags,
            level: LEAF,
            references: Vec::new(),
            rest: input,
        });
    }
    let level = input.byte()?;
    if level == LEAF {
        // Its id would not vouch for what it refers to.
        return Err(Error::corrupt("a leaf with references"));
    }
    let count = usize::from(u16::from_be_bytes([input.byte()?, input.byte()?]));
    let mut references = Vec::with_capacity(count.min(stored.len() / Ref::LEN));
    for _ in 0..count {
        let level = input.byte()?;
        let mut id = [0; 16];
        id.copy_from_slice(input.take(16)?);
        references.push(Ref { level, id: Id(id) });
    }
    Ok(Head {
        dictionary,
        flags,
        level,
        references,
        rest: input,
    })
}

/// What stored bytes refer to, and the level they stand on.
pub fn references(stored: &[u8]) -> Result<(u8, Vec<Ref>)> {
    head(stored).map(|head| (head.level, head.references))
}

/// The level of a stored object, from its first two bytes; [`LEAF`] where they are damaged.
pub fn level(start: &[u8]) -> Result<u8> {
    match *start {
        [first, ..] if first >> 4 > FORMAT => Err(Error::FormatTooNew {
            found: first >> 4,
            supported: FORMAT,
        }),
        [first, level, ..] if first & REFERENCES != 0 => Ok(level),
        _ => Ok(LEAF),
    }
}

/// The object that stored bytes are. Chunks are still to be compared with their id.
pub fn open(stored: &[u8]) -> Result<Object<'_>> {
    let Head {
        dictionary,
        flags,
        level,
        references,
        rest: mut input,
    } = head(stored)?;
    if (flags & CHECKSUM != 0) != (level == KEYED) {
        return Err(Error::corrupt("a checksum is missing or misplaced"));
    }
    let packed = match dictionary {
        None => None,
        Some(dictionary) => Some((dictionary, input.varint()?)),
    };
    let mut body = input.rest();
    if flags & CHECKSUM != 0 {
        let Some(split) = body.len().checked_sub(CHECKSUM_LEN) else {
            return Err(Error::corrupt("bytes end too early"));
        };
        if checked(stored).is_none() {
            return Err(Error::corrupt("the checksum differs"));
        }
        body = &body[..split];
    }
    let most = if level == LEAF {
        LONGEST_LEAF
    } else {
        LONGEST_PAYLOAD
    };
    let payload = match packed {
        None => Cow::Borrowed(body),
        Some((dictionary, length)) if length <= most as u64 => {
            Cow::Owned(decompress(dictionary, body, length as usize)?)
        }
        Some(_) => return Err(Error::corrupt("a length is too large")),
    };
    Ok(Object {
        level,
        references,
        payload,
    })
}

/// The chunk that stored bytes are, proven by its id.
pub fn open_chunk(id: Id, stored: &[u8]) -> Result<Object<'_>> {
    let object = open(stored)?;
    if object.id() != id {
        return Err(Error::corrupt(format!(
            "the bytes of chunk {id} are not its own"
        )));
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_refs() -> Vec<Ref> {
        (0..3u8)
            .map(|n| Ref {
                level: n,
                id: Id([n; 16]),
            })
            .collect()
    }

    #[test]
    fn objects_round_trip() {
        for level in [LEAF, 1, MANIFEST, KEYED] {
            for payload in [vec![], vec![7; 10], vec![7; 5000], (0..=255).collect()] {
                for compression in [Compression::None, Compression::Zstd] {
                    let refs = if level == LEAF { vec![] } else { some_refs() };
                    let stored = seal(level, &refs, &payload, compression).unwrap();
                    let object = open(&stored).unwrap();
                    assert_eq!(object.level, level);
                    assert_eq!(object.references, refs);
                    assert_eq!(object.payload, payload);
                    assert_eq!(references(&stored).unwrap(), (level, refs));
                }
            }
        }
    }

    #[test]
    fn compression_is_kept_only_where_it_saves() {
        let noise: Vec<u8> = (0..500u32)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        assert_eq!(
            seal(LEAF, &[], &noise, Compression::Zstd).unwrap().len(),
            noise.len() + 1
        );
        assert!(seal(LEAF, &[], &[1; 500], Compression::Zstd).unwrap().len() < 50);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let payload =
            b"some payload that is long enough to be compressed, compressed, compressed".repeat(3);
        for level in [LEAF, 2, KEYED] {
            let refs = if level == LEAF { vec![] } else { some_refs() };
            let id = Id::of(level, &refs, &payload);
            let stored = seal(level, &refs, &payload, Compression::Zstd).unwrap();
            for bit in 0..stored.len() * 8 {
                let mut bad = stored.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                // A flip may leave the same content (zstd's header has slack), never another.
                let found = if level == KEYED {
                    open(&bad)
                } else {
                    open_chunk(id, &bad)
                };
                if let Ok(object) = found {
                    assert_eq!(object.payload, payload);
                    assert_eq!(object.references, refs);
                }
            }
            for short in 0..stored.len() {
                let found = if level == KEYED {
                    open(&stored[..short]).is_ok()
                } else {
                    open_chunk(id, &stored[..short]).is_ok()
                };
                assert!(!found, "level {level} cut at {short}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_told_from_corruption() {
        let mut stored = seal(LEAF, &[], b"x", Compression::None).unwrap();
        stored[0] = (FORMAT + 1) << 4;
        assert_eq!(
            open(&stored).unwrap_err(),
            Error::FormatTooNew {
                found: FORMAT + 1,
                supported: FORMAT
            }
        );
    }

    #[test]
    fn a_value_cannot_pass_for_a_page() {
        let refs = some_refs();
        let mut page_bytes = Vec::new();
        put_references(&mut page_bytes, 1, &refs);
        page_bytes.extend_from_slice(b"payload");
        assert_ne!(Id::of(1, &refs, b"payload"), Id::of(LEAF, &[], &page_bytes));
    }

    #[test]
    fn a_lying_length_takes_no_memory() {
        let mut stored = vec![FORMAT << 4 | COMPRESSED];
        put_varint(&mut stored, u64::MAX);
        stored.extend_from_slice(&[0; 8]);
        assert!(matches!(open(&stored), Err(Error::Corrupt(_))));
    }
}
