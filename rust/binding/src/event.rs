//! Events of a session as small frozen classes.

use pyo3::prelude::*;
use tailrace_core::event;

use crate::value::to_python;

macro_rules! events {
    ($($name:ident { $($field:ident: $type:ty),* })*) => { $(
        #[doc = concat!("`", stringify!($name), "` of `_core.pyi`.")]
        #[pyclass(frozen, get_all, module = "tailrace._core")]
        pub struct $name { $($field: $type),* }

        #[pymethods]
        impl $name {
            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                repr(slf.as_any(), &[$(stringify!($field).trim_start_matches("r#")),*])
            }
        }
    )* };
}

events! {
    LoginAsked { name: String, instance: String, software: String, capabilities: Vec<String> }
    LoggedIn { peer: String, software: String, capabilities: Vec<String>, version: u64 }
    Refused { reason: String, text: String }
    Called { call: u64, method: String, args: Py<PyAny> }
    Replied { call: u64, value: Py<PyAny> }
    CallFailed { call: u64, r#type: String, text: String }
    StreamOpened { stream: u64, role: &'static str, name: String, offset: u64 }
    StreamReadable { stream: u64 }
    StreamWritable { stream: u64 }
    StreamProgress { stream: u64, next: u64, durable: u64, done: bool }
    StreamReset { stream: u64, reason: String }
    StreamStopped { stream: u64, reason: String }
    Ponged { nonce: u64 }
    PeerClosed { reason: String, text: String }
}

/// The object that stands for `event`.
pub(crate) fn event_to_python(py: Python<'_>, event: event::Event) -> PyResult<Py<PyAny>> {
    use event::Event as E;
    macro_rules! object {
        ($name:ident { $($field:ident $(: $value:expr)?),* }) => {
            Ok(Py::new(py, $name { $($field $(: $value)?),* })?.into_any())
        };
    }
    match event {
        E::LoginAsked { name, instance, software, capabilities } => {
            object!(LoginAsked { name, instance, software, capabilities })
        }
        E::LoggedIn { peer, software, capabilities, version } => {
            object!(LoggedIn { peer, software, capabilities, version })
        }
        E::Refused { reason, text } => object!(Refused { reason, text }),
        E::Called { call, method, args } => object!(Called { call, method, args: to_python(py, &args)?.unbind() }),
        E::Replied { call, value } => object!(Replied { call, value: to_python(py, &value)?.unbind() }),
        E::CallFailed { call, kind, text } => object!(CallFailed { call, r#type: kind, text }),
        E::StreamOpened { stream, role, name, offset } => {
            object!(StreamOpened { stream, role: role.name(), name, offset })
        }
        E::StreamReadable { stream } => object!(StreamReadable { stream }),
        E::StreamWritable { stream } => object!(StreamWritable { stream }),
        E::StreamProgress { stream, next, durable, done } => object!(StreamProgress { stream, next, durable, done }),
        E::StreamReset { stream, reason } => object!(StreamReset { stream, reason }),
        E::StreamStopped { stream, reason } => object!(StreamStopped { stream, reason }),
        E::Ponged { nonce } => object!(Ponged { nonce }),
        E::PeerClosed { reason, text } => object!(PeerClosed { reason, text }),
    }
}

fn repr(object: &Bound<'_, PyAny>, fields: &[&str]) -> PyResult<String> {
    let shown: PyResult<Vec<String>> =
        fields.iter().map(|field| Ok(format!("{field}={}", object.getattr(*field)?.repr()?))).collect();
    Ok(format!("{}({})", object.get_type().name()?, shown?.join(", ")))
}
