//! POSIX tar streams, made and read on the fly: ustar, with pax headers for what does not fit it. GNU's long names are read.
//!
//! The decoder is strict where lenient ones disagree, because whoever makes two readers see different files in one
//! archive can smuggle: every header needs its checksum, sizes in a pax header and in the ustar header must not
//! contradict each other, nothing may come twice, and an archive must have its end. Whether an entry's *name* is safe
//! to unpack is not decided here.

mod decoder;
mod encoder;
mod pax;

pub use decoder::{Decoder, Event};
pub use encoder::Encoder;

use thiserror::Error;

/// Tar streams are made of blocks of this size.
pub const BLOCK: usize = 512;
/// Bytes of a pax header or a GNU long name that are read: they are held in memory.
pub const EXTENSION_BYTES_MAX: usize = 1 << 20;
/// Bytes of a path or a link's target: eight times what Linux takes at once.
pub const PATH_BYTES_MAX: usize = 32 << 10;

/// Bytes that are no archive, or one that is not read: lower case, for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TarError(pub String);

fn error<T>(what: impl Into<String>) -> Result<T, TarError> {
    Err(TarError(what.into()))
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    Hardlink(Vec<u8>),
    /// A character or block device.
    Device,
    /// A named pipe.
    Fifo,
}

/// One entry. Owners are not kept: they mean nothing on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As in the archive, but without slashes at the end. Never empty, no NUL in it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Modification time in Unix seconds.
    pub mtime: i64,
    /// And nanoseconds, below 10^9, behind it.
    pub mtime_ns: u32,
}

/// Where the fields of a header stand.
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const KIND: Range<usize> = 156..157;
    pub(super) const TARGET: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

/// Magic and version of POSIX.
const USTAR: &[u8; 8] = b"ustar\x0000";
/// Magic and version of GNU tar, whose headers have no prefix field.
const GNU: &[u8; 8] = b"ustar  \0";
/// The first number that 11 octal digits do not hold.
const OCTAL_END: u64 = 1 << 33;

/// The sum of a header's bytes, its checksum field taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    let field: u64 = block.get(field::CHECKSUM).unwrap_or_default().iter().map(|&byte| u64::from(byte)).sum();
    sum - field + 8 * u64::from(b' ')
}

/// How many bytes follow `size` bytes of data up to the next block.
const fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}
