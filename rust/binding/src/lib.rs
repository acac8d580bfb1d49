//! `tailrace._core`: what crosses between Python and Rust. Conversion only; decisions live on either side of it.

mod banana;
mod buffer;
mod error;
mod event;
mod journal;
mod log;
mod session;
mod socket;
mod store;
mod supervisor;
mod tar;
mod transfer;
mod tree;
mod value;

#[pyo3::pymodule(gil_used = false)]
mod _core {
    // One list per file, in the order of `_core.pyi`.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use super::banana::{BananaDecoder, BananaOutput, banana_answers, banana_encode, keep_freed_memory, send_to};
    #[pymodule_export]
    use super::event::{
        CallFailed, Called, LoggedIn, LoginAsked, PeerClosed, Ponged, Refused, Replied, StreamOpened, StreamProgress,
        StreamReadable, StreamReset, StreamStopped, StreamWritable,
    };
    #[pymodule_export]
    use super::log::{Batch, Gap, Journal, Ledger, Receipt, Record};
    #[pymodule_export]
    use super::session::Session;
    #[pymodule_export]
    use super::store::{LogReader, LogWriter};
    #[pymodule_export]
    use super::supervisor::supervisor_helper_main;
    #[pymodule_export]
    use super::tar::{TarDecoder, TarEncoder, TarEntry};
    #[pymodule_export]
    use super::transfer::{
        Blake3, Block, BlockReader, chunk_records, close_record, unpack_record, utime_record, write_chunks,
    };
    #[pymodule_export]
    use super::tree::{TreePacker, TreeUnpacker};
    #[pymodule_export]
    use super::value::{decode_value, encode_value};
}
