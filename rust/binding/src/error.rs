//! Errors of the core as the classes of `tailrace.errors`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::{PyErr, import_exception};
use tailrace_core::error::{ProtocolError, UsageError};
use tailrace_files::TreeError;
use tailrace_store::StoreError as LogError;

import_exception!(tailrace.errors, LimitExceeded);
import_exception!(tailrace.errors, LocalProtocolError);
import_exception!(tailrace.errors, RemoteProtocolError);
import_exception!(tailrace.errors, StoreError);
import_exception!(tailrace.errors, UnsafeArchive);

/// The other side's fault.
pub(crate) fn remote(error: ProtocolError) -> PyErr {
    RemoteProtocolError::new_err(error.to_string())
}

/// The caller's fault.
pub(crate) fn local(error: UsageError) -> PyErr {
    LocalProtocolError::new_err(error.to_string())
}

/// The disk's, or who wrote to it.
pub(crate) fn store(error: LogError) -> PyErr {
    let raised = StoreError::new_err(error.to_string());
    if let Some(number) = error.errno() {
        // An attribute that the class has: it cannot fail.
        let _ = Python::attach(|py| raised.value(py).setattr("errno", number));
    }
    raised
}

/// The archive's, or the system's.
pub(crate) fn tree(error: TreeError) -> PyErr {
    match error {
        TreeError::Unsafe(why) => UnsafeArchive::new_err(why),
        TreeError::TooLarge => LimitExceeded::new_err(error.to_string()),
        TreeError::System { path, source } => system(&source, &path),
    }
}

/// The system's. With `errno`, so that Python makes the right class of it, and with the path if there is one.
pub(crate) fn system(error: &io::Error, path: &[u8]) -> PyErr {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    match error.raw_os_error() {
        Some(code) if path.is_empty() => PyOSError::new_err((code, text)),
        Some(code) => PyOSError::new_err((code, text, OsStr::from_bytes(path).to_owned())),
        None => PyOSError::new_err(text),
    }
}
