//! The record of a checkpoint: all of it that is not in chunks, and where the rest is.
//!
//! Payload: parent id, metadata, skeleton (the checkpoint without its channels), manifest.

use super::base::Edit;
use super::bytes::{put_field, Input};
use super::chunk::{seal, Compression, Ref, KEYED, MANIFEST};
use super::manifest::{Entry, Manifest};
use super::value::{put_spans, take_reference, take_spans, References, Value};
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Empty where there is none.
    pub parent: Vec<u8>,
    pub metadata: Value,
    pub skeleton: Value,
    pub manifest: Manifest,
}

const INLINE_KIND: u8 = 0;
const TREE_KIND: u8 = 1;
/// From format 4 on.
const BASED_KIND: u8 = 2;

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
            Manifest::Based(base, edits) => {
                out.push(BASED_KIND);
                references.put(&mut out, *base);
                for edit in edits {
                    edit.put(&mut out, &mut references);
                }
            }
            Manifest::Tree(spans) => {
                out.push(TREE_KIND);
                put_spans(&mut out, spans, &mut references);
            }
        }
        let stored = seal(KEYED, references.list(), &out, compression)?;
        Ok((stored, references.into_list()))
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
            BASED_KIND => {
                let base = take_reference(&mut input, references)?;
                if base.level != MANIFEST {
                    return Err(Error::corrupt("the base of a manifest is none"));
                }
                let mut edits = Vec::new();
                while !input.is_empty() {
                    edits.push(Edit::take(&mut input, references)?);
                }
                Manifest::Based(base, edits)
            }
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
    use std::sync::Arc;

    use super::super::chunk::{Id, LEAF};
    use super::super::manifest::{plan_manifest, Line, Plan};
    use super::super::tree::{Page, Span};
    use super::super::value::{Body, Root};
    use super::super::version::Version;
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
            tag: b"msgpack".into(),
            body: Body::Tree(Root {
                literals: vec![(0, vec![0x90]), (9, vec![n])],
                spans,
            }),
        }
    }

    fn inline(tag: &[u8], bytes: &[u8]) -> Value {
        Value {
            tag: tag.to_vec().into(),
            body: Body::Inline(bytes.to_vec()),
        }
    }

    fn entries(n: usize) -> Vec<Line> {
        let mut entries: Vec<Line> = (0..n)
            .map(|i| {
                Arc::new(Entry::Channel {
                    name: format!("channel-{i}").into_bytes(),
                    version: (i % 5 != 0).then_some(Version::Int(i as i64)),
                    value: match i % 3 {
                        0 => None,
                        1 => Some(value(3)),
                        _ => Some(inline(b"my-own", b"abc")),
                    },
                })
            })
            .collect();
        entries.push(Arc::new(Entry::Seen {
            node: b"agent".to_vec(),
            versions: vec![
                (b"a".to_vec(), Version::Text(b"x".to_vec())),
                (b"b".to_vec(), Version::Float(1.5)),
            ],
        }));
        entries
    }

    fn record(n: usize) -> (Record, Vec<Arc<Page>>) {
        let Plan {
            manifest, nodes, ..
        } = plan_manifest(&entries(n), None);
        let record = Record {
            parent: b"parent".to_vec(),
            metadata: inline(b"msgpack", &[0x80]),
            skeleton: value(5),
            manifest,
        };
        (record, nodes)
    }

    /// One whose manifest has a base.
    fn based() -> Record {
        let (mut record, _) = record(30);
        let mut changed = entries(30);
        changed.remove(7);
        let last = entries(30);
        let planned = plan_manifest(&changed, Some((&last, None)));
        assert!(matches!(planned.manifest, Manifest::Based(..)));
        assert_eq!(planned.nodes, [planned.base.unwrap().page.clone()]);
        record.manifest = planned.manifest;
        record
    }

    #[test]
    fn records_round_trip() {
        let records = [0, 1, 10, 200].map(|n| record(n).0);
        for record in records.into_iter().chain([based()]) {
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
        let planned = plan_manifest(&entries(200), None);
        assert!(matches!(planned.manifest, Manifest::Tree(_)));
        let before = planned.nodes;
        let mut changed = entries(200);
        if let Entry::Channel { version, .. } = Arc::make_mut(&mut changed[77]) {
            *version = Some(Version::Int(-5));
        }
        let after = plan_manifest(&changed, None).nodes;
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
        for record in [record(10).0, based()] {
            let (stored, _) = record.seal(Compression::None).unwrap();
            for short in 0..stored.len() {
                assert!(Record::open(&stored[..short]).is_err());
            }
        }
    }

    #[test]
    fn a_value_cannot_pass_for_a_base() {
        let mut record = based();
        let Manifest::Based(base, _) = &mut record.manifest else {
            panic!("the manifest has no base");
        };
        base.level = LEAF;
        let (stored, _) = record.seal(Compression::None).unwrap();
        assert!(Record::open(&stored).is_err());
    }
}
