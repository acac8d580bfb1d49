//! A file's bytes as transfer records (PROTOCOL.md section 7).

use crate::limits::CHUNK_BYTES_MAX;
use crate::record::{self, kind};

/// Bytes that a record costs besides its body: the length prefix and the kind.
const RECORD_OVERHEAD: usize = 5;

/// Appends `data` as chunk records of at most 1 MiB; nothing for no data.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + data.len().div_ceil(CHUNK_BYTES_MAX) * RECORD_OVERHEAD);
    for piece in data.chunks(CHUNK_BYTES_MAX) {
        record::encode(kind::CHUNK, piece, out);
    }
}
