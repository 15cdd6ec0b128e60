//! The bytes of a value, of which elements that are known may be left out: what was put before is
//! neither written nor compared nor hashed again.

use std::sync::{Arc, OnceLock};

use super::chunk::{Id, LEAF};

/// An element whose bytes are known, and with them the leaf that it is.
#[derive(Debug)]
pub struct Known {
    bytes: Arc<[u8]>,
    id: OnceLock<Id>,
}

impl Known {
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            id: OnceLock::new(),
        }
    }

    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Its id as a leaf of its own.
    pub fn id(&self) -> Id {
        *self.id.get_or_init(|| Id::of(LEAF, &[], &self.bytes))
    }
}

/// A known element that was left out, and how many bytes were written before it.
pub type Gap = (usize, Arc<Known>);

/// What was written of a value, and what was left out of it. Only elements of a list at the top
/// are left out, of a length that makes each a leaf ([`super::pieces::is_leaf`]).
#[derive(Debug)]
pub struct Source<S> {
    pub written: S,
    /// In order.
    pub gaps: Arc<[Gap]>,
}

impl<S: AsRef<[u8]>> From<S> for Source<S> {
    fn from(written: S) -> Self {
        Self {
            written,
            gaps: Arc::default(),
        }
    }
}

impl<S: AsRef<[u8]>> Source<S> {
    /// Bytes of the value.
    pub fn length(&self) -> usize {
        let left_out: usize = self.gaps.iter().map(|(_, known)| known.bytes.len()).sum();
        self.written.as_ref().len() + left_out
    }

    /// All bytes of the value.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.length()];
        self.copy_to(&mut out);
        out
    }

    /// Copy all bytes of the value to where there is room for exactly these.
    pub fn copy_to(&self, out: &mut [u8]) {
        let written = self.written.as_ref();
        let (mut from, mut to) = (0, 0);
        let mut copy = |bytes: &[u8]| {
            out[to..to + bytes.len()].copy_from_slice(bytes);
            to += bytes.len();
        };
        for (gap, known) in &*self.gaps {
            copy(&written[from..*gap]);
            copy(&known.bytes);
            from = *gap;
        }
        copy(&written[from..]);
    }
}
