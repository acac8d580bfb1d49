//! `tailrace._core`: what crosses between Python and Rust. Conversion only; decisions live on either side of it.

mod error;
mod log;
mod session;
mod store;
mod supervisor;
mod value;

#[pyo3::pymodule(gil_used = false)]
mod _core {
    // One list per file, in the order of `_core.pyi`.
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
