//! Chunks that were sealed a moment ago. The messages that a task writes are those of the checkpoint
//! that follows; while they are on their way to the store, the cache does not have them.

use std::collections::HashMap;

use super::cache::Scope;
use super::chunk::Id;

/// Bytes that are kept before all are dropped, and of one chunk: those of a large value are rarely
/// sealed twice.
const MOST: usize = 256 << 10;
const LONGEST: usize = 8 << 10;
/// What an entry takes beside its bytes.
const OVERHEAD: usize = 96;

#[derive(Debug, Default)]
pub struct Recent {
    chunks: HashMap<(Scope, Id), Vec<u8>>,
    size: usize,
}

impl Recent {
    /// The bytes of a chunk as they were sealed.
    pub fn get(&self, scope: Scope, id: Id) -> Option<&[u8]> {
        self.chunks.get(&(scope, id)).map(Vec::as_slice)
    }

    pub fn keep(&mut self, scope: Scope, id: Id, sealed: &[u8]) {
        if sealed.len() > LONGEST {
            return;
        }
        if self.size + sealed.len() + OVERHEAD > MOST {
            self.chunks.clear();
            self.size = 0;
        }
        let before = self.chunks.insert((scope, id), sealed.to_vec());
        self.size += sealed.len() + OVERHEAD;
        self.size -= before.map_or(0, |before| before.len() + OVERHEAD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_for_its_thread_alone() {
        let mut recent = Recent::default();
        recent.keep([1; 16], Id([2; 16]), b"sealed");
        assert_eq!(recent.get([1; 16], Id([2; 16])), Some(&b"sealed"[..]));
        assert_eq!(recent.get([2; 16], Id([2; 16])), None);
        assert_eq!(recent.get([1; 16], Id([1; 16])), None);
    }

    #[test]
    fn the_bytes_are_bounded() {
        let mut recent = Recent::default();
        for n in 0..2000u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            recent.keep([0; 16], Id(id), &[0; 1000]);
            recent.keep([0; 16], Id(id), &[0; 1000]);
            assert!(recent.size <= MOST);
            let kept: usize = recent.chunks.values().map(|c| c.len() + OVERHEAD).sum();
            assert_eq!(recent.size, kept);
            assert!(recent.get([0; 16], Id(id)).is_some());
        }
        recent.keep([0; 16], Id([9; 16]), &[0; LONGEST + 1]);
        assert_eq!(recent.get([0; 16], Id([9; 16])), None);
    }
}
