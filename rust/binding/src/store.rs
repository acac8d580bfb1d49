//! One writer and any number of readers over a run's directory of segments.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tailrace_store::{Select, StoreError, Totals};

use crate::error;
use crate::log::Batch;

/// Appends one run's journal.
#[pyclass(frozen, module = "tailrace._core")]
pub struct LogWriter {
    writer: Mutex<tailrace_store::LogWriter>,
    /// Sees how far the log goes without waiting for who writes.
    seen: tailrace_store::LogReader,
}

#[pymethods]
impl LogWriter {
    #[staticmethod]
    #[pyo3(signature = (directory, segment_bytes = 268_435_456, /))]
    fn create(py: Python<'_>, directory: PathBuf, segment_bytes: u64) -> PyResult<Self> {
        let created = py.detach(|| tailrace_store::LogWriter::create(&directory, segment_bytes));
        created.map(Self::new).map_err(error::store)
    }

    #[staticmethod]
    #[pyo3(signature = (directory, segment_bytes = 268_435_456, /))]
    fn recover(py: Python<'_>, directory: PathBuf, segment_bytes: u64) -> PyResult<Self> {
        let recovered = py.detach(|| tailrace_store::LogWriter::recover(&directory, segment_bytes));
        recovered.map(Self::new).map_err(error::store)
    }

    #[pyo3(signature = (batch, chain = None, /))]
    fn append(&self, py: Python<'_>, batch: &Batch, chain: Option<[u8; 32]>) -> PyResult<()> {
        self.with(py, |writer| match chain {
            Some(chain) => writer.append(batch.bytes(), batch.start(), Some(chain)),
            None => writer.append_batch(batch.inner()),
        })
    }

    #[pyo3(signature = (batch, reason, chain = None, /))]
    fn skip(&self, py: Python<'_>, batch: &Batch, reason: &str, chain: Option<[u8; 32]>) -> PyResult<()> {
        self.with(py, |writer| writer.skip(batch.bytes(), batch.start(), chain, reason))
    }

    #[pyo3(signature = (offset, chain, reason, /))]
    fn jump(&self, py: Python<'_>, offset: u64, chain: [u8; 32], reason: &str) -> PyResult<()> {
        self.with(py, |writer| writer.jump(offset, chain, reason))
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        // Not under the lock: appends go on while the disk works.
        let syncing = self.with(py, |writer| Ok(writer.syncing()))?;
        py.detach(|| syncing.run()).map_err(error::store)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, tailrace_store::LogWriter::close)
    }

    #[staticmethod]
    #[pyo3(signature = (directory, /))]
    fn seal_next(py: Python<'_>, directory: PathBuf) -> PyResult<bool> {
        py.detach(|| tailrace_store::seal_next(&directory)).map_err(error::store)
    }

    fn reader(&self) -> LogReader {
        LogReader(Mutex::new(self.seen.another()))
    }

    #[getter]
    fn end(&self) -> u64 {
        self.seen.next().offset
    }

    #[getter]
    fn stored(&self) -> u64 {
        self.seen.end_offset()
    }

    #[getter]
    fn chain<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.seen.next().chain)
    }

    #[getter]
    fn records(&self) -> u64 {
        self.seen.next().records
    }

    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        totals_to_python(py, &self.seen.end().totals)
    }
}

impl LogWriter {
    fn new(writer: tailrace_store::LogWriter) -> Self {
        let seen = writer.reader();
        Self { writer: Mutex::new(writer), seen }
    }

    /// The lock is taken without the GIL: another thread may hold it over I/O.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut tailrace_store::LogWriter) -> Result<T, StoreError> + Send,
    ) -> PyResult<T> {
        py.detach(|| act(&mut lock(&self.writer))).map_err(error::store)
    }
}

/// A gap: from, to, the chain there, why.
type Missing = (u64, u64, [u8; 32], String);

/// Reads one run's journal.
#[pyclass(frozen, module = "tailrace._core")]
pub struct LogReader(Mutex<tailrace_store::LogReader>);

#[pymethods]
impl LogReader {
    #[staticmethod]
    #[pyo3(signature = (directory, /))]
    fn open(py: Python<'_>, directory: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| tailrace_store::LogReader::open(&directory));
        opened.map(|reader| Self(Mutex::new(reader))).map_err(error::store)
    }

    #[getter]
    fn end(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |reader| Ok(reader.end_offset()))
    }

    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let end = self.with(py, |reader| Ok(reader.end()))?;
        totals_to_python(py, &end.totals)
    }

    fn is_ended(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, tailrace_store::LogReader::is_ended)
    }

    #[pyo3(signature = (channel = None, /))]
    fn lines(&self, py: Python<'_>, channel: Option<&str>) -> PyResult<u64> {
        let select = select(channel)?;
        self.with(py, |reader| Ok(reader.lines(&select)))
    }

    #[pyo3(signature = (offset, max_bytes, /))]
    fn batch(&self, py: Python<'_>, offset: u64, max_bytes: usize) -> PyResult<Option<Batch>> {
        let records = self.with(py, |reader| reader.batch(offset, max_bytes))?;
        Ok(records.map(|(start, records)| Batch::new(start, records)))
    }

    #[pyo3(signature = (offset, max_bytes, /))]
    fn at_hand(&self, offset: u64, max_bytes: usize) -> PyResult<Option<Batch>> {
        let records = lock(&self.0).at_hand(offset, max_bytes).map_err(error::store)?;
        Ok(records.map(|(start, records)| Batch::new(start, records)))
    }

    fn gaps(&self, py: Python<'_>) -> PyResult<Vec<Missing>> {
        let gaps = self.with(py, |reader| reader.gaps())?;
        Ok(gaps.into_iter().map(|(behind, gap)| (gap.from, behind.offset, behind.chain, gap.reason)).collect())
    }

    #[pyo3(signature = (line, channel = None, /))]
    fn find_line(&self, py: Python<'_>, line: u64, channel: Option<&str>) -> PyResult<Option<(u64, u64)>> {
        let select = select(channel)?;
        let found = self.with(py, |reader| reader.find_line(line, &select))?;
        Ok(found.map(|found| (found.offset, found.skip)))
    }

    #[pyo3(signature = (time, /))]
    fn find_time(&self, py: Python<'_>, time: f64) -> PyResult<u64> {
        self.with(py, |reader| reader.find_time((time * 1e6) as u64))
    }
}

impl LogReader {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut tailrace_store::LogReader) -> Result<T, StoreError> + Send,
    ) -> PyResult<T> {
        py.detach(|| act(&mut lock(&self.0))).map_err(error::store)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn select(channel: Option<&str>) -> PyResult<Select> {
    channel.map_or(Ok(Select::Output), |channel| channel.parse().map_err(error::store))
}

fn totals_to_python<'py>(py: Python<'py>, totals: &Totals) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (channel, count) in totals.iter() {
        dict.set_item(channel.to_string(), (count.bytes, count.lines))?;
    }
    Ok(dict)
}
