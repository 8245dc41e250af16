//! The native half of the Python package `voxtral_rs`: models and streams, as Python's own types lie around them in `python/voxtral_rs`.
//!
//! Nothing here holds the interpreter while it works. All that lives is behind locks, and locks are taken without the interpreter only.

mod audio;
mod errors;
mod model;
mod process;
mod stream;
mod wait;

use pyo3::prelude::*;

/// What `voxtral_rs` is made of; `_voxtral.pyi` has the types.
#[pymodule(gil_used = false)]
mod _voxtral {
    use super::*;

    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::wait::Stop;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
