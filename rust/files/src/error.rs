//! What can go wrong with a tree.

use std::io;

use rustix::io::Errno;
use tailrace_core::tar::TarError;
use thiserror::Error;

/// Why a tree is not packed or unpacked. The sentence is for people.
#[derive(Debug, Error)]
pub enum TreeError {
    /// An archive that would do harm, or is none.
    #[error("{0}")]
    Unsafe(String),
    /// An archive that holds more than it may.
    #[error("the archive holds more bytes than it may")]
    TooLarge,
    /// The system refused.
    #[error("{}: {source}", path.escape_ascii())]
    System {
        /// Which file or directory below the root; empty: the root.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
}

impl TreeError {
    /// The same, of this path.
    pub(crate) fn of(self, path: &[u8]) -> Self {
        match self {
            Self::System { source, .. } => Self::System { path: path.to_vec(), source },
            other => other,
        }
    }

    /// Whether the system said this.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::System { source, .. } if Errno::from_io_error(source) == Some(errno))
    }
}

impl From<Errno> for TreeError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<io::Error> for TreeError {
    fn from(source: io::Error) -> Self {
        Self::System { path: Vec::new(), source }
    }
}

impl From<TarError> for TreeError {
    fn from(error: TarError) -> Self {
        Self::Unsafe(error.to_string())
    }
}

pub(crate) fn refused<T>(why: impl Into<String>) -> Result<T, TreeError> {
    Err(TreeError::Unsafe(why.into()))
}
