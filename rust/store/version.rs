//! A channel's version, as LangGraph counts it: text, a whole number or a float.

use super::bytes::{put_field, put_signed, put_varint, Input};
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub enum Version {
    Int(i64),
    Float(f64),
    /// Text of LangGraph's own form, which most are: it takes no memory of its own.
    Counted(Counted),
    /// Any other, in UTF-8, or WTF-8 where it holds lone surrogates.
    Text(Vec<u8>),
}

/// `{count:032}.0.{fraction:0digits}`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    count: u64,
    fraction: u64,
    digits: u8,
}

/// Equal versions have equal bytes: a float is its bits, so that 0.0 is not -0.0.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one == other,
            (Self::Float(one), Self::Float(other)) => one.to_bits() == other.to_bits(),
            (Self::Counted(one), Self::Counted(other)) => one == other,
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

/// Digits of the count, what stands behind them, and the most digits that may follow.
const COUNT_DIGITS: usize = 32;
const BETWEEN: &[u8] = b".0.";
const MOST_DIGITS: usize = 19;

impl Counted {
    /// None where the text is of another form.
    fn of(text: &[u8]) -> Option<Self> {
        let (count, fraction) = text.split_at_checked(COUNT_DIGITS)?;
        let fraction = fraction.strip_prefix(BETWEEN)?;
        if fraction.is_empty() || fraction.len() > MOST_DIGITS {
            return None;
        }
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0u64, |n, d| {
                d.is_ascii_digit()
                    .then(|| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))?
            })
        };
        Some(Self {
            count: number(count)?,
            fraction: number(fraction)?,
            digits: fraction.len() as u8,
        })
    }

    /// Give its text to `work`.
    pub fn with_text<T>(self, work: impl FnOnce(&[u8]) -> T) -> T {
        let mut text = [b'0'; COUNT_DIGITS + BETWEEN.len() + MOST_DIGITS];
        let (count, rest) = text.split_at_mut(COUNT_DIGITS);
        let (between, rest) = rest.split_at_mut(BETWEEN.len());
        put_digits(count, self.count);
        between.copy_from_slice(BETWEEN);
        put_digits(&mut rest[..usize::from(self.digits)], self.fraction);
        let end = COUNT_DIGITS + BETWEEN.len() + usize::from(self.digits);
        work(&text[..end])
    }
}

/// Write a number right-aligned over zeros.
fn put_digits(zeros: &mut [u8], mut number: u64) {
    for digit in zeros.iter_mut().rev() {
        if number == 0 {
            break;
        }
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl Version {
    /// The version that a text is.
    pub fn of_text(text: &[u8]) -> Self {
        match Counted::of(text) {
            Some(counted) => Self::Counted(counted),
            None => Self::Text(text.to_vec()),
        }
    }

    /// Bytes in memory beside its own, roughly.
    pub fn heap(&self) -> usize {
        match self {
            Self::Text(text) => text.len() + 16,
            Self::Int(_) | Self::Float(_) | Self::Counted(_) => 0,
        }
    }

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
            Self::Counted(Counted {
                count,
                fraction,
                digits,
            }) => {
                out.push(COUNTED);
                put_varint(out, *count);
                out.push(*digits);
                put_varint(out, *fraction);
            }
            Self::Text(text) => {
                out.push(TEXT);
                put_field(out, text);
            }
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
            TEXT => Self::of_text(input.field()?),
            COUNTED => {
                let count = input.varint()?;
                let digits = input.byte()?;
                let fraction = input.varint()?;
                let most = 10u64.checked_pow(u32::from(digits));
                if digits == 0 || most.is_none_or(|most| fraction >= most) {
                    return Err(Error::corrupt("a version has more digits than it says"));
                }
                Self::Counted(Counted {
                    count,
                    fraction,
                    digits,
                })
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
            .map(|t| Version::of_text(t.as_bytes()))
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
    fn texts_of_langgraphs_own_form_come_back() {
        for fraction in [
            "0",
            "00",
            "1234567890123456",
            "0000567890123456",
            "9999999999999999999",
        ] {
            for count in [0, 3, u64::MAX] {
                let text = format!("{count:032}.0.{fraction}");
                let Version::Counted(counted) = Version::of_text(text.as_bytes()) else {
                    panic!("{text}");
                };
                counted.with_text(|back| assert_eq!(back, text.as_bytes()));
            }
        }
    }

    #[test]
    fn more_digits_than_there_are_is_refused() {
        for (digits, fraction) in [(0, 0), (1, 10), (20, 1), (255, 1)] {
            let mut out = vec![COUNTED, 1, digits];
            put_varint(&mut out, fraction);
            assert!(Version::take(&mut Input::new(&out)).is_err());
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
        Version::of_text(b"00000000000000000000000000000003.0.1234567890123456").put(&mut out);
        assert!(out.len() <= 12, "{}", out.len());
    }
}
