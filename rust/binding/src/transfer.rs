//! Files: their records and their digest, and the way between them and a descriptor.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd as _, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tailrace_core::chunk;
use tailrace_core::limits::CHUNK_BYTES_MAX;

use crate::buffer::{Input, fill};
use crate::error::{remote, system};
use crate::log::Batch;

/// Pieces from which on hashing is long enough to let other threads run.
const DETACH_BYTES: usize = 64 << 10;

#[pyfunction]
#[pyo3(signature = (data, /))]
pub fn chunk_records(py: Python<'_>, data: Input) -> PyResult<Bound<'_, PyBytes>> {
    let pieces = data.bytes().chunks(CHUNK_BYTES_MAX);
    let length = data.bytes().len() + pieces.len() * chunk::RECORD_OVERHEAD;
    PyBytes::new_with(py, length, |mut place| {
        for piece in pieces {
            for part in [chunk::header(piece.len()).as_slice(), piece] {
                let (here, rest) = std::mem::take(&mut place).split_at_mut(part.len());
                here.copy_from_slice(part);
                place = rest;
            }
        }
        Ok(())
    })
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
pub struct Blake3(pub(crate) chunk::Digest);

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

/// What is read, hashed and written at once: it is still in the processor's cache for the second of the two.
const STEP_BYTES: usize = 256 << 10;
/// Buffers that wait to be used again: more are hardly under way, read ahead or in a stream's window.
const SPARE_MAX: usize = 12;

type Spare = Mutex<Vec<Vec<u8>>>;

/// Memory that is used again when nobody looks at it any more: a fresh megabyte costs more than what is done with it.
struct Recycled {
    memory: Vec<u8>,
    length: usize,
    spare: Arc<Spare>,
}

impl AsRef<[u8]> for Recycled {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

/// A piece of a file as a chunk record.
#[pyclass(frozen, module = "tailrace._core")]
pub struct Block(Bytes);

impl Block {
    /// The record as on the wire.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

#[pymethods]
impl Block {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn size(&self) -> usize {
        self.0.len() - chunk::RECORD_OVERHEAD
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: the bytes live in the frozen object and never change.
        unsafe { fill(slf.as_any(), &slf.get().0, view, flags) }
    }
}

/// Reads files into blocks whose memory goes round.
#[pyclass(frozen, module = "tailrace._core")]
pub struct BlockReader(Arc<Spare>);

#[pymethods]
impl BlockReader {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    #[pyo3(signature = (descriptor, digest, /))]
    fn read(&self, py: Python<'_>, descriptor: RawFd, digest: &mut Blake3) -> PyResult<Option<Block>> {
        let file = borrowed(descriptor);
        py.detach(|| self.fill(&file, &mut digest.0)).map_err(|error| system(&error, b""))
    }
}

impl BlockReader {
    /// As much as there is now, up to a chunk: of a pipe not more than one read gives.
    fn fill(&self, mut file: &File, digest: &mut chunk::Digest) -> io::Result<Option<Block>> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = spare.unwrap_or_else(|| vec![0; chunk::RECORD_OVERHEAD + CHUNK_BYTES_MAX]);
        // It goes back to the others also when nothing, or an error, is read into it.
        let mut block = Recycled { memory, length: 0, spare: Arc::clone(&self.0) };
        let (header, place) = block.memory.split_at_mut(chunk::RECORD_OVERHEAD);
        let mut length = 0;
        for step in place.chunks_mut(STEP_BYTES) {
            let read = loop {
                match file.read(step) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            digest.update(step.get(..read).unwrap_or_default());
            length += read;
            if read < step.len() {
                break;
            }
        }
        if length == 0 {
            return Ok(None);
        }
        header.copy_from_slice(&chunk::header(length));
        block.length = chunk::RECORD_OVERHEAD + length;
        Ok(Some(Block(Bytes::from_owner(block))))
    }
}

/// Writes the chunks of a batch, and has the digest go over them.
#[pyfunction]
#[pyo3(signature = (descriptor, batch, digest, /))]
pub fn write_chunks(py: Python<'_>, descriptor: RawFd, batch: &Batch, digest: &mut Blake3) -> PyResult<()> {
    let chunks = batch.inner().chunks().map_err(remote)?;
    let file = borrowed(descriptor);
    let write = || {
        for step in chunks.iter().flat_map(|chunk| chunk.chunks(STEP_BYTES)) {
            digest.0.update(step);
            (&*file).write_all(step)?;
        }
        Ok(())
    };
    py.detach(write).map_err(|error: io::Error| system(&error, b""))
}

/// The file behind a descriptor that the caller keeps open.
fn borrowed(descriptor: RawFd) -> ManuallyDrop<File> {
    // SAFETY: a descriptor that is not open, or is something else, makes calls fail; it is not closed here.
    ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) })
}
