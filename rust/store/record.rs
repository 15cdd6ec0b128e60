//! The record of a checkpoint: all of it that is not in chunks, and where the rest is.
//!
//! Payload: parent id, metadata, skeleton (the checkpoint without its channels), then
//! the manifest: an entry for each channel (name, version, value) and for each node's
//! `versions_seen`. A small manifest stands in the record itself; a large one is a tree
//! like any value, so that a step of a wide graph writes only the entries that changed.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::{put_field, put_varint, Input};
use super::chunk::{seal, Compression, Id, Object, Ref, KEYED, LEAF, MANIFEST};
use super::tree::{grow, length, Page, Span};
use super::version::Version;
use crate::error::{Error, Result};

/// Values up to this many bytes stand where they are referred to.
pub const INLINE: usize = 100;
/// Metadata and skeleton are almost never shared, and metadata is filtered on.
pub const INLINE_HEAD: usize = 1 << 10;
/// A manifest up to this size stands in the record.
const INLINE_MANIFEST: usize = 2 << 10;
const SMALLEST_LEAF: usize = 128;
const LARGEST_LEAF: usize = 1 << 10;
/// One in two names ends a leaf of the manifest; names, unlike versions, stay.
const CLOSING_MASK: u8 = 1;

/// The bytes that a serializer made of a value, and the tag it gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub tag: Vec<u8>,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Inline(Vec<u8>),
    Tree(Root),
}

/// Where a value's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Root {
    /// Bytes that stand between leaves, each with the number of leaf bytes before it.
    pub literals: Vec<(u64, Vec<u8>)>,
    pub spans: Vec<Span>,
}

/// A line of the manifest.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Channel {
        name: Vec<u8>,
        version: Option<Version>,
        value: Option<Value>,
    },
    Seen {
        node: Vec<u8>,
        versions: Vec<(Vec<u8>, Version)>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Manifest {
    Inline(Vec<Entry>),
    Tree(Vec<Span>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Empty where there is none.
    pub parent: Vec<u8>,
    pub metadata: Value,
    pub skeleton: Value,
    pub manifest: Manifest,
}

/// References in the order in which a payload first names them.
#[derive(Default)]
pub struct References {
    list: Vec<Ref>,
    index: HashMap<Ref, u64>,
}

impl References {
    fn put(&mut self, out: &mut Vec<u8>, reference: Ref) {
        let next = self.list.len() as u64;
        let at = *self.index.entry(reference).or_insert_with(|| {
            self.list.push(reference);
            next
        });
        put_varint(out, at);
    }

    pub fn list(&self) -> &[Ref] {
        &self.list
    }
}

const TAGS: [&[u8]; 6] = [
    b"null",
    b"bytes",
    b"bytearray",
    b"msgpack",
    b"json",
    b"pickle",
];
const OTHER_TAG: u8 = 0x7f;

fn put_spans(out: &mut Vec<u8>, spans: &[Span], references: &mut References) {
    put_varint(out, spans.len() as u64);
    for span in spans {
        references.put(out, span.reference);
        put_varint(out, span.length);
    }
}

fn take_spans(input: &mut Input, references: &[Ref], base: u8) -> Result<Vec<Span>> {
    let count = input.count()?;
    (0..count)
        .map(|_| {
            let at = input.varint()?;
            let reference = usize::try_from(at)
                .ok()
                .and_then(|at| references.get(at))
                .copied()
                .filter(|reference| reference.level & !0x3f == base)
                .ok_or_else(|| Error::corrupt("a reference is not listed"))?;
            Ok(Span {
                reference,
                length: length(input)?,
            })
        })
        .collect()
}

impl Value {
    pub fn put(&self, out: &mut Vec<u8>, references: &mut References) {
        let tag = TAGS.iter().position(|tag| *tag == self.tag);
        let tree = matches!(self.body, Body::Tree(_));
        out.push(tag.map_or(OTHER_TAG, |at| at as u8) << 1 | u8::from(tree));
        if tag.is_none() {
            put_field(out, &self.tag);
        }
        match &self.body {
            Body::Inline(bytes) => put_field(out, bytes),
            Body::Tree(root) => {
                put_varint(out, root.literals.len() as u64);
                for (before, literal) in &root.literals {
                    put_varint(out, *before);
                    put_field(out, literal);
                }
                put_spans(out, &root.spans, references);
            }
        }
    }

    pub fn take(input: &mut Input, references: &[Ref]) -> Result<Self> {
        let first = input.byte()?;
        let tag = match first >> 1 {
            OTHER_TAG => input.field()?.to_vec(),
            at => TAGS
                .get(usize::from(at))
                .ok_or_else(|| Error::corrupt("unknown kind of value"))?
                .to_vec(),
        };
        let body = if first & 1 == 0 {
            Body::Inline(input.field()?.to_vec())
        } else {
            let literals = (0..input.count()?)
                .map(|_| Ok((input.varint()?, input.field()?.to_vec())))
                .collect::<Result<_>>()?;
            Body::Tree(Root {
                literals,
                spans: take_spans(input, references, LEAF)?,
            })
        };
        Ok(Self { tag, body })
    }

    /// Bytes in memory, roughly.
    pub fn heap(&self) -> usize {
        let body = match &self.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Tree(root) => {
                let literals = root.literals.iter().map(|(_, bytes)| bytes.len() + 56);
                root.spans.len() * size_of::<Span>() + literals.sum::<usize>()
            }
        };
        size_of::<Self>() + self.tag.len() + body + 32
    }

    pub fn spans(&self) -> &[Span] {
        match &self.body {
            Body::Inline(_) => &[],
            Body::Tree(root) => &root.spans,
        }
    }
}

const CHANNEL: u8 = 0;
const SEEN: u8 = 1;
const VERSIONED: u8 = 2;
const FILLED: u8 = 4;

impl Entry {
    fn name(&self) -> &[u8] {
        match self {
            Self::Channel { name, .. } => name,
            Self::Seen { node, .. } => node,
        }
    }

    /// Bytes in memory, roughly.
    pub fn heap(&self) -> usize {
        let version = |version: &Version| match version {
            Version::Text(text) => text.len() + 16,
            Version::Int(_) | Version::Float(_) => 0,
        };
        size_of::<Self>()
            + match self {
                Self::Channel {
                    name,
                    version: of,
                    value,
                } => {
                    let value = value.as_ref().map_or(0, Value::heap);
                    name.len() + 16 + of.as_ref().map_or(0, version) + value
                }
                Self::Seen { node, versions } => {
                    let seen = versions.iter().map(|(channel, of)| {
                        size_of::<(Vec<u8>, Version)>() + channel.len() + 16 + version(of)
                    });
                    node.len() + 16 + seen.sum::<usize>()
                }
            }
    }

    fn put(&self, out: &mut Vec<u8>, references: &mut References) {
        match self {
            Self::Channel {
                name,
                version,
                value,
            } => {
                let versioned = if version.is_some() { VERSIONED } else { 0 };
                let filled = if value.is_some() { FILLED } else { 0 };
                out.push(CHANNEL | versioned | filled);
                put_field(out, name);
                if let Some(version) = version {
                    version.put(out);
                }
                if let Some(value) = value {
                    value.put(out, references);
                }
            }
            Self::Seen { node, versions } => {
                out.push(SEEN);
                put_field(out, node);
                put_varint(out, versions.len() as u64);
                for (channel, version) in versions {
                    put_field(out, channel);
                    version.put(out);
                }
            }
        }
    }

    fn take(input: &mut Input, references: &[Ref]) -> Result<Self> {
        let first = input.byte()?;
        if first == SEEN {
            let node = input.field()?.to_vec();
            let versions = (0..input.count()?)
                .map(|_| Ok((input.field()?.to_vec(), Version::take(input)?)))
                .collect::<Result<_>>()?;
            return Ok(Self::Seen { node, versions });
        }
        if first & !(VERSIONED | FILLED) != CHANNEL {
            return Err(Error::corrupt("unknown kind of entry"));
        }
        let name = input.field()?.to_vec();
        let version = (first & VERSIONED != 0)
            .then(|| Version::take(input))
            .transpose()?;
        let value = (first & FILLED != 0)
            .then(|| Value::take(input, references))
            .transpose()?;
        Ok(Self::Channel {
            name,
            version,
            value,
        })
    }

    fn take_all(payload: &[u8], references: &[Ref]) -> Result<Vec<Self>> {
        let mut input = Input::new(payload);
        let mut entries = Vec::new();
        while !input.is_empty() {
            entries.push(Self::take(&mut input, references)?);
        }
        Ok(entries)
    }
}

/// The entries of a leaf of the manifest.
pub fn manifest_leaf(object: &Object<'_>) -> Result<Vec<Entry>> {
    Entry::take_all(&object.payload, &object.references)
}

/// A manifest for these entries, and the chunks that it needs, children first.
pub fn plan_manifest(entries: Vec<Entry>) -> (Manifest, Vec<Arc<Page>>) {
    let mut references = References::default();
    let mut out = Vec::new();
    for entry in &entries {
        entry.put(&mut out, &mut references);
    }
    if out.len() + references.list.len() * 17 <= INLINE_MANIFEST {
        return (Manifest::Inline(entries), Vec::new());
    }
    let mut nodes = Vec::new();
    let mut spans = Vec::new();
    let mut references = References::default();
    let mut payload = Vec::new();
    let mut count = 0;
    for (at, entry) in entries.iter().enumerate() {
        entry.put(&mut payload, &mut references);
        count += 1;
        let size = payload.len() + references.list.len() * 17;
        let closes = blake3::hash(entry.name()).as_bytes()[0] & CLOSING_MASK == 0;
        if at + 1 == entries.len() || size >= LARGEST_LEAF || (size >= SMALLEST_LEAF && closes) {
            let list = std::mem::take(&mut references).list;
            let payload = std::mem::take(&mut payload);
            let id = Id::of(MANIFEST, &list, &payload);
            spans.push(Span {
                reference: Ref {
                    level: MANIFEST,
                    id,
                },
                length: count,
            });
            nodes.push(Arc::new(Page {
                id,
                level: MANIFEST,
                references: list,
                payload,
            }));
            count = 0;
        }
    }
    let (pages, root) = grow(spans, None);
    nodes.extend(pages.into_iter().map(|grown| grown.page));
    (Manifest::Tree(root), nodes)
}

const INLINE_KIND: u8 = 0;
const TREE_KIND: u8 = 1;

impl Record {
    /// The bytes to store, and what they refer to.
    pub fn seal(&self, compression: Compression) -> Result<(Vec<u8>, Vec<Ref>)> {
        let mut references = References::default();
        let mut out = Vec::new();
        put_field(&mut out, &self.parent);
        self.metadata.put(&mut out, &mut references);
        self.skeleton.put(&mut out, &mut references);
        match &self.manifest {
            Manifest::Inline(entries) => {
                out.push(INLINE_KIND);
                for entry in entries {
                    entry.put(&mut out, &mut references);
                }
            }
            Manifest::Tree(spans) => {
                out.push(TREE_KIND);
                put_spans(&mut out, spans, &mut references);
            }
        }
        let stored = seal(KEYED, references.list(), &out, compression)?;
        Ok((stored, references.list))
    }

    pub fn open(stored: &[u8]) -> Result<Self> {
        let object = super::chunk::open(stored)?;
        if object.level != KEYED {
            return Err(Error::corrupt("the bytes are no record"));
        }
        let references = &object.references;
        let mut input = Input::new(&object.payload);
        let parent = input.field()?.to_vec();
        let metadata = Value::take(&mut input, references)?;
        let skeleton = Value::take(&mut input, references)?;
        let manifest = match input.byte()? {
            INLINE_KIND => Manifest::Inline(Entry::take_all(input.rest(), references)?),
            TREE_KIND => {
                let spans = take_spans(&mut input, references, MANIFEST)?;
                if !input.is_empty() {
                    return Err(Error::corrupt("a record goes on behind its end"));
                }
                Manifest::Tree(spans)
            }
            _ => return Err(Error::corrupt("unknown kind of manifest")),
        };
        Ok(Self {
            parent,
            metadata,
            skeleton,
            manifest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(n: u8) -> Value {
        let spans = (0..n)
            .map(|i| Span {
                reference: Ref {
                    level: i % 3,
                    id: Id([i; 16]),
                },
                length: 1 << i.min(40),
            })
            .collect();
        Value {
            tag: b"msgpack".to_vec(),
            body: Body::Tree(Root {
                literals: vec![(0, vec![0x90]), (9, vec![n])],
                spans,
            }),
        }
    }

    fn inline(tag: &[u8], bytes: &[u8]) -> Value {
        Value {
            tag: tag.to_vec(),
            body: Body::Inline(bytes.to_vec()),
        }
    }

    fn entries(n: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..n)
            .map(|i| Entry::Channel {
                name: format!("channel-{i}").into_bytes(),
                version: (i % 5 != 0).then_some(Version::Int(i as i64)),
                value: match i % 3 {
                    0 => None,
                    1 => Some(value(3)),
                    _ => Some(inline(b"my-own", b"abc")),
                },
            })
            .collect();
        entries.push(Entry::Seen {
            node: b"agent".to_vec(),
            versions: vec![
                (b"a".to_vec(), Version::Text(b"x".to_vec())),
                (b"b".to_vec(), Version::Float(1.5)),
            ],
        });
        entries
    }

    fn record(n: usize) -> (Record, Vec<Arc<Page>>) {
        let (manifest, pages) = plan_manifest(entries(n));
        let record = Record {
            parent: b"parent".to_vec(),
            metadata: inline(b"msgpack", &[0x80]),
            skeleton: value(5),
            manifest,
        };
        (record, pages)
    }

    #[test]
    fn records_round_trip() {
        for n in [0, 1, 10, 200] {
            let (record, _) = record(n);
            let (stored, references) = record.seal(Compression::Zstd).unwrap();
            assert_eq!(Record::open(&stored).unwrap(), record);
            assert_eq!(
                super::super::chunk::references(&stored).unwrap().1,
                references
            );
        }
    }

    #[test]
    fn a_large_manifest_shares_what_did_not_change() {
        let (manifest, before) = plan_manifest(entries(200));
        assert!(matches!(manifest, Manifest::Tree(_)));
        let mut changed = entries(200);
        if let Entry::Channel { version, .. } = &mut changed[77] {
            *version = Some(Version::Int(-5));
        }
        let (_, after) = plan_manifest(changed);
        let new = after
            .iter()
            .filter(|node| !before.iter().any(|old| old.id == node.id))
            .count();
        assert!(new <= 3, "{new} of {}", after.len());
        let mut back = Vec::new();
        for node in before.iter().filter(|node| node.level == MANIFEST) {
            back.extend(Entry::take_all(&node.payload, &node.references).unwrap());
        }
        assert_eq!(back, entries(200));
    }

    #[test]
    fn cut_records_are_refused() {
        let (stored, _) = record(10).0.seal(Compression::None).unwrap();
        for short in 0..stored.len() {
            assert!(Record::open(&stored[..short]).is_err());
        }
    }
}
