//! A segment file that anybody may have written: it is read up to its last good record, or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace_store::{LogReader, LogWriter};

fuzz_target!(|input: (bool, &[u8])| {
    let (is_sealed, data) = input;
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let name = if is_sealed { "00000000000000000000.zst" } else { "00000000000000000000.seg" };
    std::fs::write(directory.path().join(name), data).expect("a file");
    if let Ok(mut reader) = LogReader::open(directory.path()) {
        let mut offset = 0;
        while let Ok(Some((start, records))) = reader.batch(offset, 4096) {
            assert!(!records.is_empty());
            assert!(start >= offset);
            offset = start + records.len() as u64;
        }
    }
    let _ = LogWriter::recover(directory.path(), 1 << 20);
});
