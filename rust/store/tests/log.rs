//! What was appended is what is read, whatever happened in between: rolling, a killed writer, closing, sealing.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use support::{Directory, Model};
use tailrace_core::channel::Channel;
use tailrace_store::simulated::Simulated;
use tailrace_store::{LogReader, LogWriter, Select, seal_next};

const CHANNELS: [Channel<'static>; 5] =
    [Channel::Stdout, Channel::Stderr, Channel::Header, Channel::Log("a.log"), Channel::Log("b.log")];

#[derive(Debug, Clone)]
enum Operation {
    /// (channel, lines, width, time) of each record.
    Append(Vec<(usize, u64, usize, u64)>),
    Kill,
    Check(u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let record = (0..=CHANNELS.len(), 0..5u64, 0..40usize, 1_000..2_000u64);
    let operation = prop_oneof![
        6 => proptest::collection::vec(record, 0..6).prop_map(Operation::Append),
        1 => Just(Operation::Kill),
        1 => any::<u64>().prop_map(Operation::Check),
    ];
    proptest::collection::vec(operation, 0..40)
}

fn selects() -> Vec<Select> {
    let named = ["stdout", "stderr", "header", "log:a.log", "log:b.log", "log:never"];
    named.iter().map(|name| name.parse().unwrap()).chain([Select::Output]).collect()
}

fn append(writer: &mut LogWriter, model: &mut Model, records: &[(usize, u64, usize, u64)]) {
    let start = model.bytes.len() as u64;
    let mut batch = Vec::new();
    for &(channel, lines, width, time) in records {
        batch.extend(match CHANNELS.get(channel) {
            Some(&channel) => model.log(channel, lines, width, time),
            None => model.update(width),
        });
    }
    writer.append(&batch, start, None).unwrap();
}

/// One reader is asked for everything, in an order that makes it jump about.
fn check(mut reader: LogReader, model: &Model, seed: u64) {
    let end = reader.end();
    assert_eq!((end.offset, end.records), (model.bytes.len() as u64, model.entries.len() as u64));
    assert_eq!(&end.chain, model.chain.as_bytes());
    for select in selects() {
        let lines = model.lines(&select);
        assert_eq!(reader.lines(&select), lines);
        for line in (1..=lines + 1).rev().step_by(1 + (seed % 3) as usize) {
            let found = reader.find_line(line, &select).unwrap().map(|found| (found.offset, found.skip));
            assert_eq!(found, model.find_line(line, &select), "line {line} of {select:?}");
        }
    }
    for time in [0, 1_000, 1_000 + seed % 1_000, 1_999, 5_000] {
        assert_eq!(reader.find_time(time).unwrap(), model.find_time(time), "time {time}");
    }
    for entry in model.entries.iter().rev() {
        let max = (seed % 300) as usize;
        let got = reader.batch(entry.offset, max).unwrap().unwrap().1;
        let rest = &model.bytes[entry.offset as usize..];
        assert!(got.len() >= entry.bytes.len() && (got.len() <= max || got.len() == entry.bytes.len()));
        assert_eq!(got, rest[..got.len()]);
    }
    assert_eq!(read_all(&mut reader, 1 + (seed % 5_000) as usize), model.bytes);
}

fn read_all(reader: &mut LogReader, max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((_, batch)) = reader.batch(bytes.len() as u64, max).unwrap() {
        bytes.extend_from_slice(&batch);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_log_reads_like_a_vector_of_records(operations in operations(), segment_bytes in 300..4_000u64, seed: u64) {
        let directory = Directory::new();
        let mut model = Model::default();
        let mut writer = LogWriter::create(directory.path(), segment_bytes).unwrap();
        let mut reader = writer.reader();
        for operation in operations {
            match operation {
                Operation::Append(records) => append(&mut writer, &mut model, &records),
                Operation::Check(seed) => check(writer.reader(), &model, seed),
                Operation::Kill => {
                    drop(writer);
                    writer = LogWriter::recover(directory.path(), segment_bytes).unwrap();
                    reader = writer.reader();
                }
            }
        }
        check(writer.reader(), &model, seed);
        check(LogReader::open(directory.path()).unwrap(), &model, seed);
        writer.close().unwrap();
        check(LogReader::open(directory.path()).unwrap(), &model, seed);
        while seal_next(directory.path()).unwrap() {
            check(LogReader::open(directory.path()).unwrap(), &model, seed);
        }
        check(reader, &model, seed);
        drop(writer);
        check(LogWriter::recover(directory.path(), segment_bytes).unwrap().reader(), &model, seed);
    }
}

/// More than a mark's distance and more than a frame, so that marks and frames are used.
#[test]
fn a_large_log_is_found_into_by_its_marks() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 4 << 20).unwrap();
    for number in 0..600 {
        let records: Vec<_> = (0..4).map(|record| ((number + record) % 6, 40, 120, 1_000 + number as u64)).collect();
        append(&mut writer, &mut model, &records);
    }
    assert!(model.bytes.len() > 9 << 20);
    spot_check(writer.reader(), &model);
    writer.close().unwrap();
    spot_check(writer.reader(), &model);
    while seal_next(directory.path()).unwrap() {}
    assert!(directory.names().iter().all(|name| name.ends_with(".zst")), "{:?}", directory.names());
    spot_check(writer.reader(), &model);
}

fn spot_check(mut reader: LogReader, model: &Model) {
    for select in selects() {
        // The last line of each record and the first one behind it: marks are between records.
        let ends = model.line_ends(&select);
        for line in ends.iter().flat_map(|&line| [line, line + 1]).filter(|&line| line > 0) {
            let found = reader.find_line(line, &select).unwrap().map(|found| (found.offset, found.skip));
            assert_eq!(found, model.find_line(line, &select), "line {line} of {select:?}");
        }
    }
    for time in 1_000..1_601 {
        assert_eq!(reader.find_time(time).unwrap(), model.find_time(time));
    }
    for number in 0..200 {
        let entry = &model.entries[number * 7_919 % model.entries.len()];
        let got = reader.batch(entry.offset, 1).unwrap().unwrap().1;
        assert_eq!(got, entry.bytes);
    }
    assert_eq!(read_all(&mut reader, 300_000), model.bytes);
}

#[test]
fn a_seek_reads_only_what_is_near() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1 << 30).unwrap();
    for number in 0..1_000 {
        append(&mut writer, &mut model, &[(0, 40, 120, number)]);
    }
    let damage_the_beginning = || {
        let file = directory.path().join(&directory.names()[0]);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100..200].fill(0);
        std::fs::write(&file, &bytes).unwrap();
    };
    let line = model.lines(&Select::Output) - 3;
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    damage_the_beginning();
    let mut reader = LogReader::open(directory.path()).unwrap();
    assert_eq!(
        reader.find_line(line, &Select::Output).unwrap().map(|found| found.offset),
        model.find_line(line, &Select::Output).map(|found| found.0)
    );
    assert_eq!(reader.find_time(999).unwrap(), model.find_time(999));
    assert!(reader.batch(model.entries[999].offset, 1).unwrap().is_some());
    assert!(reader.batch(0, 1).is_err());
}

#[test]
fn what_a_place_was_found_in_is_not_read_again() {
    let (disk, path) = (Simulated::with_directory(Path::new("/run")), Path::new("/run"));
    let mut model = Model::default();
    let mut writer = LogWriter::create_on(Arc::new(disk.clone()), path, 1 << 30).unwrap();
    for number in 0..1_000 {
        append(&mut writer, &mut model, &[(0, 10, 100, number)]);
    }
    writer.close().unwrap();
    let [mut by_line, mut by_time] = [(); 2].map(|()| LogReader::open_on(Arc::new(disk.clone()), path).unwrap());
    let line = by_line.find_line(5_001, &Select::Output).unwrap().unwrap();
    let offset = by_time.find_time(500).unwrap();
    assert_eq!(line.offset, offset);
    disk.end_power_after(0);
    for mut reader in [by_line, by_time] {
        let (at, found) = reader.batch(offset, 1).unwrap().unwrap();
        assert_eq!((at, &*found), (offset, &*model.entries[500].bytes));
    }
}

/// However many segments there are: the last lines are what people ask for.
#[test]
fn the_end_of_a_log_is_found_in_a_few_steps() {
    let (disk, path) = (Simulated::with_directory(Path::new("/run")), Path::new("/run"));
    let mut model = Model::default();
    let mut writer = LogWriter::create_on(Arc::new(disk.clone()), path, 1_000).unwrap();
    for number in 0..1_000 {
        append(&mut writer, &mut model, &[(0, 10, 100, number)]);
    }
    writer.close().unwrap();
    assert!(disk.files().len() > 400);
    let line = model.lines(&Select::Output) - 3;
    let before = disk.operations();
    let mut reader = LogReader::open_on(Arc::new(disk.clone()), path).unwrap();
    let found = reader.find_line(line, &Select::Output).unwrap().unwrap();
    assert_eq!(Some((found.offset, found.skip)), model.find_line(line, &Select::Output));
    assert!(reader.batch(found.offset, 1).unwrap().is_some());
    assert!(disk.operations() - before <= 12, "{}", disk.operations() - before);
}

#[test]
fn a_seek_in_a_log_that_grows_reads_only_what_is_near() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1 << 30).unwrap();
    for number in 0..1_000 {
        append(&mut writer, &mut model, &[(0, 40, 120, number)]);
    }
    let file = std::fs::OpenOptions::new().write(true).open(directory.path().join(&directory.names()[0])).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 10_000], 400).unwrap();
    let line = model.lines(&Select::Output) - 3;
    let found = writer.reader().find_line(line, &Select::Output).unwrap();
    assert_eq!(found.map(|found| found.offset), model.find_line(line, &Select::Output).map(|found| found.0));
    assert!(writer.reader().find_line(1_000, &Select::Output).is_err());
}

#[test]
fn a_follower_sees_every_append_across_segments_and_the_end() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1_000).unwrap();
    let mut reader = writer.reader();
    let mut seen = Vec::new();
    for number in 0..100 {
        append(&mut writer, &mut model, &[(number % 5, 3, 20, 7)]);
        let batch = reader.batch(seen.len() as u64, usize::MAX).unwrap().unwrap().1;
        seen.extend_from_slice(&batch);
        assert_eq!(seen, model.bytes);
        assert_eq!(reader.batch(seen.len() as u64, 1).unwrap(), None);
    }
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    assert_eq!(reader.batch(seen.len() as u64, 1).unwrap(), None);
}

#[test]
fn who_reads_alone_keeps_nothing_for_others_also_while_the_log_is_synced() {
    let (directory, mut model) = (Directory::new(), Model::default());
    let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
    append(&mut writer, &mut model, &[(0, 2, 4000, 0)]);
    let [_seen, mut first, mut second] = [writer.reader(), writer.reader(), writer.reader()];
    let syncing = writer.syncing();
    let read = first.batch(0, 1 << 20).unwrap();
    assert_eq!(second.at_hand(0, 1 << 20).unwrap(), read);
    first.batch(model.bytes.len() as u64, 1).unwrap();
    drop(second);
    assert_eq!(first.at_hand(0, 1 << 20).unwrap(), None);
    syncing.run().unwrap();
}

#[test]
fn a_sealed_segment_is_read_on_under_a_reader_that_had_it_open() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 5_000).unwrap();
    for _ in 0..100 {
        append(&mut writer, &mut model, &[(0, 3, 100, 7)]);
    }
    let mut reader = writer.reader();
    let mut seen = reader.batch(0, 1_000).unwrap().unwrap().1.to_vec();
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    while let Some((_, batch)) = reader.batch(seen.len() as u64, 1_000).unwrap() {
        seen.extend_from_slice(&batch);
    }
    assert_eq!(seen, model.bytes);
}

#[test]
fn what_may_not_be_done_changes_nothing() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
    append(&mut writer, &mut model, &[(0, 3, 10, 7)]);
    let end = model.bytes.len() as u64;
    let whole = model.clone().log(Channel::Stdout, 1, 5, 7);
    assert!(writer.append(&whole, 0, None).is_err(), "not at the end");
    assert!(writer.append(&whole[..whole.len() - 1], end, None).is_err(), "torn");
    assert!(writer.append(&[whole.as_slice(), &[0, 0, 0, 1, 0x7f]].concat(), end, None).is_err(), "an unknown kind");
    assert!(LogWriter::create(directory.path(), 1).is_err(), "a log is there");
    let mut reader = writer.reader();
    assert!(reader.batch(end + 1, 1).is_err(), "beyond the end");
    assert!(reader.batch(1, 1).is_err(), "inside a record");
    assert!(reader.find_line(0, &Select::Output).is_err(), "lines count from 1");
    check(writer.reader(), &model, 1);
    writer.close().unwrap();
    assert!(writer.append(&whole, end, None).is_err(), "closed");
    check(writer.reader(), &model, 1);
}

#[test]
fn too_many_channels_are_refused_and_the_log_goes_on() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
    for number in 0..1_024 {
        let at = model.bytes.len() as u64;
        let record = model.log(Channel::Log(&number.to_string()), 1, 1, 1);
        writer.append(&record, at, None).unwrap();
    }
    let at = model.bytes.len() as u64;
    let one_more = model.clone().log(Channel::Stdout, 1, 1, 1);
    assert!(writer.append(&one_more, at, None).is_err());
    let known = model.log(Channel::Log("5"), 1, 1, 1);
    writer.append(&known, at, None).unwrap();
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    assert_eq!(read_all(&mut LogReader::open(directory.path()).unwrap(), 1_000), model.bytes);
}

#[test]
fn readers_in_threads_see_every_byte_while_the_log_grows_rolls_closes_and_is_sealed() {
    let directory = Directory::new();
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 20_000).unwrap();
    let total = AtomicU64::new(u64::MAX);
    let readers: Vec<_> = (0..3).map(|_| writer.reader()).collect();
    std::thread::scope(|threads| {
        let following: Vec<_> = readers.into_iter().map(|reader| threads.spawn(|| follow(reader, &total))).collect();
        for number in 0..2_000 {
            append(&mut writer, &mut model, &[(number % 6, 2, 40, number as u64), (0, 1, 1, 5)]);
        }
        writer.close().unwrap();
        while seal_next(directory.path()).unwrap() {}
        total.store(model.bytes.len() as u64, Ordering::SeqCst);
        for thread in following {
            assert!(thread.join().unwrap() == model.bytes);
        }
    });
}

/// Reads on until there are `total` bytes, and now and then looks for lines that have begun.
fn follow(mut reader: LogReader, total: &AtomicU64) -> Vec<u8> {
    let mut seen = Vec::new();
    while (seen.len() as u64) < total.load(Ordering::SeqCst) {
        match reader.batch(seen.len() as u64, 3_000).unwrap() {
            Some((_, batch)) => seen.extend_from_slice(&batch),
            None => std::thread::yield_now(),
        }
        let lines = reader.lines(&Select::Output);
        if lines > 0 && seen.len() % 7 == 0 {
            let last = reader.find_line(lines, &Select::Output).unwrap().unwrap();
            assert!(last.offset < reader.end_offset());
        }
    }
    seen
}
