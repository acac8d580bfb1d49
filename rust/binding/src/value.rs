//! Values as Python's own objects, and back.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PySequence, PyString};
use tailrace_core::error::UsageError;
use tailrace_core::limits::VALUE_DEPTH_MAX;
use tailrace_core::value::{self, Value};

use crate::buffer::Input;
use crate::error::{local, remote};

/// Arrays come back as lists.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Nil => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Float(number) => PyFloat::new(py, *number).into_any(),
        Value::Str(text) => PyString::new(py, text).into_any(),
        Value::Bin(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Map(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                dict.set_item(key, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// Tuples go out as arrays, anything with a buffer as bytes. What is no value of the wire is the caller's fault.
pub(crate) fn from_python(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    convert(object, 0)
}

/// `value` as it crosses the wire.
#[pyfunction]
#[pyo3(signature = (value, /))]
pub(crate) fn encode_value<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    value::encode(&from_python(value)?, &mut out).map_err(local)?;
    Ok(PyBytes::new(value.py(), &out))
}

/// The one value that `data` is.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(crate) fn decode_value(py: Python<'_>, data: Input) -> PyResult<Bound<'_, PyAny>> {
    to_python(py, &value::decode_all(data.bytes()).map_err(remote)?)
}

fn convert(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth > VALUE_DEPTH_MAX {
        return Err(refused(format!("a value nested deeper than {VALUE_DEPTH_MAX}")));
    }
    if object.is_none() {
        return Ok(Value::Nil);
    }
    if let Ok(flag) = object.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(number) = object.cast::<PyInt>() {
        return number.extract().map(Value::Int).map_err(|_| refused("an integer that does not fit 64 bits"));
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        return Ok(Value::Float(number.value()));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return text.to_str().map(|text| Value::Str(text.to_owned())).map_err(|error| refused(error.to_string()));
    }
    if let Ok(bytes) = object.extract::<Input>() {
        return Ok(Value::Bin(bytes.bytes().to_vec()));
    }
    if let Ok(mapping) = object.cast::<PyMapping>() {
        let mut entries = Vec::new();
        for entry in mapping.items()?.try_iter()? {
            let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry?.extract()?;
            let key = key.extract().map_err(|_| refused("a map with a key that is no text"))?;
            entries.push((key, convert(&value, depth + 1)?));
        }
        return Ok(Value::Map(entries));
    }
    if let Ok(sequence) = object.cast::<PySequence>() {
        return sequence.try_iter()?.map(|item| convert(&item?, depth + 1)).collect::<PyResult<_>>().map(Value::Array);
    }
    Err(refused(format!("a {} is not a value of the wire", object.get_type().name()?)))
}

fn refused(what: impl Into<String>) -> PyErr {
    local(UsageError(what.into()))
}
