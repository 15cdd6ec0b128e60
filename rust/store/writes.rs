//! A pending write: what a task wrote to one channel, before the next checkpoint holds it.
//!
//! Task id and index are part of the key under which a store keeps it.

use super::bytes::{put_field, Input};
use super::chunk::{open, seal, Compression, Ref, KEYED};
use super::value::{References, Value};
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub task_path: Vec<u8>,
    pub channel: Vec<u8>,
    pub value: Value,
}

impl Write {
    /// The bytes to store, and what they refer to.
    pub fn seal(&self, compression: Compression) -> Result<(Vec<u8>, Vec<Ref>)> {
        let mut references = References::default();
        let mut out = Vec::new();
        put_field(&mut out, &self.task_path);
        put_field(&mut out, &self.channel);
        self.value.put(&mut out, &mut references);
        let list = references.list().to_vec();
        Ok((seal(KEYED, &list, &out, compression)?, list))
    }

    pub fn open(stored: &[u8]) -> Result<Self> {
        let object = open(stored)?;
        if object.level != KEYED {
            return Err(Error::corrupt("the bytes are no pending write"));
        }
        let mut input = Input::new(&object.payload);
        let task_path = input.field()?.to_vec();
        let channel = input.field()?.to_vec();
        let value = Value::take(&mut input, &object.references)?;
        if !input.is_empty() {
            return Err(Error::corrupt("a pending write goes on behind its end"));
        }
        Ok(Self {
            task_path,
            channel,
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Body;
    use super::*;

    #[test]
    fn writes_round_trip() {
        let write = Write {
            task_path: b"~__pregel_pull, agent".to_vec(),
            channel: b"messages".to_vec(),
            value: Value {
                tag: b"msgpack".into(),
                body: Body::Inline(vec![0xc0]),
            },
        };
        let (stored, references) = write.seal(Compression::Zstd).unwrap();
        assert!(references.is_empty());
        assert_eq!(Write::open(&stored).unwrap(), write);
        assert!(Write::open(&stored[1..]).is_err());
    }
}
