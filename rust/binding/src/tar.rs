//! Tar streams, made and read on the fly.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tailrace_core::error::UsageError;
use tailrace_core::tar;

use crate::buffer::{Input, view};
use crate::error::{UnsafeArchive, local};

const NANOS: i128 = 1_000_000_000;

/// One entry of an archive.
#[pyclass(frozen, get_all, module = "tailrace._core")]
pub struct TarEntry {
    path: Py<PyBytes>,
    kind: &'static str,
    mode: u32,
    mtime_ns: i128,
    size: u64,
    target: Py<PyBytes>,
}

impl TarEntry {
    fn new(py: Python<'_>, entry: &tar::Entry) -> Self {
        let (kind, size, target) = match &entry.kind {
            tar::Kind::File(size) => ("file", *size, [].as_slice()),
            tar::Kind::Directory => ("directory", 0, [].as_slice()),
            tar::Kind::Symlink(target) => ("symlink", 0, target.as_slice()),
            tar::Kind::Hardlink(target) => ("hardlink", 0, target.as_slice()),
            tar::Kind::Device => ("device", 0, [].as_slice()),
            tar::Kind::Fifo => ("fifo", 0, [].as_slice()),
        };
        Self {
            path: PyBytes::new(py, &entry.path).unbind(),
            kind,
            mode: entry.mode,
            mtime_ns: i128::from(entry.mtime) * NANOS + i128::from(entry.mtime_ns),
            size,
            target: PyBytes::new(py, target).unbind(),
        }
    }
}

/// Reads one archive.
#[pyclass(module = "tailrace._core")]
pub struct TarDecoder(tar::Decoder);

#[pymethods]
impl TarDecoder {
    #[new]
    fn new() -> Self {
        Self(tar::Decoder::new())
    }

    #[pyo3(signature = (data, /))]
    fn receive_data(&mut self, data: Input) {
        self.0.receive_data(data.bytes());
    }

    fn receive_eof(&mut self) {
        self.0.receive_eof();
    }

    fn next_event<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let event = self.0.next_event().map_err(|error| UnsafeArchive::new_err(error.to_string()))?;
        Ok(match event {
            Some(tar::Event::Entry(entry)) => Some(Bound::new(py, TarEntry::new(py, &entry))?.into_any()),
            Some(tar::Event::Data(data)) => Some(view(py, data)?.into_any()),
            None => None,
        })
    }

    #[getter]
    fn finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Makes one archive.
#[pyclass(module = "tailrace._core")]
pub struct TarEncoder(tar::Encoder);

#[pymethods]
impl TarEncoder {
    #[new]
    fn new() -> Self {
        Self(tar::Encoder::new())
    }

    #[pyo3(signature = (path, kind, mode, mtime_ns, size = 0, target = None, /))]
    fn entry(
        &mut self,
        path: &[u8],
        kind: &str,
        mode: u32,
        mtime_ns: i128,
        size: u64,
        target: Option<&[u8]>,
    ) -> PyResult<()> {
        let kind = match kind {
            "file" => tar::Kind::File(size),
            "directory" => tar::Kind::Directory,
            "symlink" => tar::Kind::Symlink(target.unwrap_or_default().to_vec()),
            "hardlink" => tar::Kind::Hardlink(target.unwrap_or_default().to_vec()),
            _ => return Err(PyValueError::new_err(format!("no entry is a {kind:?}"))),
        };
        let mtime = i64::try_from(mtime_ns.div_euclid(NANOS))?;
        let mtime_ns = mtime_ns.rem_euclid(NANOS) as u32;
        self.0.entry(&tar::Entry { path: path.to_vec(), kind, mode, mtime, mtime_ns }).map_err(refused)
    }

    #[pyo3(signature = (data, /))]
    fn data(&mut self, data: Input) -> PyResult<()> {
        self.0.data(data.bytes()).map_err(refused)
    }

    fn finish(&mut self) -> PyResult<()> {
        self.0.finish().map_err(refused)
    }

    #[getter]
    fn missing(&self) -> u64 {
        self.0.missing()
    }

    fn take<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.take())
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

fn refused(error: tar::TarError) -> PyErr {
    local(UsageError(error.to_string()))
}
