//! A value as a record or a pending write holds it: its bytes, or where they are.

use std::borrow::Cow;
use std::collections::HashMap;

use super::bytes::{put_field, put_varint, Input};
use super::chunk::{Ref, LEAF};
use super::tree::{length, Span};
use crate::error::{Error, Result};

/// Values up to this many bytes stand where they are referred to.
pub const INLINE: usize = 100;
/// Metadata and skeleton are almost never shared, and metadata is filtered on.
pub const INLINE_HEAD: usize = 1 << 10;

/// What a serializer says of its bytes. There are many values, and few tags.
pub type Tag = Cow<'static, [u8]>;

/// The bytes that a serializer made of a value, and the tag it gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub tag: Tag,
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

/// References in the order in which a payload first names them.
#[derive(Default)]
pub struct References {
    list: Vec<Ref>,
    index: HashMap<Ref, u64>,
}

impl References {
    pub fn put(&mut self, out: &mut Vec<u8>, reference: Ref) {
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

    pub fn into_list(self) -> Vec<Ref> {
        self.list
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

pub fn put_spans(out: &mut Vec<u8>, spans: &[Span], references: &mut References) {
    put_varint(out, spans.len() as u64);
    for span in spans {
        references.put(out, span.reference);
        put_varint(out, span.length);
    }
}

/// A reference that `References::put` wrote.
pub fn take_reference(input: &mut Input, references: &[Ref]) -> Result<Ref> {
    usize::try_from(input.varint()?)
        .ok()
        .and_then(|at| references.get(at))
        .copied()
        .ok_or_else(|| Error::corrupt("a reference is not listed"))
}

pub fn take_spans(input: &mut Input, references: &[Ref], base: u8) -> Result<Vec<Span>> {
    let count = input.count()?;
    (0..count)
        .map(|_| {
            let reference = take_reference(input, references)?;
            if reference.level & !0x3f != base {
                return Err(Error::corrupt("a reference is not listed"));
            }
            Ok(Span {
                reference,
                length: length(input)?,
            })
        })
        .collect()
}

impl Value {
    pub fn put(&self, out: &mut Vec<u8>, references: &mut References) {
        let tag = TAGS.iter().position(|tag| *tag == &*self.tag);
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
            OTHER_TAG => input.field()?.to_vec().into(),
            at => Cow::Borrowed(
                *TAGS
                    .get(usize::from(at))
                    .ok_or_else(|| Error::corrupt("unknown kind of value"))?,
            ),
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

    /// Bytes of the value.
    pub fn length(&self) -> u64 {
        let add = |sum: u64, length: u64| sum.saturating_add(length);
        match &self.body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Tree(root) => {
                let literals = root.literals.iter().map(|(_, bytes)| bytes.len() as u64);
                let leaves = root.spans.iter().map(|span| span.length);
                literals.chain(leaves).fold(0, add)
            }
        }
    }

    pub fn spans(&self) -> &[Span] {
        match &self.body {
            Body::Inline(_) => &[],
            Body::Tree(root) => &root.spans,
        }
    }
}
