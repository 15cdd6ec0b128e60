//! The core of holdfast: what a checkpoint becomes before it is stored, and back.
//!
//! `codec` knows msgpack, `store` knows chunks, trees and records; neither knows Python.
//! `py` is the only module that does, and the only one that may use pyo3.
#![deny(unsafe_code)]

pub mod codec;
pub mod error;
#[cfg(feature = "python")]
mod py;
pub mod store;
