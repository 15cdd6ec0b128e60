//! A channel's version, as LangGraph counts it: text, a whole number or a float.

use super::bytes::{put_field, put_signed, put_varint, Input};
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub enum Version {
    Int(i64),
    Float(f64),
    /// UTF-8, or WTF-8 where the text holds lone surrogates.
    Text(Vec<u8>),
}

/// Equal versions have equal bytes: a float is its bits, so that 0.0 is not -0.0.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one == other,
            (Self::Float(one), Self::Float(other)) => one.to_bits() == other.to_bits(),
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => false,
        }
    }
}

const INT: u8 = 0;
const FLOAT: u8 = 1;
const TEXT: u8 = 2;
/// LangGraph's own form, `{n:032}.{random():016}`: 51 bytes of text in about 12.
const COUNTED: u8 = 3;

/// `(n, digits of the fraction, their number)` where the text is of LangGraph's form.
fn counted(text: &[u8]) -> Option<(u64, u64, u8)> {
    let (count, fraction) = (text.get(..32)?, text.get(32..)?);
    let fraction = fraction.strip_prefix(b".0.")?;
    if fraction.is_empty() || fraction.len() > 19 {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0u64, |n, d| {
            d.is_ascii_digit()
                .then(|| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))?
        })
    };
    Some((number(count)?, number(fraction)?, fraction.len() as u8))
}

impl Version {
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(n) => {
                out.push(INT);
                put_signed(out, *n);
            }
            Self::Float(x) => {
                out.push(FLOAT);
                out.extend_from_slice(&x.to_be_bytes());
            }
            Self::Text(text) => match counted(text) {
                Some((count, fraction, digits)) => {
                    out.push(COUNTED);
                    put_varint(out, count);
                    out.push(digits);
                    put_varint(out, fraction);
                }
                None => {
                    out.push(TEXT);
                    put_field(out, text);
                }
            },
        }
    }

    pub fn take(input: &mut Input) -> Result<Self> {
        Ok(match input.byte()? {
            INT => Self::Int(input.signed()?),
            FLOAT => {
                let mut x = [0; 8];
                x.copy_from_slice(input.take(8)?);
                Self::Float(f64::from_be_bytes(x))
            }
            TEXT => Self::Text(input.field()?.to_vec()),
            COUNTED => {
                let count = input.varint()?;
                let digits = usize::from(input.byte()?);
                let fraction = input.varint()?;
                Self::Text(format!("{count:032}.0.{fraction:0digits$}").into_bytes())
            }
            _ => return Err(Error::corrupt("unknown kind of version")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_round_trip() {
        let texts = [
            "",
            "1",
            "00000000000000000000000000000003.0.1234567890123456",
            "00000000000000000000000000000003.0.0000567890123456",
            "00000000000000000000000000000003.0.",
            "00000000000000000000000000000003.1.5",
            "00000000000000000000000000000003.0.12345678901234567890",
            "00000000000000000000000000000003.5e-05",
            "0000000000000000000000000000000x.0.1",
            "99999999999999999999999999999999.0.1",
            "00000000000018446744073709551615.0.1",
            "00000000000018446744073709551616.0.1",
        ];
        let versions = texts
            .iter()
            .map(|t| Version::Text(t.as_bytes().to_vec()))
            .chain([0, 1, -1, i64::MAX, i64::MIN].map(Version::Int))
            .chain([0.0, -1.5, f64::INFINITY].map(Version::Float));
        for version in versions {
            let mut out = Vec::new();
            version.put(&mut out);
            let mut input = Input::new(&out);
            assert_eq!(Version::take(&mut input).unwrap(), version);
            assert!(input.is_empty());
        }
    }

    #[test]
    fn equal_versions_have_equal_bytes() {
        assert_ne!(Version::Float(0.0), Version::Float(-0.0));
        assert_ne!(Version::Float(1.0), Version::Int(1));
        assert_eq!(Version::Float(f64::NAN), Version::Float(f64::NAN));
    }

    #[test]
    fn langgraphs_own_form_is_short() {
        let mut out = Vec::new();
        Version::Text(b"00000000000000000000000000000003.0.1234567890123456".to_vec())
            .put(&mut out);
        assert!(out.len() <= 12, "{}", out.len());
    }
}
