//! The one error type of the core.

use crate::store::chunk::Id;

/// What can go wrong when stored bytes are read or values are split.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The bytes are not what any version of holdfast writes.
    #[error("{0}")]
    Corrupt(String),
    /// The bytes say that a newer version of holdfast wrote them.
    #[error("written in format {found}, this version of holdfast reads up to {supported}")]
    FormatTooNew { found: u8, supported: u8 },
    /// A chunk that something refers to was not given.
    #[error("chunk {0} is missing")]
    Missing(Id),
    /// A value exceeds what the format can hold.
    #[error("{0}")]
    TooLarge(String),
}

impl Error {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}

pub type Result<T> = std::result::Result<T, Error>;
