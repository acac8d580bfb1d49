//! The helper process of the supervisors.

use pyo3::prelude::*;

/// Does not come back before the socket's other end is closed; in the supervisors that it forks, never.
#[pyfunction]
#[pyo3(signature = (fd, /))]
pub(crate) fn supervisor_helper_main(py: Python<'_>, fd: i32) -> PyResult<()> {
    Ok(py.detach(|| tailrace_supervisor::helper::main(fd))?)
}
