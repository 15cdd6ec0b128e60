//! Payloads as zstd frames. Half of a short message is in every message, and the rest is mostly
//! English: zstd finds both in a dictionary (`dictionary/make.py`), with the frequencies of letters
//! and matches, so that a frame need not say them.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter, FrameFormat, Strategy};

use crate::error::{Error, Result};

/// What a frame was made with, and is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dictionary {
    /// Format 1 had none.
    None,
    /// What messages have in common, from format 2 on.
    Structure,
    /// Words, too, and how often what occurs, from format 3 on.
    Language,
}

static STRUCTURE: &[u8] = include_bytes!("dictionary/format-2");
static LANGUAGE: &[u8] = include_bytes!("dictionary/format-3");

/// Below this zstd's own header outweighs what it saves.
const WORTH_COMPRESSING: usize = 32;
/// A frame that is shorter is not tried with another dictionary.
const WORTH_ANOTHER: usize = 192;
/// Payloads up to this length are tried with both dictionaries where they are no prose.
const SHORT: usize = 4 << 10;
const ZSTD_LEVEL: i32 = 1;
/// With words: one is worth a match from five letters on, and `dfast` finds the longer ones as well.
const WITH_WORDS: [CParameter; 5] = [
    CParameter::WindowLog(17),
    CParameter::HashLog(15),
    CParameter::ChainLog(14),
    CParameter::MinMatch(5),
    CParameter::Strategy(Strategy::ZSTD_dfast),
];

thread_local! {
    static COMPRESSORS: [Slot<Compressor<'static>>; 3] = Default::default();
    static DECOMPRESSORS: [Slot<Decompressor<'static>>; 3] = Default::default();
}

type Slot<T> = RefCell<Option<T>>;

impl Dictionary {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::None => &[],
            Self::Structure => STRUCTURE,
            Self::Language => LANGUAGE,
        }
    }
}

fn compressor(dictionary: Dictionary) -> io::Result<Compressor<'static>> {
    let mut made = Compressor::with_dictionary(ZSTD_LEVEL, dictionary.bytes())?;
    made.set_parameter(CParameter::Format(FrameFormat::Magicless))?;
    made.include_contentsize(false)?;
    made.include_dictid(false)?;
    if dictionary == Dictionary::Language {
        for parameter in WITH_WORDS {
            made.set_parameter(parameter)?;
        }
    }
    Ok(made)
}

fn decompressor(dictionary: Dictionary) -> io::Result<Decompressor<'static>> {
    let mut made = Decompressor::with_dictionary(dictionary.bytes())?;
    if dictionary != Dictionary::None {
        made.set_parameter(DParameter::Format(FrameFormat::Magicless))?;
    }
    Ok(made)
}

fn compress_with(dictionary: Dictionary, payload: &[u8]) -> Option<Vec<u8>> {
    COMPRESSORS.with(|slots| {
        let mut slot = slots[dictionary as usize].borrow_mut();
        if slot.is_none() {
            *slot = compressor(dictionary).ok();
        }
        slot.as_mut()?.compress(payload).ok()
    })
}

/// Whether a payload is mostly words: of English seven bytes in eight are small letters and spaces, of
/// messages with ids two in three at least; of numbers, logs, and languages with other letters fewer.
/// In each of 1,500 messages above that the words were worth it.
fn is_prose(payload: &[u8]) -> bool {
    let letters = payload
        .iter()
        .filter(|byte| matches!(byte, b'a'..=b'z' | b' '));
    letters.count() >= payload.len() / 3 * 2
}

/// A frame and its dictionary; None where the payload is too short for one.
///
/// Zstd believes the frequencies of a dictionary where there is little to compress. They are those of
/// prose: what is none has both dictionaries tried on it, or the other one alone where it is long
/// enough to say its own frequencies.
pub fn compress(payload: &[u8]) -> Option<(Vec<u8>, Dictionary)> {
    if payload.len() < WORTH_COMPRESSING {
        return None;
    }
    let frame = |dictionary| Some((compress_with(dictionary, payload)?, dictionary));
    if is_prose(payload) {
        return frame(Dictionary::Language);
    }
    if payload.len() > SHORT {
        return frame(Dictionary::Structure);
    }
    let first = frame(Dictionary::Language)?;
    if first.0.len() < WORTH_ANOTHER {
        return Some(first);
    }
    let second = frame(Dictionary::Structure)?;
    Some(if second.0.len() < first.0.len() {
        second
    } else {
        first
    })
}

/// The payload of a frame, which is `length` bytes long.
pub fn decompress(dictionary: Dictionary, frame: &[u8], length: usize) -> Result<Vec<u8>> {
    let plain = DECOMPRESSORS.with(|slots| {
        let mut slot = slots[dictionary as usize].borrow_mut();
        if slot.is_none() {
            *slot = decompressor(dictionary).ok();
        }
        slot.as_mut().and_then(|d| d.decompress(frame, length).ok())
    });
    match plain {
        Some(plain) if plain.len() == length => Ok(plain),
        _ => Err(Error::corrupt("compressed bytes do not unpack")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str = "Thank you for your patience. I have looked at the order again, and it \
        should arrive between Tuesday and Thursday of the following week. If there is anything \
        else that you would like to change, please let me know before it leaves the warehouse.";
    const RUSSIAN: &str = "Спасибо за терпение. Я ещё раз посмотрел на заказ: он должен прийти \
        между вторником и четвергом на следующей неделе. Если хотите что-нибудь изменить, \
        напишите, пожалуйста, до того, как он покинет склад.";

    fn round_trip(payload: &[u8]) -> (usize, Dictionary) {
        let (frame, dictionary) = compress(payload).unwrap();
        let plain = decompress(dictionary, &frame, payload.len()).unwrap();
        assert_eq!(plain, payload);
        assert!(decompress(dictionary, &frame, payload.len() + 1).is_err());
        assert!(decompress(dictionary, &frame[..frame.len() - 1], payload.len()).is_err());
        (frame.len(), dictionary)
    }

    fn with(dictionary: Dictionary, payload: &[u8]) -> usize {
        compress_with(dictionary, payload).unwrap().len()
    }

    /// Numbers that are not random, and have no period.
    fn numbers() -> impl Iterator<Item = u32> {
        std::iter::successors(Some(1u32), |n| {
            Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
        })
        .map(|n| n >> 16)
    }

    #[test]
    fn words_of_a_short_text_are_known() {
        let (length, dictionary) = round_trip(ENGLISH.as_bytes());
        assert_eq!(dictionary, Dictionary::Language);
        let other = with(Dictionary::Structure, ENGLISH.as_bytes());
        assert!(length * 10 < other * 8, "{length}, {other}");
        assert!(length * 2 < ENGLISH.len(), "{length} of {}", ENGLISH.len());
    }

    #[test]
    fn what_is_no_prose_takes_no_more_than_without_the_words() {
        let rows: String = numbers()
            .take(400)
            .map(|n| {
                format!(
                    "{{\"id\": {n}, \"ok\": {}, \"at\": \"10:{:02}\"}}, ",
                    n % 3,
                    n % 60
                )
            })
            .collect();
        let digits: Vec<u8> = numbers().take(1000).map(|n| (n >> 12) as u8).collect();
        let texts = [RUSSIAN.repeat(12), rows];
        let payloads = texts.iter().map(String::as_bytes).chain([&digits[..]]);
        for payload in payloads {
            for length in [300, 700, 1500, 4000, 12_000] {
                let payload = &payload[..length.min(payload.len())];
                let (length, _) = round_trip(payload);
                let other = with(Dictionary::Structure, payload);
                assert!(length <= other, "{length}, {other} of {}", payload.len());
            }
        }
    }

    #[test]
    fn prose_is_told_from_what_is_none() {
        assert!(is_prose(ENGLISH.as_bytes()));
        assert!(!is_prose(RUSSIAN.as_bytes()));
        assert!(!is_prose(
            b"{\"status\": 200, \"results\": [[1.25, 3], [4.5, 6]]}"
        ));
    }

    #[test]
    fn what_is_short_is_left_as_it_is() {
        assert!(compress(&[0; WORTH_COMPRESSING - 1]).is_none());
        assert!(compress(&[0; WORTH_COMPRESSING]).is_some());
    }
}
