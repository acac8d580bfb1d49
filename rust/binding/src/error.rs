//! Errors of the core as the classes of `tailrace.errors`.

use pyo3::prelude::*;
use pyo3::{PyErr, import_exception};
use tailrace_core::error::{ProtocolError, UsageError};
use tailrace_store::StoreError as LogError;

import_exception!(tailrace.errors, LocalProtocolError);
import_exception!(tailrace.errors, RemoteProtocolError);
import_exception!(tailrace.errors, StoreError);

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
