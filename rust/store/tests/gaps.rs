//! Logs that leave something out: they say what, and go on.

mod support;

use std::fs;

use support::{Directory, Model};
use tailrace_core::channel::Channel;
use tailrace_store::format::Gap;
use tailrace_store::{LogReader, LogWriter, Select, StoreError, seal_next};

/// One line of stdout, its number in it.
fn line(model: &mut Model, number: usize) -> Vec<u8> {
    model.log(Channel::Stdout, 1, 50 + number, number as u64)
}

/// All batches, with their offsets.
fn read(reader: &mut LogReader, max: usize) -> Vec<(u64, Vec<u8>)> {
    let mut batches = Vec::new();
    let mut offset = 0;
    while let Some((start, batch)) = reader.batch(offset, max).unwrap() {
        offset = start + batch.len() as u64;
        batches.push((start, batch.to_vec()));
    }
    batches
}

/// A log of `lines` lines without those in `skipped`.
fn written(directory: &Directory, lines: usize, skipped: std::ops::Range<usize>) -> (Model, LogWriter) {
    let mut model = Model::default();
    let mut writer = LogWriter::create(directory.path(), 1 << 20).unwrap();
    for number in 0..lines {
        let at = model.bytes.len() as u64;
        let record = line(&mut model, number);
        assert_eq!(writer.next().offset, at);
        if skipped.contains(&number) {
            writer.skip(&record, at, None, "the disk was full").unwrap();
        } else {
            writer.append(&record, at, None).unwrap();
        }
    }
    (model, writer)
}

#[test]
fn what_was_skipped_is_a_gap_and_all_else_is_there() {
    let directory = Directory::new();
    let (model, writer) = written(&directory, 10, 3..6);
    let offset = |number: usize| model.entries[number].offset;
    let expected =
        [(0, model.bytes[..offset(3) as usize].to_vec()), (offset(6), model.bytes[offset(6) as usize..].to_vec())];
    assert_eq!(&writer.end().chain, model.chain.as_bytes(), "the chain is over what was skipped too");
    assert_eq!(writer.end().records, 10);
    assert_eq!(writer.end().totals.lines(&Select::Output), 7);
    let check = |mut reader: LogReader| {
        assert_eq!(read(&mut reader, usize::MAX), expected);
        assert_eq!(read(&mut reader, 1).len(), 7);
        let gaps = reader.gaps().unwrap();
        let [(behind, gap)] = gaps.as_slice() else { panic!("{gaps:?}") };
        assert_eq!(gap, &Gap { from: offset(3), reason: "the disk was full".to_owned() });
        assert_eq!(behind.offset, offset(6));
        // From within the gap one reads on behind it, and its lines are not counted.
        assert_eq!(reader.batch(offset(4), 1).unwrap().unwrap().0, offset(6));
        let found = reader.find_line(4, &Select::Output).unwrap().unwrap();
        assert_eq!((found.offset, found.skip), (offset(6), 0));
        assert_eq!(reader.find_time(4).unwrap(), offset(6));
        assert!(reader.batch(1, 1).is_err(), "inside a record");
    };
    check(writer.reader());
    drop(writer);
    check(LogReader::open(directory.path()).unwrap());
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    check(writer.reader());
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    check(LogReader::open(directory.path()).unwrap());
}

#[test]
fn a_gap_at_the_end_is_known_only_while_its_writer_lives() {
    let directory = Directory::new();
    let (model, mut writer) = written(&directory, 6, 4..6);
    assert_eq!(writer.end().offset, model.entries[4].offset);
    assert_eq!(writer.next().offset, model.bytes.len() as u64);
    writer.close().unwrap();
    let end = model.entries[4].offset;
    assert_eq!(LogWriter::recover(directory.path(), 1).unwrap().next().offset, end);
    assert_eq!(directory.names().len(), 1);
}

#[test]
fn a_log_may_begin_with_a_gap() {
    let directory = Directory::new();
    let (model, writer) = written(&directory, 4, 0..2);
    drop(writer);
    let writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    assert_eq!(&writer.end().chain, model.chain.as_bytes());
    let at = model.entries[2].offset;
    assert_eq!(read(&mut writer.reader(), usize::MAX), [(at, model.bytes[at as usize..].to_vec())]);
}

#[test]
fn a_jump_goes_on_where_the_worker_does() {
    let directory = Directory::new();
    let (mut model, writer) = written(&directory, 4, 0..0);
    let end = model.bytes.len() as u64;
    drop(writer);
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    writer.jump(end, *model.chain.as_bytes(), "nothing is missing").unwrap();
    assert_eq!(writer.reader().gaps().unwrap(), []);
    writer.jump(end + 1_000, [7; 32], "the worker has forgotten it").unwrap();
    writer.jump(end + 1_000, [7; 32], "said again").unwrap();
    assert!(matches!(writer.jump(end, [7; 32], "back"), Err(StoreError::Usage(_))));
    let record = line(&mut model, 0);
    assert!(matches!(writer.append(&record, end, None), Err(StoreError::Usage(_))));
    writer.append(&record, end + 1_000, Some([8; 32])).unwrap();
    assert_eq!((writer.end().chain, writer.end().records), ([8; 32], 5));
    drop(writer);
    let writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    let gaps = writer.reader().gaps().unwrap();
    assert_eq!(gaps[0].1, Gap { from: end, reason: "the worker has forgotten it".to_owned() });
    assert_eq!((gaps[0].0.offset, gaps[0].0.chain), (end + 1_000, [7; 32]));
    assert_eq!(read(&mut writer.reader(), usize::MAX).len(), 2);
}

#[test]
fn another_chain_at_the_same_offset_is_a_gap_of_nothing() {
    let directory = Directory::new();
    let (mut model, mut writer) = written(&directory, 4, 0..0);
    let end = model.bytes.len() as u64;
    writer.jump(end, [7; 32], "the chains differ").unwrap();
    let record = line(&mut model, 0);
    writer.append(&record, end, None).unwrap();
    drop(writer);
    let writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    assert_eq!(writer.reader().gaps().unwrap()[0].1.from, end);
    assert_eq!(read(&mut writer.reader(), 1).len(), 5);
    assert_eq!(writer.end().offset, model.bytes.len() as u64);
}

#[test]
fn a_gap_that_does_not_fit_what_is_before_it_is_set_aside() {
    let directory = Directory::new();
    let (model, writer) = written(&directory, 10, 3..6);
    drop(writer);
    let names = directory.names();
    let first = directory.path().join(&names[0]);
    let bytes = fs::read(&first).unwrap();
    // Its last record and its index are torn: what was written behind the gap is no part of a log that ends earlier.
    fs::write(&first, &bytes[..bytes.len() / 2]).unwrap();
    let writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    assert!(writer.end().offset < model.entries[3].offset);
    assert!(directory.names().contains(&format!("{}.lost", names[1])));
}

#[test]
fn a_torn_index_before_a_gap_is_made_again() {
    let directory = Directory::new();
    let (model, writer) = written(&directory, 100, 30..60);
    drop(writer);
    let first = directory.path().join(&directory.names()[0]);
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() - 5]).unwrap();
    let mut writer = LogWriter::recover(directory.path(), 1 << 20).unwrap();
    assert_eq!(writer.end().offset, model.bytes.len() as u64);
    writer.close().unwrap();
    while seal_next(directory.path()).unwrap() {}
    assert!(directory.names().iter().all(|name| name.ends_with(".zst")), "{:?}", directory.names());
}
