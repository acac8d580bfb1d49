//! Banana as Python's own objects: nested lists of bytes, int and float.

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyMemoryView, PyTuple};
use tailrace_core::banana::{self, DEPTH_MAX, Decoder, Element, Encoder};
use tailrace_core::channel::Channel;
use tailrace_core::error::UsageError;

use crate::buffer::{Input, view};
use crate::error::{RemoteProtocolError, local};
use crate::socket;

type PyTexts<'py> = Vec<(&'static str, Option<String>, Bound<'py, PyMemoryView>)>;

/// Bytes in, top-level expressions out.
#[pyclass(module = "tailrace._core")]
pub struct BananaDecoder(Decoder);

#[pymethods]
impl BananaDecoder {
    #[new]
    fn new() -> Self {
        Self(Decoder::new())
    }

    fn use_vocabulary(&mut self) {
        self.0.use_vocabulary();
    }

    #[pyo3(signature = (data, /))]
    fn receive_data(&mut self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        match data.cast::<PyBytes>() {
            // They do not change, and may be kept as they are.
            Ok(bytes) => self.0.receive_bytes(Bytes::from_owner(PyBackedBytes::from(bytes.clone()))),
            Err(_) => self.0.receive_data(data.extract::<Input>()?.bytes()),
        }
        Ok(())
    }

    #[pyo3(signature = (fd, max_bytes, /))]
    fn receive_from(&mut self, fd: i32, max_bytes: usize) -> PyResult<Option<usize>> {
        let data = socket::receive_owned(fd, max_bytes)?;
        let count = data.as_ref().map(Bytes::len);
        data.into_iter().for_each(|data| self.0.receive_bytes(data));
        Ok(count)
    }

    fn next_expression<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let element = self.0.next_expression().map_err(|error| RemoteProtocolError::new_err(error.to_string()))?;
        element.map(|element| to_python(py, &element)).transpose()
    }

    fn next_output(&mut self) -> PyResult<Option<BananaOutput>> {
        let output = self.0.next_output().map_err(|error| RemoteProtocolError::new_err(error.to_string()))?;
        Ok(output.map(BananaOutput))
    }

    fn __len__(&self) -> usize {
        self.0.buffered()
    }
}

/// Output that a worker of Buildbot's tells of.
#[pyclass(frozen, module = "tailrace._core")]
pub struct BananaOutput(banana::Output);

impl BananaOutput {
    /// What it brings, in order: of which channel, and in which pieces.
    pub(crate) fn channels(&self) -> impl Iterator<Item = (Channel<'_>, &[Bytes])> + Clone {
        self.0.texts.iter().filter_map(|text| {
            // It is UTF-8, as all strings are that the decoder takes for text.
            let name = text.name.as_deref().and_then(|name| std::str::from_utf8(name).ok());
            Some((Channel::named(text.channel, name)?, text.pieces.as_slice()))
        })
    }
}

#[pymethods]
impl BananaOutput {
    #[getter]
    fn target(&self) -> i64 {
        self.0.target
    }

    #[getter]
    fn calls(&self) -> Vec<i64> {
        self.0.calls.clone()
    }

    #[getter]
    fn texts<'py>(slf: &Bound<'py, Self>) -> PyResult<PyTexts<'py>> {
        let texts = slf.get().channels().map(|(channel, pieces)| {
            let bytes = match pieces {
                [piece] => piece.clone(),
                pieces => pieces.concat().into(),
            };
            Ok((channel.as_str(), channel.name().map(str::to_owned), view(slf.py(), bytes)?))
        });
        texts.collect()
    }
}

/// Sends what goes of these bytes, and says how much that was.
#[pyfunction]
#[pyo3(signature = (fd, data, max_bytes, /))]
pub(crate) fn send_to(fd: i32, data: Input, max_bytes: usize) -> PyResult<usize> {
    let data = data.bytes();
    Ok(socket::send_part(fd, &data[..data.len().min(max_bytes)])?)
}

/// Has this process keep a few MiB that it has freed: output comes in large batches, and giving their pages back to the
/// system after each, to be cleared again for the next, costs as much as all that is done with them.
#[pyfunction]
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets two numbers of the allocator's, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}

/// One expression as it crosses the wire.
#[pyfunction]
#[pyo3(signature = (value, vocabulary = true, /))]
pub(crate) fn banana_encode<'py>(value: &Bound<'py, PyAny>, vocabulary: bool) -> PyResult<Bound<'py, PyBytes>> {
    let mut encoder = Encoder::new(vocabulary);
    encode(value, &mut encoder, 0)?;
    Ok(PyBytes::new(value.py(), &encoder.finish()))
}

/// The same answer to all these calls.
#[pyfunction]
#[pyo3(signature = (calls, value, vocabulary = true, /))]
pub(crate) fn banana_answers(
    py: Python<'_>,
    calls: Vec<i64>,
    value: i64,
    vocabulary: bool,
) -> PyResult<Bound<'_, PyBytes>> {
    let mut encoder = Encoder::new(vocabulary);
    for call in calls {
        encoder.list(3).and_then(|()| encoder.bytes(b"answer")).map_err(local)?;
        encoder.int(call);
        encoder.int(value);
    }
    Ok(PyBytes::new(py, &encoder.finish()))
}

fn to_python<'py>(py: Python<'py>, element: &Element) -> PyResult<Bound<'py, PyAny>> {
    Ok(match element {
        Element::Int(number) => number.into_pyobject(py)?.into_any(),
        Element::Long { negative, digits } => long(py, *negative, digits)?,
        Element::Float(number) => PyFloat::new(py, *number).into_any(),
        Element::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Element::List(items) => {
            let items = items.iter().map(|item| to_python(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, items)?.into_any()
        }
    })
}

/// Digits in base 128 as a Python integer, by way of bytes.
fn long<'py>(py: Python<'py>, negative: bool, digits: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut bytes = vec![0_u8; digits.len() * 7 / 8 + 1];
    for (index, digit) in digits.iter().enumerate() {
        let (byte, shift) = (index * 7 / 8, index * 7 % 8);
        let wide = u16::from(*digit) << shift;
        bytes[byte] |= wide as u8;
        if let Some(next) = bytes.get_mut(byte + 1) {
            *next |= (wide >> 8) as u8;
        }
    }
    let number = py.get_type::<PyInt>().call_method1("from_bytes", (PyBytes::new(py, &bytes), "little"))?;
    if negative { number.neg() } else { Ok(number) }
}

fn encode(object: &Bound<'_, PyAny>, encoder: &mut Encoder, depth: usize) -> PyResult<()> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return encoder.bytes(bytes.as_bytes()).map_err(local);
    }
    if let Ok(list) = object.cast::<PyList>() {
        descend(depth)?;
        encoder.list(list.len()).map_err(local)?;
        return list.iter().try_for_each(|item| encode(&item, encoder, depth + 1));
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        descend(depth)?;
        encoder.list(tuple.len()).map_err(local)?;
        return tuple.iter().try_for_each(|item| encode(&item, encoder, depth + 1));
    }
    if object.is_instance_of::<PyBool>() {
        return Err(refused("banana has no bool"));
    }
    if let Ok(number) = object.cast::<PyInt>() {
        return encode_int(number.as_any(), encoder);
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        encoder.float(number.value());
        return Ok(());
    }
    if let Ok(bytes) = object.extract::<Input>() {
        return encoder.bytes(bytes.bytes()).map_err(local);
    }
    Err(refused(&format!("banana has no {}", object.get_type().name()?)))
}

fn encode_int(number: &Bound<'_, PyAny>, encoder: &mut Encoder) -> PyResult<()> {
    if let Ok(small) = number.extract::<i64>() {
        encoder.int(small);
        return Ok(());
    }
    let negative = number.lt(0)?;
    let magnitude = number.abs()?;
    // One bit more than the wire takes is enough to be refused by it.
    let bits = magnitude.call_method0("bit_length")?.extract::<usize>()?;
    if bits > 7 * tailrace_core::banana::DIGITS_MAX {
        return Err(refused("an integer is too large to send"));
    }
    let bytes = magnitude.call_method1("to_bytes", (bits / 8 + 1, "little"))?;
    let bytes = bytes.cast::<PyBytes>()?.as_bytes();
    let digits = (0..bits.div_ceil(7)).map(|index| {
        let (byte, shift) = (index * 7 / 8, index * 7 % 8);
        let wide = u16::from(bytes[byte]) | u16::from(bytes.get(byte + 1).copied().unwrap_or_default()) << 8;
        (wide >> shift) as u8 & 0x7f
    });
    encoder.long(negative, &digits.collect::<Vec<_>>()).map_err(local)
}

fn descend(depth: usize) -> PyResult<()> {
    if depth >= DEPTH_MAX { Err(refused(&format!("lists nest deeper than {DEPTH_MAX}"))) } else { Ok(()) }
}

fn refused(what: &str) -> PyErr {
    local(UsageError(what.to_owned()))
}
