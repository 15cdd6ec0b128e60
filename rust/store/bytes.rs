//! Variable-length integers and length-prefixed fields; reading checks every bound.

use crate::error::{Error, Result};

/// Append `n` in LEB128: seven bits a byte, lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Append `n` in LEB128, zigzag, so that small negative numbers stay short.
pub fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Append the length of `field`, then `field`.
pub fn put_field(out: &mut Vec<u8>, field: &[u8]) {
    put_varint(out, field.len() as u64);
    out.extend_from_slice(field);
}

/// Reads what the functions above wrote.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(Error::corrupt("bytes end too early"));
        }
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn varint(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Error::corrupt("an integer is too long"))
    }

    pub fn signed(&mut self) -> Result<i64> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A count of things of which each takes at least a byte of what is left.
    pub fn count(&mut self) -> Result<usize> {
        let n = self.varint()?;
        if n > self.rest.len() as u64 {
            return Err(Error::corrupt("a count exceeds the bytes"));
        }
        Ok(n as usize)
    }

    pub fn field(&mut self) -> Result<&'a [u8]> {
        let n = self.varint()?;
        self.take(usize::try_from(n).map_err(|_| Error::corrupt("a length is too large"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            let mut input = Input::new(&out);
            assert_eq!(input.varint(), Ok(n));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn signed_integers_round_trip() {
        for n in [0, -1, 1, -64, 64, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_signed(&mut out, n);
            assert_eq!(Input::new(&out).signed(), Ok(n));
            assert!(n.abs_diff(0) > 63 || out.len() == 1);
        }
    }

    #[test]
    fn lying_lengths_are_errors() {
        assert!(Input::new(&[0xff; 10]).varint().is_err());
        assert!(Input::new(&[0xff, 0xff]).varint().is_err());
        assert!(Input::new(&[5, 1, 2]).field().is_err());
        assert!(Input::new(&[9, 1]).count().is_err());
    }
}
