//! Journals: in memory, or a supervisor's ring.

use std::sync::Arc;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tailrace_core::error::UsageError;
use tailrace_core::journal::{Kept, MemoryJournal, Source, Writer};
use tailrace_core::record;
use tailrace_supervisor::ring::Reader;

use crate::banana::BananaOutput;
use crate::buffer::Input;
use crate::error::{local, remote};
use crate::log::{Batch, channel_named};
use crate::value::from_python;

/// An append-only sequence of records.
#[pyclass(frozen, module = "tailrace._core")]
pub struct Journal(Place);

enum Place {
    Memory(Arc<MemoryJournal>),
    Ring(Arc<Reader>),
}

impl Journal {
    /// Where its bytes can be read.
    pub(crate) fn source(&self) -> &dyn Source {
        match &self.0 {
            Place::Memory(memory) => memory.as_ref(),
            Place::Ring(ring) => ring.as_ref(),
        }
    }

    /// The same, for who reads it later.
    pub(crate) fn shared(&self) -> Arc<dyn Source> {
        match &self.0 {
            Place::Memory(memory) => memory.clone(),
            Place::Ring(ring) => ring.clone(),
        }
    }

    fn write(&self, write: impl FnOnce(&mut Writer<Kept>) -> Result<(), UsageError>) -> PyResult<()> {
        match &self.0 {
            Place::Memory(memory) => memory.write(write).map_err(local),
            Place::Ring(_) => Err(local(UsageError("a supervisor's journal is only read here".to_owned()))),
        }
    }
}

#[pymethods]
impl Journal {
    #[new]
    fn new() -> Self {
        Self(Place::Memory(Arc::default()))
    }

    #[staticmethod]
    #[pyo3(signature = (path, /))]
    fn map(path: std::path::PathBuf) -> PyResult<Self> {
        Ok(Self(Place::Ring(Arc::new(Reader::open(path)?))))
    }

    #[getter]
    fn begin(&self) -> u64 {
        self.source().begin()
    }

    #[getter]
    fn end(&self) -> u64 {
        self.source().end()
    }

    #[getter]
    fn ended(&self) -> bool {
        self.source().ended()
    }

    #[pyo3(signature = (offset, max_bytes, /))]
    fn batch(&self, py: Python<'_>, offset: u64, max_bytes: usize) -> PyResult<Option<Batch>> {
        let source = self.source();
        let (begin, end) = (source.begin(), source.end());
        if offset < begin || offset > end {
            return Err(local(UsageError(format!("offset {offset} is not in the journal's [{begin}, {end})"))));
        }
        let records = match &self.0 {
            Place::Memory(memory) => memory.records(offset, max_bytes),
            Place::Ring(_) => py.detach(|| source.copy_records(offset, max_bytes)).map(Bytes::from),
        };
        let records = records.map_err(remote)?;
        Ok((!records.is_empty()).then(|| Batch::new(offset, records)))
    }

    #[pyo3(signature = (offset, /))]
    fn release(&self, offset: u64) -> bool {
        self.source().release(offset)
    }

    #[pyo3(signature = (offset, /))]
    fn chain_at<'py>(&self, py: Python<'py>, offset: u64) -> Option<Bound<'py, PyBytes>> {
        let chain = py.detach(|| self.source().chain_at(offset))?;
        Some(PyBytes::new(py, chain.as_bytes()))
    }

    fn wants_bell(&self) -> bool {
        match &self.0 {
            Place::Memory(_) => true,
            Place::Ring(ring) => ring.wants_bell(),
        }
    }

    /// Of whose command this is, for a later process.
    #[getter]
    fn label<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        match &self.0 {
            Place::Memory(_) => None,
            Place::Ring(ring) => ring.label().map(|label| PyBytes::new(py, &label)),
        }
    }

    #[pyo3(signature = (label, /))]
    fn set_label(&self, label: &[u8]) -> bool {
        match &self.0 {
            Place::Memory(_) => false,
            Place::Ring(ring) => ring.set_label(label),
        }
    }

    #[pyo3(signature = (channel, data, wall_us, mono_us, name = None, /))]
    fn append(&self, channel: &str, data: Input, wall_us: u64, mono_us: u64, name: Option<&str>) -> PyResult<()> {
        let channel = channel_named(channel, name)?;
        self.write(|writer| writer.log(channel, data.bytes(), wall_us, mono_us))
    }

    #[pyo3(signature = (output, wall_us, mono_us, /))]
    fn gather(&self, output: &BananaOutput, wall_us: u64, mono_us: u64) -> PyResult<()> {
        self.write(|writer| writer.gather(output.channels(), wall_us, mono_us))
    }

    #[pyo3(signature = (channel, name, /))]
    fn is_inside_line(&self, channel: &str, name: Option<&str>) -> PyResult<bool> {
        let channel = channel_named(channel, name)?;
        let mut inside = false;
        self.write(|writer| {
            inside = writer.ledger().is_inside_line(channel);
            Ok(())
        })?;
        Ok(inside)
    }

    #[pyo3(signature = (values, /))]
    fn update(&self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let values = from_python(values)?;
        self.write(|writer| writer.update(&values))
    }

    #[pyo3(signature = (channel, name, bytes, lines, reason, /))]
    fn gap(&self, channel: &str, name: Option<&str>, bytes: u64, lines: u64, reason: &str) -> PyResult<()> {
        let channel = channel_named(channel, name)?;
        self.write(|writer| writer.gap(&record::Gap { channel, bytes, lines, reason }))
    }

    #[pyo3(signature = (failure = None, /))]
    fn finish(&self, failure: Option<(String, String)>) -> PyResult<()> {
        let failure = failure.as_ref().map(|(kind, text)| (kind.as_str(), text.as_str()));
        self.write(|writer| writer.finish(failure))
    }
}
