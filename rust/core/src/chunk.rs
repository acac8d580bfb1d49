//! A file's bytes as transfer records, and their digest (PROTOCOL.md section 7).

use crate::limits::CHUNK_BYTES_MAX;
use crate::record::{self, kind};
use crate::value::{Value, encode as encode_value, map};

/// Bytes that a record costs besides its body: the length prefix and the kind.
pub const RECORD_OVERHEAD: usize = 5;

/// Appends `data` as chunk records of at most 1 MiB; nothing for no data.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + data.len().div_ceil(CHUNK_BYTES_MAX) * RECORD_OVERHEAD);
    for piece in data.chunks(CHUNK_BYTES_MAX) {
        record::encode(kind::CHUNK, piece, out);
    }
}

/// What stands before a piece of `length` bytes, at most 1 MiB, that is to be a record.
pub fn header(length: usize) -> [u8; RECORD_OVERHEAD] {
    debug_assert!(length <= CHUNK_BYTES_MAX);
    let [a, b, c, d] = ((1 + length) as u32).to_be_bytes();
    [a, b, c, d, kind::CHUNK]
}

/// The record that sets access and modification time, in Unix seconds.
pub fn utime(accessed: f64, modified: f64) -> Vec<u8> {
    value(kind::UTIME, &Value::Array(vec![Value::Float(accessed), Value::Float(modified)]))
}

/// The record that says that the tar stream is complete.
pub fn unpack() -> Vec<u8> {
    let mut out = Vec::new();
    record::encode(kind::UNPACK, &[], &mut out);
    out
}

/// The last record: how many bytes all chunks have together, and their BLAKE3.
pub fn close(length: u64, digest: &[u8; 32]) -> Vec<u8> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    value(kind::CLOSE, &map([("bytes", Value::Int(length)), ("blake3", Value::Bin(digest.to_vec()))]))
}

fn value(kind: u8, value: &Value) -> Vec<u8> {
    let (mut body, mut out) = (Vec::new(), Vec::new());
    let fits = encode_value(value, &mut body);
    debug_assert!(fits.is_ok(), "a few numbers");
    record::encode(kind, &body, &mut out);
    out
}

/// The digest of a file while it passes, and its length.
#[derive(Debug, Clone, Default)]
pub struct Digest(blake3::Hasher);

impl Digest {
    /// Of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on over `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all that has passed.
    pub fn digest(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// The number of bytes that have passed.
    pub fn length(&self) -> u64 {
        self.0.count()
    }
}
