//! The Python module `snnc._snnc`, on which the package `snnc` is built. It calls the library and keeps nothing of its own:
//! options arrive as names and texts, results leave as JSON and as NumPy arrays.

#![warn(missing_docs)]

mod asked;
mod commands;
mod errors;
mod model;
mod report;
mod stream;
mod training;
mod work;

use pyo3::prelude::*;

/// What the package `snnc` calls.
#[pymodule]
mod _snnc {
    #[pymodule_export]
    use super::commands::{check, compile, energy, evaluate, ir, price_lists, tune};
    #[pymodule_export]
    use super::model::{Core, load};
    #[pymodule_export]
    use super::report::{ReportCore, report};
    #[pymodule_export]
    use super::stream::PieceStream;
    #[pymodule_export]
    use super::training::train;

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("commit", snnc::run_record::commit())
    }
}
