//! The session of the native wire.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tailrace_core::error::UsageError;
use tailrace_core::frame::StreamRole;
use tailrace_core::login::Role;
use tailrace_core::session;

use crate::buffer::Input;
use crate::error::{local, remote};
use crate::event::event_to_python;
use crate::log::{Batch, Journal};
use crate::socket;
use crate::transfer::Block;
use crate::value::from_python;

/// What is given to the kernel at once: more than that is no faster.
const SEND_BYTES: usize = 512 << 10;

/// One session of the native wire, either role.
#[pyclass(frozen, module = "tailrace._core")]
pub struct Session(Mutex<session::Session>);

impl Session {
    /// The lock is only there because the object may be shared: nobody panics while holding it.
    fn lock(&self) -> MutexGuard<'_, session::Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(
        signature = (role, *, id, nonce, name = String::new(), secret = Vec::new(), stream_window = 4 << 20,
            connection_window = 32 << 20, streams_max = 4096, software = String::new(), capabilities = Vec::new()),
        text_signature = "(role, *, id, nonce, name='', secret=b'', stream_window=4194304, connection_window=33554432, \
            streams_max=4096, software='', capabilities=())"
    )]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        role: &str,
        id: String,
        nonce: Vec<u8>,
        name: String,
        secret: Vec<u8>,
        stream_window: u64,
        connection_window: u64,
        streams_max: u64,
        software: String,
        capabilities: Vec<String>,
    ) -> PyResult<Self> {
        let role = match role {
            "master" => Role::Master,
            "worker" => Role::Worker,
            _ => return Err(PyValueError::new_err(format!("{role:?} is neither \"master\" nor \"worker\""))),
        };
        let nonce = nonce.try_into().map_err(|_| PyValueError::new_err("a nonce has 32 bytes"))?;
        let config = session::Config {
            role,
            id,
            nonce,
            name,
            secret,
            stream_window,
            connection_window,
            streams_max,
            software,
            capabilities,
        };
        Ok(Self(Mutex::new(session::Session::new(config).map_err(local)?)))
    }

    #[pyo3(signature = (data, /))]
    fn receive_data(&self, data: Input) {
        self.lock().receive_data(data.bytes());
    }

    fn receive_eof(&self) {
        self.lock().receive_eof();
    }

    fn next_event(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let event = self.lock().next_event().map_err(remote)?;
        event.map(|event| event_to_python(py, event)).transpose()
    }

    #[pyo3(signature = (max_bytes = 262_144, /))]
    fn data_to_send<'py>(&self, py: Python<'py>, max_bytes: usize) -> PyResult<Bound<'py, PyBytes>> {
        let slices = self.lock().data_to_send(max_bytes);
        let length = slices.iter().map(|slice| slice.len()).sum();
        PyBytes::new_with(py, length, |mut place| {
            for slice in &slices {
                let (here, rest) = std::mem::take(&mut place).split_at_mut(slice.len());
                here.copy_from_slice(slice);
                place = rest;
            }
            Ok(())
        })
    }

    #[getter]
    fn eof_to_send(&self) -> bool {
        self.lock().eof_to_send()
    }

    // Both let other threads run: a file is read or written meanwhile, and its thread comes back for more.
    #[pyo3(signature = (fd, max_bytes, /))]
    fn receive_from(&self, py: Python<'_>, fd: i32, max_bytes: usize) -> PyResult<Option<usize>> {
        Ok(py.detach(|| socket::receive(fd, max_bytes, &mut self.lock()))?)
    }

    #[pyo3(signature = (fd, max_bytes, /))]
    fn send_to(&self, py: Python<'_>, fd: i32, max_bytes: usize) -> PyResult<bool> {
        Ok(py.detach(|| send(&mut self.lock(), fd, max_bytes))?)
    }

    #[pyo3(signature = (secret, /))]
    fn admit(&self, secret: Input) -> PyResult<bool> {
        self.lock().admit(secret.bytes()).map_err(local)
    }

    #[pyo3(signature = (reason, text, /))]
    fn refuse(&self, reason: &str, text: &str) -> PyResult<()> {
        self.lock().refuse(reason, text).map_err(local)
    }

    #[pyo3(signature = (method, args, /))]
    fn call(&self, method: &str, args: &Bound<'_, PyAny>) -> PyResult<u64> {
        let args = from_python(args)?;
        self.lock().call(method, args).map_err(local)
    }

    #[pyo3(signature = (call, value, /))]
    fn reply(&self, call: u64, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = from_python(value)?;
        self.lock().reply(call, value).map_err(local)
    }

    #[pyo3(signature = (call, r#type, text, /))]
    fn fail(&self, call: u64, r#type: &str, text: &str) -> PyResult<()> {
        self.lock().fail(call, r#type, text).map_err(local)
    }

    #[pyo3(signature = (nonce, /))]
    fn ping(&self, nonce: u64) -> PyResult<()> {
        self.lock().ping(nonce).map_err(local)
    }

    #[pyo3(signature = (level, bytes, /))]
    fn compress(&self, level: i32, bytes: u64) {
        self.lock().compress(level, bytes);
    }

    #[getter]
    fn may_come(&self) -> u64 {
        self.lock().may_come()
    }

    #[getter]
    fn is_held(&self) -> bool {
        self.lock().is_held()
    }

    #[pyo3(signature = (welcome, /))]
    fn welcome_compressed(&self, welcome: bool) {
        self.lock().welcome_compressed(welcome);
    }

    #[pyo3(signature = (reason, text = "", /))]
    fn close(&self, reason: &str, text: &str) -> PyResult<()> {
        self.lock().close(reason, text).map_err(local)
    }

    #[pyo3(signature = (role, name, offset = 0, /))]
    fn open(&self, role: &str, name: &str, offset: u64) -> PyResult<u64> {
        let role =
            StreamRole::named(role).ok_or_else(|| local(UsageError(format!("{role:?} is no role of a stream"))))?;
        self.lock().open(role, name, offset).map_err(local)
    }

    #[pyo3(signature = (stream, /))]
    fn room(&self, stream: u64) -> PyResult<usize> {
        self.lock().room(stream).map_err(local)
    }

    #[pyo3(signature = (stream, data, /))]
    fn write(&self, stream: u64, data: Input) -> PyResult<()> {
        self.lock().write(stream, data.bytes()).map_err(local)
    }

    #[pyo3(signature = (stream, block, start = 0, /))]
    fn write_block(&self, stream: u64, block: &Block, start: usize) -> PyResult<()> {
        let bytes = block.bytes();
        self.lock().write_block(stream, bytes.slice(start.min(bytes.len())..)).map_err(local)
    }

    #[pyo3(signature = (stream, journal, /))]
    fn write_journal(&self, stream: u64, journal: &Journal) -> PyResult<u64> {
        self.lock().write_journal(stream, journal.shared()).map_err(local)
    }

    #[pyo3(signature = (stream, /))]
    fn sent(&self, stream: u64) -> PyResult<u64> {
        self.lock().sent(stream).map_err(local)
    }

    #[pyo3(signature = (stream, /))]
    fn end(&self, stream: u64) -> PyResult<()> {
        self.lock().end(stream).map_err(local)
    }

    #[pyo3(signature = (stream, reason, /))]
    fn reset(&self, stream: u64, reason: &str) -> PyResult<()> {
        self.lock().reset(stream, reason).map_err(local)
    }

    #[pyo3(signature = (stream, max_bytes, /))]
    fn take(&self, stream: u64, max_bytes: usize) -> PyResult<Option<Batch>> {
        let taken = self.lock().take(stream, max_bytes).map_err(local)?;
        Ok(taken.map(|(start, records)| Batch::new(start, records)))
    }

    #[pyo3(signature = (stream, /))]
    fn ended(&self, stream: u64) -> PyResult<bool> {
        self.lock().is_ended(stream).map_err(local)
    }

    #[pyo3(signature = (stream, next, durable, /))]
    fn settle(&self, stream: u64, next: u64, durable: u64) -> PyResult<()> {
        self.lock().settle(stream, next, durable).map_err(local)
    }

    #[pyo3(signature = (stream, reason, /))]
    fn stop(&self, stream: u64, reason: &str) -> PyResult<()> {
        self.lock().stop(stream, reason).map_err(local)
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let numbers = self.lock().statistics();
        let dict = PyDict::new(py);
        dict.set_item("bytes_sent", numbers.bytes_sent)?;
        dict.set_item("bytes_received", numbers.bytes_received)?;
        dict.set_item("bytes_saved", numbers.bytes_saved)?;
        dict.set_item("unsettled", numbers.unsettled)?;
        dict.set_item("queued", numbers.queued)?;
        dict.set_item("streams", numbers.streams)?;
        dict.set_item("calls", numbers.calls)?;
        Ok(dict)
    }
}

/// Sends what there is, at most about `max` bytes, with what compression saves of them. Whether that was all, but for what can
/// wait.
fn send(session: &mut session::Session, fd: i32, max: usize) -> io::Result<bool> {
    if !session.is_urgent() {
        return Ok(true);
    }
    let (before, mut sent) = (session.saved(), 0);
    while sent + ((session.saved() - before) as usize) < max {
        let slices = session.data_to_send(SEND_BYTES);
        if slices.is_empty() {
            return Ok(true);
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let gone = socket::send(fd, &slices);
        session.put_back(slices, *gone.as_ref().unwrap_or(&0));
        let gone = gone?;
        if gone < length {
            return Ok(false);
        }
        sent += gone;
    }
    Ok(false)
}
