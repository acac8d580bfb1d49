//! What can go wrong with a log on disk.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a log cannot be written or read. The sentence is for people; the log keeps what it had.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {verb} {}: {}", path.display(), plain(source))]
    Io {
        /// What was tried: `write`, `read`, …
        verb: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("{} is damaged at byte {position}: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What was found.
        what: &'static str,
    },
    /// A file of a later format.
    #[error("{} was written by a newer Tailrace (format {version}, known is 2): read it with that version", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// What is at an offset is not whole, well-formed records.
    #[error("bad record at offset {offset}: {what}")]
    Record {
        /// Where in the journal.
        offset: u64,
        /// What was wrong with the record there.
        what: String,
    },
    /// A sync did not succeed, and what it was for may never reach the disk, whatever later ones say.
    #[error("the log takes no more, as an earlier sync failed: {0}")]
    Failed(String),
    /// The caller's mistake. Nothing was changed.
    #[error("{0}")]
    Usage(String),
}

/// What is the disk's fault and has no number of its own.
const EIO: i32 = 5;

impl StoreError {
    /// What the system calls it, if it is the disk's fault.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => Some(source.raw_os_error().unwrap_or(EIO)),
            Self::Failed(_) | Self::Damaged { .. } => Some(EIO),
            Self::Newer { .. } | Self::Record { .. } | Self::Usage(_) => None,
        }
    }

    /// For `map_err`: which file, and what was tried with it.
    pub(crate) fn io<'a>(verb: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Io { verb, path: path.to_owned(), source }
    }
}

/// Without the "(os error 28)" of `io::Error`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.chars().take(end).collect(),
        None => text,
    }
}
