//! Trees of files, packed and unpacked by directory descriptors.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tailrace_files as files;

use crate::buffer::Input;
use crate::error::{remote, system, tree};
use crate::log::Batch;
use crate::transfer::Blake3;

/// Packs one directory.
#[pyclass(module = "tailrace._core")]
pub struct TreePacker(files::Packer);

#[pymethods]
impl TreePacker {
    #[new]
    #[pyo3(signature = (directory, /))]
    fn new(directory: RawFd) -> PyResult<Self> {
        Ok(Self(files::Packer::new(owned(directory)?).map_err(tree)?))
    }

    #[pyo3(signature = (size, /))]
    fn next_piece<'py>(&mut self, py: Python<'py>, size: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let piece = py.detach(|| self.0.next_piece(size)).map_err(tree)?;
        Ok(piece.map(|piece| PyBytes::new(py, &piece)))
    }

    fn take_skipped<'py>(&mut self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.take_skipped().iter().map(|path| PyBytes::new(py, path)).collect()
    }

    fn close(&mut self) {
        self.0.close();
    }
}

/// Unpacks one archive.
#[pyclass(module = "tailrace._core")]
pub struct TreeUnpacker(files::Unpacker);

#[pymethods]
impl TreeUnpacker {
    #[new]
    #[pyo3(signature = (root, bytes_max, /))]
    fn new(root: RawFd, bytes_max: Option<u64>) -> PyResult<Self> {
        Ok(Self(files::Unpacker::new(owned(root)?, bytes_max).map_err(tree)?))
    }

    #[pyo3(signature = (data, /))]
    fn write(&mut self, py: Python<'_>, data: Input) -> PyResult<()> {
        let data = data.bytes();
        py.detach(|| self.0.write(data)).map_err(tree)
    }

    #[pyo3(signature = (batch, digest, /))]
    fn write_batch(&mut self, py: Python<'_>, batch: &Batch, digest: &mut Blake3) -> PyResult<()> {
        let chunks = batch.inner().chunks().map_err(remote)?;
        let write = || {
            chunks.iter().try_for_each(|chunk| {
                digest.0.update(chunk);
                self.0.write(chunk)
            })
        };
        py.detach(write).map_err(tree)
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.finish()).map_err(tree)
    }
}

/// The same directory once more: the caller's descriptor stays the caller's.
fn owned(descriptor: RawFd) -> PyResult<OwnedFd> {
    // SAFETY: the caller keeps it open during the call; one that is not open makes it fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned().map_err(|error| system(&error, b""))
}
