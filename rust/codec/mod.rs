//! msgpack on bytes alone.

pub mod ext;
pub mod marker;
pub mod scan;
pub mod write;
