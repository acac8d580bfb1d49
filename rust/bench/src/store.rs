//! Where records lie: the supervisor's ring, and the log's segments.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tailrace_core::batch::Batch;
use tailrace_core::chain::Chain;
use tailrace_core::journal::Source;
use tailrace_core::ledger::Ledger;
use tailrace_store::{LogReader, LogWriter, Select};
use tailrace_supervisor::ring::{self, CAPACITY_UNIT};

use crate::input::{WALL_US, journal, records};
use crate::{Failed, Ready};

const SEGMENT_BYTES: u64 = 256 << 20;

/// A directory of its own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Failed> {
        let path = std::env::temp_dir().join(format!("tailrace-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A supervisor writes, its daemon reads after it. Hashing is not the ring's, and not in it.
pub(crate) fn ring() -> Result<Ready, Failed> {
    let directory = Directory::new()?;
    let handle = rustix::fs::open(directory.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let file = ring::create_file(handle.as_fd(), "ring", 8 * CAPACITY_UNIT)?;
    let mut writer = ring::Writer::map(&file)?;
    let reader = ring::Reader::open(directory.path().join("ring"))?;
    let journal = journal(4 << 20)?;
    let chain = Chain::default();
    Ok(Box::new(move || {
        let mut copied = Vec::with_capacity(8 * CAPACITY_UNIT);
        for record in records(&journal) {
            let record = record?;
            let room = writer.reserve(record.len()).ok_or("the ring is full")?;
            room.copy_from_slice(record);
            writer.commit(record.len(), &chain);
            let (begin, end) = (reader.begin(), reader.end());
            if end - begin >= 2 * CAPACITY_UNIT as u64 {
                copied.clear();
                reader.read(begin, usize::MAX, &mut |part| copied.extend_from_slice(part));
                black_box(&copied);
                reader.release(end);
            }
        }
        black_box(directory.path());
        Ok(())
    }))
}

/// The batches in which a master gets a journal.
fn batches(journal: &[u8], max: usize) -> Result<Vec<Vec<u8>>, Failed> {
    let mut batches = vec![Vec::new()];
    for record in records(journal) {
        let record = record?;
        if batches.last().is_some_and(|batch: &Vec<u8>| !batch.is_empty() && batch.len() + record.len() > max) {
            batches.push(Vec::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.extend_from_slice(record);
        }
    }
    Ok(batches)
}

fn write(writer: &mut LogWriter, batches: &[Vec<u8>]) -> Result<(), Failed> {
    let mut start = 0;
    for batch in batches {
        writer.append(batch, start, None)?;
        start += batch.len() as u64;
    }
    Ok(())
}

/// As a master does it: its ledger has checked and hashed each batch.
pub(crate) fn append() -> Result<Ready, Failed> {
    let directory = Directory::new()?;
    let mut writer = LogWriter::create(directory.path(), SEGMENT_BYTES)?;
    let mut ledger = Ledger::new();
    let mut made = Vec::new();
    for batch in batches(&journal(1 << 20)?, 256 << 10)? {
        let batch = Batch::new(ledger.offset(), Bytes::from(batch));
        ledger.add_batch(&batch)?;
        made.push(batch);
    }
    Ok(Box::new(move || {
        for batch in &made {
            writer.append_batch(batch)?;
        }
        black_box(directory.path());
        Ok(())
    }))
}

fn written(bytes: usize) -> Result<(Directory, LogReader, u64), Failed> {
    let directory = Directory::new()?;
    let mut writer = LogWriter::create(directory.path(), SEGMENT_BYTES)?;
    write(&mut writer, &batches(&journal(bytes)?, 256 << 10)?)?;
    let reader = writer.reader();
    let lines = reader.lines(&Select::Output);
    writer.close()?;
    Ok((directory, reader, lines))
}

pub(crate) fn read() -> Result<Ready, Failed> {
    let (directory, mut reader, _) = written(4 << 20)?;
    Ok(Box::new(move || {
        let mut offset = 0;
        while let Some((start, bytes)) = reader.batch(offset, 1 << 20)? {
            offset = start + bytes.len() as u64;
            black_box(bytes);
        }
        black_box(directory.path());
        Ok(())
    }))
}

pub(crate) fn seek() -> Result<Ready, Failed> {
    let (directory, mut reader, lines) = written(8 << 20)?;
    Ok(Box::new(move || {
        for part in 1..10 {
            black_box(reader.find_line(lines * part / 10, &Select::Output)?.ok_or("a line is missing")?);
            black_box(reader.find_time(WALL_US + 12_800 * part)?);
        }
        black_box(directory.path());
        Ok(())
    }))
}
