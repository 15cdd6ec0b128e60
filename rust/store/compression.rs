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
/// Frames of what is no text: a larger one says its own frequencies, if that makes it smaller.
const WORTH_ANOTHER: usize = 256;
/// A word is worth a match from five letters on; `dfast` finds the longer ones as well, in the time
/// that `fast` takes.
const PARAMETERS: [CParameter; 5] = [
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
    let mut made = Compressor::with_dictionary(1, dictionary.bytes())?;
    made.set_parameter(CParameter::Format(FrameFormat::Magicless))?;
    made.include_contentsize(false)?;
    made.include_dictid(false)?;
    for parameter in PARAMETERS {
        made.set_parameter(parameter)?;
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

/// A frame and its dictionary; None where the payload is too short for one.
///
/// Zstd believes the frequencies of a dictionary where there is little to compress. They are those of
/// text in a language with Latin letters: of another, and of what is no text, they say nothing.
pub fn compress(payload: &[u8], is_text: bool) -> Option<(Vec<u8>, Dictionary)> {
    if payload.len() < WORTH_COMPRESSING {
        return None;
    }
    let packed = compress_with(Dictionary::Language, payload)?;
    let enough = if is_text {
        payload.len() / 8 * 5
    } else {
        WORTH_ANOTHER
    };
    if packed.len() > enough {
        let other = compress_with(Dictionary::Structure, payload)?;
        if other.len() < packed.len() {
            return Some((other, Dictionary::Structure));
        }
    }
    Some((packed, Dictionary::Language))
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

    fn round_trip(payload: &[u8], is_text: bool) -> (usize, Dictionary) {
        let (frame, dictionary) = compress(payload, is_text).unwrap();
        let plain = decompress(dictionary, &frame, payload.len()).unwrap();
        assert_eq!(plain, payload);
        assert!(decompress(dictionary, &frame, payload.len() + 1).is_err());
        assert!(decompress(dictionary, &frame[..frame.len() - 1], payload.len()).is_err());
        (frame.len(), dictionary)
    }

    #[test]
    fn words_of_a_short_text_are_known() {
        let (length, dictionary) = round_trip(ENGLISH.as_bytes(), true);
        assert_eq!(dictionary, Dictionary::Language);
        let other = compress_with(Dictionary::Structure, ENGLISH.as_bytes()).unwrap();
        assert!(length * 10 < other.len() * 8, "{length}, {}", other.len());
        assert!(length * 2 < ENGLISH.len(), "{length} of {}", ENGLISH.len());
    }

    #[test]
    fn other_letters_take_no_more_than_without_the_words() {
        let (length, dictionary) = round_trip(RUSSIAN.as_bytes(), true);
        assert_eq!(dictionary, Dictionary::Structure);
        let other = compress_with(Dictionary::Language, RUSSIAN.as_bytes()).unwrap();
        assert!(length < other.len(), "{length}, {}", other.len());
    }

    #[test]
    fn what_is_no_text_says_its_own_frequencies() {
        // As the versions in a manifest: digits in fours, of which few recur.
        let mut state = 1u32;
        let numbers: Vec<u8> = (0..1000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 28) as u8
            })
            .collect();
        let (length, dictionary) = round_trip(&numbers, false);
        assert_eq!(dictionary, Dictionary::Structure);
        assert!(length < 600, "{length}");
    }

    #[test]
    fn what_is_short_is_left_as_it_is() {
        assert!(compress(&[0; WORTH_COMPRESSING - 1], true).is_none());
        assert!(compress(&[0; WORTH_COMPRESSING], true).is_some());
    }
}
