//! What a ledger has hashed already is stored as if it had been hashed here.

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use support::Directory;
use tailrace_core::batch::Batch;
use tailrace_core::chain::Chain;
use tailrace_core::channel::Channel;
use tailrace_core::journal::Writer;
use tailrace_core::ledger::Ledger;
use tailrace_core::record::Records;
use tailrace_store::{LogReader, LogWriter};

const CHANNELS: [Channel<'static>; 4] = [Channel::Stdout, Channel::Stderr, Channel::Log("a"), Channel::Log("b")];

/// The records of these pieces, (channel, length) each.
fn journal(pieces: &[(usize, usize)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (number, &(channel, length)) in pieces.iter().enumerate() {
        writer.log(CHANNELS[channel], &vec![b'x'; length], 1_000 + number as u64, 0).unwrap();
    }
    writer.tail().clone()
}

fn hashed(journal: &[u8], mut chain: Chain) -> [u8; 32] {
    for record in Records::new(journal) {
        chain.push([record.unwrap().1]);
    }
    *chain.as_bytes()
}

fn stored(directory: &Directory) -> (Vec<u8>, [u8; 32], u64) {
    let mut reader = LogReader::open(directory.path()).unwrap();
    let (mut bytes, end) = (Vec::new(), reader.end());
    while let Some((start, part)) = reader.batch(bytes.len() as u64, 300_000).unwrap() {
        assert_eq!(start, bytes.len() as u64);
        bytes.extend_from_slice(&part);
    }
    (bytes, end.chain, end.records)
}

fn pieces() -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    let length = prop_oneof![8 => 1..200_usize, 4 => 1..20_000_usize, 1 => 200_000..700_000_usize];
    let batch = proptest::collection::vec((0..CHANNELS.len(), length), 1..20);
    proptest::collection::vec(batch, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn known_or_not_the_log_is_the_same(batches in pieces(), forget in any::<u8>()) {
        let directory = Directory::new();
        let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
        let (mut ledger, mut all) = (Ledger::new(), Vec::new());
        let mut ends = Vec::new();
        let whole = journal(&batches.concat());
        let mut records = Records::new(&whole).map(|record| record.unwrap().1);
        for (number, pieces) in batches.iter().enumerate() {
            let count = pieces.iter().map(|(_, length)| length.div_ceil(256 << 10)).sum();
            let bytes: Vec<u8> = records.by_ref().take(count).flatten().copied().collect();
            let batch = Batch::new(all.len() as u64, Bytes::from(bytes.clone()));
            if forget >> number & 1 == 0 {
                ledger.add_batch(&batch).unwrap();
            } else {
                ledger.add(&bytes).unwrap();
            }
            all.extend(bytes);
            for part in batch.parts().unwrap() {
                writer.append_batch(&part).unwrap();
                ends.push((part.end() as usize, writer.end().chain));
            }
        }
        writer.close().unwrap();
        prop_assert_eq!(&all, &whole);
        for (end, chain) in ends {
            prop_assert_eq!(chain, hashed(&whole[..end], Chain::default()), "at {}", end);
        }
        let count = Records::new(&whole).count() as u64;
        prop_assert!(stored(&directory) == (whole, *ledger.chain(), count));
    }
}

#[test]
fn a_chain_that_began_elsewhere_is_not_taken_over() {
    let directory = Directory::new();
    let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
    let journal = journal(&[(0, 10_000), (1, 10)]);
    let batch = Batch::new(0, Bytes::from(journal.clone()));
    Ledger::resumed(0, [7; 32]).add_batch(&batch).unwrap();
    assert_eq!(batch.marks().first(), Some(&(0, Chain::from([7; 32]))));
    writer.append_batch(&batch).unwrap();
    assert_eq!(writer.end().chain, hashed(&journal, Chain::default()));
}
