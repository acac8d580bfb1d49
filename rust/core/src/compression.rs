//! What is sent of streams to a slow line: zstd frames that stand for themselves (PROTOCOL.md section 5, "Compression").
//!
//! Each is made of one turn's bytes and knows nothing of those before it. So nothing is kept for a stream or a session between
//! two frames, nothing has to be agreed on when a session resumes, and what one log says is never found out by its
//! neighbour's length. Of logs that costs a tenth of what a larger block would save.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::ProtocolError;
use crate::limits::QUANTUM_BYTES;

/// Less is not worth the headers of what it becomes, whatever that is.
pub const BYTES_MIN: usize = 512;

/// What does not save an eighth goes as it is.
const SAVED_PART: usize = 8;

thread_local! {
    // One for all sessions: nothing is left in it.
    static SHARED: RefCell<Shared> = RefCell::new(Shared::default());
}

#[derive(Default)]
struct Shared {
    /// The one that was used last, and its level.
    compressor: Option<(i32, Compressor<'static>)>,
    decompressor: Decompressor<'static>,
    scratch: Vec<u8>,
}

/// Hands what `bytes` become at `level` to `take`; `None`: that saves too little.
pub fn compress<T>(level: i32, bytes: &[u8], take: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // It is given no more room than it may use: where there is too little to gain it stops on its way.
    let room = bytes.len() - bytes.len() / SAVED_PART;
    SHARED.with_borrow_mut(|Shared { compressor, scratch, .. }| {
        let (_, compressor) = match compressor {
            Some(last) if last.0 == level => last,
            // There is none if there is no memory for it.
            _ => compressor.insert((level, Compressor::new(level).ok()?)),
        };
        let out = first(scratch, room);
        let length = compressor.compress_to_buffer(bytes, out).ok()?;
        out.get(..length).map(take)
    })
}

/// Hands the `length` bytes that `compressed` becomes to `take`.
pub fn decompress<T>(
    compressed: &[u8],
    length: u64,
    take: impl FnOnce(&[u8]) -> Result<T, ProtocolError>,
) -> Result<T, ProtocolError> {
    let wrong = |what: String| ProtocolError::new(5, format!("ZDATA of {length} bytes {what}"));
    let room = usize::try_from(length).ok().filter(|length| (1..=QUANTUM_BYTES).contains(length));
    let room = room.ok_or_else(|| wrong(format!("is not of 1 to {QUANTUM_BYTES}")))?;
    SHARED.with_borrow_mut(|Shared { decompressor, scratch, .. }| {
        let out = first(scratch, room);
        match decompressor.decompress_to_buffer(compressed, out) {
            Ok(count) if count == room => take(out),
            Ok(count) => Err(wrong(format!("has only {count}"))),
            Err(error) => Err(wrong(format!("is not what it should be: {error}"))),
        }
    })
}

/// The first `room` bytes of it, which it has.
fn first(scratch: &mut Vec<u8>, room: usize) -> &mut [u8] {
    if scratch.len() < room {
        scratch.resize(room, 0);
    }
    scratch.get_mut(..room).unwrap_or_default()
}
