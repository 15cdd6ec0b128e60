//! The strings of dicts' keys, which come again and again.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::raw;

/// A longer key is made anew each time.
const LONGEST: usize = 31;
/// A power of two.
const SLOTS: usize = 512;

#[derive(Default)]
struct Slot {
    length: u8,
    bytes: [u8; LONGEST],
    key: Option<Py<PyString>>,
}

/// The last key for each of some hash values.
#[derive(Default)]
pub struct SharedKeys(Vec<Slot>);

impl SharedKeys {
    /// The key of these bytes; `None` where they are not UTF-8.
    #[inline]
    pub fn get<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyString>> {
        if bytes.len() > LONGEST {
            return raw::text(py, bytes);
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, Slot::default);
        }
        let slot = &mut self.0[hash(bytes) as usize % SLOTS];
        if slot.bytes[..usize::from(slot.length)] == *bytes {
            if let Some(key) = &slot.key {
                return Some(key.bind(py).clone());
            }
        }
        let key = raw::text(py, bytes)?;
        slot.length = bytes.len() as u8;
        slot.bytes[..bytes.len()].copy_from_slice(bytes);
        slot.key = Some(key.clone().unbind());
        Some(key)
    }
}

/// Of the length and the bytes at both ends; keys that differ in between share a slot.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => (
                u64::from(u32::from_le_bytes(*first)),
                u64::from(u32::from_le_bytes(*last)),
            ),
            _ => (
                bytes
                    .iter()
                    .fold(0, |all, byte| all << 8 | u64::from(*byte)),
                0,
            ),
        },
    };
    let mixed =
        (first ^ last.rotate_left(32) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> 40
}
