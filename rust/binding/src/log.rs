//! Records in whole batches: what journals carry, and what both sides count of them.

use std::ffi::c_int;

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView};
use tailrace_core::batch;
use tailrace_core::channel::Channel;
use tailrace_core::ledger;
use tailrace_core::record;

use crate::buffer::{Input, fill, view};
use crate::error::remote;
use crate::value::to_python;

pub use crate::journal::Journal;

/// A piece of one channel's bytes.
#[pyclass(frozen, module = "tailrace._core")]
pub struct Record(batch::LogRecord);

#[pymethods]
impl Record {
    #[getter]
    fn channel(&self) -> &'static str {
        self.0.channel().as_str()
    }

    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.channel().name()
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.data())
    }

    #[getter]
    fn lines(&self) -> u64 {
        self.0.lines()
    }

    #[getter]
    fn times(&self) -> Vec<f64> {
        self.0.times().flat_map(|run| std::iter::repeat_n(seconds(run.at_us), run.lines as usize)).collect()
    }

    #[getter]
    fn partial(&self) -> bool {
        self.0.is_partial()
    }

    #[getter]
    fn continues(&self) -> bool {
        self.0.continues()
    }

    #[getter]
    fn time(&self) -> f64 {
        seconds(self.0.wall_us())
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    #[pyo3(signature = (lines, /))]
    fn cut(&self, lines: u64) -> Self {
        Self(self.0.cut(lines))
    }

    fn encode<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut out = Vec::with_capacity(self.0.data().len() + 64);
        self.0.encode(&mut out);
        PyBytes::new(py, &out)
    }

    fn __len__(&self) -> usize {
        self.0.data().len()
    }

    fn __repr__(&self) -> String {
        let (channel, bytes, lines) = (self.0.channel().key(), self.0.data().len(), self.0.lines());
        format!("<Record of {channel}: {bytes} bytes, {lines} lines, at {}>", self.0.offset())
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: the data live in the frozen object and never change.
        unsafe { fill(slf.as_any(), slf.get().0.data(), view, flags) }
    }
}

/// Bytes that were not delivered.
#[pyclass(frozen, get_all, module = "tailrace._core")]
pub struct Gap {
    channel: &'static str,
    name: Option<String>,
    bytes: u64,
    lines: u64,
    reason: String,
}

/// Whole records of one stream.
#[pyclass(frozen, module = "tailrace._core")]
pub struct Batch(batch::Batch);

impl Batch {
    /// Whole records that begin at the offset `start`.
    pub(crate) fn new(start: u64, bytes: Bytes) -> Self {
        Self(batch::Batch::new(start, bytes))
    }

    /// What Python sees.
    pub(crate) fn inner(&self) -> &batch::Batch {
        &self.0
    }

    /// The records as on the wire.
    pub(crate) fn bytes(&self) -> &Bytes {
        self.0.bytes()
    }
}

#[pymethods]
impl Batch {
    #[staticmethod]
    #[pyo3(signature = (data, start = 0, /))]
    fn parse(data: Input, start: u64) -> PyResult<Self> {
        let batch = batch::Batch::new(start, Bytes::copy_from_slice(data.bytes()));
        batch.count().map_err(remote)?;
        Ok(Self(batch))
    }

    #[getter]
    pub(crate) fn start(&self) -> u64 {
        self.0.start()
    }

    #[getter]
    pub(crate) fn end(&self) -> u64 {
        self.0.end()
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        view(py, self.0.bytes().clone())
    }

    fn __len__(&self) -> PyResult<usize> {
        self.0.count().map_err(remote)
    }

    fn __repr__(&self) -> String {
        format!("<Batch [{}, {})>", self.0.start(), self.0.end())
    }

    fn records(&self) -> PyResult<Vec<Record>> {
        let records =
            self.0.logs().map(|log| log.map(|(offset, log)| Record(batch::LogRecord::new(&self.0, offset, &log))));
        records.collect::<Result<_, _>>().map_err(remote)
    }

    fn parts(&self) -> PyResult<Vec<Self>> {
        Ok(self.0.parts().map_err(remote)?.into_iter().map(Self).collect())
    }

    fn channels(&self) -> PyResult<Vec<(&'static str, Option<String>)>> {
        let channels = self.0.channels().map_err(remote)?;
        Ok(channels.into_iter().map(|channel| (channel.as_str(), channel.name().map(str::to_owned))).collect())
    }

    #[pyo3(signature = (channel, name = None, /))]
    fn channel_bytes<'py>(&self, py: Python<'py>, channel: &str, name: Option<&str>) -> PyResult<Bound<'py, PyBytes>> {
        joined(py, &self.0.data(channel_named(channel, name)?).map_err(remote)?)
    }

    #[pyo3(signature = (begun, /))]
    fn tails<'py>(&self, py: Python<'py>, begun: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let tails = PyDict::new(py);
        for channel in self.0.channels().map_err(remote)? {
            let key = (channel.as_str(), channel.name());
            let carry = if begun.is_empty() { None } else { begun.get_item(key)? };
            let carry = carry.as_ref().map_or(Ok(&b""[..]), |carry| carry.extract())?;
            let tail = self.0.channel_tail(channel, carry).map_err(remote)?;
            if !tail.is_empty() {
                tails.set_item(key, PyBytes::new(py, &tail))?;
            }
        }
        Ok(tails)
    }

    fn updates<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let merged = PyDict::new(py);
        for (key, value) in self.0.updates().map_err(remote)? {
            merged.set_item(key, to_python(py, &value)?)?;
        }
        Ok(merged)
    }

    fn gaps(&self) -> PyResult<Vec<Gap>> {
        let mut gaps = Vec::new();
        for record in self.0.records() {
            if let (_, record::Record::Gap(gap)) = record.map_err(remote)? {
                let (channel, name) = (gap.channel.as_str(), gap.channel.name().map(str::to_owned));
                gaps.push(Gap { channel, name, bytes: gap.bytes, lines: gap.lines, reason: gap.reason.to_owned() });
            }
        }
        Ok(gaps)
    }

    #[getter]
    fn complete(&self) -> PyResult<bool> {
        Ok(self.0.complete().map_err(remote)?.is_some())
    }

    fn failure(&self) -> PyResult<Option<(String, String)>> {
        Ok(self.0.complete().map_err(remote)?.flatten())
    }

    fn receipt(&self) -> PyResult<Option<Receipt>> {
        Ok(self.0.receipt().map_err(remote)?.map(Receipt))
    }

    fn chunks<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
        let chunks = self.0.chunks().map_err(remote)?;
        chunks.into_iter().map(|chunk| view(py, self.0.bytes().slice_ref(chunk))).collect()
    }

    fn chunk_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        joined(py, &self.0.chunks().map_err(remote)?)
    }

    #[getter]
    fn chunk_size(&self) -> PyResult<usize> {
        Ok(self.0.chunks().map_err(remote)?.iter().map(|chunk| chunk.len()).sum())
    }

    fn utime(&self) -> PyResult<Option<(f64, f64)>> {
        self.0.utime().map_err(remote)
    }

    #[getter]
    fn unpack(&self) -> PyResult<bool> {
        self.0.unpack().map_err(remote)
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<(u64, Bound<'py, PyBytes>)>> {
        let close = self.0.close().map_err(remote)?;
        Ok(close.map(|(length, digest)| (length, PyBytes::new(py, &digest))))
    }
}

/// What one side counted.
#[pyclass(frozen, eq, module = "tailrace._core")]
#[derive(PartialEq)]
pub struct Receipt(ledger::Receipt);

#[pymethods]
impl Receipt {
    #[getter]
    fn chain<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.chain)
    }

    #[getter]
    fn records(&self) -> u64 {
        self.0.records
    }

    #[getter]
    fn channels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let channels = PyDict::new(py);
        for (key, count) in &self.0.channels {
            channels.set_item(key, (count.bytes, count.lines, count.missing, count.masked))?;
        }
        Ok(channels)
    }

    fn __repr__(&self) -> String {
        format!("<Receipt of {} records>", self.0.records)
    }
}

/// What the receiver counts for itself.
#[pyclass(module = "tailrace._core")]
pub struct Ledger(ledger::Ledger);

#[pymethods]
impl Ledger {
    #[new]
    fn new() -> Self {
        Self(ledger::Ledger::new())
    }

    #[staticmethod]
    #[pyo3(signature = (offset, chain, /))]
    fn resumed(offset: u64, chain: [u8; 32]) -> Self {
        Self(ledger::Ledger::resumed(offset, chain))
    }

    #[pyo3(signature = (batch, /))]
    fn add(&mut self, py: Python<'_>, batch: &Batch) -> PyResult<()> {
        py.detach(|| self.0.add_batch(&batch.0)).map_err(remote)
    }

    #[getter]
    fn chain<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.chain())
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    fn receipt(&self) -> Receipt {
        Receipt(self.0.receipt())
    }

    #[pyo3(signature = (receipt, /))]
    fn agrees(&self, receipt: &Receipt) -> bool {
        self.0.agrees(&receipt.0)
    }
}

/// The channel that a caller means.
pub(crate) fn channel_named<'a>(channel: &str, name: Option<&'a str>) -> PyResult<Channel<'a>> {
    let named = Channel::named(channel, name);
    named.ok_or_else(|| PyValueError::new_err(format!("no channel is called {channel:?} with the log name {name:?}")))
}

fn joined<'py>(py: Python<'py>, parts: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    if let [part] = parts {
        return Ok(PyBytes::new(py, part));
    }
    let length = parts.iter().map(|part| part.len()).sum();
    PyBytes::new_with(py, length, |mut room| {
        for part in parts {
            let (here, rest) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = rest;
        }
        Ok(())
    })
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
