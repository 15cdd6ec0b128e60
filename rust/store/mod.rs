//! What is stored: keys, chunks, trees, records, and the cache of what is known to be there.

pub mod base;
pub mod bundle;
pub mod bytes;
pub mod cache;
pub mod chunk;
pub mod compression;
pub mod draft;
pub mod key;
pub mod manifest;
pub mod matcher;
pub mod memo;
pub mod pieces;
pub mod reader;
pub mod recent;
pub mod record;
pub mod source;
pub mod tree;
pub mod value;
pub mod version;
pub mod writes;
