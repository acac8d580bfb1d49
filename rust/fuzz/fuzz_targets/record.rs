//! Records in a batch, asked everything that a batch can be asked, and a ledger over them.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tailrace_core::batch::Batch;
use tailrace_core::ledger::Ledger;

fuzz_target!(|data: &[u8]| {
    let batch = Batch::new(0, Bytes::copy_from_slice(data));
    let _ = batch.count();
    let _ = batch.logs().try_for_each(|log| log.and_then(|(_, log)| log.check_lines()));
    for channel in batch.channels().unwrap_or_default() {
        let _ = batch.data(channel);
        let _ = batch.channel_tail(channel, b"\xe2\x82");
    }
    let _ = (batch.parts(), batch.updates(), batch.complete(), batch.receipt());
    let _ = (batch.chunks(), batch.utime(), batch.unpack(), batch.close());
    let mut ledger = Ledger::new();
    if ledger.add(data).is_ok() {
        assert_eq!(ledger.offset(), data.len() as u64);
        assert!(ledger.agrees(&ledger.receipt()));
    }
});
