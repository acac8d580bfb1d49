//! Whatever a crash or a bad disk leaves: the longest good prefix is read, and nothing panics.

mod support;

use std::fs;

use proptest::prelude::*;
use support::{Directory, Model};
use tailrace_core::channel::Channel;
use tailrace_store::format::{self, Coding, Gap, Payload, State};
use tailrace_store::index::Mark;
use tailrace_store::segment::Segment;
use tailrace_store::{Count, LogReader, LogWriter, Select, StoreError, Totals, seal_next};

const FIRST: &str = "00000000000000000000.seg";

/// A segment with its blocks' ends: (bytes of the file, bytes of the journal) behind each of them.
fn written() -> (Vec<u8>, Model, Vec<(usize, u64)>) {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
    let file = directory.path().join(FIRST);
    let mut ends = Vec::new();
    for number in 0..6 {
        let at = model.bytes.len() as u64;
        let mut batch = model.log(Channel::Stdout, 2, 10, 50);
        batch.extend(model.log(Channel::Log("x"), number, 3, 60));
        writer.append(&batch, at, None).unwrap();
        ends.push((fs::metadata(&file).unwrap().len() as usize, model.bytes.len() as u64));
    }
    (fs::read(&file).unwrap(), model, ends)
}

/// Recovers from a directory that holds these bytes, appends, and reads all of it back.
fn recovered_end(bytes: &[u8], model: &Model) -> u64 {
    let directory = Directory::new();
    fs::write(directory.path().join(FIRST), bytes).unwrap();
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    let end = writer.end().offset;
    let mut expected = Model::default();
    for entry in &model.entries[..model.records_until(end)] {
        expected.bytes.extend(&entry.bytes);
        expected.chain.push([entry.bytes.as_slice()]);
    }
    assert_eq!(&writer.end().chain, expected.chain.as_bytes());
    let more = expected.log(Channel::Stderr, 1, 1, 1);
    writer.append(&more, end, None).unwrap();
    drop(writer);
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    writer.close().unwrap();
    let mut reader = LogReader::open(directory.path()).unwrap();
    assert_eq!(reader.batch(0, usize::MAX).unwrap().unwrap().1, expected.bytes);
    end
}

#[test]
fn a_cut_at_any_byte_leaves_every_whole_batch() {
    let (bytes, model, ends) = written();
    for cut in 0..=bytes.len() {
        let good = ends.iter().rev().find(|(file, _)| *file <= cut).map_or(0, |&(_, journal)| journal);
        assert_eq!(recovered_end(&bytes[..cut], &model), good, "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_at_any_byte_leaves_what_is_before_it() {
    let (bytes, model, ends) = written();
    for at in ends[2].0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let good = ends.iter().rev().find(|(file, _)| *file <= at).map_or(0, |&(_, journal)| journal);
        assert_eq!(recovered_end(&bad, &model), good, "flipped at {at}");
    }
}

#[test]
fn a_block_that_is_missing_ends_the_log_before_it() {
    let (mut bytes, model, ends) = written();
    bytes.drain(ends[2].0..ends[3].0);
    assert_eq!(recovered_end(&bytes, &model), ends[2].1);
}

#[test]
fn a_segment_without_a_block_leaves_nothing_behind() {
    let directory = Directory::new();
    let (bytes, ..) = written();
    let preface = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 8;
    fs::write(directory.path().join(FIRST), &bytes[..preface]).unwrap();
    LogWriter::recover(directory.path(), 1 << 20).unwrap().close().unwrap();
    assert_eq!(directory.names(), [""; 0]);
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    writer.append(&Model::default().update(3), 0, None).unwrap();
}

#[test]
fn zeros_behind_the_end_are_cut_off() {
    let (mut bytes, model, _) = written();
    bytes.resize(bytes.len() + 10_000, 0);
    assert_eq!(recovered_end(&bytes, &model), model.bytes.len() as u64);
}

#[test]
fn the_index_at_the_end_may_be_torn_too() {
    let directory = Directory::new();
    let (bytes, model, ends) = written();
    let file = directory.path().join(FIRST);
    fs::write(&file, &bytes).unwrap();
    LogWriter::recover(directory.path(), 1 << 20).unwrap().close().unwrap();
    let closed = fs::read(&file).unwrap();
    assert!(closed.len() > bytes.len());
    for cut in ends[5].0..closed.len() {
        assert_eq!(recovered_end(&closed[..cut], &model), model.bytes.len() as u64);
    }
}

#[test]
fn sealing_may_stop_after_any_step() {
    let (raw, model, _) = written();
    let directory = Directory::new();
    let path = |name: &str| directory.path().join(name);
    fs::write(path(FIRST), &raw).unwrap();
    let big = Model::default().log(Channel::Header, 0, 100_000, 9);
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    writer.append(&big, model.bytes.len() as u64, None).unwrap();
    writer.close().unwrap();
    let closed = fs::read(path(FIRST)).unwrap();
    let all = [model.bytes.as_slice(), &big].concat();
    assert!(seal_next(directory.path()).unwrap());
    assert!(!seal_next(directory.path()).unwrap());
    assert_eq!(directory.names(), ["00000000000000000000.zst"]);
    let sealed = fs::read(path("00000000000000000000.zst")).unwrap();
    let read = || LogReader::open(directory.path()).unwrap().batch(0, usize::MAX).unwrap().unwrap().1;

    // Written in part, and not renamed.
    fs::remove_file(path("00000000000000000000.zst")).unwrap();
    fs::write(path(FIRST), &closed).unwrap();
    fs::write(path("00000000000000000000.tmp"), &sealed[..sealed.len() / 2]).unwrap();
    assert_eq!(read(), all);
    LogWriter::recover(directory.path(), 1 << 20).unwrap();
    assert_eq!(directory.names(), [FIRST]);

    // Renamed, and the other one not removed.
    fs::write(path("00000000000000000000.zst"), &sealed).unwrap();
    assert_eq!(read(), all);
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    assert_eq!(directory.names(), ["00000000000000000000.zst"]);
    assert_eq!(read(), all);
    // And it can still be gone on with.
    let more = Model::default().log(Channel::Stdout, 1, 1, 1);
    writer.append(&more, all.len() as u64, None).unwrap();
    assert_eq!(read(), [all, more].concat());
}

#[test]
fn segments_behind_a_damaged_one_are_set_aside() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 500).unwrap();
    for _ in 0..20 {
        let at = model.bytes.len() as u64;
        let record = model.log(Channel::Stdout, 1, 100, 1);
        writer.append(&record, at, None).unwrap();
    }
    drop(writer);
    let names = directory.names();
    let second = directory.path().join(&names[1]);
    let bytes = fs::read(&second).unwrap();
    fs::write(&second, &bytes[..bytes.len() / 2]).unwrap();
    let writer = LogWriter::recover(directory.path(), 500).unwrap();
    let end = writer.end().offset as usize;
    let second_start: usize = names[1][..20].parse().unwrap();
    assert!(end >= second_start && end < model.bytes.len());
    let read = LogReader::open(directory.path()).unwrap().batch(0, usize::MAX).unwrap().unwrap().1;
    assert_eq!(read, model.bytes[..end]);
    assert!(directory.names().iter().any(|name| name.ends_with(".seg.lost")));
}

#[test]
fn damage_in_a_sealed_log_is_an_error_for_who_reads_it() {
    let directory = Directory::new();
    let mut writer = LogWriter::create(directory.path(), 1 << 30).unwrap();
    let mut model = Model::default();
    for number in 0..200 {
        let at = model.bytes.len() as u64;
        let record = model.log(Channel::Stdout, 1 + number % 7, 1_000, 1);
        writer.append(&record, at, None).unwrap();
    }
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    let path = directory.path().join(&directory.names()[0]);
    let sealed = fs::read(&path).unwrap();
    for at in (0..sealed.len()).step_by(7) {
        let mut bad = sealed.clone();
        bad[at] ^= 0x40;
        fs::write(&path, &bad).unwrap();
        let Ok(mut reader) = LogReader::open(directory.path()) else { continue };
        // What can be read is right, and the rest says what is wrong with it.
        let mut seen = 0;
        let error = loop {
            match reader.batch(seen as u64, 100_000) {
                Ok(Some((_, batch))) => {
                    assert_eq!(batch, model.bytes[seen..seen + batch.len()]);
                    seen += batch.len();
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        assert!(error.is_some() || seen == model.bytes.len() || reader.end_offset() == seen as u64);
        let _ = reader.find_line(300, &Select::Output);
        let _ = reader.find_time(1);
    }
}

#[test]
fn a_newer_format_says_so() {
    let directory = Directory::new();
    let (mut bytes, ..) = written();
    bytes[13] = 9;
    let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 8;
    let crc = crc32fast::hash(&bytes[12..length]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(directory.path().join(FIRST), &bytes).unwrap();
    for error in [LogReader::open(directory.path()).err(), LogWriter::recover(directory.path(), 1).err()] {
        assert!(matches!(error, Some(StoreError::Newer { version: 9, .. })), "{error:?}");
    }
    assert_eq!(fs::read(directory.path().join(FIRST)).unwrap(), bytes, "and it is left alone");
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_000u64, Just(u64::MAX), Just(u64::MAX - 300), any::<u64>()]
}

fn count() -> impl Strategy<Value = Count> {
    (number(), number()).prop_map(|(bytes, lines)| Count { bytes, lines })
}

fn state() -> impl Strategy<Value = State> {
    let counts = proptest::collection::vec((1..5u8, count()), 0..4);
    (number(), number(), number(), counts).prop_map(|(offset, records, time_us, counts)| {
        let mut totals = Totals::default();
        for (kind, count) in counts {
            totals.set(&tailrace_store::Channel::new(kind, "").unwrap(), count);
        }
        State { offset, records, time_us, chain: [0; 32], totals }
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    (number(), number(), number(), proptest::collection::vec(count(), 0..3))
        .prop_map(|(offset, position, time_us, counts)| Mark { offset, position, time_us, counts })
}

proptest! {
    /// Whoever wrote it knew how a CRC is made.
    #[test]
    fn no_fields_make_anything_panic(
        preface in state(),
        blocks in proptest::collection::vec((any::<bool>(), 0..400u32, proptest::option::of(state())), 0..4),
        index in proptest::option::of((state(), proptest::collection::vec(mark(), 0..3))),
        gap in proptest::option::of((number(), ".{0,9}").prop_map(|(from, reason)| Gap { from, reason })),
    ) {
        let mut file = Vec::new();
        let mut good = State { offset: 0, ..preface.clone() };
        format::put_preface(&mut file, if blocks.len() % 2 == 0 { &good } else { &preface }, gap.as_ref());
        for (is_zstd, size, state) in blocks {
            let records = Model::default().log(Channel::Stdout, 1, size as usize, 5);
            good.offset += records.len() as u64;
            let coding = if is_zstd { Coding::Zstd } else { Coding::Raw };
            let stored = if is_zstd { zstd::bulk::compress(&records, 1).unwrap() } else { records.clone() };
            let raw = if state.is_some() && is_zstd { size } else { records.len() as u32 };
            let payload = Payload { coding, raw, stored: stored.len() as u32, crc: crc32fast::hash(&stored) };
            format::put_block(&mut file, payload, state.as_ref().unwrap_or(&good), 0..9);
            file.extend(stored);
        }
        if let Some((state, marks)) = index {
            format::put_index(&mut file, &state, &marks);
        }
        tailrace_store::segment::inspect(&file);
        for name in [FIRST, "00000000000000000000.zst"] {
            let directory = Directory::new();
            fs::write(directory.path().join(name), &file).unwrap();
            if let Ok(mut reader) = LogReader::open(directory.path()) {
                let end = reader.end_offset();
                for offset in [0, 1, end / 2, end.saturating_sub(1), end, u64::MAX] {
                    let _ = reader.batch(offset, 100);
                    let _ = reader.find_line(offset, &Select::Output);
                    let _ = reader.find_time(offset);
                }
            }
            if let Ok(mut writer) = LogWriter::recover(directory.path(), 100) {
                let _ = writer.append(&Model::default().update(3), writer.end().offset, None);
                let _ = writer.close();
                let _ = seal_next(directory.path());
            }
        }
    }

    #[test]
    fn no_bytes_make_a_scan_panic(bytes: Vec<u8>, at: usize, good in 0..2_000usize) {
        let (mut file, ..) = written();
        let at = at % file.len();
        file.splice(at..(at + good).min(file.len()), bytes.iter().copied());
        tailrace_store::segment::inspect(&file);
        tailrace_store::segment::inspect(&bytes);
    }
}

#[test]
fn a_segment_reads_from_memory_as_from_a_file() {
    let (bytes, model, _) = written();
    let mut segment = Segment::open(bytes.as_slice(), "memory".as_ref()).unwrap();
    assert_eq!(segment.scan().unwrap().state.offset, model.bytes.len() as u64);
}
