//! Bytes that cross without a copy: `Buffer` arguments on the way in, `memoryview`s of our bytes on the way out.

use std::ffi::c_int;

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// Any object with contiguous bytes in it.
pub(crate) struct Input(PyBuffer<u8>);

impl Input {
    /// The bytes, for as long as the argument lives. Python may not write to them meanwhile; where a caller lets it (a
    /// `bytearray` and another thread), it gets the bytes of no single moment, as from the standard library's digests.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (start, length) = (self.0.buf_ptr().cast::<u8>(), self.0.len_bytes());
        if length == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous (checked when it was made) and pinned by the `PyBuffer`.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Input {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::get(&object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the bytes are not contiguous"));
        }
        Ok(Self(buffer))
    }
}

/// Bytes behind a `memoryview`.
#[pyclass(frozen)]
struct Shared(Bytes);

#[pymethods]
impl Shared {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: the bytes live in the object and never change.
        unsafe { fill(slf.as_any(), &slf.get().0, view, flags) }
    }
}

/// A read-only view of `bytes` that keeps them alive.
pub(crate) fn view(py: Python<'_>, bytes: Bytes) -> PyResult<Bound<'_, PyMemoryView>> {
    PyMemoryView::from(Bound::new(py, Shared(bytes))?.as_any())
}

/// Fills `view` with the read-only `bytes` of `owner`.
///
/// # Safety
/// `bytes` must stay in place for as long as `owner` lives, and `view` must be what `__getbuffer__` was given.
pub(crate) unsafe fn fill(
    owner: &Bound<'_, PyAny>,
    bytes: &[u8],
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    let (start, length) = (bytes.as_ptr().cast_mut().cast(), bytes.len() as isize);
    // SAFETY: as the caller promises; the view holds a reference to `owner` from here on.
    if unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), start, length, 1, flags) } == -1 {
        return Err(PyErr::fetch(owner.py()));
    }
    Ok(())
}
