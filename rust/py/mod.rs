//! The extension module `holdfast._core`: the only place that knows Python.

mod arrays;
mod buffer;
mod channel;
mod classes;
mod codec;
mod core;
mod decode;
mod draft;
mod encode;
mod error;
mod fits;
mod json;
mod keys;
mod loading;
mod memo;
mod messages;
mod packed;
mod pause;
mod raw;
mod reader;
mod rebuild;
mod record;
mod safe;
mod scalars;
mod shared_keys;
mod stored;
mod text;
mod typed;
mod version;
mod ways;

use pyo3::prelude::*;

/// What holdfast's Python side calls; see `_core.pyi` for the signatures.
// Nothing here was shown to be safe without the GIL yet.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::arrays::{bytea_array, int8_array, text_array};
    #[pymodule_export]
    use super::codec::Codec;
    #[pymodule_export]
    use super::core::Core;
    #[pymodule_export]
    use super::draft::Draft;
    #[pymodule_export]
    use super::error::{CoreError, FormatError, IntegrityError, MissingChunk};
    #[pymodule_export]
    use super::json::json;
    #[pymodule_export]
    use super::keys::{escape, unescape, Keys};
    #[pymodule_export]
    use super::loading::Loading;
    #[pymodule_export]
    use super::packed::Packed;
    #[pymodule_export]
    use super::reader::{Reader, Write};
    #[pymodule_export]
    use super::record::Record;
    #[pymodule_export]
    use super::stored::{bundled, children, level, references, referred, unbundled};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("FORMAT", crate::store::chunk::FORMAT)?;
        module.add("MANIFEST", crate::store::chunk::MANIFEST)?;
        module.add("RELEASE", !cfg!(debug_assertions))
    }
}
