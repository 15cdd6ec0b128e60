//! msgpack on bytes alone.

pub mod marker;
pub mod scan;
pub mod write;
