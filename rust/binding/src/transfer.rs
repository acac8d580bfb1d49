//! Files: their records and their digest.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tailrace_core::chunk;

use crate::buffer::Input;

/// Pieces from which on hashing is long enough to let other threads run.
const DETACH_BYTES: usize = 64 << 10;

#[pyfunction]
#[pyo3(signature = (data, /))]
pub fn chunk_records(py: Python<'_>, data: Input) -> Bound<'_, PyBytes> {
    let mut out = Vec::new();
    chunk::encode(data.bytes(), &mut out);
    PyBytes::new(py, &out)
}

#[pyfunction]
#[pyo3(signature = (accessed, modified, /))]
pub fn utime_record(py: Python<'_>, accessed: f64, modified: f64) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &chunk::utime(accessed, modified))
}

#[pyfunction]
pub fn unpack_record(py: Python<'_>) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &chunk::unpack())
}

#[pyfunction]
#[pyo3(signature = (length, blake3, /))]
pub fn close_record<'py>(py: Python<'py>, length: u64, blake3: [u8; 32]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &chunk::close(length, &blake3))
}

/// A running digest.
#[pyclass(module = "tailrace._core")]
pub struct Blake3(chunk::Digest);

#[pymethods]
impl Blake3 {
    #[new]
    fn new() -> Self {
        Self(chunk::Digest::new())
    }

    #[pyo3(signature = (data, /))]
    fn update(&mut self, py: Python<'_>, data: Input) {
        let data = data.bytes();
        if data.len() < DETACH_BYTES {
            self.0.update(data);
        } else {
            py.detach(|| self.0.update(data));
        }
    }

    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.digest())
    }

    #[getter]
    fn length(&self) -> u64 {
        self.0.length()
    }
}
