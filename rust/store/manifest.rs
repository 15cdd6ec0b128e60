//! The manifest of a checkpoint: a line for each channel (name, version, value) and for each
//! node's `versions_seen`.
//!
//! A small one stands in the record itself, or is told there by what has changed since an earlier
//! one (`base.rs`); a large one is a tree like any value. So a step of a wide graph writes only the
//! lines that changed.

use std::sync::Arc;

use super::base::{Base, Edit};
use super::bytes::{put_field, put_varint, Input};
use super::chunk::{Object, Ref, MANIFEST};
use super::tree::{grow, Page, Span};
use super::value::{References, Value};
use super::version::Version;
use crate::error::{Error, Result};

/// A manifest up to this size stands in the record, where zstd sees all of it, or has a base: one of
/// 50 channels takes 1.4 kB, and with a base 0.4. As a tree each step would write seven chunks of
/// 150 bytes, and what a store adds to each.
const INLINE_MANIFEST: usize = 4 << 10;
const SMALLEST_LEAF: usize = 128;
const LARGEST_LEAF: usize = 1 << 10;
/// One in two names ends a leaf of the manifest; names, unlike versions, stay.
const CLOSING_MASK: u8 = 1;

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

/// A line that is shared: most are those of the checkpoint before.
pub type Line = Arc<Entry>;

#[derive(Debug, Clone, PartialEq)]
pub enum Manifest {
    Inline(Vec<Line>),
    Based(Ref, Vec<Edit>),
    Tree(Vec<Span>),
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

    /// The value of a channel that has one.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Channel { value, .. } => value.as_ref(),
            Self::Seen { .. } => None,
        }
    }

    /// Whether both are of the same channel, or of the same node.
    pub fn is_of_same(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.name() == other.name()
    }

    /// Bytes in memory, roughly.
    pub fn heap(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Channel {
                    name,
                    version: of,
                    value,
                } => {
                    let value = value.as_ref().map_or(0, Value::heap);
                    name.len() + 16 + of.as_ref().map_or(0, Version::heap) + value
                }
                Self::Seen { node, versions } => {
                    let seen = versions.iter().map(|(channel, of)| {
                        size_of::<(Vec<u8>, Version)>() + channel.len() + 16 + of.heap()
                    });
                    node.len() + 16 + seen.sum::<usize>()
                }
            }
    }

    pub fn put(&self, out: &mut Vec<u8>, references: &mut References) {
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

    pub fn take(input: &mut Input, references: &[Ref]) -> Result<Self> {
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

    pub fn take_all(payload: &[u8], references: &[Ref]) -> Result<Vec<Line>> {
        let mut input = Input::new(payload);
        let mut entries = Vec::new();
        while !input.is_empty() {
            entries.push(Arc::new(Self::take(&mut input, references)?));
        }
        Ok(entries)
    }
}

/// The entries of a leaf of the manifest.
pub fn manifest_leaf(object: &Object<'_>) -> Result<Vec<Line>> {
    Entry::take_all(&object.payload, &object.references)
}

/// What entries refer to, and their bytes.
pub fn written<'a>(entries: impl IntoIterator<Item = &'a Line>) -> (Vec<Ref>, Vec<u8>) {
    let mut references = References::default();
    let mut out = Vec::new();
    for entry in entries {
        entry.put(&mut out, &mut references);
    }
    (references.into_list(), out)
}

/// Bytes that entries take, with what they refer to.
pub fn written_size<'a>(entries: impl IntoIterator<Item = &'a Line>) -> usize {
    let (references, out) = written(entries);
    out.len() + references.len() * Ref::LEN
}

/// A manifest, its base if it has one, and the chunks that it needs, children first.
#[derive(Debug)]
pub struct Plan {
    pub manifest: Manifest,
    pub base: Option<Arc<Base>>,
    pub nodes: Vec<Arc<Page>>,
}

/// A manifest for these entries. `last` are those of the checkpoint before, and their base.
pub fn plan_manifest(entries: &[Line], last: Option<(&[Line], Option<&Arc<Base>>)>) -> Plan {
    if let Some((_, Some(base))) = last {
        if let Some(edits) = base.edits(entries, INLINE_MANIFEST) {
            return Plan {
                manifest: Manifest::Based(base.reference(), edits),
                base: Some(base.clone()),
                nodes: Vec::new(),
            };
        }
    }
    if written_size(entries) > INLINE_MANIFEST {
        return plan_tree(entries);
    }
    let base = last.and_then(|(last, _)| Base::plan(entries, last));
    match base.and_then(|base| Some((base.edits(entries, INLINE_MANIFEST)?, Arc::new(base)))) {
        Some((edits, base)) => Plan {
            manifest: Manifest::Based(base.reference(), edits),
            nodes: vec![base.page.clone()],
            base: Some(base),
        },
        None => Plan {
            manifest: Manifest::Inline(entries.to_vec()),
            base: None,
            nodes: Vec::new(),
        },
    }
}

fn plan_tree(entries: &[Line]) -> Plan {
    let mut nodes = Vec::new();
    let mut spans = Vec::new();
    let mut references = References::default();
    let mut payload = Vec::new();
    let mut count = 0;
    for (at, entry) in entries.iter().enumerate() {
        entry.put(&mut payload, &mut references);
        count += 1;
        let size = payload.len() + references.list().len() * Ref::LEN;
        let closes = blake3::hash(entry.name()).as_bytes()[0] & CLOSING_MASK == 0;
        if at + 1 == entries.len() || size >= LARGEST_LEAF || (size >= SMALLEST_LEAF && closes) {
            let list = std::mem::take(&mut references).into_list();
            let payload = std::mem::take(&mut payload);
            let page = Page::new(MANIFEST, list, payload);
            spans.push(Span {
                reference: page.reference(),
                length: count,
            });
            nodes.push(Arc::new(page));
            count = 0;
        }
    }
    let (pages, root) = grow(spans, None);
    nodes.extend(pages.into_iter().map(|grown| grown.page));
    Plan {
        manifest: Manifest::Tree(root),
        base: None,
        nodes,
    }
}
