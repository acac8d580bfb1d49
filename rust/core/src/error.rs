//! What can go wrong, one enum per kind of operation. Lower case, no full stop: the sentences reach people.

use thiserror::Error;

/// Bytes that are not what `PROTOCOL.md` says. The connection (or the file) that they came from is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} (PROTOCOL.md section {section})")]
pub struct ProtocolError {
    /// What was wrong, with the offending value in it.
    pub what: String,
    /// The section of `PROTOCOL.md` that says how it should be.
    pub section: u8,
}

impl ProtocolError {
    /// An error that breaks a rule of `section`.
    pub fn new(section: u8, what: impl Into<String>) -> Self {
        Self { what: what.into(), section }
    }
}

/// A command that our own side may not give now. Nothing was changed, no byte was made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct UsageError(pub String);
